"torchvision's published command and code, against the second ladder: each setting, each transform with equal draws, the mean of the weights step by step, and runs that are cut"
import copy, math, os, random, subprocess, sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
import safetensors.torch as safetensors
from PIL import Image
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR, StepLR
from torch.optim.swa_utils import AveragedModel
from torchvision.models import resnet50
from torchvision.transforms import v2
from fastai.callback.core import Callback
from fastai.metrics import accuracy, Perplexity
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.data.transforms import ToTensor
from fastai.learner import Learner, load_learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropyFlat, MSELossFlat
from fastai.torch_core import TensorImage
from bot import block
from bot.augment import paper_cfg, random_box, torchvision_norm
from bot.block import BagCrop, BagImageBlock, BagNormalize, EncodedImage, bag_dls
from bot.core import UsageError
from bot.cutmix import BagCutMix, BagMixOrCut, draw_cut, paste
from bot.files import run_file
from bot.ladder import ladder_of, ladders, Recipe, recipe, rows_of, tricks_of
from bot.learner import bag_learner, decay_of, fit_recipe, mixing
from bot.loader import KeyedDL, repeated
from bot.losses import BagLoss
from bot.keys import Step
from bot.mixup import BagMixup, draw_pairs, mix, partners
from bot.models import xresnet18b, xresnet50b
from bot.optimizer import decayed, scale_lr
from bot.average import averaged_model, BagEMA, kept_share, theirs
from bot.predict import predict
from bot.prepared import crop_of
from bot.resume import recorded
from bot.runs import load_run, save_weights
from bot.ranges import read_sizes
from bot.schedule import lr_schedule
from bot.sizes import BagSizes, size_at
from bot.settle import cell_words, copy_words, drop_epochs, fit_to, unused, update_every, warmup_epochs
from bot.state import read_state
from bot.trivial import BagErase, BagTrivial
from bot.test_utils import fit, learner, points
from pictures import lay_colors
from test_resume import assert_same_run, finish, kill_and_go_on, plain_rows, rows

# ---- the published command, of the blog that has the numbers, for 8 processes

command = '''--batch-size 128 --lr 0.5 --lr-scheduler cosineannealinglr --lr-warmup-epochs 5 --lr-warmup-method linear --auto-augment ta_wide --epochs 600 --random-erase 0.1
--weight-decay 0.00002 --norm-weight-decay 0.0 --label-smoothing 0.1 --mixup-alpha 0.2 --cutmix-alpha 1.0 --train-crop-size 176 --model-ema --val-resize-size 232 --ra-sampler --ra-reps 4'''
usual = dict(momentum=.9, val_crop_size=224, lr_warmup_decay=.01, model_ema_steps=32, model_ema_decay=.99998, lr_step_size=30, lr_gamma=.1)   # of its parser

@lru_cache
def asked():
    words = ' '.join(command.split()).split('--')[1:]
    return {o.split()[0].replace('-', '_'): o.split()[1] if len(o.split())>1 else True for o in words} | usual

said = dict(bs=lambda a: int(a['batch_size'])*8, lr=lambda a: float(a['lr']), sched=lambda a: a['lr_scheduler'].removesuffix('annealinglr'), warmup=lambda a: int(a['lr_warmup_epochs']),
    trivial=lambda a: a['auto_augment']=='ta_wide', epochs=lambda a: int(a['epochs']), erase=lambda a: float(a['random_erase']), wd=lambda a: float(a['weight_decay']),
    decay=lambda a: 'not_norms' if float(a['norm_weight_decay'])==0 else 'all', eps=lambda a: float(a['label_smoothing']), alpha=lambda a: float(a['mixup_alpha']),
    cutmix=lambda a: float(a['cutmix_alpha']), size=lambda a: int(a['train_crop_size']), valid_size=lambda a: a['val_crop_size'], valid_edge=lambda a: int(a['val_resize_size']),
    repeats=lambda a: int(a['ra_reps']), mom=lambda a: a['momentum'], ema_steps=lambda a: a['model_ema_steps'], nesterov=lambda a: 'nesterov' in a, flip=lambda a: .5,
    ema=lambda a: pytest.approx((1-a['model_ema_decay'])*1_281_167, rel=1e-3), jitter=lambda a: 0.,
    pca=lambda a: 0., min_scale=lambda a: .08, zero_gamma=lambda a: False, fp16=lambda a: 'amp' in a)

@pytest.mark.parametrize('k', said)
def test_the_last_rung_is_the_published_command(k): assert recipe('repeat')[k]==said[k](asked())

def test_nothing_else_is_set():
    rest = set(recipe('repeat'))-set(said)
    assert rest=={'arch','widen','pretrained','drops','decay_bias','init','teacher','T','mixup_off','freeze','layer_decay'}
    assert recipe('repeat')['arch']=='xresnet50b' and recipe('repeat')['teacher'] is None and recipe('repeat')['mixup_off']==0

published = dict(baseline=76.130, rates=76.494, trivial=76.806, long=78.606, erase=78.796, smooth=79.114, mixup=79.232, cutmix=79.510,
    decay=80.036, fixres=80.196, ema=80.450, resize=80.674, repeat=80.858)

def test_numbers_and_sources():
    assert {k:o.top1 for k,o in ladders['torchvision'].items()}==published
    for i,o in enumerate(ladders['torchvision'].values()): assert o.table==f'row {i}' and o.source.startswith('https://pytorch.org/blog/how-to-train') and o.page and o.title
    assert all(o.source.endswith('1812.01187') for o in ladders['paper'].values())

# what the blog says of each step, over the one before
each = dict(rates=dict(bs=1024, lr=.5, sched='cosine', warmup=5), trivial=dict(trivial=True), long=dict(epochs=600), erase=dict(erase=.1), smooth=dict(eps=.1),
    mixup=dict(alpha=.2), cutmix=dict(cutmix=1.), decay=dict(wd=2e-5, decay='not_norms'), fixres=dict(size=176, valid_size=224), ema=dict(ema=25.62, ema_steps=32),
    resize=dict(valid_edge=232), repeat=dict(repeats=4))

@pytest.mark.parametrize('row', each)
def test_a_row_changes_what_the_blog_says(row):
    before,after = (recipe(o, ladder='torchvision') for o in ([*published][[*published].index(row)-1],row))
    assert {k:v for k,v in after.items() if before.get(k)!=v}==each[row] and set(before)<=set(after)

def test_the_baseline():
    r = recipe('baseline', ladder='torchvision')
    assert (r['bs'],r['epochs'],drop_epochs(r, 90),r['wd'],decay_of(r),r['size'],r['sched'])==(256,90,(30,60),1e-4,'all',224,'step') and scale_lr(r['bs'])==.1 and 'lr' not in r
    assert decay_of(recipe('ema', decay_bias=False))=='weights' and decay_of(recipe('ema'))=='not_norms' and decay_of(recipe('smooth'))=='weights'

def test_names():
    assert recipe('ema').reading==recipe('torchvision.smooth').reading=='torchvision' and recipe('smooth').reading==recipe('modern').reading=='paper'
    assert recipe('smooth', ladder='torchvision').rung=='torchvision.smooth' and ladder_of('smooth')[0]=='paper' and ladder_of('cutmix')==('torchvision','cutmix')
    assert tricks_of(recipe('ema', but='trivial'))==[o for o in published if o not in ('trivial','resize','repeat')]
    assert [o for o in ladders['paper'] if o!='distill']==[o for o in rows_of('modern') if o in ladders['paper']] and recipe('modern')['teacher'] is None
    assert ladders['more']['modern'].near=='A1 80.38, D 80.73, ra4 80.956' and '80.956' in ladders['more']._repr_html_()
    with pytest.raises(UsageError, match="'cutmix'"): recipe('cutmx')
    with pytest.raises(UsageError, match='trick to leave out'): recipe('ema', but='distill')

# ---- their code

def test_the_size_and_place_of_a_crop(monkeypatch):
    "RandomResizedCrop's boxes, from its own draws"
    monkeypatch.setattr(random, 'uniform', lambda a, b: torch.empty(1).uniform_(a, b).item())
    monkeypatch.setattr(random, 'randint', lambda a, b: torch.randint(a, b+1, (1,)).item())
    tv = v2.RandomResizedCrop(176)
    for i in range(300):
        h,w = [(375,500),(500,333),(100,2000),(2000,90)][i%4]
        torch.manual_seed(i)
        o = tv.make_params([torch.empty(3, h, w, device='meta')])
        torch.manual_seed(i)
        assert random_box(h, w, 176, reading='torchvision')==(o['top'],o['left'],o['height'],o['width'])

def test_validation_is_their_preset():
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (375,500,3), dtype=np.uint8).repeat(2, 0).repeat(2, 1))
    preset = v2.Compose([v2.PILToTensor(), v2.Resize(232, antialias=True), v2.CenterCrop(224), v2.ToDtype(torch.float, scale=True),
        v2.Normalize((.485,.456,.406), (.229,.224,.225))])
    crop,norm = BagCrop(176, reading='torchvision', valid_size=224, valid_edge=232),BagNormalize('torchvision', 0., 0.)
    ours = norm(crop(EncodedImage.create(im), split_idx=1)[None], split_idx=1)[0]
    assert (ours-preset(im)).abs().max()<.02   # a step of a byte
    assert [o/255 for o in torchvision_norm['std']]==pytest.approx([.229,.224,.225])

def test_erasing_is_the_last_step():
    x = torch.randint(0, 256, (32,3,40,40), dtype=torch.uint8)
    torch.manual_seed(3)
    ours = BagNormalize('torchvision', 0., 0., erase=.5)(TensorImage(x), split_idx=0)
    torch.manual_seed(3)
    norm,one = BagNormalize('torchvision', 0., 0.),v2.RandomErasing(.5)
    assert torch.equal(torch.Tensor(ours), torch.stack([one(o) for o in torch.Tensor(norm(TensorImage(x), split_idx=0))]))

def ra_sampler(order, repetitions, world, rank):
    "RASampler of their references/classification/sampler.py, from an order"
    n = len(order)
    num_samples = int(math.ceil(n*float(repetitions)/world))
    indices = [o for o in order for _ in range(repetitions)]
    indices += indices[:num_samples*world-len(indices)]
    return indices[rank:num_samples*world:world][:n//256*256//world]

def test_a_batch_has_the_views_of_their_sampler():
    order,bs,world = torch.randperm(1000).tolist(),64,8
    ours = repeated(order, 4)
    ranks = [ra_sampler(order, 4, world, r) for r in range(world)]
    for b in range(1000//256*256//bs):
        each = bs//world
        assert sorted(ours[b*bs:(b+1)*bs])==sorted(o for r in ranks for o in r[b*each:(b+1)*each])
    assert len(ours)==1000 and len(set(ours))==250

def repeats_of(photos, rank=0, world=1, bs=16, **kw):
    "Items of each batch of an epoch with four repeats, and the images, as a process has them"
    dl = bag_dls(photos, size=32, bs=bs, device='cpu', jitter=0, pca=0, seed=3, repeats=4, reading='torchvision', num_workers=0, **kw).train
    dl.rank,dl.world = rank,world
    return [([Step.now.items[i] for i in Step.now.rows], torch.Tensor(x)) for x,_ in dl]

@pytest.mark.parametrize('bs', [16,18])
def test_no_image_is_its_own_partner(photos, bs):
    "As in theirs, where eight processes have different images; each of the four views of an image is another"
    for items,x in repeats_of(photos, bs=bs):
        partner = partners(len(items), 'torchvision').tolist()
        assert all(items[i]!=items[j] for i,j in enumerate(partner)) and len(set(items))<=bs/4+1
        assert all(not torch.equal(x[i], x[j]) for i,a in enumerate(items) for j,b in enumerate(items) if a==b and i<j)

def test_four_processes_have_four_views(photos):
    "Each process has an image once, and all together have what one would have"
    whole,ranks = repeats_of(photos),[repeats_of(photos, r, 4) for r in range(4)]
    assert len(whole)==len(ranks[0])==96//16
    for b,(items,x) in enumerate(whole):
        assert torch.equal(torch.cat([o[b][1] for o in ranks]), x) and [k for o in ranks for k in o[b][0]]==items
        assert all(len(set(o[b][0]))==len(o[b][0])==4 for o in ranks)

@pytest.mark.parametrize('hw', [(40,40), (31,52)])
def test_pasting_and_blending(hw):
    "CutMix and mixup of a batch and its labels, from their own draws"
    x,y,k = torch.randn(8, 3, *hw),torch.arange(8)%5,5
    one_hot,corrected = nn.functional.one_hot(y, k).float(),set()
    for seed in range(60):
        def drawn(f): return (torch.manual_seed(seed), f())[1]
        tx,ty = drawn(lambda: v2.CutMix(num_classes=k)(x, y))
        lam,partner,box = drawn(lambda: draw_cut(8, *hw, 1., 'torchvision'))
        assert torch.equal(tx, paste(x, partner, box)) and torch.allclose(ty, mix(one_hot, lam, partner))
        plain = drawn(lambda: torch.distributions.Beta(torch.tensor([1.]), torch.tensor([1.])).sample(()))
        corrected.add(abs(float(lam)-float(plain))>.01)
        tx,ty = drawn(lambda: v2.MixUp(alpha=.2, num_classes=k)(x, y))
        lam,partner = drawn(lambda: draw_pairs(8, .2, 'torchvision'))
        assert torch.allclose(tx, mix(x, lam, partner), atol=1e-6) and torch.allclose(ty, mix(one_hot, lam, partner), atol=1e-6)
    assert corrected=={True,False}   # boxes that were cut off, and whole ones

class Flat(nn.Module):
    "What it is given, and a logit for each of three classes"
    def __init__(self):
        super().__init__()
        self.out,self.given = nn.Linear(3*8*8, 3),[]
    def forward(self, x):
        self.given.append(x.clone())
        return self.out(x.flatten(1)/64)

def of_one_value(bs=8):
    "Image i has the value i, and three yes or no"
    items = [(torch.full((3,8,8), float(i)), torch.tensor([1., i%2, float(i%3==0)])) for i in range(4*bs)]
    return items,DataLoaders(*[DataLoader(items, bs=bs)]*2)

class Targets(Callback):
    order,run_valid = 1,False
    def before_fit(self): self.kept = []
    def after_pred(self): self.kept.append((self.xb[0].clone(), self.y.clone()))

@pytest.mark.parametrize('hook', [BagCutMix, BagMixOrCut])
def test_several_labels(hook):
    "Each label has as much of each image as the picture"
    items,dls = of_one_value()
    learn = Learner(dls, Flat(), BCEWithLogitsLossFlat(), lr=.1, cbs=[hook(reading='torchvision'), Targets()])
    with learn.no_bar(): learn.fit(3)
    mixed = 0
    for b,(x,y) in enumerate(learn.targets.kept):
        for i in range(8):
            own,other = (items[b%4*8+j] for j in (i,(i-1)%8))
            share = float((x[i].mean()-other[0].mean())/(own[0].mean()-other[0].mean()))
            assert torch.allclose(y[i], share*own[1]+(1-share)*other[1], atol=1e-4)
            mixed += 0<share<1
    assert mixed>12

def test_a_teacher_sees_the_pasted_picture():
    _,dls = of_one_value()
    learn = Learner(dls, Flat(), BCEWithLogitsLossFlat(), lr=.1, cbs=[BagCutMix(reading='torchvision'), Targets()])
    learn.loss_func,teacher = BagLoss(.1, 'torchvision'),Flat()
    learn.dls.train.dataset = learn.dls.valid.dataset = [(x, int(y[1])) for x,y in learn.dls.train.dataset]
    learn.distill(teacher)
    with learn.no_bar(): learn.fit(1)
    seen = [o for o in teacher.given if len(o)==8][-4:]
    assert all(torch.equal(a, b[0]) for a,b in zip(seen, learn.targets.kept)) and any(o[0].unique().numel()==2 for o in seen)

def test_smoothing_is_that_of_their_loss():
    "Of classes and of mixed targets"
    z,y = torch.randn(8, 5),torch.arange(8)%5
    theirs_,ours = nn.CrossEntropyLoss(label_smoothing=.1),BagLoss(.1, 'torchvision')
    q = mix(nn.functional.one_hot(y, 5).float(), torch.tensor([.3]), partners(8, 'torchvision'))
    for t in y,q: assert float(ours(z, t))==pytest.approx(float(theirs_(z, t)), rel=1e-6)

@pytest.mark.parametrize('rung', ['torchvision.baseline','rates','ema'])
def test_steps_are_those_of_their_optimizer(photos, rung):
    "Plain momentum; norms without decay from row `decay` on"
    dls = bag_dls(photos, size=32, bs=16, num_workers=0, device='cpu', reading='torchvision', jitter=0, pca=0)
    learn = bag_learner(dls, rung, arch='xresnet18b', widen=1/16)
    other,r = copy.deepcopy(learn.model),learn.recipe
    norms = {id(p) for m in other.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    parts = [[p for p in other.parameters() if (id(p) in norms)==o] for o in (False,True)]
    sgd = torch.optim.SGD([dict(params=parts[0]), dict(params=parts[1], weight_decay=0. if rung=='ema' else r['wd'])], lr=.1, momentum=.9, weight_decay=r['wd'])
    learn.create_opt()
    learn.opt.set_hypers(lr=.1, mom=r['mom'], wd=r['wd'])
    for _ in range(3):
        for p,q in zip(learn.model.parameters(), other.parameters()): p.grad,q.grad = (g := torch.randn_like(p)),g.clone()
        learn.opt.step(), sgd.step()
    assert all(torch.allclose(p, q, atol=1e-6) for p,q in zip(learn.model.parameters(), other.parameters()))

@pytest.mark.parametrize('n_epoch,warmup,drops', [(12,3,None), (20,0,None), (9,0,(3,6))])
def test_rates_are_those_of_their_schedulers(n_epoch, warmup, drops):
    "One for each epoch, as torch's own schedulers have them that their program steps there"
    n_iter,lr = 7,.5
    f = lr_schedule(lr, n_epoch, n_iter, 'step' if drops else 'cosine', warmup, drops or (), 'torchvision')
    ours = [f(i/(n_epoch*n_iter)) for i in range(n_epoch*n_iter)]
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    main = StepLR(opt, 3) if drops else CosineAnnealingLR(opt, n_epoch-warmup)
    if warmup: main = SequentialLR(opt, [LinearLR(opt, start_factor=.01, total_iters=warmup), main], [warmup])
    for e in range(n_epoch):
        assert ours[e*n_iter:(e+1)*n_iter]==pytest.approx([opt.param_groups[0]['lr']]*n_iter, abs=1e-7)
        opt.step(), main.step()

def test_a_flip_turns_from_epoch_to_epoch(photos):
    "On any number of workers; half of the images begin with either side, and a repeated view is turned too"
    kw = dict(size=32, bs=16, reading='torchvision', device='cpu', jitter=0, pca=0, min_scale=1., turns=True, seed=3)
    def views(n, **more):
        dls,res = bag_dls(photos, num_workers=n, **kw, **more),[]
        for _ in range(3):
            seen = {}
            for i,(x,_) in zip(range(10**6), dls.train):
                for at,im in zip(Step.now.items, x): seen.setdefault(at, []).append(torch.Tensor(im))
            res.append(seen)
        return res
    a,b,c = views(0)
    assert len(a)==96 and all(torch.equal(a[k][0], b[k][0].flip(-1)) and torch.equal(a[k][0], c[k][0]) for k in a)
    asym = [k for k in a if not torch.equal(a[k][0], a[k][0].flip(-1))]
    assert all(torch.equal(o[0], w[k][0]) for e,w in zip((a,b,c), views(2)) for k,o in e.items()) and len(asym)>40
    for seen in views(0, repeats=2): assert all(torch.equal(o[0], o[1].flip(-1)) for o in seen.values()) and len(seen)==48

def test_the_size_of_an_epoch():
    sizes = read_sizes('128:0,160:.5,192:.8')
    assert [size_at(sizes, e, 10) for e in range(10)]==[128]*5+[160]*3+[192]*2
    assert [size_at(sizes, e, 600) for e in (299,300,479,480)]==[128,160,160,192]

def test_trivial_is_drawn_for_each_item(photos, monkeypatch):
    "As in their preset it sees the crop, flipped or not, that would be the image without it"
    def batch(**kw): return torch.Tensor(bag_dls(photos, size=32, bs=16, num_workers=0, device='cpu', jitter=0, pca=0, seed=3, **kw).train.one_batch()[0])
    a,b,seen = batch(),batch(trivial=True),[]
    assert (a!=b).flatten(1).any(1).any() and torch.equal(b, batch(trivial=True))
    def note(x):
        seen.append(torch.as_tensor(np.array(x)))
        return x
    monkeypatch.setattr(block, 'trivial_augment', note)
    assert torch.equal(a, batch(trivial=True)) and all(o.shape[-2:]==(32,32) for o in seen)
    norm = BagNormalize('paper', 0., 0.)(TensorImage(torch.stack(seen[-16:])), split_idx=0)
    assert torch.equal(torch.Tensor(norm), a) and len({bool(o) for o in (norm==norm.flip(-1)).flatten(1).all(1)})==1

def test_what_decays():
    m,tv = xresnet50b(n_out=10, widen=.125),resnet50(num_classes=10)
    dls = SimpleNamespace()
    from fastai.learner import Learner
    from bot.optimizer import nag
    from bot.test_utils import points
    from functools import partial
    got = {}
    for name,net in dict(ours=m, theirs=tv).items():
        learn = Learner(points(), net, nn.CrossEntropyLoss(), opt_func=partial(nag, decay='not_norms', nesterov=False))
        learn.create_opt()
        got[name] = decayed(learn.opt, net)
        norms = {f'{k}.{p}' for k,o in net.named_modules() if isinstance(o, nn.modules.batchnorm._BatchNorm) for p in ('weight','bias')}
        assert set(got[name])=={k for k,_ in net.named_parameters()}-norms and any(o.endswith('bias') for o in got[name])
        assert not learn.opt.nesterov

def test_mixing_by_the_row():
    kinds = {o: type(mixing(recipe(o, ladder='torchvision'))).__name__ for o in published}
    assert kinds['smooth']=='NoneType' and kinds['mixup']=='BagMixup' and kinds['cutmix']==kinds['repeat']=='BagMixOrCut'
    assert type(mixing(recipe('smooth', cutmix=1.))) is BagCutMix

@pytest.fixture(scope='module')
def photos(tmp_path_factory): return lay_colors(tmp_path_factory.mktemp('photos'), train=32, valid=8)

@pytest.fixture(scope='module')
def dls(photos): return bag_dls(photos, size=32, bs=16, reading='torchvision', num_workers=0, device='cpu', jitter=0, pca=0, seed=3)

class Theirs(Callback):
    "train_one_epoch and ExponentialMovingAverage of their references/classification"
    order = 1
    def __init__(self, decay, steps, warm): self.decay,self.steps,self.warm = decay,steps,warm
    def before_fit(self): self.avg = AveragedModel(self.model, avg_fn=lambda m, w, n: self.decay*m+(1-self.decay)*w, use_buffers=True)
    def after_batch(self):
        if not self.training or self.iter%self.steps: return
        self.avg.update_parameters(self.model)
        if self.epoch<self.warm: self.avg.n_averaged.fill_(0)

def test_the_mean_of_the_weights_step_by_step(dls):
    "With norms and their buffers, through a warmup and to the end; the rule's own decay as the paper has it"
    learn = bag_learner(dls, 'ema', as_paper=True, arch='xresnet18b', widen=1/16, epochs=6, warmup=2, ema_steps=2, but='long,fixres')
    n = len(dls.train)
    assert learn.recipe['ema']==pytest.approx(2e-5*96)
    learn.bag_ema.keep = .9
    learn.add_cb(Theirs(.9, 2, 2))
    with learn.no_bar(), learn.no_logging(): learn.fit_rung()
    ours,tv = (m.avg.module.state_dict() for m in (learn.bag_ema, learn.theirs))
    assert n==6 and int(learn.bag_ema.avg.n_averaged)==int(learn.theirs.avg.n_averaged)==12
    for k in ours:
        assert (ours[k]-tv[k]).abs().max()<=1e-5*max(1, tv[k].abs().max()) if ours[k].is_floating_point() else abs(int(ours[k])-int(tv[k]))<=1, k
    moved = [k for k,_ in learn.model.named_parameters() if not torch.allclose(ours[k], learn.model.state_dict()[k])]
    assert moved

def test_their_rule_leaves_out_the_images():
    assert theirs(1024, 600)==pytest.approx(.99891, abs=5e-6)
    r = fit_to(recipe('repeat', epochs=20), 3000, 128, 'cuda')
    n = r['epochs']*(3000//r['bs'])
    assert (1-r['ema']*r['ema_steps']/n)**(n//r['ema_steps'])<1e-9 and theirs(r['bs'], 20)**(n//32)>.9

def test_settling_keeps_the_ratios():
    r = fit_to(recipe('repeat'), 3000, 128, 'cuda')
    assert r['size']/r['valid_size']==pytest.approx(176/224, abs=.01) and r['valid_edge']/r['valid_size']==pytest.approx(232/224, abs=.01)
    assert r['lr']/r['bs']==.5/1024 and all(any(o.startswith(f'{k}: ') for o in r.notes) for k in ('size','valid_size','valid_edge','lr','bs'))
    assert warmup_epochs(recipe('ema'), 600)==5 and warmup_epochs(recipe('rates'), 20)==1

@pytest.mark.parametrize('rung', ['fixres','resize','modern'])
def test_images_are_judged_at_their_own_size(rung):
    "A source that has a size, as the digits have, says how large an image is: nothing is enlarged for validation, and the map at the end has as many cells as in training"
    r = fit_recipe(recipe(rung), 1437, 32, 'cpu', own=dict(size=32))
    assert (r['size'],r['valid_size'])==(26,32) and not [o for o in r.notes if 'cells' in o]
    assert [k for k in (32,64,96,128,176,224) if cell_words(fit_to(recipe(rung, size=k), 3000, 500))]==[32,64,128]
    given = fit_recipe(recipe(rung, size=32), 1437, 32, 'cpu', own=dict(size=32))
    assert given['valid_size']==41 and [o for o in given.notes if '2x2 cells there and in 1x1' in o]
    assert fit_recipe(recipe('erase'), 1437, 32, 'cpu', own=dict(size=32))['size']==32

# ---- runs

small = '--rung repeat --arch xresnet18b --widen 0.0625 --size 64 --valid-size 64 --valid-edge 72 --bs 16 --epochs 4 --seed 3 --device cpu --turns true --ema 5 --sizes 32:0,64:.5 --save-minutes 0'.split()

@pytest.fixture(scope='module')
def argv(photos): return [photos, *small]

@pytest.fixture(scope='module')
def whole(argv, tmp_path_factory):
    path = tmp_path_factory.mktemp('whole')
    assert finish([*argv, '--workers', 0, '--out', path/'run'], path/'log')==0, (path/'log.out').read_text()[-3000:]
    return path/'run'

def same_average(a, b):
    x,y = (read_state(run_file(p, 'state'))['hooks']['BagEMA']['own'] for p in (a,b))
    assert x['n']==y['n'] and all(torch.equal(x['weights'][k], y['weights'][k]) for k in x['weights'])

def test_any_number_of_workers(argv, whole, tmp_path):
    assert finish([*argv, '--workers', 2, '--out', tmp_path/'run'], tmp_path/'log')==0
    assert_same_run(tmp_path/'run', whole)
    same_average(tmp_path/'run', whole)

def test_killed_at_any_moment(argv, whole, tmp_path):
    "At the ends of epochs, where the size changes too, and in the middle of them, with a mean that has begun"
    began = []
    met = kill_and_go_on([*argv, '--workers', 2, '--out', tmp_path/'run'], tmp_path/'run', tmp_path/'log', ['ended','ended']+['any']*3, random.Random(1), began=began)
    assert met[:2]==['ended','ended'] and any(o in began for o in ((2,0),(1,5))), began   # before the step at which the size changes, or the one before that
    assert_same_run(tmp_path/'run', whole)
    same_average(tmp_path/'run', whole)

def test_the_run_is_the_mean(whole):
    "Best and last weights, predictions and the loaded learner are those of the averaged model; the run goes on with the raw ones"
    learn = load_run(whole, 'last', device='cpu', data=True)
    row = plain_rows(whole)[-1]
    with learn.no_bar(): loss,acc = learn.validate()[:2]
    assert (loss,acc)==(pytest.approx(float(row['ema_valid_loss']), rel=1e-4),pytest.approx(float(row['ema_accuracy']), abs=1e-6))
    mean = read_state(run_file(whole, 'state'))['hooks']['BagEMA']['own']['weights']
    last,raw = (safetensors.load_file(run_file(whole, o)) for o in ('last','weights'))
    assert all(torch.equal(last[k], mean[k]) for k in mean) and not all(torch.equal(raw[k], mean[k]) for k in mean)
    best = max(plain_rows(whole), key=lambda o: float(o['ema_accuracy']))
    import csv
    said = list(csv.DictReader(run_file(whole, 'predictions').open()))
    right = sum(o['label']==o['predicted'] for o in said) if 'label' in said[0] else None
    if right is not None: assert right/len(said)==pytest.approx(float(best['ema_accuracy']), abs=1e-6)
    assert {o for o in rows(whole)[0].split(',') if o.startswith('ema')}=={'ema_valid_loss','ema_accuracy'}

def test_the_same_data_for_the_same_rung(photos):
    "What loaders have is what the recipe says, whoever is first"
    kw = dict(size=32, bs=16, num_workers=0, device='cpu', reading='torchvision')
    learn = bag_learner(bag_dls(photos, trivial=True, erase=.1, repeats=4, valid_size=40, valid_edge=44, jitter=0, pca=0, **kw), 'repeat', arch='xresnet18b', widen=1/16)
    assert {k:learn.recipe[k] for k in ('trivial','erase','repeats','valid_size','valid_edge')}==dict(trivial=True, erase=.1, repeats=4, valid_size=40, valid_edge=44)
    plain = bag_learner(bag_dls(photos, jitter=0, pca=0, **kw), 'repeat', arch='xresnet18b', widen=1/16)
    assert all(any(o.startswith(f'{k}: ') and 'what `learn.dls` have' in o for o in plain.recipe.notes) for k in ('trivial','erase','repeats','valid_size','valid_edge'))
    assert {k:plain.recipe.get(k) for k in ('trivial','erase','repeats','valid_size','valid_edge')}==dict(trivial=False, erase=0., repeats=1, valid_size=None, valid_edge=None)
    with pytest.raises(UsageError, match='repeats=2'): bag_learner(plain.dls, 'repeat', repeats=2)

def test_columns_of_a_mean_are_numbers():
    "On a plain learner, as fastai's own are, and each with its metric's name: perplexity is a loss of fastai's, and not the loss"
    learn = learner(points(bs=8), metrics=[accuracy, Perplexity()], cbs=[BagEMA(keep=.5, every=1)])
    fit(learn)
    assert learn.recorder.metric_names[-4:-1]==['ema_valid_loss','ema_accuracy','ema_perplexity'] and all(type(o) is float for o in learn.recorder.values[-1])

def test_what_a_run_is_too_short_for_is_told():
    def said(n, **kw): return [o for o in unused(recipe('ema', epochs=n, **kw)) if 'the run has' in o]
    assert 'nothing is mixed' in said(3, mixup_off=3)[0] and not said(3, mixup_off=2) and not said(3, mixup_off=5, alpha=0, cutmix=0)
    assert said(1, sizes='32:0,64:.9')==['sizes=32:0,64:.9: training never sees 64 px, the run has 1 epoch'] and not said(10, sizes='32:0,64:.9')
    for n in range(1, 12):
        seen = {size_at(read_sizes('32:0,64:.5,96:.9'), e, n) for e in range(n)}
        assert [o for o in (64,96) if o not in seen]==[o for o in (64,96) for t in said(n, sizes='32:0,64:.5,96:.9') if f'{o} px' in t]

def test_mixup_off_is_of_cutmix_too():
    assert unused(recipe('smooth', cutmix=1., mixup_off=2))==[] and 'there is no mixup' in unused(recipe('smooth', mixup_off=2))[0]

@pytest.mark.parametrize('bs', [64, 720, 1024])
def test_their_rule_of_the_mean_at_any_batch(bs):
    "Batches that do not divide the images: an epoch has whole batches, and the rule knows epochs and batch size alone"
    dls = bag_dls('digits', bs=bs, reading='torchvision', jitter=0, pca=0, num_workers=0, device='cpu')
    learn = bag_learner(dls, 'ema', as_paper=True, arch='xresnet18b', widen=1/16, epochs=600, but='long,fixres')
    assert kept_share(600, len(dls.train), 32, learn.recipe['ema'])==pytest.approx(theirs(bs, 600), rel=1e-9)

def test_the_mean_of_a_fit_of_another_length(photos, tmp_path):
    "Its updates and its warmup are those of the fit, and of the run that is written"
    dls = bag_dls(photos, size=32, bs=16, num_workers=0, device='cpu', reading='torchvision', jitter=0, pca=0)
    learn = bag_learner(dls, 'ema', arch='xresnet18b', widen=1/16, epochs=6000)
    assert learn.bag_ema.every==update_every(6000*6)==32
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(3)
    avg = learn.bag_ema
    assert (avg.step, avg.warmup)==(1, 1/3) and int(avg.avg.n_averaged)==12 and avg.share==pytest.approx(kept_share(3, 6, 1))
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(2, resume=tmp_path/'run')
    assert learn.recipe['epochs']==2 and learn.recipe['ema_steps']==avg.step==1 and avg.warmup==.5
    old = bag_learner(dls, 'ema', arch='xresnet18b', widen=1/16, epochs=6000, ema_steps=4)
    with old.no_bar(), old.no_logging(): old.fit_rung(1)
    assert old.bag_ema.step==4

@pytest.mark.parametrize('warmup,n_epoch', [(7,25),(5,147)])
def test_a_copy_ends_with_the_warmup(warmup, n_epoch):
    "As `epoch<warmup` has it, though the share is a fraction"
    avg = BagEMA(warmup=warmup/n_epoch, every=1)
    learn = learner(cbs=avg)
    with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch)
    assert int(avg.avg.n_averaged)==(n_epoch-warmup)*len(learn.dls.train)

def test_a_recipe_of_somebodys_own(photos):
    "A name that no ladder has; its drops are those of its reading"
    dls = bag_dls(photos, size=32, bs=16, num_workers=0, device='cpu')
    learn = bag_learner(dls, Recipe(dict(recipe('baseline', arch='xresnet18b', widen=1/16, fp16=False)), 'mine'))
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(1)
    own = [Recipe(dict(recipe('baseline', ladder='torchvision')), 'mine', reading=o) for o in ('torchvision','paper')]
    assert [drop_epochs(o, 90) for o in own]==[(30,60), (22.5,45.)]

@pytest.mark.parametrize('name,values', [('ema',(0,-1,'x')), ('every',(0,-3)), ('keep',(1.5,1,'x')), ('warmup',(5,-1))])
def test_a_mean_that_cannot_be(name, values):
    for v in values:
        with pytest.raises(UsageError): BagEMA(**{name:v})

@pytest.mark.parametrize('kw,copy', [({},True), (dict(every=1, ema=8.),False), (dict(every=1, keep=.9),False), (dict(keep=0.),False)])
def test_a_mean_that_is_a_copy_is_told(capsys, kw, copy):
    "Where the fit has fewer updates than the mean has time constants; `keep=0` asks for it"
    learn = learner(cbs=BagEMA(**kw))
    with learn.no_bar(), learn.no_logging(): learn.fit(3)
    assert ('the mean is a copy of the weights' in capsys.readouterr().out)==copy and (learn.bag_ema.share==0)==(copy or 'keep' in kw and not kw['keep'])

def test_a_recipe_says_that_its_mean_is_a_copy():
    "By its updates, also where their distance was given"
    def copies(**kw): return [o for o in fit_to(recipe('ema', epochs=3, bs=64, size=32, valid_size=32, **kw), 1000, 32).notes if 'copy' in o]
    assert copies(ema_steps=32) and not copies(ema_steps=1)

@pytest.mark.parametrize('every,n,batch', [(1,4,None), (32,4,1), (3,4,None), (2,4,3), (1000,100,1)])
def test_a_mean_that_is_a_copy_says_of_when(every, n, batch):
    "The last update of an epoch may be its first batch: the mean lags behind by the rest"
    said,seen = copy_words(n, every),[i+1 for i in range(n) if i%every==0][-1]
    assert ('after batch' in said)==(batch is not None) and (batch or n)==seen and (batch is None or f'batch {seen} of {n}' in said)

def test_a_mean_beside_what_watches_the_model():
    "fastai's `ActivationStats` hooks the layers, and its hook has the learner; torch's own hooks are of the copy"
    from fastai.callback.hook import ActivationStats
    learn = learner(cbs=[BagEMA(2.), ActivationStats()])
    with learn.no_bar(), learn.no_logging(): learn.fit(2)
    assert learn.bag_ema.avg is not None and len(learn.activation_stats.stats)==len(learn.dls.train)*2
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3,3)), nn.Flatten())
    net[1].register_forward_hook(learn.predict)   # somebody else's method
    avg = averaged_model(net, .5).module
    assert len(avg[0]._forward_pre_hooks)==1 and not avg[1]._forward_hooks and len(net[1]._forward_hooks)==1

def test_what_saves_a_model_by_the_mean_says_what_it_saves(capsys, tmp_path):
    from fastai.callback.tracker import SaveModelCallback
    learn = learner(cbs=BagEMA(2.), metrics=accuracy)
    learn.path = tmp_path
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=SaveModelCallback(monitor='ema_accuracy'))
        assert 'saves the weights, not their mean' in capsys.readouterr().out
        learn.fit(1, cbs=SaveModelCallback(monitor='accuracy'))
    assert 'not their mean' not in capsys.readouterr().out

def test_a_fit_of_no_epochs_with_a_mean():
    "As fastai's `fine_tune(1, freeze_epochs=0)` has one"
    learn = learner(cbs=BagEMA())
    with learn.no_bar(), learn.no_logging(): learn.fit(0), learn.fit(1)

@pytest.mark.parametrize('cb,name', [(BagMixup,'mixup'), (BagCutMix,'CutMix'), (BagMixOrCut,'mixup or CutMix')])
def test_who_does_not_fit_a_loss_is_named(cb, name):
    with pytest.raises(UsageError, match=f'takes no soft targets, which {name} makes: give the learner loss_func=BagLoss'): fit(learner(points(bs=8), loss=CrossEntropyLossFlat(), cbs=cb(1.)))
    with pytest.raises(UsageError, match=f'MSELoss is for targets that are numbers, and {name} is for classes'): fit(learner(points(bs=8), loss=MSELossFlat(), cbs=cb(1.)))
    with pytest.raises(UsageError, match='for a class at each pixel'): fit(learner(points(bs=8), loss=CrossEntropyLossFlat(axis=1), cbs=cb(1.)))
    with pytest.raises(UsageError, match='^cutmix=-1'): BagCutMix(-1)

@pytest.mark.parametrize('cb', [BagMixup, BagCutMix, BagMixOrCut])
def test_masks_are_not_mixed(cb):
    "With a loss that takes soft targets too"
    x,y = torch.randn(16,3,8,8),torch.randint(0, 2, (16,8,8))
    dls = DataLoaders.from_dsets(list(zip(x, y)), list(zip(x, y)), bs=8, device='cpu')
    with pytest.raises(UsageError, match='a class at each pixel'): fit(Learner(dls, nn.Conv2d(3, 2, 1), BagLoss(), lr=.1, cbs=cb(1.)))

def test_a_crop_among_fastais_transforms(photos):
    "It crops, flips and augments Pillow's images too, as torchvision would; a target with places is refused"
    from fastai.vision.all import DataBlock, ImageBlock, CategoryBlock, PILImage, PointBlock, get_image_files, parent_label
    def loaders(target, get_y, **kw):
        block = DataBlock((ImageBlock, target), get_items=get_image_files, get_y=get_y, item_tfms=BagCrop(16, **kw))
        return block.dataloaders(photos, bs=8, num_workers=0, device='cpu')
    assert loaders(CategoryBlock, parent_label).one_batch()[0].shape==(8,3,16,16)
    im = PILImage.create(next(photos.rglob('*.png')))
    plain,turned = (BagCrop(16, min_scale=1., flip=o)(im, split_idx=0) for o in (0.,1.))
    assert torch.equal(plain.flip(-1), turned) and not torch.equal(plain, turned)
    with pytest.raises(UsageError, match='TensorPoint would stay where it is'): loaders(PointBlock, lambda o: [[1.,1.]])
    with pytest.raises(UsageError, match='a crop of its own'): loaders(ImageBlock, lambda o: o)

@pytest.mark.slow
def test_a_process_of_one_thread_trains_a_sixteenth(tmp_path):
    "It was aborted: 'corrupted double-linked list'"
    env = os.environ | dict(OMP_NUM_THREADS='1')
    res = subprocess.run([sys.executable, '-m', 'bot', 'train', 'digits', '--rung', 'torchvision.mixup', '--widen', '.0625', '--epochs', '1', '--workers', '0', '--out', str(tmp_path/'a')], env=env, capture_output=True, text=True)
    assert res.returncode==0, res.stderr

def test_a_drawn_operation_among_fastais_transforms(photos):
    "A target with places, or a second image, would not go along"
    from fastai.vision.all import DataBlock, ImageBlock, CategoryBlock, MaskBlock, PointBlock, get_image_files, parent_label
    def loaders(target, get_y, **kw):
        block = DataBlock((ImageBlock, target), get_items=get_image_files, get_y=get_y, item_tfms=BagTrivial(), **kw)
        return block.dataloaders(photos, bs=1, num_workers=0, device='cpu')
    for kw in ({}, dict(dl_type=KeyedDL)):
        assert loaders(CategoryBlock, parent_label, **kw).one_batch()[0].ndim==4
        with pytest.raises(UsageError, match='TensorPoint would stay where it is'): loaders(PointBlock, lambda o: [[1.,1.]], **kw)
        with pytest.raises(UsageError, match='Mask would stay where it is'): loaders(MaskBlock, lambda o: np.zeros((8,8), 'uint8'), **kw)
        with pytest.raises(UsageError, match='a way of its own'): loaders(ImageBlock, lambda o: o, **kw)

def test_a_flip_that_turns_among_fastais_transforms(photos):
    "With loaders that count epochs: the second one has each picture of the first in a mirror"
    from fastai.vision.all import DataBlock, ImageBlock, CategoryBlock, get_image_files, parent_label
    crop = BagCrop(16, min_scale=1., turns=True)
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label, item_tfms=crop, dl_type=KeyedDL)
    dl = block.dataloaders(photos, bs=4, num_workers=0, device='cpu').train
    first,second = (torch.cat([torch.Tensor(x) for x,_ in dl]) for _ in range(2))
    def seen(x): return sorted(o.numpy().tobytes() for o in x)
    assert len(first)>8 and seen(first)!=seen(second) and seen(first)==seen(second.flip(-1))

def test_what_somebody_elses_loaders_do_not_do(photos):
    "Of plain loaders of fastai's: what is given is refused, what the row has is noted, and of crops nothing is claimed"
    from fastai.vision.all import ImageDataLoaders, Resize
    dls = ImageDataLoaders.from_folder(photos, train='train', valid='valid', item_tfms=Resize(32), bs=8, num_workers=0, device='cpu')
    kw = dict(arch='xresnet18b', widen=1/16)
    for k,v in dict(trivial=True, erase=.2, repeats=3, turns=True, valid_size=40, valid_edge=48, jitter=.2, min_scale=.3).items():
        with pytest.raises(UsageError, match=f'{k}='): bag_learner(dls, 'smooth', **{k:v}, **kw)
    r = bag_learner(dls, 'repeat', **kw).recipe
    assert {k:r[k] for k in ('trivial','erase','repeats','valid_size','valid_edge','min_scale','flip','jitter','pca')}==dict(trivial=False, erase=0., repeats=1, valid_size=None,
        valid_edge=None, min_scale=None, flip=None, jitter=None, pca=None)
    said = '\n'.join(r.notes)
    assert all(f'{k}: ' in said for k in ('trivial','erase','repeats','valid_size','valid_edge')) and 'min_scale, flip, jitter, pca: unknown' in said
    tfms = dict(item_tfms=[Resize(32), ToTensor(), BagTrivial()], batch_tfms=BagErase(.3))
    own = ImageDataLoaders.from_folder(photos, train='train', valid='valid', bs=8, num_workers=0, device='cpu', **tfms)
    r = bag_learner(own, 'erase', **kw).recipe
    assert r['trivial'] is True and r['erase']==.3 and not any(o.startswith(('trivial','erase')) for o in r.notes)

def test_another_reading_is_noted(photos, dls):
    "The paper's loaders under a rung of torchvision's, and the other way round"
    paper = bag_dls(photos, size=32, bs=16, num_workers=0, device='cpu')
    said = '\n'.join(bag_learner(paper, 'rates', arch='xresnet18b', widen=1/16).recipe.notes)
    assert 'jitter: 0.0 -> 0.4' in said and 'pca: 0.0 -> 0.1' in said and "in the reading 'paper', not 'torchvision'" in said
    assert not any('reading' in o for o in bag_learner(dls, 'rates', arch='xresnet18b', widen=1/16).recipe.notes)
    assert any("in the reading 'paper', not 'gluoncv'" in o for o in bag_learner(paper, 'smooth', reading='gluoncv', arch='xresnet18b', widen=1/16).recipe.notes)

def test_an_edge_that_was_given_is_the_edge(photos, tmp_path):
    "Weights have a share of the short edge of their own; what a run is told wins, and is what it shows"
    src = xresnet18b(n_out=3, widen=1/16)
    save_weights(src, tmp_path/'w.safetensors', paper_cfg | dict(crop_pct=.5, weights='w'))
    dls = bag_dls(photos, size=32, valid_edge=48, bs=8, num_workers=0, device='cpu')
    learn = bag_learner(dls, arch='xresnet18b', widen=1/16, pretrained=str(tmp_path/'w.safetensors'))
    assert crop_of(learn.dls.valid).cfg()['crop_pct']==pytest.approx(32/48) and learn.recipe['valid_edge']==48
    free = bag_learner(bag_dls(photos, size=32, bs=8, num_workers=0, device='cpu'), arch='xresnet18b', widen=1/16, pretrained=str(tmp_path/'w.safetensors'))
    assert crop_of(free.dls.valid).cfg()['crop_pct']==.5

def test_sizes_that_cannot_be_are_refused_before_a_run(photos, tmp_path):
    for wrong,word in ((['--sizes','32'],'multiples of 32'), (['--sizes','32:0,64:.5','--size',96],'ends with 64 px')):
        assert finish([photos, '--device', 'cpu', *wrong, '--out', tmp_path/'run'], tmp_path/'log')==2 and word in (tmp_path/'log.out').read_text() and not (tmp_path/'run').exists()
    r = fit_recipe(recipe('smooth', sizes='32:0,64:.5'), 3000, 128, 'cpu')
    assert r['size']==64 and 'size: 224 -> 64 (what sizes ends with)' in r.notes

def test_a_piece_in_the_wrong_place():
    "An item's transform among those of a batch, and the other way round; two means"
    one = TensorImage(torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(UsageError, match='item transforms'): BagTrivial()(one[None], split_idx=0)
    with pytest.raises(UsageError, match='batch transforms'): BagErase(.5)(one, split_idx=0)
    with pytest.raises(UsageError, match='averaged twice'): fit(learner(points(bs=8), cbs=[BagEMA(), BagEMA()]))

def test_a_run_on_somebody_elses_loaders_is_read(photos, tmp_path):
    "Nothing is known of their crops, and the run answers all the same"
    from fastai.vision.all import ImageDataLoaders, Resize
    dls = ImageDataLoaders.from_folder(photos, train='train', valid='valid', item_tfms=Resize(32), bs=8, num_workers=0, device='cpu')
    learn = bag_learner(dls, 'smooth', arch='xresnet18d', widen=1/16, epochs=1)
    with learn.no_bar(), learn.no_logging(), recorded(learn, tmp_path/'run'): learn.fit_rung()
    mine = load_run(tmp_path/'run', device='cpu')
    assert mine.recipe['min_scale'] is None and mine.recipe['size']==32
    assert len(list(predict(tmp_path/'run', next(Path(photos).rglob('*.png')))))==1

def test_a_loader_that_counts_no_epochs(photos):
    "A flip that turns, and repeats, would be neither there; a flip by chance is fine anywhere"
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.core import TfmdDL
    from fastai.data.transforms import get_image_files, GrandparentSplitter, parent_label
    said = dict(get_items=get_image_files, get_y=parent_label, splitter=GrandparentSplitter('train', 'valid'))
    def made(**kw): return DataBlock((BagImageBlock(size=32, **kw), CategoryBlock), **said)
    for kw in (dict(turns=True), dict(repeats=2)):
        with pytest.raises(UsageError, match=f'{next(iter(kw))} needs a KeyedDL'): made(**kw).dataloaders(photos, bs=8, num_workers=0, device='cpu', dl_type=TfmdDL)
        assert made(**kw).dataloaders(photos, bs=8, num_workers=0, device='cpu').train.one_batch()[0].shape==(8,3,32,32)
    assert made().dataloaders(photos, bs=8, num_workers=0, device='cpu', dl_type=TfmdDL).train.one_batch()[0].shape==(8,3,32,32)

@pytest.mark.parametrize('loss', [LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropyFlat, nn.NLLLoss, nn.MultiMarginLoss])
def test_a_loss_without_soft_targets_is_named(loss):
    for cb in BagCutMix, BagMixup, BagMixOrCut:
        with pytest.raises(UsageError, match='takes no soft targets'): fit(learner(points(bs=8), loss=loss(), cbs=cb(1.)))

def test_a_kept_learner_is_exported(photos, tmp_path):
    "After a fit in a run folder, and after one that was stopped; the loaders stay, and what is read again writes nothing"
    class Stop(Callback):
        def after_step(self): raise KeyboardInterrupt
    def made(): return bag_learner(bag_dls(photos, size=32, bs=16, num_workers=0, device='cpu'), 'smooth', arch='xresnet18d', widen=1/16, epochs=1)
    for name,cbs in dict(whole=None, stopped=Stop()).items():
        learn = made()
        with learn.no_bar(), learn.no_logging(), suppress(KeyboardInterrupt): learn.fit_rung(resume=tmp_path/name, cbs=cbs)
        learn.remove_cbs(Stop)
        learn.export(tmp_path/f'{name}.pkl')
        assert len(learn.dls.train)==6 and len(learn.dls.valid)==2
        there = {p.name: p.stat().st_mtime_ns for p in (tmp_path/name).iterdir()}
        again = load_learner(tmp_path/f'{name}.pkl')
        again.dls = learn.dls
        with again.no_bar(), again.no_logging(): again.fit(1)
        assert {p.name: p.stat().st_mtime_ns for p in (tmp_path/name).iterdir()}==there

def test_a_teacher_sees_the_last_size(photos):
    "Any module does so, while the student's images grow; afterwards it takes any size again"
    seen = []
    class Teacher(nn.Module):
        def forward(self, x): return seen.append(x.shape[-1]) or x.mean((2,3))
    dls = bag_dls(photos, size=64, bs=16, num_workers=0, device='cpu')
    learn = Learner(dls, xresnet18b(n_out=3, widen=1/16), BagLoss(), lr=.01, cbs=BagSizes('32:0,64:.5')).distill(Teacher())
    fit(learn, 2)
    assert set(seen[2:])=={64} and learn.distillation.teacher.size is None

def test_sizes_end_with_their_fit(photos):
    "However it ends"
    class Stop(Callback):
        def after_step(self): raise KeyboardInterrupt
    dls = bag_dls(photos, size=64, bs=16, num_workers=0, device='cpu')
    with suppress(KeyboardInterrupt): fit(Learner(dls, xresnet18b(n_out=3, widen=1/16), BagLoss(), lr=.01, cbs=[BagSizes('32:0,64:.5'), Stop()]), 2)
    assert dls.train.one_batch()[0].shape[-1]==64

def mixed_run(photos, **kw):
    "A learner with what a prediction has no use for: weighted classes, and a size that grows to another one than that of validation"
    dls = bag_dls(photos, size=64, valid_size=96, bs=8, num_workers=0, device='cpu', reading='torchvision')
    return bag_learner(dls, 'rates', arch='xresnet18b', widen=1/16, epochs=2, class_weights='balanced', sizes='32:0,64:.5', ema=2., **kw)

def test_a_run_of_all_pieces_is_read(photos, tmp_path):
    "And asked again: neither the loss of its training nor its first size matter to a prediction"
    learn = mixed_run(photos)
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(resume=tmp_path/'run')
    f = learn.dls.valid_ds.items[0][0]
    read,own = load_run(tmp_path/'run', 'last'),load_run(tmp_path/'run', 'last', data=True)
    with learn.bag_ema.averaged(), learn.no_bar(), read.no_bar(), own.no_bar():
        want = learn.predict(f)[2]
        assert torch.allclose(read.predict(f)[2], want, atol=1e-5) and torch.allclose(own.predict(f)[2], want, atol=1e-5)
    with own.no_bar(): assert {x.shape[-1] for x in own.get_preds(ds_idx=0, with_input=True)[0]}=={64}

def test_views_of_training_images_have_the_last_size(photos):
    "Those of `tta` and of `get_preds` too, which fastai makes in an epoch of number 0"
    seen = []
    class Sides(Callback):
        def before_batch(self): seen.append((self.training, self.x.shape[-1]))
    learn = mixed_run(photos)
    with learn.no_bar(), learn.no_logging():
        learn.fit_rung(cbs=Sides())
        assert {o for t,o in seen if t}=={32,64} and seen[0]==(True,32)
        seen.clear(), learn.add_cb(Sides()), learn.tta(n=2), learn.get_preds(ds_idx=0)
    assert {o for _,o in seen}=={64,96} and not vars(learn).get('all_batches')

def test_the_same_cell_twice_has_the_same_learner(photos, tmp_path):
    "A finished run is taken as its fit left it: the weights in the model, and their mean beside them"
    learn,again = (mixed_run(photos) for _ in range(2))
    for o in learn,again:
        with o.no_bar(), o.no_logging(): o.fit_rung(resume=tmp_path/'run')
    for a,b in ((learn.model,again.model), (learn.bag_ema.avg.module,again.bag_ema.avg.module)):
        assert all(torch.equal(v, b.state_dict()[k]) for k,v in a.state_dict().items())
    assert not all(torch.equal(v, learn.model.state_dict()[k]) for k,v in learn.bag_ema.avg.module.state_dict().items())

def test_a_loss_that_came_later_is_refused_in_training_alone(photos):
    learn = mixed_run(photos)
    learn.loss_func = CrossEntropyLossFlat()
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        with pytest.raises(UsageError, match='The recipe has class_weights'): learn.fit_rung()
