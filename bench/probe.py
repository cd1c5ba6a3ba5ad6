"""A head without training: how fast are the features, and the search for the head?

    python bench/probe.py ../shared/data/clothing lite0.safetensors

Features of the images, files to numbers, by `features_of` and by a bare loop: timm's model and its own transform in torch's `DataLoader`. Either takes the images in one process, in blocks that take turns; the answer is the median ratio of blocks. Then the search for
the head of all features, in seconds. Writes `bench/results/probe.csv`."""
import platform, statistics, time, torch
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from fastcore.script import call_parse

class Files:
    "Images as timm prepares them"
    def __init__(self, files, tfm): self.files,self.tfm = files,tfm
    def __len__(self): return len(self.files)
    def __getitem__(self, i):
        from PIL import Image
        return self.tfm(Image.open(self.files[i]).convert('RGB'))

def bare(arch, weights, size):
    "Features of files, as anyone would get them"
    import timm, safetensors.torch
    model = timm.create_model(arch)
    model.load_state_dict(safetensors.torch.load_file(weights))
    model.eval()
    tfm = timm.data.create_transform(**timm.data.resolve_data_config(model=model) | dict(input_size=(3, size, size)))
    def features(files):
        batches = torch.utils.data.DataLoader(Files(files, tfm), 64)
        with torch.no_grad(): return torch.cat([model.forward_head(model.forward_features(x), pre_logits=True) for x in batches])
    return features

def timed(f, *args):
    start = time.perf_counter()
    res = f(*args)
    return res,time.perf_counter()-start

@call_parse
def main(
    src:str, # Folder of photographs
    weights:str, # A file of weights for `arch`
    arch:str='tf_efficientnet_lite0', # Model
    size:int=128, # Side of an image
    n:int=256, # Images in a block
    blocks:int=9 # Of each
):
    "Ratio of images a second, and seconds of the search"
    from bot.block import bag_dls
    from bot.core import csv_text
    from bot.learner import bag_learner
    from bot.probe import features_of, fit_logistic
    with redirect_stdout(StringIO()): learn = bag_learner(bag_dls(src, size=size, bs=32, num_workers=0, device='cpu'), 'probe', arch=arch, pretrained=weights)
    items,loop = list(learn.dls.train_ds.items),bare(arch, weights, size)
    both = {'bot': lambda part: features_of(learn, part)[0], 'bare': lambda part: loop([f for f,_ in part])}
    a,b = (f(items[:64]) for f in both.values())
    print(f'largest difference of features {(a-b).abs().max():.2g}, of {b.abs().max():.3g}')
    times = []
    for i in range(blocks):
        part = items[i*n%len(items):][:n]
        times.append({k:timed(both[k], part)[1]/len(part) for k in (sorted(both) if i%2 else both)})
    (x,y),_ = timed(features_of, learn, items)
    (clf,_),fit = timed(fit_logistic, x.numpy(), y.numpy())
    rate = {f'{k}_img_per_s':f'{1/statistics.median(o[k] for o in times):.1f}' for k in both}
    row = dict(src=Path(src).name, arch=arch, size=size, device=f'{platform.machine()}, {torch.get_num_threads()} threads', **rate, ratio=f"{statistics.median(o['bare']/o['bot'] for o in times):.3f}",
        n=len(x), channels=x.shape[1], classes=len(clf.classes_), search_s=f'{fit:.1f}')
    (Path(__file__).parent/'results'/'probe.csv').write_text(csv_text([row]))
    print(row)
