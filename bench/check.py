"""How fast is the doctor, and what does it take?

    python bench/check.py [--n 250000] [--edge 72] [--folder FOLDER] [--out bench/results/check.csv]

It makes `n` JPEGs of about `edge` pixels from pieces of the two photographs that scikit-learn ships, 1% of them twice: half of these as a copy of the file, half saved again with
less quality. Times are of the whole machine unless a row says one process.

- rate: files a second that one process looks at (`look`), beside reading and decoding alone (`decode`: all of the file, as in the first epoch), and beside a worker of a training (`worker`: it
decodes what a random crop of the image's own size, or of 224, needs). All take the same files, in turns, best of five rounds.

- alike: seconds and peak memory of the search for duplicates and near duplicates, after all files have been looked at; and how many of those planted it found.

- check: seconds of the whole command with a process a core, its page included, and the most memory that one process took.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse, csv, json, platform, resource, shutil, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np
from PIL import Image

def make(folder, n, edge):
    "Write the images; 1% of them are there twice"
    from sklearn.datasets import load_sample_images
    photos,rng = [Image.fromarray(o) for o in load_sample_images().images],np.random.default_rng(0)
    if (folder/'made.json').exists() and json.loads((folder/'made.json').read_text())==[n, edge]: return
    for i in range(n-n//100):
        d = folder/'images'/f'{i%50:02d}'
        if i<50: d.mkdir(parents=True)
        s,im = int(rng.integers(80, 300)),photos[i%2]
        x,y,turn = int(rng.integers(0, 640-s)),int(rng.integers(0, 427-s)),int(rng.integers(0, 4))
        im = im.crop((x, y, x+s, y+s)).rotate(90*turn).resize((edge,edge), Image.Resampling.BILINEAR)
        noise = Image.fromarray(rng.integers(0, 256, (4,4,3), dtype=np.uint8)).resize((edge,edge), Image.Resampling.BICUBIC)
        im = Image.blend(im, noise, .5)   # pieces of two photographs alone would be alike
        im.save(d/f'{i:06d}.jpg', quality=90)
        if i<n//200: (d/f'copy_{i:06d}.jpg').write_bytes((d/f'{i:06d}.jpg').read_bytes())
        elif i<n//100: im.save(d/f'again_{i:06d}.jpg', quality=60)
    (folder/'made.json').write_text(json.dumps([n, edge]))

def rates(paths, size, rounds=5):
    "Files a second of one process: the doctor's, of decoding alone, a worker's"
    from bot.block import BagCrop, EncodedImage
    from bot.images import Encoded, Verdicts
    from bot.look import look
    crop = BagCrop(size)
    def plain(files):
        for f in files: Encoded(f).decode()
    def worker(files):
        for f in files: crop(EncodedImage.create(f), split_idx=0)
    best = {}
    for _ in range(rounds):
        for name,f in (('look', lambda os_: [look(*os_[i:i+64]) for i in range(0, len(os_), 64)]), ('decode', plain), ('worker', worker)):
            Encoded.verdicts = Verdicts()   # as if never seen
            t = time.process_time()
            f(paths)
            best[name] = max(best.get(name, 0), len(paths)/(time.process_time()-t))
    return best

def memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20   # GB

def search(folder, out):
    "In a process of its own: seconds, peak memory and what was found"
    from bot.alike import alike
    from bot.look import read_looks
    rows = [o._replace(image=str(folder/'images'/k)) for k,o in read_looks(out/'files.csv').items()]
    t = time.monotonic()
    groups,left = alike(rows)
    took = time.monotonic()-t
    pairs = [{Path(rows[i].image).stem.split('_')[-1] for i in ids} for ids,_ in groups]
    planted = [o for ids,_ in groups for i in ids if '_' in (o := Path(rows[i].image).stem)]
    return dict(seconds=took, gb=memory(), groups=len(groups), planted=len(set(planted)), mixed=sum(len(o)>1 for o in pairs), left=left)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=int, default=250_000), p.add_argument('--edge', type=int, default=72)
    p.add_argument('--folder', type=Path, default=Path(tempfile.gettempdir())/'bench_check'), p.add_argument('--out', type=Path), p.add_argument('--search', action='store_true')
    a = p.parse_args()
    if a.search: return print(json.dumps(search(a.folder, a.folder/'check')))
    make(a.folder, a.n, a.edge)
    paths = [str(o) for o in sorted((a.folder/'images').rglob('*.jpg'))]
    rows = []
    def add(question, name, value, unit): rows.append(dict(question=question, name=name, value=f'{value:.4g}', unit=unit)), print(*rows[-1].values())
    for files,what,size in ((paths[:4000], f'{a.edge} px', a.edge), (photos(a.folder), '500x375 px', 224), (photos(a.folder, 32), '32 px', 32)):
        r = rates(files, size)
        for k,v in r.items(): add('rate', f'{k}, {what}', v, 'files/s')
        for k in ('decode','worker'): add('rate', f'look / {k}, {what}', r['look']/r[k], 'ratio')
    shutil.rmtree(a.folder/'check', ignore_errors=True)
    t = time.monotonic()
    subprocess.run([sys.executable, '-m', 'bot', 'check', str(a.folder/'images'), '--out', str(a.folder/'check')], stdout=subprocess.DEVNULL)
    add('check', f'{len(paths)} files', time.monotonic()-t, 's')
    add('check', f'most memory of one process, {len(paths)} files', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/2**20, 'GB')
    found = json.loads(subprocess.run([sys.executable, __file__, '--folder', str(a.folder), '--search'], capture_output=True, text=True, check=True).stdout)
    for k,u in dict(seconds='s', gb='GB', groups='', planted=f'of {a.n//100}', mixed='groups of different images', left='pairs not compared').items(): add('alike', f'{k}, {len(paths)} files', found[k], u)
    if a.out:
        with open(a.out, 'w', newline='') as f:
            w = csv.DictWriter(f, [*rows[0], 'machine'], lineterminator='\n')
            w.writeheader(), w.writerows(o | dict(machine=f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores') for o in rows)

def photos(folder, edge=None, n=400):
    "JPEGs of the size of ImageNet's, or small ones"
    d,rng = folder/f'photos{edge or ""}',np.random.default_rng(1)
    d.mkdir(parents=True, exist_ok=True)
    for i in range(n if edge is None else 4*n):
        x,y = int(rng.integers(0, 140)),int(rng.integers(0, 52))
        im = Image.fromarray(load_photo(i%2)).crop((x, y, x+500, y+375))
        if not (d/f'{i}.jpg').exists(): (im if edge is None else im.resize((edge,edge))).save(d/f'{i}.jpg', quality=90)
    return [str(o) for o in sorted(d.iterdir())]

def load_photo(i, kept=[]):
    from sklearn.datasets import load_sample_images
    if not kept: kept.extend(load_sample_images().images)
    return kept[i]

if __name__=='__main__': main()
