"""What an epoch of the second ladder's settings costs on a GPU, beside the paper's rung `fp16`: the row `modern`, smaller images at first, and `torch.compile`

Batches of noise lie ready on the device, so that reading images plays no part. Each row is timed at each size of `--sizes`, in turns, and an epoch of a run is the mean over its epochs.
A pass compiles the model, and its seconds stand beside. Adds to `bench/results/epoch.csv`, or replaces the rows with the same setting.

    python bench/epoch.py                                                        # xresnet50d, 224 px, batch 256, CUDA
    python bench/epoch.py --arch xresnet18d --size 64 --sizes 32:0,64:.5 --bs 16 --device cpu --n 2 --blocks 1 --rows fp16,modern
"""
import csv, statistics, time, torch
from pathlib import Path
from fastcore.script import call_parse
from fastai.data.core import DataLoaders
from bot.learner import bag_learner
from bot.sizes import read_sizes, size_at
from step import Ready, Stopwatch, made

kinds = dict(fp16=dict(rung='fp16'), modern=dict(rung='modern'), fp16_compiled=dict(rung='fp16', torchcompile=True), modern_compiled=dict(rung='modern', torchcompile=True))

def epoch_of(row, arch, batches, device, epochs):
    "One epoch of a row at one size, as a function that gives its seconds"
    dls = DataLoaders(*[Ready(o) for o in (batches, batches[:1])], device=device)
    dls.vocab = list(range(10))
    learn = bag_learner(dls, arch=arch, as_paper=True, lr=1e-3, epochs=epochs, **kinds[row])
    watch = Stopwatch()
    learn.add_cb(watch)
    def epoch():
        with learn.no_bar(), learn.no_logging(): learn.fit_rung(1)
        return watch.times[-1][1]
    return epoch

def timed_first(f):
    start = time.perf_counter()
    f()
    return time.perf_counter()-start

def results(times, sizes, epochs, names):
    "Seconds of a mean epoch of each row, of the final size alone and with smaller images first"
    final,shares = sizes[-1][1],[size_at(sizes, e, epochs) for e in range(epochs)]
    res = {k:statistics.median(times[k,final]) for k in names}
    return res | {f'{k}_sizes':statistics.fmean(statistics.median(times[k,s]) for s in shares) for k in names}

@call_parse
def main(
    arch:str='xresnet50d', # Model
    size:int=224, # Final side of an image
    sizes:str='128:0,160:.4,224:.7', # Sizes and the shares of the run that they begin at
    bs:int=256, # Images in a batch
    n:int=12, # Batches in an epoch
    blocks:int=5, # Epochs of each row and size
    device:str='cuda', # 'cuda' or 'cpu'
    epochs:int=20, # Of the run that the shares are of
    rows:str=','.join(kinds) # Names of some rows, 'fp16' first
):
    "Time the rows, print and keep"
    shares = read_sizes(sizes)
    assert shares[-1][1]==size, 'sizes ends with the final size'
    names = rows.split(',')
    times,first = {},{k:0. for k in names}
    for s in sorted({o for _,o in shares}):
        batches = made(n, bs, s, device, True)
        fs = {k:epoch_of(k, arch, batches, device, epochs) for k in names}
        for k,f in fs.items(): first[k] += timed_first(f)
        for _ in range(blocks):
            for k,f in fs.items(): times.setdefault((k,s), []).append(f())
    secs = results(times, shares, epochs, names)
    name = torch.cuda.get_device_name() if device=='cuda' else device
    head = dict(arch=arch, size=size, sizes=sizes, bs=bs, n=n, blocks=blocks, device=name, torch=torch.__version__)
    new = [head | dict(row=k, images_a_second=f'{bs*n/v:.1f}', speed=f"{secs['fp16']/v:.3f}", first_pass=f"{first[k.removesuffix('_sizes')]:.0f}") for k,v in secs.items()]
    path = Path(__file__).parent/'results/epoch.csv'
    old = [o for o in csv.DictReader(path.open()) if any(o[k]!=str(v) for k,v in head.items())] if path.exists() else []
    with path.open('w', newline='') as f:
        w = csv.DictWriter(f, list(new[0]))
        w.writeheader(), w.writerows([*old, *new])
    for o in new: print(f"{o['row']:24} {o['images_a_second']:>8} images a second, {o['speed']} of rung fp16, first passes {o['first_pass']} s")
