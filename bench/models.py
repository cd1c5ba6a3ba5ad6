"""Speed of `bot.models` beside timm: same network, same weights, same run

    OMP_NUM_THREADS=1 python bench/models.py

What can favour one of two equal models by some percent: other work on the machine, the order of the calls, and where the tensors of a model happen to lie.
So time is the process's own on a CPU; a block times every model once, in a random order, and counts as one ratio; and the models are built anew, in a
random order, for each of several sets of blocks. The answer is the median of the blocks' ratios. Its 95% interval is a bootstrap of sets, and of the blocks in
them. A second timm model beside the first, treated in the same way, shows what difference the method finds where there is none. Writes `bench/results/models.csv`."""
import csv, platform, random, time
from pathlib import Path
from statistics import median, quantiles

import timm, torch
from fastcore.script import call_parse

from bot.resnet import *
from bot.weights import *
from bot.models import *

here = Path(__file__).parent/'results'/'models.csv'

def device_name(device):
    "Name of the GPU, or of the processor with its threads"
    if device=='cuda': return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo')
    names = [o.split(':',1)[1].strip() for o in info.read_text().splitlines() if o.startswith('model name')] if info.exists() else []
    return f'{(names or [platform.processor()])[0]}, {torch.get_num_threads()} thread(s)'

def seconds(f, device):
    "Time of one call; on a CPU the process's own, in which other work on the machine counts little"
    clock = time.perf_counter if device=='cuda' else time.process_time
    if device=='cuda': torch.cuda.synchronize()
    start = clock()
    f()
    if device=='cuda': torch.cuda.synchronize()
    return clock()-start

rng = random.Random(0)

def interleaved(fs, repeats, device):
    "Times of the functions in turn, `repeats` rounds, shuffled in each; a round before them is warm-up"
    res = {k:[] for k in fs}
    for _ in range(repeats+1):
        for k in rng.sample(list(fs), len(fs)): res[k].append(seconds(fs[k], device))
    return {k:v[1:] for k,v in res.items()}

def jobs(model, x, y, fp16):
    "A forward pass in evaluation, and a training step's forward and backward"
    def autocast(): return torch.autocast(x.device.type, torch.float16, enabled=fp16)
    def forward():
        with torch.inference_mode(), autocast(): model.eval()(x)
    def both():
        with autocast(): loss = torch.nn.functional.cross_entropy(model.train()(x), y)
        loss.backward()
        model.zero_grad(set_to_none=True)
    return dict(forward=forward, forward_backward=both)

def placed(o, device, fp16): return o.to(device, memory_format=torch.channels_last) if fp16 else o.to(device)

def compare(models, bs, size, repeats, device, fp16=False):
    "Milliseconds of each job for each model, all interleaved"
    x = placed(torch.randn(bs,3,size,size), device, fp16)
    y = torch.randint(1000, (bs,), device=device)
    todo = {k:jobs(placed(m, device, fp16), x, y, fp16) for k,m in models.items()}
    return {job:interleaved({k:o[job] for k,o in todo.items()}, repeats, device) for job in ('forward','forward_backward')}

def ratio(a, b): return median(o/p for o,p in zip(a, b))

def interval(sets, n=4000):
    "95% interval of the median of all ratios: a bootstrap of sets of ratios, then of the ratios in each"
    def again(): return median(o for s in rng.choices(sets, k=len(sets)) for o in rng.choices(s, k=len(s)))
    cuts = quantiles((again() for _ in range(n)), n=40)
    return cuts[0],cuts[-1]

def row_of(question, job, model, t, base, speed, dev, note, low='', high=''):
    "`speed` is that of `model` over that of `base`, in the median of the rounds"
    return dict(question=question, job=job, model=model, ms=round(1e3*median(t),2), ms_min=round(1e3*min(t),2), beside=base,
        speed=round(speed,4) if base else '', low=low, high=high, device=dev, note=note)

def rows_of(question, times, base, dev, note):
    "One row a model and job"
    for job,o in times.items():
        for k,t in o.items(): yield row_of(question, job, k, t, base, ratio(o[base], t), dev, note)

def a_set(name, bs, size, blocks, device, fp16):
    "Times of models of one set: job -> model -> seconds"
    makers = {'timm':lambda: timm.create_model(timm_name(name)), name:lambda: make_xresnet(name), 'timm again':lambda: timm.create_model(timm_name(name))}
    models = {k:makers[k]() for k in rng.sample(list(makers), len(makers))}
    weights = models['timm'].state_dict()
    for o in models.values(): load_weights(o, weights)
    return compare(models, bs, size, blocks, device, fp16)

def against_timm(name, bs, size, sets, blocks, device, fp16):
    "Ours, and a second one of timm's, beside timm's"
    times = [a_set(name, bs, size, blocks, device, fp16) for _ in range(sets)]
    note = f'batch {bs}, {size} px, '+('fp16 channels_last' if fp16 else 'float32')+f', {sets} sets of {blocks} blocks'
    for job in times[0]:
        for k,question in {name:'as fast as timm', 'timm again':'the same twice'}.items():
            ratios = [[a/b for a,b in zip(o[job]['timm'], o[job][k])] for o in times]
            low,high = (round(o,4) for o in interval(ratios))
            yield row_of(question, job, k, [t for o in times for t in o[job][k]], 'timm', median(r for o in ratios for r in o), device_name(device), note, low, high)

def d_over_a(bs, size, repeats, device, fp16):
    "The paper: ResNet-50-D is 3% slower in training throughput"
    models = {k:make_xresnet(k) for k in ('xresnet50a','xresnet50b','xresnet50c','xresnet50d')}
    note = f'batch {bs}, {size} px, '+('fp16 channels_last' if fp16 else 'float32')
    yield from rows_of('cost of the variants', compare(models, bs, size, repeats, device, fp16), 'xresnet50a', device_name(device), note)

def conversion(repeats):
    "A state dict of timm's, renamed, checked and loaded"
    ref,m = timm.create_model('resnet152d').state_dict(),xresnet152d()
    t = interleaved(dict(load=lambda: load_weights(m, ref)), repeats, 'cpu')['load']
    yield row_of('conversion under 2 s', 'rename, check and load', 'xresnet152d', t, '', '', device_name('cpu'), 'state dict in memory')

@call_parse
def main(
    bs:int=None, # Images in a batch; 8 on a CPU, 256 on a GPU
    size:int=224, # Side of an image
    sets:int=4, # Sets of models beside timm's
    blocks:int=4, # Blocks of a set; each times all models once
    rounds:int=3, # Of the four variants
    out:Path=here # CSV to write
):
    "Time the models against timm and each other"
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    fp16 = device=='cuda'
    bs = bs or (256 if fp16 else 8)
    rows = []
    for o in against_timm('xresnet50d', bs, size, sets, blocks, device, fp16), d_over_a(bs, size, rounds, device, fp16), conversion(5): rows += o
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open('w', newline='') as f:
        w = csv.DictWriter(f, list(rows[0]))
        w.writeheader()
        w.writerows(rows)
    for o in rows:
        print(f"{o['question']}: {o['job']} of {o['model']} takes {o['ms']} ms" + (f", {o['speed']} of the speed of {o['beside']}" if o['beside'] else '')
            + (f" (95% interval {o['low']} to {o['high']})" if o['low'] else ''))
