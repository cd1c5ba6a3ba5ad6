"""From published weights: fine-tuning, a linear probe and fastai's own way, over folds of a folder of photographs

    python bench/folds.py ../shared/data/clothing lite0.safetensors --n 100,400,0                            # 0: all that the fold leaves
    python bench/folds.py ../shared/data/clothing lite0.safetensors --n 0 --rows none,smooth,mixup,cutmix,trivial,ema

Fold s of five, with a share of each class, validates a run of seed s; `n` of the other photographs, in shares of their classes, train it. Folds 5 to 9 are those of another split, and so on. The accuracy is that of the last epoch, so no
epoch is chosen; fine-tuning, ours and fastai's, is judged after no other one here, for a fold has many more photographs to judge than the shorter runs have to train on.
Each run stands in `bench/results/folds/runs.csv`, and is not done again. The table has the mean over folds, and the paired difference to `over` on the same folds with a 95% interval of t over folds, in points.
The values of fine-tuning were chosen on folds 0 and 1, those for 100 photographs on 20 and 21 as well: these folds have lines of their own, whose `part` is `chose`. All others are `reported`."""
import csv, statistics, sys, tempfile, time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch
import numpy as np
from fastcore.script import call_parse

results = Path(__file__).parent/'results'
here,n_folds = results/'folds'/'runs.csv',5
short = 'epochs0.25'   # beside which one thing at a time was tried
_tuned,_none = dict(rung='finetune'),dict(rung='finetune', eps=0., alpha=0.)
kinds = dict(probe=dict(rung='probe'), finetune=_tuned, none=_none)
_alone = dict(smooth=dict(eps=.1), mixup=dict(alpha=.2), cutmix=dict(cutmix=1.), trivial=dict(trivial=True), ema=dict(ema=25.62))
kinds |= {k:_none | o for k,o in _alone.items()}
kinds |= {f'lr{k:g}':_tuned | dict(lr_factor=k) for k in (.5,1.,2.,4.)} | {f'epochs{k:g}':_tuned | dict(epochs_factor=k) for k in (.125,.25,.5,2.,2.5)}
kinds |= {f'{name}{v:g}':_tuned | {name:v} for name,vs in dict(layer_decay=(.4,.8,1.), min_scale=(.08,.6), freeze=(0,), alpha=(0.,.2), eps=(0.,)).items() for v in vs}

kinds |= dict(xavier=dict(xavier=True), moving=dict(moving=True))   # the new head's start, and norms that learn new statistics, as "epochs0.25+xavier"

def kind_of(row):
    "Settings of a row, or of several joined by '+'"
    return {k:v for o in row.split('+') for k,v in kinds[o].items()}

def head_of_row(row):
    "How the new head starts: 'zero', in runs of before 'xavier'. A probe and fastai's way have heads of their own"
    return '' if row=='probe' or row.startswith('fastai') else 'xavier' if row.endswith('+xavier') else 'zero'

def fold_rows(src, fold, n):
    "(path, class, does it validate?) of a fold; `n` of the rest train, or all with 0"
    from sklearn.model_selection import StratifiedKFold, train_test_split
    files = sorted(p for p in Path(src).rglob('*') if p.suffix.lower() in ('.jpg','.jpeg','.png'))
    y = np.array([p.parent.name for p in files])
    train,valid = list(StratifiedKFold(n_folds, shuffle=True, random_state=fold//n_folds).split(files, y))[fold%n_folds]
    if n: train,_ = train_test_split(train, train_size=n, stratify=y[train], random_state=fold)
    return [(str(files[i].relative_to(src)), y[i], v) for o,v in ((train,False),(valid,True)) for i in o]

def table_of(rows, path):
    with open(path, 'w', newline='') as f: csv.writer(f).writerows([('image','label','is_valid'), *rows])
    return path

def judge_last():
    "A callback that leaves out all validations but the last"
    from fastai.callback.core import Callback, CancelValidException
    class JudgeLast(Callback):
        order = -60
        def before_validate(self):
            if self.epoch<self.n_epoch-1: raise CancelValidException
    return JudgeLast()

def ours(row, src, table, n, job, fold):
    "Accuracy after the last epoch, and epochs"
    from fastai.torch_core import set_seed
    from bot.cli import data_of, train
    from bot.freezing import FrozenStart, head_of, StillNorms
    from bot.init import xavier
    from bot.ladder import options, recipe
    from bot.learner import bag_learner
    from bot.tuned import tuned_epochs, tuned_rate
    kw,n_train = kind_of(row),sum(not o[2] for o in fold_rows(src, fold, n))
    if k := kw.pop('lr_factor', None): kw['lr'] = k*tuned_rate*min(32, n_train)/256
    random,moving = kw.pop('xavier', False),kw.pop('moving', False)
    if k := kw.pop('epochs_factor', None): kw['epochs'] = round(k*tuned_epochs(n_train))
    kw |= dict(arch=job['arch'], pretrained=job['weights'], size=job['size'], fp16=False)
    own = dict(workers=job['workers'], root=src, seed=fold)
    if row=='probe':
        with tempfile.TemporaryDirectory() as d: return score(train(str(table), device=job['device'], out=f'{d}/run', **own, **kw))
    r,dls = data_of(str(table), recipe(kw.pop('rung'), **kw), options() | own | dict(exclude=None), job['device'], False, None)
    set_seed(fold)
    learn = bag_learner(dls, r)
    if random: xavier(head_of(learn.model))
    if moving: learn.remove_cb(StillNorms)
    hook = partial(FrozenStart, norms=True) if moving else FrozenStart
    with learn.no_bar(), learn.no_logging(), patch('bot.learner.FrozenStart', hook): learn.fit_rung(cbs=judge_last())
    return score(learn)

def score(learn):
    "Accuracy after the last epoch, that of the average where there is one; and epochs"
    names,values = learn.recorder.metric_names[1:],learn.recorder.values[-1]
    acc = dict(zip([o for o in names if o!='time'], values))
    return float(acc.get('ema_accuracy', acc['accuracy'])),len(learn.recorder.values)

def theirs(row, src, table, n, job, fold):
    "fastai's `vision_learner(...).fine_tune`; 'fastai8' for 8 epochs"
    import pandas as pd
    from fastai.vision.all import ImageDataLoaders, Resize, accuracy, aug_transforms, set_seed, vision_learner
    set_seed(fold)
    dls = ImageDataLoaders.from_df(pd.read_csv(table), src, valid_col='is_valid', item_tfms=Resize(int(job['size']*1.25)), batch_tfms=aug_transforms(size=job['size']), bs=32,
        device=job['device'], num_workers=job['workers'])
    learn = vision_learner(dls, job['arch'], metrics=accuracy, cbs=judge_last(), pretrained_cfg_overlay=dict(file=job['weights']))
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(e := int(row.removeprefix('fastai')))
    return float(learn.recorder.values[-1][-1]),e

def one(job):
    "A row of the CSV"
    import torch
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as d:
        table,start = table_of(fold_rows(job['src'], job['fold'], job['n']), f'{d}/images.csv'),time.perf_counter()
        acc,epochs = (theirs if job['row'].startswith('fastai') else ours)(job['row'], job['src'], table, job['n'], job, job['fold'])
    name = torch.cuda.get_device_name() if job['device']=='cuda' else 'cpu'
    return dict(set=Path(job['src']).name, arch=job['arch'], size=job['size'], n=job['n'], fold=job['fold'], row=job['row'], head=head_of_row(job['row']), accuracy=f'{acc:.6f}', epochs=epochs,
        seconds=f'{time.perf_counter()-start:.1f}', device=name)

def kept(path=here): return list(csv.DictReader(path.open())) if path.exists() else []

def keep_all(rows, path):
    path.parent.mkdir(exist_ok=True)
    with path.open('w', newline='') as f:
        w = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
        w.writeheader(), w.writerows(rows)

def keep(row): keep_all([*kept(), row], here)

def compared(acc, base):
    "Mean of a row over folds, and its paired difference to the first with a 95% interval of t"
    from scipy.stats import t
    folds = sorted(set(acc) & set(base))
    d = [100*(acc[f]-base[f]) for f in folds]
    mean,half = statistics.fmean(d),t.ppf(.975, len(d)-1)*statistics.stdev(d)/len(d)**.5 if len(d)>2 else None   # of two, it is a matter of luck
    low,high = ('','') if half is None else (f'{mean-half:.2f}', f'{mean+half:.2f}')
    return dict(folds=len(folds), accuracy=f'{statistics.fmean(acc[f] for f in folds):.4f}', points=f'{mean:.2f}', low=low, high=high)

def part(o):
    "Did the fold of this run choose values?"
    return 'chose' if int(o['fold']) in (0,1,20,21) else 'reported'

def summary(runs, first):
    "A row for each length, kind and part of the folds, compared with the kind `first` of the same length"
    acc = {}
    for o in runs: acc.setdefault((o['set'],o['arch'],o['size'],o['n'],part(o),o['row'],o['head'],o['device']), {})[o['fold']] = float(o['accuracy'])
    for (*k,row,head,device),o in acc.items():
        heads = [''] if first=='probe' else [head] if head else ['zero','xavier']
        base,h = next(((b, h) for h in heads if (b := acc.get((*k,first,h,device)))), ({},head))
        if row in (first,'probe') or len(set(o) & set(base))<2 or first==short and not row.startswith(f'{short}+'): continue
        yield dict(set=k[0], arch=k[1], size=k[2], n='all' if k[3]=='0' else k[3], part=k[4], row=row, over=first, head=head or h, device=device) | compared(o, base)

@call_parse
def main(
    src:str, # Folder of photographs
    weights:str, # A file of weights for `arch`
    arch:str='tf_efficientnet_lite0', # Model
    size:int=128, # Side of a training image
    n:str='100,400,0', # Training photographs; 0: all
    rows:str='probe,finetune', # Of `kinds`, or 'fastai8': fastai's way for 8 epochs
    folds:str='0,1,2,3,4', # Some of them; from 5 on of other splits
    device:str='cpu', # 'cuda' or 'cpu'
    workers:int=0, # That read images, a run
    jobs:int=2 # Runs side by side
):
    "Do what is not done, and sum up"
    src,weights,names,ns = str(Path(src).resolve()),str(Path(weights).resolve()),rows.split(','),[int(o) for o in n.split(',')]
    base = dict(src=src, weights=weights, arch=arch, size=size, device=device, workers=workers)
    todo = [base | dict(n=k, fold=int(f), row=r) for k in ns for f in folds.split(',') for r in names]
    def key(o): return (*(str(o[k]) for k in ('arch','size','n','fold','row')), o.get('head', head_of_row(o['row'])))
    done = {key(o) for o in kept() if o['set']==Path(src).name and (o['device']=='cpu')==(device=='cpu')}
    with get_context('spawn').Pool(jobs) as pool:
        for o in pool.imap_unordered(one, [o for o in todo if key(o) not in done]): keep(o), print(o, file=sys.stderr, flush=True)
    rows = [o for first in ('probe','finetune','none',short) for o in summary(kept(), first)]
    keep_all(rows, results/'folds.csv')
    for o in rows: print(*o.values())
