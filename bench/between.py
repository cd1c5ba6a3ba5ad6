"""Between a short run and the paper's: which crops, colors and rate are right at 89 passes?

    python bench/between.py ../shared/data/clothing --size 64

`bot-train` with each of three settings, which are all given: those of the rule that went back to the paper's in one piece from 30 passes on, mild colors and a high rate with crops on half of the way, and the mild settings of a short run whole.
A quarter-width xresnet18d in float32, batch 32, one thread, each run judged after its last epoch. What was done is not done again. The rule between 60 and 120 passes was made from this; other seeds tried it (`bench/minutes.py`)."""
import csv, tempfile
from multiprocessing import get_context
from pathlib import Path
from fastcore.script import call_parse
from folds import keep_all

here = Path(__file__).parent/'results'/'between.csv'
_mild = dict(min_scale=.35, jitter=.1, pca=0., lr=.05)
ways = dict(one_piece=dict(min_scale=.138, jitter=.335, pca=.078, lr=.0206), half=_mild | dict(min_scale=.2), mild=_mild)

def trained(job):
    "A row of the CSV"
    import torch
    from bot.cli import train
    torch.set_num_threads(1)
    src,size,passes,way,seed = job
    with tempfile.TemporaryDirectory() as d:
        learn = train(src, rung='smooth', arch='xresnet18d', widen=.25, bs=32, size=size, epochs=passes, seed=seed, device='cpu', workers=0, fp16=False, out=f'{d}/run', **ways[way])
    acc = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))['accuracy']
    return dict(set=Path(src).name, size=size, passes=passes, way=way) | ways[way] | dict(seed=seed, accuracy=f'{acc:.6f}')

@call_parse
def main(
    src:str, # Folder of images
    size:int=64, # Side of a training image
    passes:int=89, # Times that each image is seen
    seeds:str='0,1', # Seeds of start and order
    jobs:int=2 # Runs side by side
):
    "Do what is not done"
    old = list(csv.DictReader(here.open())) if here.exists() else []
    done = {tuple(o[k] for k in ('set','size','passes','way','seed')) for o in old}
    todo = [(str(Path(src).resolve()), size, passes, w, int(s)) for s in seeds.split(',') for w in ways]
    todo = [o for o in todo if (Path(src).name, *map(str, o[1:])) not in done]
    with get_context('spawn').Pool(jobs, maxtasksperchild=1) as pool:
        for o in pool.imap_unordered(trained, todo):
            old.append(o), keep_all(old, here)
            print(*o.values())
