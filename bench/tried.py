"""Around the rule for short runs: warmup, batch, rate, larger crops, hard labels, plain momentum and Adam, each instead of what is settled

    python bench/tried.py digits --size 32 --passes 3,10
    python bench/tried.py ../shared/data/clothing --size 64 --passes 3

`bench/short.py` has crops, colors and rate beside the paper's. Here each row differs in one thing from a run as `bot-train` settles it: 'warmup0' has none and 'warmup20' a fifth of the run where the paper's share is a 24th, 'bs/2' and 'bs*2' take the rate along, 'rate/2' and 'rate*2' do not, 'crop50' has crops of half the image or more, 'hard' no smoothing, 'momentum' is without Nesterov, 'adam-0.003' is fastai's Adam at that rate, with its weight decay.
A quarter-width xresnet18d in float32, one thread, judged after the last epoch. Each run stands in `bench/results/tried/runs.csv` and is not done again; the table has means over seeds, and the paired difference to `settled` with a 95% interval of t over seeds, in points."""
import csv, sys
from multiprocessing import get_context
from pathlib import Path
from fastcore.script import call_parse
from folds import compared, keep_all

results = Path(__file__).parent/'results'
here = results/'tried'/'runs.csv'
rows = 'settled','warmup0','warmup20','bs/2','bs*2','rate/2','rate*2','crop50','hard','momentum','adam-0.001','adam-0.003'

def changes(row, r):
    "Settings of a row beside those of the settled recipe `r`"
    mild = {k:r[k] for k in ('jitter','pca','lr')}   # a crop that is given settles none of these
    return {'warmup0': dict(warmup=0), 'warmup20': dict(warmup=r['epochs']/5), 'bs/2': dict(bs=r['bs']//2), 'bs*2': dict(bs=2*r['bs']), 'rate/2': dict(lr=r['lr']/2), 'rate*2': dict(lr=2*r['lr']),
        'crop50': mild | dict(min_scale=.5), 'hard': dict(eps=0.), 'momentum': dict(nesterov=False)}.get(row, dict(lr=float(row.partition('-')[2]), wd=.01) if row.startswith('adam') else {})   # fastai's

def trained(job):
    "A row of the CSV"
    import torch
    from fastai.optimizer import Adam
    from fastai.torch_core import set_seed
    from bot.block import bag_dls
    from bot.ladder import recipe
    from bot.learner import bag_learner, fit_recipe
    from bot.sources import find_source
    torch.set_num_threads(1)
    src,size,passes,row,seed = job
    own,source = dict(widen=.25, size=size, epochs=passes, fp16=False),find_source(src, seed=seed)
    def settled(**kw): return fit_recipe(recipe('smooth', **own | kw), source.n_train, source.short_edge, 'cpu', source.settings)
    r = settled(**changes(row, settled()))
    set_seed(seed)
    dls = bag_dls(source, size=size, bs=r['bs'], seed=seed, num_workers=0, device='cpu', **{k:r[k] for k in ('min_scale','jitter','pca')})
    learn = bag_learner(dls, r)
    if row.startswith('adam'): learn.opt_func = Adam
    with learn.no_bar(), learn.no_logging(): learn.fit_rung()
    acc = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))['accuracy']
    return dict(set=Path(src).name, size=size, passes=passes, row=row, seed=seed, accuracy=f'{acc:.6f}', bs=r['bs'], lr=f"{r['lr']:.4g}", min_scale=r['min_scale'], warmup=r['warmup'])

def summary(runs):
    "A row for each set, length and kind, compared with `settled`"
    acc = {}
    for o in runs: acc.setdefault((o['set'],o['size'],o['passes']), {}).setdefault(o['row'], {})[o['seed']] = float(o['accuracy'])
    for (name,size,passes),kinds in acc.items():
        for row in rows:
            if len(set(kinds.get(row, {})) & set(kinds['settled']))<2: continue
            res = compared(kinds[row], kinds['settled'])
            yield dict(set=name, size=size, passes=passes, row=row, seeds=res.pop('folds')) | (res if row!='settled' else res | dict(points='', low='', high=''))

@call_parse
def main(
    src:str, # Folder of images, or 'digits'
    size:int=32, # Side of a training image
    passes:str='3,10', # Times that each image is seen, several by commas
    names:str='', # Some of the rows, 'settled' among them; unset, all
    seeds:str='0,1,2,3', # Seeds of split, start and order
    jobs:int=2 # Runs side by side
):
    "Do what is not done, and sum up"
    old = list(csv.DictReader(here.open())) if here.exists() else []
    path = src if src=='digits' else str(Path(src).resolve())
    done = {tuple(o[k] for k in ('set','size','passes','row','seed')) for o in old}
    todo = [(path, size, int(n), k, int(s)) for n in passes.split(',') for s in seeds.split(',') for k in (names.split(',') if names else rows)]
    todo = [o for o in todo if (Path(src).name, *map(str, o[1:])) not in done]
    with get_context('spawn').Pool(jobs) as pool:
        for o in pool.imap_unordered(trained, todo):
            old.append({k:str(v) for k,v in o.items()}), keep_all(old, here)
            print(*o.values(), file=sys.stderr, flush=True)
    if res := list(summary(old)): keep_all(res, results/'tried.csv')
    for o in res: print(*o.values())
