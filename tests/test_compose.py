"What people do with fastai around a learner: change its data, look, freeze, compile, augment at test time, use other metrics, models and targets"
import pytest, torch
from torch import nn
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from bot.all import *

def quiet(learn, f, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return f(*args, **kwargs)

def fit(learn, n=1, **kwargs): return quiet(learn, learn.fit, n, **kwargs) or learn

def digits(**kwargs): return bag_dls('digits', **(dict(bs=64, num_workers=0, device='cpu')|kwargs))

def small(dls, rung='baseline', **kwargs): return bag_learner(dls, rung, **(dict(arch='xresnet18d', widen=1/16)|kwargs))

# ---- views

def test_views_of_tta():
    "n different views, the same again; training goes on where it was"
    learn = small(digits())
    learn.dls.train.at(3)
    seen = []
    learn.model.register_forward_hook(lambda m, args, out: seen.append(args[0].clone()))
    def tta(n): return quiet(learn, learn.tta, n=n, beta=None)[0][0]
    one,four,again = tta(1),tta(4),tta(4)
    assert torch.equal(four, again) and not torch.allclose(one, four)
    steps = len(seen)//(2+5+5)
    views = [seen[steps*(2+i)] for i in range(4)]
    assert all(not torch.equal(a, b) for i,a in enumerate(views) for b in views[:i]) and torch.equal(seen[0], views[0])
    assert learn.dls.train.epoch==3
    a = learn.dls.train.at(3)
    x = next(iter(a))[0]
    a.at(3)
    quiet(learn, learn.tta, ds_idx=0, n=2)
    assert a.epoch==3 and torch.equal(next(iter(a))[0], x)

# ---- changes in place

def crop_of(dl): return next(o for o in dl.after_item.fs if hasattr(o, 'min_scale'))

def first(dl): return next(iter(dl))[0].shape[-1]

@pytest.mark.parametrize('workers', [0, 1])
def test_a_change_in_place_reaches_the_workers(workers):
    dls = digits(num_workers=workers, size=32)
    dl = dls.valid
    pool = lambda: dl.torch_dl and dl.torch_dl._iterator
    assert first(dl)==32
    list(dl)
    old = pool()
    list(dl)
    assert pool() is old   # the same workers while nothing changes
    crop_of(dl).size = 48
    assert first(dl)==48
    items = dl.dataset.tls[0].items
    a = torch.cat([b[0] for b in dl])
    items[0],items[1] = items[1],items[0]
    b = torch.cat([b[0] for b in dl])
    assert torch.equal(a[0], b[1]) and torch.equal(a[1], b[0]) and torch.equal(a[2:], b[2:])
    dl.dataset = dls.train_ds
    assert not torch.equal(next(iter(dl))[0][0], b[0])

def test_looking_changes_no_policy(tmp_path):
    "`show_batch(unique=True)` leaves neither its order nor a stop at bad images"
    dls = digits()
    for _ in range(2): dls.show_batch(unique=True, max_n=2, show=False), dls.show_batch(unique=True, max_n=2)
    assert 'get_idxs' not in vars(dls.train) and len({o for o in dls.train.get_idxs()})==len(dls.train_ds)
