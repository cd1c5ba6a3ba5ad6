"""Which of the paper's settings are wrong for a short run from scratch? The smallest crop, the rate, the strength of color and the smoothing at several lengths, by `bot-ablate`

    python bench/short.py ../shared/data/cifar10_sample --size 32 --passes 3,10
    python bench/short.py ../shared/data/clothing --size 64 --passes 3,10,30

A run of a quarter-width xresnet18d in float32, one thread each, the rest as it is settled; a GPU (`--device cuda`) takes several runs side by side. `rate` is a factor on the rate that the batch size gives; `settled` is what `bot-train` takes for that length. An ablation goes on where it was stopped.
Adds to `bench/results/short.csv`: `passes` is the number of times that each image is seen, `over` the difference to the paper's settings with the same seeds, with its interval for new images."""
import argparse, csv, platform, tempfile
from pathlib import Path
import yaml

crops = dict(paper=dict(min_scale=.08), crop35=dict(min_scale=.35), crop50=dict(min_scale=.5))
weak = dict(min_scale=.35, jitter=.1, pca=0)

def cells(lr):
    "Rows of settings by name; `lr` is the rate that is settled"
    more = {'rate4': dict(min_scale=.08, lr=4*lr), 'crop35-rate4': dict(min_scale=.35, lr=4*lr), 'weak-rate4': dict(weak, lr=4*lr), 'weak-rate4-hard': dict(weak, lr=4*lr, eps=0), 'settled': {}}
    return {k:dict(rung='smooth', arch='xresnet18d', widen=.25, fp16=False) | o for k,o in (crops | more).items()}

def machine(device):
    import torch
    return torch.cuda.get_device_name() if device=='cuda' else platform.processor() or platform.machine()

def settled_lr(src, size):
    "The rate that the settled batch has by the paper's rule"
    from bot.ladder import recipe
    from bot.learner import fit_recipe
    from bot.optimizer import scale_lr
    from bot.sources import find_source
    s = find_source(src)
    return scale_lr(fit_recipe(recipe('smooth', size=size), s.n_train, s.short_edge, 'cpu', s.settings)['bs'])

def ablation(src, size, passes, names, seeds, jobs, out, device, workers):
    "Rows of the CSV of one length"
    from bot.ablation import ablate
    with tempfile.NamedTemporaryFile('w', suffix='.yaml') as f:
        yaml.safe_dump({k:o for k,o in cells(settled_lr(src, size)).items() if not names or k in names}, f, sort_keys=False), f.flush()
        more = {} if workers is None else dict(workers=workers)
        ablate(src, cells=f.name, seeds=seeds, epochs=passes, size=size, device=device, jobs=jobs, out=str(out), **more)
    with open(out/'ablation.csv', newline='') as g: return list(csv.DictReader(g))

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('src')
    p.add_argument('--size', type=int, required=True)
    p.add_argument('--passes', default='3,10')
    p.add_argument('--rows', default='', help="Names of some rows, 'paper' first; unset, all")
    p.add_argument('--seeds', type=int, default=4)
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--device', default='cpu')
    p.add_argument('--workers', type=int, help='Processes that read images, for each run')
    p.add_argument('--dir', default='ablations/short', help='Where the ablations are kept')
    o = p.parse_args()
    name,res = Path(o.src).name,Path(__file__).parent/'results/short.csv'
    for n in map(int, o.passes.split(',')):
        head = dict(set=name, size=o.size, passes=n, machine=machine(o.device))
        rows = [head | r for r in ablation(o.src, o.size, n, o.rows.split(',') if o.rows else [], o.seeds, o.jobs, Path(o.dir)/f'{name}-{o.size}-{n}', o.device, o.workers)]
        old = list(csv.DictReader(res.open())) if res.exists() else []
        old = [r for r in old if (r['set'], r['size'], r['passes'], r['machine'])!=(name, str(o.size), str(n), head['machine'])]
        with res.open('w', newline='') as f:
            w = csv.DictWriter(f, list(rows[0]))
            w.writeheader(), w.writerows([*old, *rows])
