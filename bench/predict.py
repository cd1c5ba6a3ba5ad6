"""How long does a prediction take?

    python bench/predict.py [--run RUN] [--images FOLDER] [--rounds 7] [--out bench/results/predict.csv]

- first: seconds of a process that asks a run about one JPEG and writes its row, beside one that only imports torch and torchvision and makes a ResNet-18. In pairs, one after the other; the row has
the medians and the median of the ratios. Without --run a run of an untrained xresnet18d for 224 pixels is made: the answer is nonsense, the work is not.

- folder: images a second of `predict` over a folder, beside a loop of Pillow, torchvision's transforms and a DataLoader with the same model and as many workers. In turns in one process, each starting
its workers anew.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse, csv, json, platform, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ask = '''import sys
from bot.predict import predict_to
code = predict_to({run!r}, [{image!r}], device='cpu')
assert code==0 and not [o for o in sys.modules if o.split('.')[0]=='fastai']'''
make = 'import torch, torchvision; torchvision.models.resnet18()'

def made_run(folder):
    "A run folder of an untrained ResNet-18 for ten classes"
    import yaml
    from bot.augment import paper_cfg
    from bot.models import xresnet18d
    from safetensors.torch import save_file
    folder.mkdir()
    classes = [f'class {i}' for i in range(10)]
    norm = dict(mean=list(paper_cfg['mean']), std=list(paper_cfg['std']))
    args = dict(rung='resnet_d', settings=dict(arch='xresnet18d', size=224), normalized=norm, classes=classes)
    (folder/'args.yaml').write_text(yaml.safe_dump(args))
    save_file({k:v.contiguous() for k,v in xresnet18d(n_out=10).state_dict().items()}, folder/'best.safetensors', dict(bot=json.dumps(dict(arch='xresnet18d', data_cfg=json.dumps(norm)))))
    return folder

def seconds(code):
    t = time.perf_counter()
    subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter()-t

def first(run, image, rounds):
    "Medians of both, and of their ratio"
    mine = ask.format(run=str(run), image=str(image))
    seconds(mine), seconds(make)   # files into the cache of the system
    pairs = [(seconds(mine), seconds(make)) for _ in range(rounds)]
    return *(statistics.median(o) for o in zip(*pairs)),statistics.median(a/b for a,b in pairs)

class Plain:
    "What a short loop of one's own does"
    def __init__(self, files):
        from torchvision import transforms as T
        self.files,self.tfm = files,T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize((.485,.456,.406), (.229,.224,.225))])
    def __len__(self): return len(self.files)
    def __getitem__(self, i):
        from PIL import Image
        return self.tfm(Image.open(self.files[i]).convert('RGB'))

def plain_loop(model, files, workers):
    import torch
    from torch.utils.data import DataLoader
    res = []
    with torch.inference_mode():
        for x in DataLoader(Plain(files), batch_size=32, num_workers=workers): res += model(x).softmax(1).max(1)[0].tolist()
    return res

def folder(run, files, workers, rounds):
    "Images a second of both, and the median ratio"
    from bot.predict import open_model, predict
    model = open_model(run, device='cpu')[1]
    def ours(): return list(predict(model, files, workers=workers, device='cpu'))
    def theirs(): return plain_loop(model, files, workers)
    rates = []
    for _ in range(rounds):
        pair = []
        for f in (ours, theirs):
            t = time.perf_counter()
            assert len(f())==len(files)
            pair.append(len(files)/(time.perf_counter()-t))
        rates.append(pair)
    return *(statistics.median(o) for o in zip(*rates)),statistics.median(a/b for a,b in rates)

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--run', type=Path, default=None)
    p.add_argument('--images', type=Path, required=True)
    p.add_argument('--n', type=int, default=600)
    p.add_argument('--rounds', type=int, default=7)
    p.add_argument('--out', type=Path, default=Path(__file__).parent/'results/predict.csv')
    o = p.parse_args()
    from bot.predict import image_files
    with tempfile.TemporaryDirectory() as tmp:
        run,files = o.run or made_run(Path(tmp)/'run'),image_files(o.images)[:o.n]
        rows = [('first row', 'seconds', 0, 1, *first(run, files[0], o.rounds))]
        rows += [('folder', 'images a second', w, len(files), *folder(run, files, w, min(o.rounds, 3))) for w in (1, 2)]
    head = 'what','unit','workers','images','bot','torchvision','ratio','cpus','python'
    with open(o.out, 'w', newline='') as f:
        w = csv.writer(f, lineterminator='\n')
        w.writerow(head)
        for r in rows: w.writerow([*(f'{v:.4g}' if isinstance(v, float) else v for v in r), os.cpu_count(), platform.python_version()])
    print(o.out.read_text())

if __name__=='__main__': main()
