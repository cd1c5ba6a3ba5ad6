"Speed of `bot.models` beside timm: same network, same weights, same run. Writes `bench/results/models.csv`; run as `python bench/models.py`"
import csv, platform, random, time
from pathlib import Path
from statistics import median

import timm, torch
from fastcore.script import call_parse

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

def interleaved(fs, repeats, device):
    "Times of the functions in turn, `repeats` rounds, shuffled in each; a round before them is warm-up"
    res,rng = {k:[] for k in fs},random.Random(0)
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

def rows_of(question, times, base, dev, note):
    "One row a model and job; `speed` is that of `base` divided by ours, round by round, in the median"
    for job,o in times.items():
        for k,t in o.items():
            yield dict(question=question, job=job, model=k, ms=round(1e3*median(t),2), ms_min=round(1e3*min(t),2), beside=base,
                speed=round(ratio(o[base], t),4), device=dev, note=note)

def against_timm(name, bs, size, repeats, device, fp16):
    "Two models of each side, as where its tensors lie can favour one by some percent; a side's time is the mean of its two"
    def theirs(): return timm.create_model(timm_name(name))
    models = {'timm 1':theirs(), 'ours 1':make_xresnet(name), 'ours 2':make_xresnet(name), 'timm 2':theirs()}
    weights = models['timm 1'].state_dict()
    for o in models.values(): load_weights(o, weights)
    note = f'batch {bs}, {size} px, '+('fp16 channels_last' if fp16 else 'float32')
    for job,o in compare(models, bs, size, repeats, device, fp16).items():
        sides = {k:[(p+q)/2 for p,q in zip(o[f'{k} 1'], o[f'{k} 2'])] for k in ('timm','ours')}
        yield from rows_of('as fast as timm', {job:dict(timm=sides['timm'], **{name:sides['ours']})}, 'timm', device_name(device), note)
        yield from [*rows_of('noise', {job:{k:o[k] for k in ('timm 1','timm 2')}}, 'timm 1', device_name(device), note)][1:]

def d_over_a(bs, size, repeats, device, fp16):
    "The paper: ResNet-50-D is 3% slower in training throughput"
    models = {k:make_xresnet(k) for k in ('xresnet50a','xresnet50b','xresnet50c','xresnet50d')}
    note = f'batch {bs}, {size} px, '+('fp16 channels_last' if fp16 else 'float32')
    yield from rows_of('cost of the variants', compare(models, bs, size, repeats, device, fp16), 'xresnet50a', device_name(device), note)

def conversion(repeats):
    "A state dict of timm's, renamed, checked and loaded"
    ref,m = timm.create_model('resnet152d').state_dict(),xresnet152d()
    t = interleaved(dict(load=lambda: load_weights(m, ref)), repeats, 'cpu')['load']
    yield dict(question='conversion under 2 s', job='rename, check and load', model='xresnet152d', ms=round(1e3*median(t),1), ms_min=round(1e3*min(t),1),
        beside='', speed='', device=device_name('cpu'), note='state dict in memory')

@call_parse
def main(
    bs:int=None, # Images in a batch; 8 on a CPU, 256 on a GPU
    size:int=224, # Side of an image
    repeats:int=9, # Rounds; each times all models once
    out:Path=here # CSV to write
):
    "Time the models against timm and each other"
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    fp16 = device=='cuda'
    bs = bs or (256 if fp16 else 8)
    rows = [*against_timm('xresnet50d', bs, size, repeats, device, fp16), *d_over_a(bs, size, repeats, device, fp16), *conversion(5)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open('w', newline='') as f:
        w = csv.DictWriter(f, list(rows[0]))
        w.writeheader()
        w.writerows(rows)
    for o in rows: print(*o.values(), sep='  ')
