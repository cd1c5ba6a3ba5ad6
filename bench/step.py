"""What a step costs with all tricks but the teacher, beside a loop written by hand with none.

Both train the same model on the same batches, which lie ready; blocks of steps take turns, and the answer is the median of the blocks' ratios.

    python bench/step.py                                             # xresnet18d, 32 px, batch 64, CPU
    python bench/step.py --arch xresnet50d --size 224 --device cuda --half
"""
import csv, platform, statistics, time, torch, torch.nn.functional as F
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
    def after_train(self): self.times.append(now(self.dls.device)-self.t)

def now(device):
    if torch.device(device).type=='cuda': torch.cuda.synchronize()
    return time.perf_counter()

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
    return now(device)-t

def made(n, bs, size, device, half):
    "Batches of noise"
    fmt = torch.channels_last if half else torch.contiguous_format
    return [(torch.randn(bs, 3, size, size, device=device).contiguous(memory_format=fmt), torch.randint(0, 10, (bs,), device=device)) for _ in range(n)]

def bare(arch, batches, device, half):
    "One epoch by hand, as a function"
    model = get_model(arch, 10).to(device, memory_format=torch.channels_last if half else torch.contiguous_format)
    opt = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=.9, nesterov=True, weight_decay=1e-4)
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

@call_parse
def main(
    arch:str='xresnet18d', # Model
    size:int=32, # Side of an image, in pixels
    bs:int=64, # Images in a batch
    n:int=10, # Steps in a block
    blocks:int=9, # Blocks of each
    device:str='cpu', # 'cpu' or 'cuda'
    half:bool=False, # float16, channels last
    out:str=None # CSV to add a line to; unset, under bench/results
):
    "Ratio of a step with all tricks but the teacher to a bare one"
    batches = made(n, bs, size, device, half)
    ours,theirs = tricked(arch, batches, device, half),bare(arch, batches, device, half)
    ours(), theirs()
    times = [(ours()/n,timed(theirs, device)/n) for _ in range(blocks)]
    ratio = statistics.median(a/b for a,b in times)
    name = torch.cuda.get_device_name() if device=='cuda' else f'{platform.machine()}, {torch.get_num_threads()} threads'
    a,b = (statistics.median(o)*1000 for o in zip(*times))
    row = dict(arch=arch, size=size, bs=bs, device=name, half=half, torch=torch.__version__, tricks_ms=f'{a:.2f}', bare_ms=f'{b:.2f}', ratio=f'{ratio:.4f}')
    f = Path(out or Path(__file__).parent/'results'/'step.csv')
    f.parent.mkdir(exist_ok=True)
    new = not f.exists()
    with f.open('a') as o:
        w = csv.DictWriter(o, row)
        if new: w.writeheader()
        w.writerow(row)
    print('\n'.join(f'{k}: {v}' for k,v in row.items()))
