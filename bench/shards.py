"""What do shards cost, and what do they bring, beside folders and plain tar files?

    python bench/shards.py [--n 1000000] [--photos 40] [--rounds 3] [--out bench/results/shards.csv] [--tmp FOLDER]

All figures are ratios of two measurements that take turns on one machine, the median of several rounds. Seconds and megabytes stand beside them where the limit is one.

- opening: A million tiny samples, opened by `bag_dls` in a process that has imported bot: seconds, and memory after less before. A spawned worker of them after its
first batch, less one of a thousand samples. Memory is the process's part of it (`Pss` of smaps_rollup).

- reading: Bytes of all samples by `path_bytes`, in random order over those in order, in the page cache.

- writing: Files a second of `shard`, over those of `tarfile` that adds the same files to plain tar files, with as many members (an image and its class).

- photographs: Images a second of training crops of 224 pixels from photographs of 12 megapixels in a folder, and from shards of them with short edge 512,
one process, one thread.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse, csv, io, json, random, shutil, subprocess, sys, tarfile, tempfile, time, warnings
from multiprocessing import active_children
from pathlib import Path
from statistics import median
import numpy as np, torch
from PIL import Image
warnings.filterwarnings('ignore')
from bot.all import bag_dls, shard
from bot.shards import path_bytes, shard_parts
from bot.writing import _rows_file, write_index, write_tar

def png(i):
    b = io.BytesIO()
    Image.fromarray(np.random.RandomState(i).randint(0, 255, (8,8,3)).astype(np.uint8)).save(b, 'PNG')
    return b.getvalue()

def tiny_folder(top, n):
    "`n` tiny images in a folder of ten classes, in files of their own"
    datas = [png(i) for i in range(100)]
    for c in range(10):
        (top/f'{c}').mkdir(parents=True)
        for i in range(n//10): (top/f'{c}/{i}.png').write_bytes(datas[(i+c)%100])
    return top

def tiny_shards(out, top, n, per=20_000):
    "Shards of `n` samples, from a hundred files: a million files are not made for it"
    datas = [png(i) for i in range(100)]
    out.mkdir()
    top.mkdir()
    for i,o in enumerate(datas): (top/f'{i}.png').write_bytes(o)
    class Items:
        def __init__(self, a, b): self.a,self.b = a,b
        def __len__(self): return self.b-self.a
        def __iter__(self): return ((f'{top}/{i%100}.png', i%10) for i in range(self.a, self.b))
    n_valid = n//20
    parts,plan = dict(train=Items(0, n-n_valid), valid=Items(n-n_valid, n), test=[]),[]
    for part,items in parts.items():
        for k,a in enumerate(range(0, len(items), per)):
            first,count = (0 if part=='train' else n-n_valid)+a,min(per, len(items)-a)
            plan.append((part, f'{part}-{k:05d}.tar', first, range(a, a+count)))
            np.save(_rows_file(out, plan[-1][1]), write_tar(out/plan[-1][1], Items(first, first+count), first)[0])
    info = dict(format='bot-shards', version=1, source='tiny', hash='', classes=[str(i) for i in range(10)], how='made', notes=[], settings=dict(size=8))
    write_index(out, plan, parts, info)
    return out

# ---- opening

def memory(pid='self'):
    "Megabytes, of what is shared a part"
    return int(next(o.split()[1] for o in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines() if o.startswith('Pss:')))/1024

def open_one(src):
    "In a process that has imported bot: seconds and megabytes of opening, megabytes of a spawned worker"
    before,start = memory(),time.perf_counter()
    dls = bag_dls(src, bs=64, num_workers=2, start_method='spawn', device='cpu')
    took,grown = time.perf_counter()-start,memory()-before
    its = iter(dls.valid)
    next(its)
    print(json.dumps([took, grown, max(memory(o.pid) for o in active_children())]))

def opened(src):
    out = subprocess.run([sys.executable, '-W', 'ignore', __file__, '--open', str(src)], check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])

def measure_opening(tmp, n, rounds):
    tiny_shards(tmp/'few', tmp/'few-files', 1000), tiny_shards(tmp/'many', tmp/'many-files', n)
    few,many = zip(*((opened(tmp/'few'), opened(tmp/'many')) for _ in range(rounds)))
    secs,grown,worker = (median(o[k] for o in many) for k in range(3))
    yield 'opening, s',secs,'below 1'
    yield 'opening, MB',grown,'below 100'
    yield 'a spawned worker, MB more than one of 1,000 samples',worker-median(o[2] for o in few),'below 100'

# ---- reading and writing

def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter()-start

def measure_reading(tmp, n, rounds):
    items = shard_parts(tmp/'many')['train'][:200_000]
    mixed = random.Random(0).sample(range(len(items)), len(items))
    def read(idxs):
        for i in idxs: path_bytes(items[i][0])
    read(range(len(items)))
    pairs = [(seconds(lambda: read(range(len(items)))), seconds(lambda: read(mixed))) for _ in range(rounds)]
    yield 'random access / in order',median(a/b for a,b in pairs),'at least 0.8'
    yield 'random access, microseconds a sample',median(b for _,b in pairs)/len(items)*1e6,''

def plain_tars(top, out):
    "What a person would write: each image and its class, by `tarfile`"
    out.mkdir()
    for c in sorted(top.iterdir()):
        with tarfile.open(out/f'{c.name}.tar', 'w') as f:
            for o in sorted(c.iterdir()):
                f.add(o, f'{o.stem}{o.suffix}')
                t = tarfile.TarInfo(f'{o.stem}.cls')
                t.size = len(c.name)
                f.addfile(t, io.BytesIO(c.name.encode()))

def again(f, out):
    shutil.rmtree(out, ignore_errors=True)
    return seconds(f)

def measure_writing(tmp, n, rounds):
    top = tiny_folder(tmp/'tiny', n)
    for size,folder in ('tiny files', top),('files of 100 KB', large_folder(tmp/'large', n//40)):
        for workers in 1,2:
            def ours(): shard(str(folder), tmp/'out', workers=workers, tar_mb=8 if folder is top else 32)
            def theirs(): plain_tars(folder, tmp/'plain')
            ratios = [again(theirs, tmp/'plain')/again(ours, tmp/'out') for _ in range(rounds)]
            yield f'writing {size} by {workers} / tarfile',median(ratios),'at least 0.8'

def large_folder(top, n):
    data = os.urandom(100_000)
    for c in range(10):
        (top/f'{c}').mkdir(parents=True)
        for i in range(n//10): (top/f'{c}/{i}.png').write_bytes(png(i)+data)
    return top

# ---- photographs

def photo_folder(top, n):
    "Photographs of 12 megapixels, made of the two that scikit-learn ships"
    from sklearn.datasets import load_sample_images
    for i in range(n):
        (top/f'{i%2}').mkdir(parents=True, exist_ok=True)
        im = Image.fromarray(load_sample_images().images[i%2]).resize((4000,3000), Image.Resampling.BICUBIC)
        x = np.asarray(im).astype(np.int16)+np.random.RandomState(i).randint(-12, 13, (3000,4000,1)).astype(np.int16)   # grain, as a camera's
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(top/f'{i%2}/{i}.jpg', 'JPEG', quality=90)
    return top

def epoch(src, rounds=1):
    "Seconds of an epoch, no training in it"
    dls = bag_dls(src, size=224, bs=8, num_workers=0, device='cpu')
    def run():
        for _ in range(rounds):
            for b in dls.train: pass
    run()
    return seconds(run)

def measure_photos(tmp, n, rounds):
    top = photo_folder(tmp/'photos', n)
    start = time.perf_counter()
    shard(str(top), tmp/'photos-512', short_edge=512)
    yield 'writing photographs with short edge 512, images a second',n/(time.perf_counter()-start),''
    pairs = [(epoch(top), epoch(tmp/'photos-512', 3)/3) for _ in range(rounds)]
    yield 'photographs from the folder, images a second',.8*n/median(a for a,_ in pairs),''
    yield 'photographs from shards of short edge 512, images a second',.8*n/median(b for _,b in pairs),''
    yield 'photographs: shards / folder',median(a/b for a,b in pairs),'at least 5'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k,v in dict(n=1_000_000, photos=40, rounds=3, out='bench/results/shards.csv', tmp=None, open=None).items(): p.add_argument(f'--{k}', type=int if isinstance(v, int) else str, default=v)
    a = p.parse_args()
    if a.open: return open_one(a.open)
    torch.set_num_threads(1)
    tmp,rows = Path(tempfile.mkdtemp(dir=a.tmp)),[]
    try:
        for part,n in (measure_opening, a.n),(measure_reading, a.n),(measure_writing, min(a.n, 40_000)),(measure_photos, a.photos):
            for what,value,wanted in part(tmp, n, a.rounds):
                rows.append(dict(what=what, value=f'{value:.3g}', wanted=wanted))
                print(f'{what:60} {value:8.3g}  {wanted}', flush=True)
    finally: shutil.rmtree(tmp)
    with open(a.out, 'w', newline='') as f:
        w = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
        w.writeheader(), w.writerows(rows)

if __name__=='__main__': main()
