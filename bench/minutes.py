"""From scratch, at equal time: what `bot-train` gets out of some minutes, and fastai's usual way

    python bench/minutes.py ../shared/data/cifar10_sample --size 32 --minutes 3
    python bench/minutes.py ../shared/data/clothing --size 64 --minutes 3,10

Either trains a ResNet-18 of a quarter of the width, one thread a run, for as many epochs as fit into the minutes: an epoch of each is timed first, while nothing else runs. `bot` is `bot-train` as it settles, its saving of the run included.
`fastai` is `ImageDataLoaders` with `aug_transforms`, `Learner` and `fit_one_cycle` of fastai's own `xresnet18`; 'fastai-0.003' has another rate than the usual .001, 'fastai-0.003-d' trains our network. Seed s has one split for all. The accuracy is that of the last epoch.
Each run stands in `bench/results/minutes/runs.csv` and is not done again. The table has means over seeds, and the paired difference of `bot` to each other row with a 95% interval of t over seeds, in points. `seconds` are those of the epochs as they were timed."""
import csv, sys, tempfile, time
from multiprocessing import get_context
from pathlib import Path
from fastcore.script import call_parse
from folds import compared, keep_all

results = Path(__file__).parent/'results'
here = results/'minutes'/'runs.csv'

def ours(src, size, seed, epochs):
    "A learner that `bot-train` has trained"
    from bot.cli import train
    with tempfile.TemporaryDirectory() as d:
        return train(src, arch='xresnet18d', widen=.25, size=size, epochs=epochs, seed=seed, device='cpu', workers=0, fp16=False, out=f'{d}/run')

def theirs(row, src, size, seed, epochs):
    "The same time the usual way"
    import pandas as pd
    from fastai.vision.all import ImageDataLoaders, Learner, Normalize, Resize, accuracy, aug_transforms, imagenet_stats, set_seed, xresnet18
    from bot.models import xresnet18d
    from bot.sources import find_source
    _,lr,ours = (row+'--').split('-')[:3]
    o = find_source(src, seed=seed)
    table = pd.DataFrame([(str(f), c, v) for part,v in ((o.train,False),(o.valid,True)) for f,c in part], columns=['image','label','is_valid'])
    set_seed(seed)
    presized = min(o.short_edge, int(1.25*size))
    more = dict(size=size) if presized>size else {}
    dls = ImageDataLoaders.from_df(table, '/', valid_col='is_valid', item_tfms=Resize(presized), batch_tfms=[*aug_transforms(**more), Normalize.from_stats(*imagenet_stats)],
        bs=64, num_workers=0, device='cpu')
    learn = Learner(dls, (xresnet18d if ours else xresnet18)(n_out=dls.c, widen=.25), metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, float(lr) if lr else None)
    return learn

def trained(job):
    "A row of the CSV, with the seconds that it took"
    import torch
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    start,args = time.perf_counter(),(job['src'], job['size'], job['seed'], job['epochs'])
    learn = ours(*args) if job['row']=='bot' else theirs(job['row'], *args)
    values = dict(zip(learn.recorder.metric_names[1:-1], learn.recorder.values[-1]))
    return dict(set=Path(job['src']).name, size=job['size'], minutes=job['minutes'], row=job['row'], seed=job['seed'], accuracy=f"{values['accuracy']:.6f}", epochs=job['epochs'],
        parameters=sum(p.numel() for p in learn.model.parameters()), seconds=f'{time.perf_counter()-start:.1f}')

def epoch_time(pool, job):
    "Seconds that an epoch more takes"
    one,three = (float(pool.apply(trained, (job | dict(epochs=n),))['seconds']) for n in (1,3))
    return (three-one)/2

def kept(): return list(csv.DictReader(here.open())) if here.exists() else []

def summary(runs):
    "A row for each set and length, compared with `bot`"
    acc = {}
    for o in runs: acc.setdefault((o['set'],o['size'],o['minutes']), {}).setdefault(o['row'], {})[o['seed']] = o
    for (name,size,minutes),rows in acc.items():
        ours = {k:float(o['accuracy']) for k,o in rows['bot'].items()}
        for row,o in rows.items():
            if row=='bot' or len(set(o) & set(ours))<2: continue
            res,seeds = compared(ours, {k:float(v['accuracy']) for k,v in o.items()}),set(o) & set(ours)
            both = {f'{k}_{who}':f"{sum(float(rs[i][k]) for i in seeds)/len(seeds):.4g}" for k in ('accuracy','epochs','seconds','parameters') for who,rs in (('bot',rows['bot']),('over',o))}
            yield dict(set=name, size=size, minutes=minutes, over=row, seeds=res['folds']) | {k:res[k] for k in ('points','low','high')} | both

@call_parse
def main(
    src:str, # Folder of images
    size:int=32, # Side of a training image
    minutes:str='3', # That a run may take, several by commas
    rows:str='bot,fastai', # Of the description above
    seeds:str='0,1,2,3,4', # Seeds of split, start and order
    jobs:int=2 # Runs side by side
):
    "Do what is not done, and sum up"
    src,names = str(Path(src).resolve()),rows.split(',')
    def key(o): return tuple(str(o[k]) for k in ('size','minutes','row','seed'))
    done = {key(o) for o in kept() if o['set']==Path(src).name}
    todo = [dict(src=src, size=size, minutes=m, row=r, seed=int(s)) for m in minutes.split(',') for s in seeds.split(',') for r in names]
    with get_context('spawn').Pool(jobs, maxtasksperchild=1) as pool:
        todo = [o for o in todo if key(o) not in done]
        took = {r:epoch_time(pool, dict(src=src, size=size, minutes=0, row=r, seed=0)) for r in {o['row'] for o in todo}}
        print({k:round(v, 2) for k,v in took.items()}, file=sys.stderr)
        todo = [o | dict(epochs=max(1, int(60*float(o['minutes'])/took[o['row']]))) for o in todo]
        for o in pool.imap_unordered(trained, todo):
            o['seconds'] = f"{took[o['row']]*o['epochs']:.1f}"   # what it takes where nothing else runs
            keep_all([*kept(), o], here), print(o, file=sys.stderr, flush=True)
    keep_all(rows := list(summary(kept())), results/'minutes.csv')
    for o in rows: print(*o.values())
