"A setting is described once: every way in refuses what cannot work in the same words, and takes a number of any library"
import math, subprocess, sys
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from torch import nn, tensor
from bot.all import *
from bot.test_utils import learner

root = Path(__file__).parents[1]
nan,inf = math.nan,math.inf

@pytest.fixture(scope='module')
def dls(): return bag_dls('digits', num_workers=0, bs=16)

def ps(): return [nn.Parameter(torch.zeros(3))]

calls = {}
calls |= dict(recipe=lambda v: recipe('smooth', eps=v), block=lambda v: BagImageBlock(pca=v))
calls |= dict(normalize=lambda v: BagNormalize(pca=v), jitter=lambda v: BagNormalize(jitter=v))
calls |= dict(crop=lambda v: BagCrop(32, min_scale=v), flip=lambda v: BagCrop(32, flip=v))
calls |= dict(size=lambda v: BagCrop(v), mixup=lambda v: BagMixup(v))
calls |= dict(draw=lambda v: draw_pairs(4, v), nag_lr=lambda v: nag(ps(), v))
calls |= dict(nag_wd=lambda v: nag(ps(), .1, wd=v), loss=lambda v: BagLoss(v))
calls |= dict(smooth=lambda v: smooth_labels(tensor([0,1]), 3, v), distill=lambda v: distill_loss(tensor(1.), torch.zeros(2,3), torch.zeros(2,3), v))
calls |= dict(split=lambda v: find_source('digits', v), seed=lambda v: find_source('digits', seed=v))
calls |= dict(keyed=lambda v: KeyedDL(list(range(8)), seed=v), macs=lambda v: macs(xresnet18d(widen=.125), v))

@pytest.mark.parametrize('v', [nan, inf, -1], ids=str)
@pytest.mark.parametrize('k', calls)
def test_refused_everywhere(k, v):
    with pytest.raises(UsageError, match=f'={v}'): calls[k](v)

@pytest.mark.parametrize('k', ['eps', 'lr', 'wd', 'T', 'alpha', 'epochs', 'mom'])
@pytest.mark.parametrize('v', [nan, inf], ids=str)
def test_refused_by_a_learner(dls, k, v):
    with pytest.raises(UsageError, match=f'{k}={v}'): bag_learner(dls, **{k: v})

fits = [dict(n_epoch=nan), dict(n_epoch=1.5), dict(n_epoch=0), dict(n_epoch=1, lr=nan), dict(n_epoch=1, lr=-1), dict(n_epoch=1, lr='x')]

@pytest.mark.parametrize('kwargs', fits, ids=str)
def test_refused_by_a_fit(dls, kwargs):
    with pytest.raises(UsageError): bag_learner(dls, 'baseline', widen=1/16).fit_rung(**kwargs)

def test_words_and_other_libraries_numbers():
    assert BagLoss('0.1').eps==.1 and BagMixup(np.float32(.5)).alpha==.5 and BagCrop(np.int64(32)).size==32 and type(BagCrop(32.).size) is int
    assert logit_gap(10, '0.1')==logit_gap(10, .1) and find_source('digits', '0.2').n_train==1438
    assert macs(xresnet18d(widen=.125), np.int64(64))==macs(xresnet18d(widen=.125), 64.)
    for o in BagNormalize, partial(BagCrop, 32):
        with pytest.raises(UsageError, match='gluoncv'): o(reading='glouncv')

def test_what_the_loaders_have_is_compared_as_a_number(dls): assert bag_learner(dls, 'baseline', widen=1/16, bs='16').recipe['bs']==16

def test_a_norm_is_known_by_a_word_of_its_name():
    class EnormousHead(nn.Linear): pass
    class MyNorm2d(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2,2))
    learn = learner()
    learn.model = nn.Sequential(EnormousHead(4, 4), MyNorm2d(), nn.Linear(4, 3))
    learn.opt_func = partial(nag, decay_bias=False)
    learn.create_opt()
    assert decayed(learn.opt, learn.model)==['0.weight', '2.weight']

def test_a_reload_leaves_loaders_and_models_as_they_were():
    code = """
import importlib, bot.all
from bot.all import *
from fastai.vision.learner import model_meta
learn = bag_learner(bag_dls('digits', bs=16, num_workers=0), 'baseline', widen=1/16)
for o in ('loader','models','learner','learner'): importlib.reload(importlib.import_module('bot.'+o))
with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False, num_it=3)
bag_dls('digits', bs=16, num_workers=0).one_batch()
print(sum(getattr(k, '__module__', '')=='bot.models' for k in model_meta))"""
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=root, capture_output=True, text=True)
    assert out.stdout.split('\n')[-2:]==['28', ''], out.stdout+out.stderr
