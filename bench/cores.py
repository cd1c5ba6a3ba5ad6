"""How many images a second does a worker on one core give, from folders and from shards?

    python bench/cores.py FOLDER [--n 96] [--photos 24] [--rounds 5] [--out bench/results/cores.csv]

Images of FOLDER, in random crops of 224 pixels: all that a worker does of a batch, in one process with one thread. Rates are by processor time, so other work on the machine matters little; the median of several rounds. Files are in the page cache.

- as they are: The images of FOLDER, in a folder and in shards.

- 12 megapixels: The first of them, enlarged to 4000x3000 and saved as JPEG of quality 90, in a folder and in shards with short edge 512.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse, csv, shutil, tempfile, time, warnings
from pathlib import Path
from statistics import median
import torch
from PIL import Image
warnings.filterwarnings('ignore')
from bot.all import bag_dls, shard

def cpu(): return next((l.split(':')[1].strip() for l in Path('/proc/cpuinfo').read_text().splitlines() if l.startswith('model name')), '')

def lay(top, files, large=False):
    "A folder of two classes"
    for i,f in enumerate(files):
        to = top/f'{i%2}'/f'{i}.jpg'
        to.parent.mkdir(parents=True, exist_ok=True)
        if large: Image.open(f).convert('RGB').resize((4000,3000), Image.Resampling.BICUBIC).save(to, quality=90)
        else: shutil.copy(f, to)
    return top

def rate(dl, epoch):
    "Images a second of processor time"
    n,start = len(dl.dataset),time.process_time()
    for i in range(0, n, 8): dl.fetch(epoch, i//8, list(range(i, min(i+8, n))))
    return n/(time.process_time()-start)

def measure(images, folder, tmp, rounds, **kwargs):
    shard(str(folder), tmp, workers=0, **kwargs)
    both = [bag_dls(o, size=224, bs=8, num_workers=0, device='cpu').train for o in (folder, tmp)]
    for o in both: rate(o, 0)
    rates = [[rate(o, 1+i) for o in both] for i in range(rounds)]
    for how,rs in zip(('folder', 'shards'), zip(*rates)): yield dict(images=images, source=how, per_s=round(median(rs), 1), low=round(min(rs), 1), high=round(max(rs), 1))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder')
    for k,v in dict(n=96, photos=24, rounds=5, out='bench/results/cores.csv').items(): p.add_argument(f'--{k}', type=type(v), default=v)
    a = p.parse_args()
    torch.set_num_threads(1)
    files = sorted(o for o in Path(a.folder).rglob('*') if o.suffix.lower() in ('.jpg','.jpeg'))[:a.n]
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        plain,large = lay(tmp/'plain', files),lay(tmp/'large', files[:a.photos], large=True)
        rows = [*measure('as they are', plain, tmp/'plain-shards', a.rounds), *measure('12 megapixels', large, tmp/'large-shards', a.rounds, short_edge=512)]
    kb = round(sum(o.stat().st_size for o in files)/len(files)/1e3, 1)
    rows = [o | dict(n=len(files) if o['images']=='as they are' else a.photos, size=224, kilobytes=kb, cpu=cpu(), torch=torch.__version__) for o in rows]
    with open(a.out, 'w', newline='') as f:
        w = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
        w.writeheader(), w.writerows(rows)
    print(Path(a.out).read_text())

if __name__=='__main__': main()
