"""What the pieces of the second ladder cost, each against the step or the loop that it is part of.

The averaged weights: an update, spread over the batches between two, against a training step. Mixup and CutMix: their hook in a step, against the step. TrivialAugment: our item transform
against torchvision's own loop on the same uint8 tensors with the same draws. Medians of repeated timings on one thread; writes `bench/results/second.csv`.

    python bench/second.py                     # xresnet18b, 128 px, batch 32
    python bench/second.py --size 224 --bs 16
"""
import csv, statistics, time, torch
from pathlib import Path
from fastcore.script import call_parse
from fastai.torch_core import TensorImage
from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide
from bot.average import averaged_model, update, update_every
from bot.cutmix import draw_cut, paste
from bot.losses import BagLoss
from bot.mixup import draw_pairs, mix
from bot.models import get_model
from bot.optimizer import nag
from bot.trivial import BagTrivial

def median(f, n):
    "Milliseconds of a call"
    f()
    res = []
    for _ in range(n):
        start = time.perf_counter()
        f()
        res.append(time.perf_counter()-start)
    return statistics.median(res)*1e3

def ratio(f, g, n):
    "Median ratio of the times of `g` and of `f`, taken in turns"
    f(), g()
    res = []
    for _ in range(n):
        times = []
        for o in (f, g):
            start = time.perf_counter()
            o()
            times.append(time.perf_counter()-start)
        res.append(times[1]/times[0])
    return statistics.median(res)

@call_parse
def main(
    arch:str='xresnet18b', # Model
    size:int=128, # Side of an image
    bs:int=32, # Images in a batch
    n:int=5, # Timings of each
    steps:int=50_000 # Batches of the run that the averaged weights are for
):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net,x,y,loss = get_model(arch, 10),torch.randn(bs, 3, size, size),torch.randint(10, (bs,)),BagLoss()
    opt,avg = nag(list(net.parameters()), .01),averaged_model(net, .99)
    def step():
        loss(net(x), y).backward()
        opt.step(), opt.zero_grad()
    def mixup():
        lam,partner = draw_pairs(bs, .2, 'torchvision')
        mix(x, lam, partner), mix(torch.eye(10)[y], lam, partner)
    def cutmix():
        lam,partner,box = draw_cut(bs, size, size, 1., 'torchvision')
        paste(x, partner, box), mix(torch.eye(10)[y], lam, partner)
    update(avg, net)
    ms,every = median(step, n),update_every(steps)
    rows = [dict(piece='averaged weights', ms=median(lambda: update(avg, net), 4*n), of=ms, share=None, note=f'an update every {every} batches, as in a run of {steps:,}')]
    rows[0]['share'] = rows[0]['ms']/every/ms
    rows += [dict(piece=f.__name__, ms=(t := median(f, 4*n)), of=ms, share=t/ms, note='of a step') for f in (mixup,cutmix)]
    ims,theirs,ours = torch.randint(256, (200,3,size,size), dtype=torch.uint8),TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR),BagTrivial()
    def loop(f):
        torch.manual_seed(1)
        for o in ims: f(o)
    fast = ratio(lambda: loop(lambda o: ours(TensorImage(o), split_idx=0)), lambda: loop(theirs), 3*n)
    own,other = (median(lambda: loop(f), n)/len(ims) for f in (lambda o: ours(TensorImage(o), split_idx=0), theirs))
    rows.append(dict(piece='TrivialAugment', ms=own, of=other, share=fast, note="images a second, of torchvision's own loop"))
    path = Path(__file__).parent/'results/second.csv'
    old = [o for o in csv.DictReader(path.open()) if (o['arch'],o['size'],o['bs'])!=(arch,str(size),str(bs))] if path.exists() else []
    new = [dict(arch=arch, size=size, bs=bs) | {k:f'{v:.4g}' if isinstance(v, float) else v for k,v in o.items()} for o in rows]
    with path.open('w', newline='') as f:
        w = csv.DictWriter(f, list(new[0]))
        w.writeheader()
        w.writerows(old+new)
    for o in new: print(o)
