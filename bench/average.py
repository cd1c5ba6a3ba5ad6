"""How good are averaged weights after a few hundred steps, beside the weights that they are the mean of?

    python bench/average.py                                             # the digits, 16 epochs: 352 steps
    python bench/average.py --src ../shared/data/clothing --size 64 --epochs 4

`bot-train` with the published run's time constants (`--ema 25.62`), a run for each seed, a quarter-width network on one thread. Adds to `bench/results/average.csv`: what of the mean is still the weights that it began with,
the accuracy of both models after the last epoch, and `points`, by how much that of the mean is higher, with `low` and `high`, its 95% interval of t over seeds."""
import csv, statistics, tempfile
from multiprocessing import get_context
from pathlib import Path
from fastcore.script import call_parse
from folds import compared, keep_all

here = Path(__file__).parent/'results'/'average.csv'

def trained(src, size, epochs, ema, seed):
    "Steps, share of the start, and accuracy of both models"
    import torch
    from bot.cli import train
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as d:
        learn = train(src, rung='smooth', ema=ema, widen=.25, size=size, epochs=epochs, seed=seed, device='cpu', workers=0, out=f'{d}/run')
    hook,last = learn.bag_ema,dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))
    begin = hook.share**(int(hook.avg.n_averaged)-1)   # the first update is a copy
    return dict(seed=seed, steps=epochs*len(learn.dls.train), every=hook.step, start=begin, raw=last['accuracy'], mean=last['ema_accuracy'])

@call_parse
def main(
    src:str='digits', # Folder of images
    size:int=32, # Side of a training image
    epochs:int=16, # Of a run
    ema:float=25.62, # Time constants of the mean over the run
    seeds:int=5, # Runs
    jobs:int=2 # Runs side by side
):
    "Train, and sum up"
    src,name = str(Path(src).resolve()) if Path(src).exists() else src,Path(src).name
    with get_context('spawn').Pool(jobs) as pool: runs = pool.starmap(trained, [(src, size, epochs, ema, s) for s in range(seeds)])
    res = compared(*({o['seed']:o[k] for o in runs} for k in ('mean','raw')))
    mean = {k:f'{statistics.mean(o[k] for o in runs):.4g}' for k in ('start','raw','mean')}
    row = dict(set=name, size=size, epochs=epochs, steps=runs[0]['steps'], every=runs[0]['every'], seeds=seeds) | mean | {k:res[k] for k in ('points','low','high')}
    old = [o for o in csv.DictReader(here.open()) if (o['set'],o['size'],o['epochs'])!=(name,str(size),str(epochs))] if here.exists() else []
    keep_all([*old, row], here)
    print(*(f'{k}={v}' for k,v in row.items()))
