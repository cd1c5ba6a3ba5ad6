"""What a save of a run costs, beside writing as many bytes as one file and forcing them to the disk

A run of xresnet50d is saved in the midst of an epoch, again and again; after each save as many random bytes are written to one file of the same folder and synced. The answer is the median of the
ratios, with a 95% interval (a bootstrap of pairs), and the share that saves at the end of epochs would have of a run whose epochs take 30 seconds. Writes `bench/results/save.csv`.

    python bench/save.py
"""
import csv, os, platform, random, statistics, tempfile, time, torch
from pathlib import Path
from fastcore.script import call_parse
from fastai.callback.core import Callback
from bot.block import bag_dls
from bot.learner import bag_learner
from bot.resume import recorded

def plain(path, n):
    "Seconds to write and sync `n` bytes as one file"
    data = os.urandom(n)
    begin = time.perf_counter()
    with open(path, 'wb') as f: f.write(data), f.flush(), os.fsync(f.fileno())
    return time.perf_counter()-begin

class Saves(Callback):
    "Save `n` times after the second step, and stop"
    order = 99
    def __init__(self, n): self.n,self.times = n,[]
    def after_batch(self):
        if self.iter!=2: return
        keep = self.learn.run_folder
        for i in range(self.n+1):
            keep.at = 0,10+i,10+i
            begin = time.perf_counter()
            keep.save()
            took,files = time.perf_counter()-begin,keep.status['files']
            size = sum(o['size'] for k,o in files.items() if k in ('weights','state'))
            if i: self.times.append((took, plain(keep.path/'plain', size), size/files['weights']['size']))   # the first one makes room
            (keep.path/'plain').unlink(missing_ok=True)
        raise KeyboardInterrupt

@call_parse
def main(
    arch:str='xresnet50d', # Model
    n:int=15, # Saves
    out:Path=Path(__file__).parent/'results'/'save.csv' # CSV to write
):
    "Time saves of a run"
    learn,saves = bag_learner(bag_dls('digits', size=32, bs=64, num_workers=0, device='cpu'), 'baseline', arch=arch, widen=1., epochs=1),Saves(n)
    with tempfile.TemporaryDirectory(dir='.') as tmp, learn.no_bar(), learn.no_logging():
        try:
            with recorded(learn, Path(tmp)/'run'): learn.fit_rung(cbs=saves)
        except KeyboardInterrupt: pass
    rng,ratios = random.Random(0),[a/b for a,b,_ in saves.times]
    cuts = statistics.quantiles([statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(4000)], n=40)
    save,one = (statistics.median(o[i] for o in saves.times) for i in (0,1))
    row = dict(arch=arch, n=n, bytes_to_weights=f'{saves.times[-1][2]:.3f}', save_ms=f'{save*1e3:.0f}', plain_ms=f'{one*1e3:.0f}', ratio=f'{statistics.median(ratios):.3f}',
        low=f'{cuts[0]:.3f}', high=f'{cuts[-1]:.3f}', share_of_30_s=f'{save/30:.4f}', machine=f'{platform.machine()}, {torch.get_num_threads()} threads', torch=torch.__version__)
    with out.open('w', newline='') as f:
        w = csv.DictWriter(f, row, lineterminator='\n')
        w.writeheader(), w.writerow(row)
    print('\n'.join(f'{k}: {v}' for k,v in row.items()))
