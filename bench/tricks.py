"""Do the tricks help on small real images? Rungs against the baseline at equal epochs, several seeds, with intervals

python bench/tricks.py FOLDER [--epochs 5] [--widen 0.25] [--seeds 0,1,2]

Every rung trains the same network, so that a column compares tricks and not models. Intervals: of a rung's mean over seeds, and of the
paired difference to the baseline with the same seed (Student's t, 95%)."""
import argparse, csv, platform, time
from pathlib import Path
import numpy as np, torch
from scipy import stats
from fastai.torch_core import set_seed
from bot.all import bag_dls, bag_learner, find_source, wilson

rungs = dict(baseline={}, cosine={}, smooth={}, mixup=dict(but='distill'))

def one(src, rung, seed, epochs, widen):
    "Accuracy of one run after its last epoch, on the validation images"
    dls = bag_dls(src, size=32, bs=64, seed=seed, num_workers=0, device='cpu')
    set_seed(seed)
    learn = bag_learner(dls, rung, arch='xresnet18d', widen=widen, epochs=epochs, **rungs[rung])
    t = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): learn.fit_rung()
    return learn.recorder.values[-1][-1],time.perf_counter()-t

def t_interval(x):
    "Mean and the half width of its 95% interval"
    x = np.asarray(x, float)
    return x.mean(),stats.t.ppf(.975, len(x)-1)*x.std(ddof=1)/len(x)**.5

def summary(accs, n_valid, **more):
    "A row a rung"
    for rung,x in accs.items():
        (m,h),(d,dh) = t_interval(x),t_interval(np.subtract(x, accs['baseline']))
        lo,hi = wilson(round(m*n_valid), n_valid)
        yield dict(rung=rung, accuracy=round(m, 4), half_width=round(h, 4), wilson_low=round(lo, 4), wilson_high=round(hi, 4),
            over_baseline=round(d, 4), over_baseline_half_width=round(dh, 4), runs=' '.join(f'{o:.4f}' for o in x), **more)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder')
    p.add_argument('--epochs', type=int, default=5)
    p.add_argument('--widen', type=float, default=.25)
    p.add_argument('--seeds', default='0,1,2')
    args = p.parse_args()
    seeds,src = [int(o) for o in args.seeds.split(',')],find_source(args.folder)
    accs = {o:[] for o in rungs}
    for seed in seeds:
        for rung in rungs:
            acc,t = one(src, rung, seed, args.epochs, args.widen)
            accs[rung].append(acc)
            print(f'{rung} seed {seed}: {acc:.4f} in {t:.0f} s', flush=True)
    rows = list(summary(accs, src.n_valid, images=src.n_train, valid=src.n_valid, epochs=args.epochs, arch='xresnet18d', widen=args.widen, size=32, bs=64,
        device='cpu', cpu=platform.processor() or platform.machine(), torch=torch.__version__))
    out = Path(__file__).parent/'results'/'tricks.csv'
    with out.open('w') as f:
        w = csv.DictWriter(f, rows[0], lineterminator='\n')
        w.writeheader(), w.writerows(rows)
    for o in rows: print({k:v for k,v in list(o.items())[:7]})
