"""What a step costs with all tricks but the teacher, beside a loop written by hand with none.

Both train the same model on the same batches, which lie ready. A block is some steps of each, and the one that begins changes from block to block; the answer is
the median of the blocks' ratios, with a 95% interval (a bootstrap of blocks). On a CPU it is of the process's own time, in which other work on the machine counts
little; the wall clock's ratio stands beside it. Adds a row to `bench/results/step.csv`, or replaces the one with the same setting.

    python bench/step.py                                             # xresnet18d, 32 px, batch 64, CPU
    python bench/step.py --fused                                     # the loop by hand with fused SGD, as our step is
    python bench/step.py --arch xresnet50d --size 224 --device cuda --half
"""
import csv, platform, random, statistics, time, torch, torch.nn.functional as F
from contextlib import nullcontext
from pathlib import Path
from fastcore.script import call_parse
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from bot.learner import bag_learner
from bot.models import get_model

class Ready:
    "A loader whose batches lie ready"
    def __init__(self, batches): self.batches,self.bs,self.dataset = batches,len(batches[0][0]),range(len(batches)*len(batches[0][0]))
    def __len__(self): return len(self.batches)
    def __iter__(self): return iter(self.batches)
    def one_batch(self): return self.batches[0]
    def to(self, device): self.device = device

class Stopwatch(Callback):
    "Seconds of each epoch's training"
    order = 100
    def before_fit(self): self.times = []
    def before_train(self): self.t = now(self.dls.device)
    def after_train(self): self.times.append(since(self.t, self.dls.device))

def now(device):
    "Seconds of the process, and of the wall clock"
    if torch.device(device).type!='cpu': torch.cuda.synchronize()
    return time.process_time(),time.perf_counter()

def since(t, device): return tuple(b-a for a,b in zip(t, now(device)))

def bare_steps(model, batches, opt, amp, scaler):
    "An epoch as anyone would write it"
    model.train()
    for x,y in batches:
        with amp: loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(opt), scaler.update(), opt.zero_grad()

def timed(f, device):
    t = now(device)
    f()
    return since(t, device)

def made(n, bs, size, device, half):
    "Batches of noise"
    fmt = torch.channels_last if half else torch.contiguous_format
    return [(torch.randn(bs, 3, size, size, device=device).contiguous(memory_format=fmt), torch.randint(0, 10, (bs,), device=device)) for _ in range(n)]

def bare(arch, batches, device, half, fused):
    "One epoch by hand, as a function"
    model = get_model(arch, 10).to(device, memory_format=torch.channels_last if half else torch.contiguous_format)
    opt = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=.9, nesterov=True, weight_decay=1e-4, fused=fused or None)
    amp = torch.autocast(device, torch.float16) if half else nullcontext()
    return lambda: bare_steps(model, batches, opt, amp, torch.amp.GradScaler(device, enabled=half))

def tricked(arch, batches, device, half):
    "One epoch with all tricks but the teacher, as a function"
    dls = DataLoaders(*[Ready(o) for o in (batches, batches[:1])], device=device)
    dls.vocab = list(range(10))
    learn = bag_learner(dls, 'mixup', but='distill', arch=arch, as_paper=True, fp16=half, lr=1e-3)
    if half: learn.to_channelslast()
    watch = Stopwatch()
    learn.add_cb(watch)
    def epoch():
        with learn.no_bar(), learn.no_logging(): learn.fit_rung(1)
        return watch.times[-1]
    return epoch

def in_turn(ours, theirs, blocks):
    "Times of each block of either, `(process, wall)`"
    res = []
    for i in range(blocks):
        a,b = (ours(),theirs()) if i%2 else (theirs(),ours())
        res.append((a,b) if i%2 else (b,a))
    return res

def columns(times, n, clock):
    "Milliseconds of a step of either and their ratio, by the process's time (0) or the wall clock's (1)"
    ours,bare = ([o[i][clock]/n*1000 for o in times] for i in (0,1))
    rng,ratios = random.Random(0),[a/b for a,b in zip(ours, bare)]
    cuts = statistics.quantiles([statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(4000)], n=40)
    names = [f"{('cpu','wall')[clock]}_{o}" for o in ('tricks_ms','bare_ms','ratio','ratio_low','ratio_high')]
    return dict(zip(names, [*(f'{statistics.median(o):.2f}' for o in (ours,bare)), *(f'{o:.4f}' for o in (statistics.median(ratios),cuts[0],cuts[-1]))]))

def save(row, f):
    "Put `row` into the CSV `f`, whose other rows stay if they have the same columns"
    key = 'arch','size','bs','device','half','bare_fused'
    old = list(csv.DictReader(f.open())) if f.exists() else []
    old = [o for o in old if list(o)==list(row) and any(o[k]!=str(row[k]) for k in key)]
    f.parent.mkdir(exist_ok=True)
    with f.open('w') as o:
        w = csv.DictWriter(o, row, lineterminator='\n')
        w.writeheader(), w.writerows([*old, row])

@call_parse
def main(
    arch:str='xresnet18d', # Model
    size:int=32, # Side of an image, in pixels
    bs:int=64, # Images in a batch
    n:int=16, # Steps in a block
    blocks:int=12, # Blocks of each
    device:str='cpu', # 'cpu' or 'cuda'
    half:bool=False, # float16, channels last
    fused:bool=False, # Fused SGD by hand too, as ours is? Unset, torch's default
    out:str=None # CSV to put a row into; unset, under bench/results
):
    "Ratio of a step with all tricks but the teacher to a bare one"
    batches = made(n, bs, size, device, half)
    ours,theirs = tricked(arch, batches, device, half),bare(arch, batches, device, half, fused)
    ours(), theirs()
    times = in_turn(ours, lambda: timed(theirs, device), blocks)
    name = torch.cuda.get_device_name() if device=='cuda' else f'{platform.machine()}, {torch.get_num_threads()} threads'
    row = dict(arch=arch, size=size, bs=bs, n=n, blocks=blocks, device=name, half=half, bare_fused=fused, torch=torch.__version__)
    row |= columns(times, n, 0) | columns(times, n, 1)
    save(row, Path(out or Path(__file__).parent/'results'/'step.csv'))
    print('\n'.join(f'{k}: {v}' for k,v in row.items()))
