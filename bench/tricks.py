"""Do the tricks help on small images? Rungs beside the baseline and beside the default rung at equal epochs, several seeds, with intervals

    python bench/tricks.py digits ../shared/data/cifar10_sample

Every rung trains the same network, so that a column compares tricks and not models. Intervals: of a rung's mean over seeds, and of the paired differences to the
baseline and to the default rung with the same seed (Student's t, 95%). Runs have one thread each and go side by side, as many as there are processors.
Writes `bench/results/tricks.csv`."""
import argparse, csv, multiprocessing, os, platform, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

rungs = dict(baseline={}, resnet_d={}, cosine={}, smooth={}, mixup=dict(but='distill'))
epochs = dict(digits=16)   # the digits' own; 5 of anything else

def one(src, rung, seed, n_epoch, widen):
    "Accuracy of one run after its last epoch, on the validation images"
    import torch
    from fastai.torch_core import set_seed
    from bot.all import bag_dls, bag_learner
    torch.set_num_threads(1)
    dls = bag_dls(src, size=32, bs=64, seed=seed, num_workers=0, device='cpu')
    set_seed(seed)
    learn = bag_learner(dls, rung, arch='xresnet18d', widen=widen, epochs=n_epoch, **rungs[rung])
    t = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): learn.fit_rung()
    return learn.recorder.values[-1][-1],time.perf_counter()-t

def t_interval(x):
    "Mean and the half width of its 95% interval"
    import numpy as np
    from scipy import stats
    x = np.asarray(x, float)
    return x.mean(),stats.t.ppf(.975, len(x)-1)*x.std(ddof=1)/len(x)**.5

def summary(accs, n_valid, **more):
    "A row a rung"
    from bot.all import default_rung, wilson
    for rung,x in accs.items():
        m,h = t_interval(x)
        lo,hi = wilson(round(m*n_valid), n_valid)
        row = dict(rung=rung, accuracy=m, half_width=h, wilson_low=lo, wilson_high=hi)
        for k,o in dict(baseline='baseline', default=default_rung).items():
            row[f'over_{k}'],row[f'over_{k}_half_width'] = t_interval([a-b for a,b in zip(x, accs[o])])
        yield {k: round(float(v), 4) if k!='rung' else v for k,v in row.items()} | dict(runs=' '.join(f'{o:.4f}' for o in x)) | more

def compare(pool, src, names, seeds, widen):
    "Start all runs on `src`; a function that waits for them and gives their rows"
    from bot.all import find_source
    n_epoch = epochs.get(src, 5)
    todo = {(rung,s): pool.submit(one, src, rung, s, n_epoch, widen) for s in seeds for rung in names}
    def rows():
        import torch
        for (rung,s),o in todo.items(): print(f'{src} {rung} seed {s}: {o.result()[0]:.4f} in {o.result()[1]:.0f} s', flush=True)
        accs,source = {r: [todo[r,s].result()[0] for s in seeds] for r in names},find_source(src)
        more = dict(src=Path(src).name, images=source.n_train, valid=source.n_valid, epochs=n_epoch, seeds=' '.join(map(str, seeds)), arch='xresnet18d', widen=widen,
            size=32, bs=64, device='cpu', cpu=platform.processor() or platform.machine(), torch=torch.__version__)
        return list(summary(accs, source.n_valid, **more))
    return rows

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('src', nargs='+')
    p.add_argument('--rungs', default=','.join(rungs))
    p.add_argument('--widen', type=float, default=.25)
    p.add_argument('--seeds', default='0,1,2')
    p.add_argument('--out', default=Path(__file__).parent/'results'/'tricks.csv')
    args = p.parse_args()
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context('spawn')) as pool:
        waits = [compare(pool, o, args.rungs.split(','), [int(o) for o in args.seeds.split(',')], args.widen) for o in args.src]
        rows = [o for f in waits for o in f()]
    with open(args.out, 'w') as f:
        w = csv.DictWriter(f, rows[0], lineterminator='\n')
        w.writeheader(), w.writerows(rows)
    for o in rows: print(f"{o['src']} {o['rung']}: {o['accuracy']:.2%} +- {o['half_width']:.2%}, over baseline {o['over_baseline']:+.2%} +- "
        f"{o['over_baseline_half_width']:.2%}, over the default rung {o['over_default']:+.2%} +- {o['over_default_half_width']:.2%}")
