"What the tests of several processes start: a run of the digits as one of `world` processes, and what it saw and became."
import os, sys, zlib
from pathlib import Path
import torch
from torch import nn

def env(rank, world, port): os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))

class Net(nn.Module):
    "A tiny net in float64, without batch norm"
    def __init__(self, seed=0, drop=0., norm=False, dtype=torch.double):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(), nn.Flatten(), nn.Dropout(drop), nn.Linear(8*36, 10)).to(dtype)
        self.dtype = dtype
    def forward(self, x): return self.body(x.as_subclass(torch.Tensor).to(self.dtype))

def crcs(x): return [zlib.crc32(o.contiguous().numpy().tobytes()) for o in x.detach().as_subclass(torch.Tensor)]

def seen_hook():
    from fastai.callback.core import Callback
    from bot.keys import Step
    class Rows(Callback):
        "Epoch, batch, place and hashes of each row that the model is given in training, and of the target it is judged by"
        order = 1
        def __init__(self): self.noted = {}
        def after_pred(self):
            if not self.training: return
            for place,x,y in zip(Step.now.rows, crcs(self.xb[0]), crcs(self.yb[0])): self.noted[Step.now.epoch,Step.now.batch,place] = x,y
    class Shown(Callback):
        "fastai smooths a loss of float32"
        order = 8
        def after_backward(self): self.learn.loss = self.loss.float()
    return [Rows(),Shown()]

def learner(device='cpu', reading='paper', but=(), bs=64, src='digits', model=None, bad='stop', metrics=None, **changes):
    from bot.all import bag_dls, bag_learner
    dls = bag_dls(src, size=32, bs=bs, device=device, num_workers=0, reading=reading, bad=bad, **{k:changes.pop(k) for k in ('valid_pct',) if k in changes})
    model = model or Net()
    kw = {} if 'distill' in but else dict(teacher=Net(1))
    learn = bag_learner(dls, 'mixup', but=but, arch=model, lr=.1, cbs=seen_hook(), **kw, **changes)
    if metrics: learn.metrics = metrics
    return learn

def outcome(learn):
    return dict(weights={k:v.clone() for k,v in learn.model.state_dict().items()}, rows=learn.rows.noted, losses=[float(o) for o in learn.recorder.losses],
        values=[list(map(float, o)) for o in learn.recorder.values])

def fit(out, epochs=2, preds=False, before=None, **kwargs):
    "Train, and leave what came of it"
    from bot.distributed import joined, ranks
    from bot.ranks import together
    from contextlib import nullcontext
    torch.set_num_threads(1)
    with joined('cpu') as device:
        learn = learner(device, **kwargs)
        if before: before(learn)
        with together(learn) if ranks()[1]>1 else nullcontext(), learn.no_bar(), learn.no_logging():
            learn.fit_rung(epochs)
            res = outcome(learn)
            more = dict(preds=learn.get_preds(), loss=learn.get_preds(with_loss=True)[2], tta=learn.tta(n=2)) if preds else {}
            dropped = [dict(o.dropped) for o in learn.dls.loaders]
        torch.save(res | more | dict(dropped=dropped), Path(out)/f'{ranks()[0]}.pt')

def start(rank, world, port, f, log, args, kwargs):
    "One of `world` processes, whose output goes to a file"
    env(rank, world, port)
    fd = os.open(f'{log}-{rank}', os.O_WRONLY|os.O_CREAT|os.O_APPEND)
    os.dup2(fd, 1), os.dup2(fd, 2)
    sys.stdout,sys.stderr = (open(i, 'w', buffering=1, closefd=False) for i in (1,2))
    res = f(*args, **kwargs)
    sys.stdout.flush()
    sys.exit(res if isinstance(res, int) else 0)
