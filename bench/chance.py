"""Do the intervals of an ablation cover what they should, and is a ladder without an effect left alone? Runs and images with planted effects, many times

    python bench/chance.py

A model is right about an image if the image's ease, the trick's effect, the trick's effect on this image, the luck of the run and a rest add up to more than 0; all are normal, so both targets are known:
what infinitely many seeds would give on the same images, and on new ones. Writes `bench/results/chance.csv`."""
import argparse, csv
from pathlib import Path
import numpy as np
from scipy.stats import norm
from bot.chance import decided, looks_for, over_both, over_seeds

usual = dict(seeds=8, images=359, ease=1.5, spread=1.5, shared=.05, run=.1, image=.3, rest=1.)
worlds = dict(usual={}, few_seeds=dict(seeds=4), many_images=dict(images=2000), lucky_runs=dict(run=.3), other_images=dict(image=.6, run=.02),
    alike=dict(image=0., run=.15, rest=.5), good_models=dict(ease=3., images=1000), shared_luck=dict(shared=.3))

def planted(rng, gains, seeds, images, ease, spread, shared, run, image, rest):
    "Right answers (rungs, seeds, images); what each rung has on these images, and on new ones"
    R,gains = len(gains),np.asarray(gains)[:,None]
    own = ease + spread*rng.standard_normal(images) + gains + image*rng.standard_normal((R,images))
    luck = shared*rng.standard_normal((1,seeds,1)) + run*rng.standard_normal((R,seeds,1)) + rest*rng.standard_normal((R,seeds,images))
    sd = (shared**2+run**2+rest**2)**.5
    return own[:,None]+luck>0, norm.cdf(own/sd).mean(1), norm.cdf((ease+gains[:,0])/np.hypot(sd, np.hypot(spread, image)))

def coverage(n, gain=.15, seed=0, **world):
    "Shares of `n` experiments in which the interval on these images, and that for new ones, holds its target"
    rng,hits = np.random.default_rng(seed),np.zeros(2)
    for _ in range(n):
        right,here,new = planted(rng, [0,gain], **(usual | world))
        d = right[1].astype(float)-right[0]
        for i,(f,target) in enumerate(((over_seeds, here), (over_both, new))):
            o = f(d)
            hits[i] += o.low<=target[1]-target[0]<=o.high
    return hits/n

def alarms(n, rungs=13, seed=0, only_new=False, **world):
    "Share of `n` ladders without an effect of which a step is called one, over all looks; `only_new`: with effects on these images, called effects for new ones"
    rng,o,hits = np.random.default_rng(seed),usual | world | ({} if only_new else dict(image=0.)),0
    for _ in range(n):
        right = planted(rng, [0]*rungs, **o)[0].astype(float)
        found = decided({i: right[i]-right[i-1] for i in range(1, rungs)}, looks_for(o['seeds']))
        hits += any(v['new'] or not only_new for v in found.values())
    return hits/n

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--ladders', type=int, default=1000)
    p.add_argument('--experiments', type=int, default=2000)
    p.add_argument('--out', default=Path(__file__).parent/'results'/'chance.csv')
    args,rows = p.parse_args(),[]
    for k,world in worlds.items():
        here,new = coverage(args.experiments, **world)
        rows.append(dict(world=k, **(usual | world), experiments=args.experiments, covers_these=round(here, 4), covers_new=round(new, 4), ladders=args.ladders,
            alarms=alarms(args.ladders, **world), alarms_new=alarms(args.ladders, only_new=True, **world)))
        print({k:rows[-1][k] for k in ('world','covers_these','covers_new','alarms','alarms_new')}, flush=True)
    with open(args.out, 'w') as f:
        w = csv.DictWriter(f, rows[0], lineterminator='\n')
        w.writeheader(), w.writerows(rows)
