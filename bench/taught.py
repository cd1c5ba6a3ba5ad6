"""A small network that is taught by a large one with published weights: does it gain, over folds of a folder of photographs?

    python bench/taught.py ../shared/data/clothing lite0.safetensors

On each fold the teacher is `arch` with these weights, fine-tuned on what trains; 'alone' is an xresnet18d of a quarter of the width on rung `smooth`, 'taught' the same on rung `distill` with that teacher. Folds, seeds and accuracies are those of
`bench/folds.py`. Each run stands in `bench/results/taught/runs.csv`, and is not done again. The table has the paired difference over folds, with a 95% interval of t, in points."""
import sys, tempfile, time
from multiprocessing import get_context
from pathlib import Path
from fastcore.script import call_parse
from folds import compared, fold_rows, keep_all, kept, score, table_of

results = Path(__file__).parent/'results'
here = results/'taught'/'runs.csv'

def trained(job, table, out, **kw):
    "Accuracy after the last epoch, and epochs"
    from bot.cli import train
    return score(train(str(table), size=job['size'], device='cpu', workers=0, root=job['src'], seed=job['fold'], fp16=False, out=out, **kw))

def fold(job):
    "Rows of the CSV: teacher, alone, taught"
    import torch
    torch.set_num_threads(1)
    rows,small = [],dict(arch='xresnet18d', widen=.25, epochs=job['epochs'])
    with tempfile.TemporaryDirectory() as d:
        table = table_of(fold_rows(job['src'], job['fold'], job['n']), f'{d}/images.csv')
        runs = dict(teacher=dict(arch=job['arch'], pretrained=job['weights']), alone=dict(rung='smooth', **small), taught=dict(rung='distill', teacher=f'{d}/teacher', **small))
        for name,kw in runs.items():
            start = time.perf_counter()
            acc,epochs = trained(job, table, f'{d}/{name}', **kw)
            took = f'{time.perf_counter()-start:.1f}'
            rows.append({k:Path(v).name if k=='src' else v for k,v in job.items() if k!='weights'} | dict(row=name, accuracy=f'{acc:.6f}', epochs=epochs, seconds=took))
    return rows

def summary(runs):
    "A row for each length: taught beside alone"
    acc = {}
    for o in runs: acc.setdefault((o['src'],o['arch'],o['size'],o['n'],o['of']), {}).setdefault(o['row'], {})[o['fold']] = float(o['accuracy'])
    for k,o in acc.items():
        if len(o['alone'])>1:
            res = compared(o['taught'], o['alone'])
            mean = {f'accuracy_{r}':f'{sum(v.values())/len(v):.4f}' for r,v in o.items()}
            yield dict(zip(('set','teacher','size','n','epochs'), k)) | mean | {a:res[a] for a in ('folds','points','low','high')}

@call_parse
def main(
    src:str, # Folder of photographs
    weights:str, # A file of weights for `arch`
    arch:str='tf_efficientnet_lite0', # The teacher
    size:int=64, # Side of a training image, for both
    n:int=0, # Training photographs; 0: all
    epochs:int=20, # Of the small network
    folds:str='0,1,2,3,4', # Some of them
    jobs:int=2 # Folds side by side
):
    "Do what is not done, and sum up"
    base = dict(src=str(Path(src).resolve()), weights=str(Path(weights).resolve()), arch=arch, size=size, n=n, of=epochs, epochs=epochs)
    done = {tuple(o[k] for k in ('arch','size','n','of','fold')) for o in kept(here)}
    todo = [base | dict(fold=int(f)) for f in folds.split(',') if (arch,str(size),str(n),str(epochs),f) not in done]
    with get_context('spawn').Pool(jobs, maxtasksperchild=1) as pool:
        for rows in pool.imap_unordered(fold, todo): keep_all([*kept(here), *rows], here), print(*rows, sep='\n', file=sys.stderr, flush=True)
    keep_all(rows := list(summary(kept(here))), results/'taught.csv')
    for o in rows: print(*o.values())
