"What the tests of several processes start: a run of the digits as one of `world` processes, and what it saw and became."
import os, sys, zlib
from pathlib import Path
import torch
from torch import nn

def env(rank, world, port): os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))

class Drop(nn.Module):
    "Dropout whose masks are kept"
    def __init__(self, p):
        super().__init__()
        self.p,self.masks = p,[]
    def forward(self, x):
        if not (self.p and self.training): return x
        self.masks.append(nn.functional.dropout(torch.ones_like(x), self.p)>0)
        return x*self.masks[-1]/(1-self.p)

class Net(nn.Module):
    "A tiny net in float64, without batch norm"
    def __init__(self, seed=0, drop=0., norm=False, dtype=torch.double, n=10):
        super().__init__()
        torch.manual_seed(seed)
        norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.body = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Flatten(), Drop(drop), nn.Linear(8*36, n)).to(dtype)
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
    rec,weights = learn.recorder,{k:v.clone() for k,v in learn.model.state_dict().items()}
    return dict(weights=weights, rows=learn.rows.noted, losses=[float(o) for o in rec.losses], lrs=list(rec.lrs),
        values=[list(map(float, o)) for o in rec.values], masks=[o for m in learn.model.modules() for o in getattr(m, 'masks', ())])

def net_of(norm=False, drop=0., src='digits'): return Net(norm=norm, drop=drop, dtype=torch.float if norm else torch.double, n=10 if src=='digits' else 3)

def fit(out, epochs=2, preds=False, before=None, norm=False, drop=0., **kwargs):
    "Train, and leave what came of it"
    from bot.distributed import joined, ranks
    from bot.ranks import in_ranks
    from contextlib import nullcontext
    torch.set_num_threads(1)
    with joined('cpu') as device:
        learn = learner(device, model=net_of(norm, drop, kwargs.get('src', 'digits')), **kwargs)
        if before: before(learn)
        with in_ranks(learn) if ranks()[1]>1 else nullcontext(), learn.no_bar(), learn.no_logging():
            learn.fit_rung(epochs)
            res = outcome(learn)
            more = dict(preds=learn.get_preds(), loss=learn.get_preds(with_loss=True)[2], tta=learn.tta(n=2)) if preds else {}
            dropped = [dict(o.dropped) for o in learn.dls.loaders]
        torch.save(res | more | dict(dropped=dropped), Path(out)/f'{ranks()[0]}.pt')

def start(rank, world, port, f, log, args, kwargs, agent=True):
    "One of `world` processes, whose output goes to a file"
    env(rank, world, port)
    if agent: os.environ['TORCHELASTIC_USE_AGENT_STORE'] = 'True'
    fd = os.open(f'{log}-{rank}', os.O_WRONLY|os.O_CREAT|os.O_APPEND)
    os.dup2(fd, 1), os.dup2(fd, 2)
    sys.stdout,sys.stderr = (open(i, 'w', buffering=1, closefd=False) for i in (1,2))
    res = f(*args, **kwargs)
    sys.stdout.flush()
    sys.exit(res if isinstance(res, int) else 0)

# ---- runs that are disturbed

def recorded_fit(out, path, epochs=2, signal_at=None, who=0, plain=False, norm=False, **kwargs):
    "Train in a run folder, which a script may name in `fit_rung`; process `who` gets SIGUSR1 at a step"
    import signal
    from fastai.callback.core import Callback
    from bot.core import SavedOnRequest
    from bot.distributed import joined, ranks
    from bot.ranks import heeding, in_ranks, recorded_together
    torch.set_num_threads(1)
    class Hit(Callback):
        def after_pred(self):
            if self.training and self.train_iter==signal_at and ranks()[0]==who: os.kill(os.getpid(), signal.SIGUSR1)
    with joined('cpu') as device:
        learn = learner(device, model=net_of(norm, 0., kwargs.get('src', 'digits')), **kwargs)
        try:
            with in_ranks(learn) if plain else recorded_together(learn, path), heeding(learn), learn.no_bar(), learn.no_logging():
                learn.fit_rung(epochs, cbs=Hit(), **(dict(resume=path) if plain else {}))
        except SavedOnRequest: print('saved', learn.train_iter)
        torch.save(outcome(learn), Path(out)/f'{ranks()[0]}.pt')

def disturbed(out, what, **kwargs):
    "`fit` with something done to the learner"
    return fit(out, before=globals()[what], **kwargs)

def _hook(learn, order=20, **events):
    from fastai.callback.core import Callback
    cb = Callback(**events)
    cb.order = order
    learn.add_cb(cb)

def nothing(learn): pass

def nan_on_1(learn):
    from bot.distributed import ranks
    def f(self):
        if self.training and self.train_iter==3 and ranks()[0]==1: self.learn.loss_grad = self.learn.loss = self.loss_grad*float('nan')
    _hook(learn, order=5, after_loss=f)

def apart_on_1(learn):
    from bot.distributed import ranks
    def f(self):
        if self.training and self.train_iter==3 and ranks()[0]==1: self.model.module.body[1].weight.data[0] += 1e-6
    _hook(learn, after_batch=f)

def thaw_later(learn):
    "A hook that lets the first layer learn from the second epoch on"
    def f(self): learn.model.body[1].requires_grad_(self.epoch>0) if hasattr(learn.model, 'body') else learn.model.module.body[1].requires_grad_(self.epoch>0)
    _hook(learn, order=-20, before_train=f)

def die_on_1(learn):
    import signal
    from bot.distributed import ranks
    def f(self):
        if self.training and self.train_iter==3 and ranks()[0]==1: os.kill(os.getpid(), signal.SIGKILL)
    _hook(learn, after_pred=f)

def disturb(out, what, **kwargs):
    "As a command: the error in words, and its code"
    from bot.call import run_args
    return run_args(dict(out=out, what=what, **kwargs), disturbed, 'job')

def command(argv, timeout=None):
    "`bot-train argv`"
    if timeout: os.environ['BOT_RANK_TIMEOUT'] = str(timeout)
    torch.set_num_threads(1)
    from bot.cli import main
    return main(argv)

def command_each(argvs, timeout=None): return command(argvs[int(os.environ['RANK'])], timeout)

# ---- the same shares and averages, computed by one process

def shares_by_hand(out, lrs, bn_stats=None, **kwargs):
    "What two processes in float32 compute, with batch norm of their own, in a plain loop"
    import copy
    torch.set_num_threads(1)
    learn = learner(but='distill', alpha=0., model=net_of(True, 0., kwargs.get('src', 'digits')), **kwargs)
    learn.create_opt()
    learn.opt.set_hypers(mom=learn.recipe['mom'], wd=learn.recipe['wd'])
    models,loaders = [learn.model,copy.deepcopy(learn.model)],[copy.deepcopy(learn.dls.train) for _ in range(2)]
    for r,dl in enumerate(loaders): dl.rank,dl.world = r,2
    for epoch in range(2):
        for t,bs in enumerate(zip(*loaders), len(lrs)//2*epoch):
            for m,(x,y) in zip(models, bs): learn.loss_func(m.train()(x), y).backward()
            for p,q in zip(*(o.parameters() for o in models)): p.grad,q.grad = p.grad/2+q.grad/2,None
            learn.opt.set_hypers(lr=float(lrs[t]))
            learn.opt.step(), learn.opt.zero_grad()
            for p,q in zip(*(o.parameters() for o in models)): q.data.copy_(p.data)
        for p,q in zip(*(o.buffers() for o in models)):
            if bn_stats=='mean' and p.is_floating_point(): p.data.copy_((p.data+q.data)/2)
            q.data.copy_(p.data)
    torch.save(models[0].state_dict(), Path(out)/'hand.pt')
