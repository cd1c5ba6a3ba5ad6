"What people do with fastai around a learner: change its data, look, freeze, compile, augment at test time, use other metrics, models and targets"
import json, multiprocessing, numpy as np, os, pickle, pytest, shutil, signal, subprocess, sys, time, torch, torch.nn.functional as F, yaml, zlib
from copy import deepcopy
from functools import partial
from inspect import signature
from pathlib import Path
from threading import Timer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from fasttransform import Transform
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.training import GradientAccumulation, ShortEpochCallback
from fastcore.basics import noop
from fastcore.foundation import L
from fastai.callback.mixup import CutMix, MixUp
from fastai.learner import AvgMetric, Learner, mk_metric, Recorder
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLoss, LabelSmoothingCrossEntropy
from fastai.metrics import accuracy, error_rate, top_k_accuracy
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ItemGetter
from fastai.torch_core import TensorImageBW
from fastai.vision.augment import Resize
from fastai.vision.core import PILImageBW
from fastai.vision.data import ImageBlock
from bot.all import *
from bot.words import run_card
from bot import precision, resume, workers
from bot.core import BotError, stop_signals
from bot.files import run_file
from bot.ladder import options, setting, settings
from bot.distill import Distillation, of_learner
from bot.guards import Diverged, DivergenceGuard, TargetCheck
from bot.mixup import draw_pairs
from bot.optimizer import decayed, undecayed
from bot.resnet import unwrapped
from bot.watch import Throughput
from bot.args import best_by, is_best
from bot.runs import new_run
from bot.workers import batches_of, WorkerDied
from bot.freezing import param_groups
from bot.models import check_run, get_model, make_xresnet, read_args

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

# ---- other data

def run_of(learn, path):
    path.mkdir(exist_ok=True)
    save_args(path, learn)
    with recorded(learn, path): fit(learn)
    return path

def test_progressive_resizing_is_what_is_written(tmp_path):
    "Size, batch and rate of a run are those of `learn.dls`, exchanged or changed in place; the run sees images so, as a learner and as a teacher"
    learn = small(digits(size=32))
    lr = learn.lr
    learn.dls = digits(size=64, bs=32)
    assert learn.lr==lr/2==4*scale_lr(32)==learn.recipe['lr'] and learn.recipe['size']==64 and 'at 64 px' in run_card(learn)['model'] and 'of 32, lr 0.05' in run_card(learn)['run']   # four times, in a short run
    path = run_of(learn, tmp_path/'run')
    args = yaml.safe_load((path/'args.yaml').read_text())
    assert (args['settings']['size'], args['settings']['bs'], args['data']['size'], args['resolved']['lr'])==(64, 32, 64, lr/2)
    assert 'size=64' in args['python'] and 'bs=32' in args['python'] and any(o.startswith('size: 32 -> 64') for o in args['changed'])
    mine = load_run(path, 'last', device='cpu')
    x = learn.dls.valid_ds.items[:16]
    a,b = (quiet(o, o.get_preds, dl=o.dls.test_dl(x))[0] for o in (learn, mine))
    assert torch.allclose(a, b, atol=1e-5)
    assert small(digits(size=64)).distill(path, load=load_run).distillation.teacher.size==64
    assert small(digits(size=64)).distill(learn).distillation.teacher.size==64
    wide = small(digits(size=32, valid_size=40))   # what it is judged at
    run_of(wide, tmp_path/'wide')
    assert [small(digits(size=32)).distill(o, load=load_run).distillation.teacher.size for o in (wide,tmp_path/'wide')]==[40,40]
    learn.dls.train.bs,crop_of(learn.dls.train).size = 16,48
    assert learn.lr==lr/4 and learn.recipe['size']==48 and 'batches of 16' in run_card(learn)['run']
    save_args(path, learn)
    args = yaml.safe_load((path/'args.yaml').read_text())
    assert (args['settings']['bs'], args['data']['bs'], args['settings']['size'], args['data']['size'])==(16, 16, 48, 48)

def foreign(size=32, bs=8, n=40, workers=0):
    "fastai's own `DataLoaders` of gray pictures"
    dls = DataBlock((ImageBlock(PILImageBW), CategoryBlock), getters=[ItemGetter(0), ItemGetter(1)], item_tfms=Resize(size))
    return dls.dataloaders([(PILImageBW.create((torch.rand(40, 40)*255).byte().numpy()), 'ab'[i%2]) for i in range(n)], bs=bs, num_workers=workers, device='cpu')

def test_foreign_loaders_are_as_they_are_now(tmp_path):
    "Batch and size of anybody's loaders, changed in place in any way; looking moves no generator"
    learn = small(foreign())
    def said():
        save_args(tmp_path, learn)
        r,args = learn.recipe,yaml.safe_load((tmp_path/'args.yaml').read_text())
        assert learn.lr==scale_lr(r['bs'])==args['resolved']['lr'] and (r['bs'], r['size'])==tuple(args['settings'][k] for k in ('bs','size'))
        assert f"batches of {r['bs']}, lr {learn.lr:g}" in run_card(learn)['run'] and f"at {r['size']} px" in run_card(learn)['model']
        return r['bs'],r['size']
    assert said()==(8, 32)
    learn.dls.train.bs = 4
    assert said()==(4, 32)
    next(o for o in learn.dls.train.after_item.fs if isinstance(o, Resize)).size = (48, 48)
    assert said()==(4, 48)
    learn.dls.train.after_batch.add(Shrink())
    assert said()==(4, 24)
    learn.dls.loaders[0] = foreign(64, 16).train
    assert said()==(16, 64)
    state,order = torch.get_rng_state(),learn.dls.train.rng.getstate()
    said()
    assert torch.equal(torch.get_rng_state(), state) and learn.dls.train.rng.getstate()==order
    learn.dls = foreign(40, 2)
    learn.dls.train.bs = 5
    assert said()==(5, 40) and of_learner(learn, norm_stats(learn.dls)).size==40
    fit(learn)

def test_a_block_in_anybodys_loaders_says_its_settings():
    "Also where a transform of `bag_dls` was replaced"
    block = DataBlock((BagImageBlock(32, flip=0., jitter=.1), CategoryBlock), getters=[ItemGetter(0), ItemGetter(1)])
    items = [(Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)), 'ab'[i%2]) for i in range(20)]
    learn = small(block.dataloaders(items, bs=4, num_workers=0, device='cpu'))
    assert {k:learn.recipe[k] for k in ('size','bs','flip','jitter')}==dict(size=32, bs=4, flip=0., jitter=.1)
    with pytest.raises(UsageError, match='made with flip=0'): small(learn.dls, flip=.5)
    learn = small(digits(size=32))
    fs = learn.dls.train.after_item.fs
    fs[fs.index(crop_of(learn.dls.train))] = Resize(48)
    assert learn.recipe['size']==48

class Shrink(Transform):
    "A batch transform"
    order = 50
    def encodes(self, x:TensorImageBW): return F.interpolate(x, scale_factor=.5)

def test_a_rate_that_was_given_stays():
    learn = small(digits(), lr=.3)
    learn.dls = digits(bs=16)
    assert learn.lr==.3
    learn.lr = .2
    assert learn.lr==.2

def test_other_data_are_normalized_as_the_weights_expect(tmp_path, capsys):
    model = xresnet18d(n_out=10, widen=1/16)
    model.data_cfg = dict(mean=(.5,)*3, std=(.25,)*3, scale=1, size=32, crop_pct=.875, interpolation='bicubic', weights='somebody')
    learn = bag_learner(digits(), 'baseline', arch=model)
    learn.dls = digits(size=48)
    mean,std = norm_stats(learn.dls)
    assert torch.allclose(mean, torch.full((3,), 127.5)) and torch.allclose(std, torch.full((3,), 63.75)) and learn.recipe['size']==48
    mine = load_run(run_of(learn, tmp_path/'run'), model=xresnet18d(n_out=10, widen=1/16), device='cpu')
    mine.dls = digits()
    assert torch.allclose(norm_stats(mine.dls)[0], torch.full((3,), 127.5))

def test_no_view_is_no_prediction():
    for n in 0,-1:
        with pytest.raises(UsageError, match=f'n={n}: an average needs a view'): small(digits()).tta(n=n)

def test_a_learner_of_fastai_has_no_run(tmp_path):
    "What writes runs says where a rung is to be had, and makes nothing"
    learn = Learner(digits(), xresnet18d(n_out=10, widen=1/16), loss_func=BagLoss(.1))
    with pytest.raises(UsageError, match='make it with `bag_learner`'):
        with recorded(learn, tmp_path/'run'): pass
    for f in lambda: save_args(tmp_path/'run', learn),lambda: run_card(learn),learn.fit_rung:
        with pytest.raises(UsageError, match='make it with `bag_learner`'): f()
    assert not (tmp_path/'run').exists()

def test_two_metrics_of_one_name_are_refused(tmp_path):
    "One would write over the other, in silence"
    learn = small(digits(bs=128))
    for ms in [partial(top_k_accuracy, k=3), partial(top_k_accuracy, k=5)],[AvgMetric(lambda pred, y: (pred.argmax(1)==y).float().mean())]*2:
        learn.metrics = L(ms).map(mk_metric)
        with pytest.raises(UsageError, match='two columns'):
            with recorded(learn, tmp_path/'run'): pass

# ---- groups

def moved(learn, f, *args, **kwargs):
    "Parameters that `f` moves"
    old = {k:p.detach().clone() for k,p in learn.model.named_parameters()}
    quiet(learn, f, *args, **kwargs)
    return {k for k,p in learn.model.named_parameters() if not torch.equal(p, old[k])}

def norms(m): return {f'{k}.{o}' for k,v in m.named_modules() if isinstance(v, nn.modules.batchnorm._BatchNorm) for o,_ in v.named_parameters(recurse=False)}

@pytest.mark.parametrize('arch,head', [('mobilenetv3_small_050','classifier.'), ('vit_tiny_patch16_224','head.'), ('resnet10t','fc.')])
def test_timm_models_freeze(arch, head):
    model = get_model(arch, n_out=10)
    groups = param_groups(model)
    assert len(groups)>=3 and sorted(map(id, sum(groups, [])))==sorted(map(id, model.parameters()))
    names = {id(p):k for k,p in model.named_parameters()}
    assert all(names[id(p)].startswith(head) for p in groups[-1]) and groups[-1]

@pytest.mark.parametrize('name,n', [('resnet18',7), ('mobilenet_v3_small',2), ('vgg11',2), ('vit_b_16',4), ('googlenet',None), ('swin_t',3), ('densenet121',2)])
def test_torchvision_models_freeze(name, n):
    import torchvision.models as tv
    model = getattr(tv, name)(num_classes=10)
    groups = param_groups(model)
    assert len(groups)==(n or len(groups)) and sorted(map(id, sum(groups, [])))==sorted(map(id, model.parameters()))
    last = [c for c in model.children() if list(c.parameters())][-1]
    assert [*map(id, groups[-1])]==[*map(id, last.parameters())]

class Wrapped(nn.Module):
    "A network with something before it that has no parameters"
    def __init__(self, net):
        super().__init__()
        self.scale,self.net = nn.Upsample(scale_factor=2),net
        self.register_buffer('mean', torch.zeros(1))
    def forward(self, x): return self.net(self.scale(x-self.mean))

@pytest.mark.parametrize('wrap', [nn.DataParallel, Wrapped, nn.Sequential, lambda o: Wrapped(nn.DataParallel(torch.compile(o, backend='eager')))], ids=['parallel','own','sequential','all'])
def test_wrapped_models_have_the_groups_of_the_one_inside(wrap):
    import torchvision.models as tv
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    for model in get_model('resnet10t', n_out=10),tv.resnet18(num_classes=10),xresnet18d(n_out=10, widen=1/16),own:
        mine,theirs = ([[*map(id, g)] for g in param_groups(o)] for o in (wrap(model), model))
        assert mine==theirs and len(mine)>1

def test_freeze_leaves_the_head():
    "Of timm's, of a compiled one, of anybody's: the head and the norms move, rates of a slice differ"
    import torchvision.models as tv
    own = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    compiled = torch.compile(deepcopy(own), backend='eager')
    parallel = nn.DataParallel(get_model('mobilenetv3_small_050', 10))
    for arch,head in ('mobilenetv3_small_050','classifier.'),(parallel,'module.classifier.'),(tv.shufflenet_v2_x0_5(num_classes=10),'fc.'),(own,'4.'),(compiled,'_orig_mod.4.'):
        learn = bag_learner(digits(bs=128), 'baseline', arch=arch, cbs=ShortEpochCallback(.1, short_valid=True))
        learn.freeze()
        got = moved(learn, learn.fit, 1)-norms(learn.model)
        assert got and all(k.startswith(head) for k in got), (head, got)
        learn.unfreeze()
        learn.opt.set_hypers(lr=slice(1e-5, 1e-2))
        rates = [h['lr'] for h in learn.opt.hypers]
        assert rates[0]==pytest.approx(1e-5) and rates[-1]==pytest.approx(1e-2) and len(set(rates))==len(rates)>1
    assert moved(learn, learn.fine_tune, 1, freeze_epochs=1)=={k for k,_ in learn.model.named_parameters()}

class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head,self.body = nn.Linear(4, 10),nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    def forward(self, x): return self.head(self.body(x))

class Scaled(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net,self.scale = net,nn.Parameter(torch.ones(1))
    def forward(self, x): return self.net(x)*self.scale

def test_freeze_finds_the_head():
    "Where it is declared first, and inside of a module that adds to it"
    import torchvision.models as tv
    nets = (HeadFirst(), ['head.']),(Scaled(get_model('mobilenetv3_small_050', 10)), ['net.classifier.','scale']),(Scaled(tv.resnet18(num_classes=10)), ['net.fc.','scale'])
    for net,heads in nets:
        names = {id(p):k for k,p in net.named_parameters()}
        groups = [[names[id(p)] for p in g] for g in param_groups(net)]
        assert all(k.startswith(tuple(heads)) for k in groups[-1]) and sorted(sum(groups, []))==sorted(names.values())
        assert {o for o in heads if any(k.startswith(o) for k in groups[-1])}==set(heads)

def test_a_guess_at_the_head_is_said(capsys):
    net = nn.Sequential()
    net.add_module('answer', nn.Linear(4, 2)), net.add_module('body', nn.Conv2d(3, 4, 3))
    assert len(param_groups(net))==2 and "'body' is taken for its head" in capsys.readouterr().out

def test_one_layer_says_so(capsys):
    assert len(param_groups(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))))==1 and 'can be frozen' in capsys.readouterr().out

def compiled(model): return torch.compile(model, backend='eager')
wraps = dict(compiled=compiled, parallel=nn.DataParallel, both=lambda o: compiled(nn.DataParallel(o)), reverse=lambda o: nn.DataParallel(compiled(o)))
def one_wrap(name): return [pytest.param(o, marks=[] if k==name else pytest.mark.slow) for k,o in wraps.items()]

@pytest.mark.parametrize('wrap', one_wrap('both'), ids=wraps)
def test_a_wrapped_model_leaves_plain_weights(tmp_path, wrap):
    "As the network itself has them, which a run, wrapped in any way, reads"
    def make(): return xresnet18d(n_out=10, widen=1/16)
    model = make()
    learn = bag_learner(digits(bs=128), 'baseline', arch=wrap(model))
    path = run_of(learn, tmp_path/'run')
    weights,meta = read_weights(path/'last.safetensors')
    assert weights.keys()==model.state_dict().keys() and meta['arch']=='xresnet18d'
    for o in make(),wrap(make()),nn.DataParallel(make()):
        mine = load_run(path, 'last', device='cpu', model=o)
        assert torch.equal(dict(unwrapped(mine.model).named_parameters())['fc.weight'], model.fc.weight)
    early = wrap(make()).state_dict()   # names as an earlier run, or another program, has them
    assert torch.equal(load_weights(make(), early).fc.weight, early[next(k for k in early if k.endswith('fc.weight'))])

@pytest.mark.parametrize('wrap', one_wrap('reverse'), ids=wraps)
def test_a_wrapped_model_goes_on(tmp_path, wrap):
    "With open gradients, from one kind of wrapper to another"
    def learner(wrap): return bag_learner(digits(bs=128), 'baseline', arch=wrap(xresnet18d(n_out=10, widen=1/16)), epochs=2)
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.epoch==1 and self.iter==2: self.learn.run_folder.asked = KeyboardInterrupt()
    torch.manual_seed(0)
    whole = learner(noop)
    start = deepcopy(whole.model.state_dict())
    fit(whole, 2, cbs=GradientAccumulation(500))
    for w,cbs in ((wrap,[Stop()]), (noop,[])):
        learn = learner(w)
        unwrapped(learn.model).load_state_dict(start) if w is noop else load_weights(learn.model, start)
        try:
            with recorded(learn, tmp_path): fit(learn, 2, cbs=[GradientAccumulation(500), *cbs])
        except KeyboardInterrupt: assert w is wrap
    assert all(torch.equal(v, whole.model.state_dict()[k]) for k,v in learn.model.state_dict().items())

def test_a_vit_in_a_wrapper_has_no_decay_of_its_own():
    import timm
    model = timm.create_model('vit_tiny_patch16_224', img_size=32, num_classes=2)
    names = [[k for k,p in model.named_parameters() if any(p is o for o in undecayed(w(model)))] for w in (noop, *wraps.values())]
    assert 'pos_embed' in names[0] and all(o==names[0] for o in names)

# ---- what a run is chosen by

@pytest.mark.parametrize('metrics,rec,by,better', [([error_rate], {}, 'error_rate', 'lower'), ([top_k_accuracy, error_rate], {}, 'top_k_accuracy', 'higher'),
    ([], {}, 'valid_loss', 'lower'), ([accuracy], dict(train_metrics=True), 'valid_accuracy', 'higher'), ([error_rate, accuracy], {}, 'accuracy', 'higher')])
def test_runs_with_any_metrics(tmp_path, metrics, rec, by, better):
    learn = small(digits(bs=128))
    learn.metrics = metrics
    if rec: learn.remove_cb(Recorder), learn.add_cb(Recorder(**rec))
    path = run_of(learn, tmp_path/'run')
    assert yaml.safe_load((path/'args.yaml').read_text())['best']==dict(by=by, better=better)
    status = json.loads((path/'status.json').read_text())
    assert status['state']=='finished' and isinstance(status[by], float) and load_run(path, device='cpu')

def test_the_best_is_the_earliest_number():
    def best(name, *xs): return [i for i in range(len(xs)) if is_best([{'epoch':j, 'train_loss':0., 'valid_loss':0., name:x} for j,x in enumerate(xs[:i+1])])]
    nan = float('nan')
    assert best('accuracy', .5, .5, .6, .4, .6)==[0,2] and best('error_rate', .5, .5, .4, .6)==[0,2] and best('my_loss', nan, .5, nan, .5, .4)==[0,1,4]   # till there is a number, by valid_loss
    assert best('f1', .1, .2, nan, .2)==[0,1] and best('f1', None, None)==best('f1', nan, nan)==[0] and best('valid_loss', None, None)==[0,1]
    assert best_by(['epoch','train_loss','valid_loss','lr','time'])=='valid_loss' and best_by(['epoch','train_loss','lr']) is None

def per_class(pred, y): return torch.stack([(pred.argmax(1)==y)[y==k].float().mean() for k in range(10)])

def lost(pred, y): return torch.tensor(float('nan'))

@pytest.mark.parametrize('f,what', [(per_class, r"'per_class' gives a Tensor\w* of shape \(10,\)"), (lambda p, y: torch.zeros(2, 2), r'of shape \(2, 2\)')])
def test_a_metric_that_is_no_number_is_refused(tmp_path, f, what):
    learn = small(digits(bs=128))
    learn.metrics = [f]
    with pytest.raises(UsageError, match=what+'.*no number.*\n.*mean'), recorded(learn, tmp_path): fit(learn)

def test_a_metric_without_numbers_leaves_the_best_to_the_loss(tmp_path, capsys):
    learn = small(digits(bs=128))
    learn.metrics = [lost]
    with recorded(learn, tmp_path): fit(learn, 2)
    def no_json(o): raise ValueError(o)
    status = json.loads((tmp_path/'status.json').read_text(), parse_constant=no_json)
    losses = [o['valid_loss'] for o in learn.run_folder.rows]
    assert status['state']=='finished' and status['valid_loss']==losses[-1] and 'lost was no number in any epoch: the best weights are those of the lowest valid_loss' in capsys.readouterr().out
    assert run_file(tmp_path, 'best')==tmp_path/f'weights-{1+losses.index(min(losses)):04}-0000.safetensors' or losses[1]>losses[0]
    with safe_open(run_file(tmp_path, 'state'), 'pt') as f: json.loads(f.metadata()['bot'], parse_constant=no_json)
    assert load_run(tmp_path, device='cpu')

def test_a_run_on_foreign_data(tmp_path):
    learn = small(foreign())
    path = run_of(learn, tmp_path/'run')
    args = yaml.safe_load((path/'args.yaml').read_text())
    assert args['data']['bs']==8 and 'dls = ...' in args['python'] and args['settings']['min_scale'] is None
    assert read_args(path/'args.yaml')['settings']['flip'] is None   # a file with such settings is read

# ---- half precision and a compiled model

@pytest.mark.parametrize('how', ['to_bf16'])
def test_a_compiled_model_is_compiled_once(how):
    "As often as by fastai: once for training, once for validation"
    compiled = []
    def backend(gm, args): return compiled.append(1) or gm.forward
    torch._dynamo.reset()
    learn = small(digits(bs=128))
    learn.model.compile(backend=backend, dynamic=False)
    getattr(learn, how)()
    fit(learn)
    assert 0<len(compiled)<=4, len(compiled)   # two sizes of batch, each way
    before = len(compiled)
    fit(learn)
    assert len(compiled)==before and '_compiled_call_impl' in vars(learn.model)

def test_half_precision_leaves_the_model_as_it_was():
    learn = small(digits(bs=128)).to_bf16()
    class Cancel(Callback):
        def before_batch(self):
            if self.training: raise CancelBatchException
    keys = set(vars(learn.model))
    fit(learn, cbs=Cancel())
    assert set(vars(learn.model))==keys and not torch.is_autocast_enabled('cpu')

class Infinite(Callback):
    "Gradients that overflow"
    def __init__(self, since=0): self.since = since
    order = 9
    def after_backward(self):
        if self.epoch>=self.since: self.opt.all_params().itemgot(0).map(lambda p: p.grad.fill_(float('inf')))

def plain(n=20, cbs=None, bs=2, k=2, loss=None, **kwargs):
    "A linear model on numbers"
    dl = DataLoader(list(zip(torch.randn(n, 4), torch.arange(n)%k)), bs=bs)
    return Learner(DataLoaders(dl, dl), nn.Linear(4, k), loss or BagLoss(), nag, lr=.1, cbs=cbs, **kwargs)

@pytest.mark.parametrize('n,since,said', [(200,0,'in 51 steps in a row'), (32,0,'in all steps of epoch 0'), (32,1,'in all steps of epoch 1'), (16,0,'in all steps of epoch 0')])
def test_overflow_without_end_is_an_error(monkeypatch, n, since, said):
    monkeypatch.setattr(precision, 'fast_half', bool)
    with pytest.raises(Diverged, match=said): fit(plain(n, Infinite(since)).to_fp16(), 2 if since else 1)
    fit(plain(n).to_fp16())

# ---- other models, inputs and targets

class Two(nn.Module):
    "A model of two inputs"
    def __init__(self, k=3):
        super().__init__()
        self.a,self.b = nn.Linear(4, k),nn.Linear(2, k)
    def forward(self, x, z): return self.a(x)+self.b(z)

def two_inputs(n=64, bs=16):
    g = torch.Generator().manual_seed(0)
    dl = DataLoader([(torch.randn(4, generator=g), torch.randn(2, generator=g), torch.tensor(i%3)) for i in range(n)], bs=bs)
    dls = DataLoaders(dl, dl)
    dls.n_inp = 2
    return dls

@pytest.mark.parametrize('cache', [False, True])
def test_two_inputs(cache):
    "Mixup, distillation and the count of images"
    learn = Learner(two_inputs(), Two(), BagLoss(.1), nag, lr=.1, cbs=[*([] if cache else [BagMixup(.4)]), Throughput()]).distill(Two(), cache=cache)
    seen = []
    class See(Callback):
        order = 1
        def before_batch(self):
            if self.training and not cache: seen.append((self.xb, self.learn.bag_mixup.pairs))
    fit(learn, cbs=See())
    assert learn.throughput.n==64
    raw = list(learn.dls.train)
    for b,(xb,(lam,j)) in zip(raw, seen):
        for x,o in zip(b, xb): torch.testing.assert_close(o, lam[:,None]*x+(1-lam[:,None])*x[j])

def test_a_teacher_of_other_inputs_is_refused():
    with pytest.raises(UsageError, match=r'teacher \(Linear\) does not take the 2 inputs'): Learner(two_inputs(), Two(), BagLoss(.1)).distill(nn.Linear(4, 3))

def test_inputs_that_cannot_be_mixed():
    dl = DataLoader([(torch.randn(4), torch.tensor([1,2]), torch.tensor(0))]*8, bs=4)
    dls = DataLoaders(dl, dl)
    dls.n_inp = 2
    with pytest.raises(UsageError, match='cannot be mixed'): fit(Learner(dls, Two(), BagLoss(), nag, lr=.1, cbs=BagMixup(.4)))

class Several(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.l,self.answer = nn.Linear(4, 2),answer
    def forward(self, x): return self.answer(self.l(x))

@pytest.mark.parametrize('answer', [lambda o: (o,o), lambda o: [o,o,o], lambda o: dict(a=o), lambda o: o.sum()], ids=['tuple','list','dict','number'])
@pytest.mark.parametrize('cbs', [lambda: None, TargetCheck, lambda: BagMixup(.4)], ids=['loss','check','mixup'])
def test_several_outputs_are_named(answer, cbs):
    learn = plain(cbs=cbs())
    learn.model = Several(answer)
    with pytest.raises(UsageError, match='model answers with'): fit(learn)

def test_maps_are_no_logits():
    "One number a class, not a map of one point for each"
    learn = plain(cbs=TargetCheck())
    learn.model,learn.loss_func = Several(lambda o: o[..., None, None]),BagLoss(.1)
    with pytest.raises(DataError, match=r'one number a class, \(bs, classes\)'): fit(learn)

def test_models_of_several_outputs(capsys):
    import timm, torchvision.models as tv
    for m in tv.googlenet(num_classes=10, init_weights=False),timm.create_model('resnet10t', features_only=True):
        with pytest.raises(UsageError, match='model answers with'): fit(bag_learner(digits(size=96), 'baseline', arch=m))

def test_a_module_teaches_without_a_validation_set():
    items = list(zip(torch.randn(20, 4), torch.arange(20)%2))
    dls = DataLoaders(DataLoader(items, bs=2, shuffle=True), DataLoader([], bs=2))
    state = dls.train.rng.getstate()
    learn = Learner(dls, nn.Linear(4, 2), BagLoss(), nag, lr=.1).distill(nn.Linear(4, 2))
    assert dls.train.rng.getstate()==state
    fit(learn)

def multi_label():
    dl = DataLoader([(torch.randn(4), torch.tensor([1.,1.,i%2])) for i in range(16)], bs=4)
    return Learner(DataLoaders(dl, dl), nn.Linear(4, 3), BCEWithLogitsLossFlat(), nag, lr=.1, cbs=TargetCheck())

def test_multi_label_targets():
    "Mixed as fastai mixes them, not distilled"
    seen = []
    class See(Callback):
        order = 1
        def after_pred(self):
            if self.training: seen.append(self.y)
    fit(multi_label().add_cbs([BagMixup(.4), See()]))
    y = torch.cat(seen)
    assert torch.allclose(y[:,:2], torch.ones(16, 2)) and ((y[:,2]>0)&(y[:,2]<1)).any()
    for loss in BCEWithLogitsLossFlat(),nn.BCEWithLogitsLoss(),F.binary_cross_entropy_with_logits:
        learn = multi_label()
        learn.loss_func = loss
        fit(learn)
        with pytest.raises(UsageError, match='judges each class'): fit(learn.distill(nn.Linear(4, 3)))
    def own(pred, y): return F.binary_cross_entropy_with_logits(pred, y)
    for check in True,False:
        learn = multi_label().distill(nn.Linear(4, 3))
        learn.loss_func = own
        if not check: learn.remove_cbs(TargetCheck)
        with pytest.raises(DataError, match='give the learner a loss that judges each'): fit(learn)   # a function of the user's, which nobody knows for what it is
    learn = multi_label()
    learn.loss_func = CrossEntropyLossFlat()
    with pytest.raises(UsageError, match='no soft targets'): fit(learn.add_cb(BagMixup(.4)))

def two_classes():
    dl = DataLoader([(torch.randn(3, 32, 32), torch.tensor(i%2)) for i in range(16)], bs=8)
    dls = DataLoaders(dl, dl)
    dls.vocab = ['a','b']
    return dls

def test_images_are_mixed_once():
    for cb in BagMixup(.4),MixUp(.4),CutMix(1.):
        with pytest.raises(UsageError, match='mixed twice'): fit(small(digits(), 'mixup', but='distill').add_cb(cb))
    fit(small(digits(bs=128), 'mixup', but='distill').remove_cbs(BagMixup).add_cb(BagMixup(1)))

@pytest.mark.parametrize('check', [True, False])
def test_a_bad_target_is_named_wherever_it_is(check):
    "In the third batch of training, and in the second of validation"
    for where in 0,1:
        items = [[(torch.randn(4), torch.tensor(i%2)) for i in range(8)] for _ in range(2)]
        items[where][5] = torch.randn(4),torch.tensor(7)
        learn = Learner(DataLoaders(*[DataLoader(o, bs=2) for o in items]), nn.Linear(4, 2), BagLoss(), nag, lr=.1, cbs=TargetCheck() if check else None)
        with pytest.raises(DataError, match="Target 7 is not one of the model's 2 classes"+('.*\n.*batch 2 of epoch 0' if check else '')): fit(learn)

@pytest.mark.parametrize('arch,kept', [('vit_tiny_patch16_224', {'pos_embed','cls_token'}), ('swin_tiny_patch4_window7_224', None), ('torchvision', {'class_token','encoder.pos_embedding'})])
def test_no_decay_of_positions_and_tokens(arch, kept):
    import torchvision.models as tv
    model = tv.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=10) if arch=='torchvision' else get_model(arch, n_out=10)
    kept = {k for k,_ in model.named_parameters() if 'relative_position_bias' in k} if kept is None else kept
    learn = Learner(digits(), model, BagLoss(), partial(nag, decay_bias=False), lr=.1)
    learn.create_opt()
    names = decayed(learn.opt, model)
    assert kept and not kept & set(names) and names==[k for k,p in model.named_parameters() if p.ndim>1 and k not in kept]

def test_a_copy_keeps_its_teacher():
    learn = plain().distill(nn.Linear(4, 2))
    other = deepcopy(learn)
    assert other.distillation.teacher is learn.distillation.teacher and other.distillation.learn is other
    fit(other), fit(learn)
    assert 'teacher' not in pickle.loads(pickle.dumps(learn.distillation)).__dict__   # a file holds no teacher

def test_class_weights_act_in_training_alone():
    w = torch.tensor([.1, 5.])
    learn = plain(loss=BagLoss(weight=w))
    x,y = torch.randn(8, 4),torch.arange(8)%2
    pred = learn.model(x)
    assert torch.allclose(learn.loss_func(pred, y), F.cross_entropy(pred, y, weight=w))
    with torch.no_grad(): assert torch.allclose(learn.loss_func(pred, y), F.cross_entropy(pred, y))
    fit(learn)
    with learn.no_bar(): loss = learn.validate()[0]
    p,t = quiet(learn, learn.get_preds, act=lambda o: o)
    assert loss==pytest.approx(F.cross_entropy(p, t).item(), rel=1e-5)

w = torch.tensor([.1, 5.])
not_plain_ones = [(CrossEntropyLossFlat(weight=w),'weight'), (CrossEntropyLossFlat(label_smoothing=.1),'label_smoothing'), (nn.CrossEntropyLoss(w),'weight'), (FocalLoss(),'gamma'),
    (partial(F.cross_entropy, label_smoothing=.1),'label_smoothing'), (LabelSmoothingCrossEntropy(.1),'eps'), (CrossEntropyLossFlat(),''), (BagLoss(.1, weight=w),'')]

@pytest.mark.parametrize('loss,said', not_plain_ones)
def test_a_validation_loss_that_is_not_plain_is_said_once(loss, said, capsys):
    learn = small(two_classes())
    learn.loss_func = loss
    capsys.readouterr()
    fit(fit(learn))
    out = capsys.readouterr().out
    assert out.count('valid_loss is not the plain one')==bool(said) and f'uses {said} in validation too' in out if said else not out

def test_one_teacher_a_learner():
    learn = plain().distill(nn.Linear(4, 2)).distill(nn.Linear(4, 2))
    fit(learn)
    with pytest.raises(UsageError, match='Two teachers'): fit(learn.add_cb(Distillation(nn.Linear(4, 2))))

@pytest.mark.parametrize('alpha', [1, 1.])
def test_alpha_of_any_number_type(alpha):
    lam,j = draw_pairs(4, alpha)
    assert lam.shape==(4,) and sorted(j.tolist())==[0,1,2,3]
    if alpha is not True: fit(small(digits(bs=128), 'mixup', but='distill', alpha=alpha))

class Seeing(nn.Module):
    "Images and two numbers"
    def __init__(self):
        super().__init__()
        self.body,self.head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()),nn.Linear(6, 2)
    def forward(self, x, z): return self.head(torch.cat([self.body(x), z], 1))

def test_a_rung_on_two_inputs():
    dl = DataLoader([(torch.randn(3, 8, 8), torch.randn(2), torch.tensor(i%2)) for i in range(16)], bs=8)
    dls = DataLoaders(dl, dl)
    dls.n_inp,dls.vocab = 2,['a','b']
    learn = fit(bag_learner(dls, 'mixup', but='distill', arch=Seeing()).distill(Seeing()))
    assert learn.throughput.n==16 and 'parameters' in run_card(learn)['model']
    learn.show_train_batch()

# ---- how runs end

def photos(path, n=16):
    for k in 'ab':
        (path/k).mkdir(parents=True)
        for i in range(n): Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path/k/f'{i}.png')
    return path

def test_data_that_vanish_are_an_error(tmp_path):
    "Under `bad='skip'`: in the second epoch, of training and of validation"
    for part,name in (0,'training'),(1,'validation'):
        src = photos(tmp_path/f'{part}')
        dls = bag_dls(src, size=32, bs=8, num_workers=0, device='cpu', bad='skip')
        class Vanish(Callback):
            def before_epoch(self):
                if self.epoch==1:
                    for o in self.dls.loaders[part].dataset.items: Path(o[0]).unlink()
        learn = small(dls)
        path = tmp_path/f'run{part}'
        path.mkdir()
        with pytest.raises(DataError, match=f'No {name} image could be read'):
            with recorded(learn, path): fit(learn, 3, cbs=Vanish())
        status = json.loads((path/'status.json').read_text())
        assert (status['state'], status['epochs'])==('failed', 1)

@pytest.mark.parametrize('workers', [0, 1])
def test_a_class_that_vanishes_is_an_error(tmp_path, workers):
    "As it is before a run; some images of it are none"
    src = photos(tmp_path/'src')
    class Vanish(Callback):
        def before_epoch(self):
            gone = [o for o in self.dls.train_ds.items if Path(o[0]).parent.name=='a'][:None if self.epoch else 3]
            for o in gone: Path(o[0]).unlink(missing_ok=True)
    (tmp_path/'run').mkdir()
    learn = small(bag_dls(src, size=32, bs=8, num_workers=workers, device='cpu', bad='skip'))
    with pytest.raises(DataError, match="No image of class 'a' can be read any more, the first is '.*/a/"):
        with recorded(learn, tmp_path/'run'): fit(learn, 3, cbs=Vanish())
    status = json.loads((tmp_path/'run/status.json').read_text())
    assert (status['state'], status['epochs'])==('failed', 1)
    photos(tmp_path/'new')
    shutil.copytree(tmp_path/'new/a', src/'a', dirs_exist_ok=True)
    learn = small(bag_dls(src, size=32, bs=8, num_workers=workers, device='cpu', bad='skip'))
    with recorded(learn, tmp_path/'run'): fit(learn, 3)   # they are back

def test_nan_in_a_buffer_ends_the_run(tmp_path):
    class Spoil(Callback):
        def after_step(self):
            if self.epoch==1: next(m for m in self.model.modules() if isinstance(m, nn.BatchNorm2d)).running_var.fill_(float('nan'))
    learn = small(digits(bs=128))
    with pytest.raises(Diverged, match='running_var is not all numbers'):
        with recorded(learn, tmp_path): fit(learn, 3, cbs=Spoil())
    assert json.loads((tmp_path/'status.json').read_text())['state']=='diverged'
    assert all(v.isfinite().all() for v in [*learn.model.state_dict().values(), *read_weights(tmp_path/'last.safetensors')[0].values()])

def test_infinite_masks_are_no_divergence():
    learn = plain(cbs=DivergenceGuard())
    learn.model.register_buffer('mask', torch.tensor([0., float('-inf')]))
    fit(learn, 2)

def test_a_validation_loss_that_is_nan_ends_the_run(tmp_path):
    class Spoil(Callback):
        def after_loss(self):
            if not self.training and self.epoch==1: self.learn.loss = self.loss*float('nan')
    learn = small(digits(bs=128))
    with pytest.raises(Diverged, match='validation loss of epoch 1 is nan'):
        with recorded(learn, tmp_path): fit(learn, 3, cbs=Spoil())
    status = json.loads((tmp_path/'status.json').read_text())
    assert (status['state'], status['epochs'])==('diverged', 1)

def test_a_plain_fit_ends_with_a_validation_loss_that_is_nan():
    class Spoil(Callback):
        def after_loss(self):
            if not self.training and self.epoch==1: self.learn.loss = self.loss*float('nan')
    learn = plain(cbs=[DivergenceGuard(), Spoil()])
    with pytest.raises(Diverged, match='validation loss of epoch 1 is nan.*\n.*look at the validation images'): fit(learn, 3)
    assert len(learn.recorder.losses)==20
    learn = plain(cbs=DivergenceGuard())
    learn.dls = DataLoaders(learn.dls.train, DataLoader([(torch.full((4,), float('inf')), torch.tensor(0))], bs=1))
    assert not np.isfinite(quiet(learn, learn.validate)[0])   # asked for, and answered
    with pytest.raises(Diverged, match='validation loss of epoch 0'): fit(learn, 3)
    learn.dls = DataLoaders(learn.dls.train, DataLoader([], bs=2))
    fit(learn)

def test_statistics_that_overflow_are_no_matter_of_the_rate():
    "A batch of a wrong scale leaves loss and weights as numbers, and the variance infinite"
    class Far(Callback):
        def before_batch(self):
            if self.training and self.iter==2: self.learn.xb = (self.x*1e20,)
    learn = small(digits(bs=128), cbs=Far())
    with pytest.raises(Diverged, match='running_var is not all numbers') as e: fit(learn)
    assert 'scale of its images' in str(e.value) and 'lower lr' not in str(e.value) and len(str(e.value).splitlines())<=3

def test_the_advice_fits_the_cause():
    class Bright(Callback):
        def before_batch(self):
            if self.training and self.iter==2: self.learn.xb = (self.x*float('inf'),)
    with pytest.raises(Diverged, match='inputs of that batch') as e: fit(plain(cbs=[DivergenceGuard(), Bright()]))
    assert 'lower lr' not in str(e.value)
    learn = plain(cbs=DivergenceGuard())
    learn.model.weight.data.fill_(float('nan'))
    with pytest.raises(Diverged, match='weights were no numbers before') as e: fit(learn)
    with pytest.raises(Diverged, match='lower lr') as e: fit(plain(200, cbs=DivergenceGuard()), lr=1e30)

def kill(): [os.kill(o.pid, 9) for o in multiprocessing.active_children()]

class Kill(Callback):
    "Every worker dies, other loaders' too"
    def __init__(self, where): self.where = where
    def after_batch(self):
        if not self.training or self.epoch or self.iter!=1: return
        if self.where!='save': kill()
        if self.where=='step': time.sleep(1)

@pytest.mark.parametrize('where,own', [('loop',True), pytest.param('step', True, marks=pytest.mark.slow), ('save',True), ('loop',False), pytest.param('step', False, marks=pytest.mark.slow)])
def test_a_killed_worker_is_said_in_words(tmp_path, where, own, monkeypatch):
    "Once, where a batch is waited for, however many loaders lost theirs; what is saved meanwhile is whole, and the next pass has new ones"
    learn = small(digits(num_workers=1, bs=64) if own else foreign(workers=1))
    others = [digits(num_workers=1, bs=64) for _ in range(2)] if own else []
    for o in others: next(iter(o.train))   # their workers live on
    write = resume.write_sum
    if where=='save': monkeypatch.setattr(resume, 'write_sum', lambda path, data: (kill(), time.sleep(.5)) and write(path, data))
    with pytest.raises(BotError, match='process that reads images was killed.*\n.*fewer') as e:
        with recorded(learn, tmp_path, save_minutes=0 if where=='save' else 10): fit(learn, cbs=Kill(where))
    status = json.loads((tmp_path/'status.json').read_text())
    assert status['error']==str(e.value) and not list(tmp_path.glob('.claim*')) and bool(status.get('files'))==(where=='save')
    if where=='save': assert run_file(tmp_path, 'state') and status['batch']==1
    for dl in [learn.dls.train, *(o.train for o in others)]: assert len(list(dl))==len(dl)

class Shares(torch.utils.data.IterableDataset):
    "The first worker has one item, and ends; the other one takes its time"
    def __iter__(self):
        i = torch.utils.data.get_worker_info().id
        for o in range(1+i):
            time.sleep(2*i)
            yield i

def test_a_worker_may_end():
    "By itself, while another one is waited for: also of a loader of somebody else's, after one of ours was read"
    list(batches_of(torch.utils.data.DataLoader([1,2], batch_size=None, num_workers=1)))
    assert sorted(torch.utils.data.DataLoader(Shares(), batch_size=None, num_workers=2))==[0,1,1]

class Sleeps:
    def __len__(self): return 3
    def __getitem__(self, i): return time.sleep(60*i) or os.getpid()

def test_a_death_is_heard_where_it_is_waited_for():
    "At once in a wait, and for the workers of that wait alone; in any other line not at all"
    own,other = (batches_of(torch.utils.data.DataLoader(Sleeps(), batch_size=None, num_workers=1)) for _ in range(2))
    pids,begin = [next(own),next(other)],time.monotonic()
    timers = [Timer(*o) for o in ((.5, os.kill, (pids[1], 9)), (1.5, os.kill, (pids[0], 9)))]
    for o in timers: o.start()
    with pytest.raises(WorkerDied): next(own)
    assert 1.4<time.monotonic()-begin<4
    with pytest.raises(WorkerDied): next(other)

@pytest.mark.parametrize('v', [2**62, 2**63, 10**30, 10**400, -10**400, 10**5000, '9'*5000, [10**5000]], ids='abcdefgh')
def test_no_number_is_too_large_for_words(v):
    "Each setting, in Python as in text; a value that can be used gives no raw error either"
    for k in [*signature(settings).parameters, *signature(options).parameters]:
        try: setting(k)(v, k)
        except UsageError as e: assert len(str(e))<600 and str(e).isprintable()
    def refused(f, *args, **kwargs):
        with pytest.raises(BotError): f(*args, **kwargs)
    for k in 'size','bs','num_workers': refused(digits, **{k:v})
    refused(small, digits(), widen=v)
    if v==2**62: return   # so many epochs could be begun
    refused(digits, seed=v), refused(small, digits(), epochs=v), refused(small(digits()).fit_rung, v)

def test_workers_leave_signals_to_main():
    "Those that ask a process to stop, sent to a worker itself, as a terminal and a queue do; of terminations the first"
    dl,others = digits(num_workers=1, bs=64).train,multiprocessing.active_children()
    batches = iter(dl)
    next(batches)
    worker, = set(multiprocessing.active_children())-set(others)
    for k in stop_signals: os.kill(worker.pid, getattr(signal, k))
    assert len(list(batches))==len(dl)-1 and worker.is_alive()

def test_a_handler_of_before_hears_of_each_child():
    "Though PyTorch's raises an error first, once for each loader that lost a worker"
    heard = []
    def torchs(*args):
        heard.append(len(heard)<2)
        if heard[-1]: raise RuntimeError('DataLoader worker (pid 1) is killed by signal: Killed.')
    workers._child_ended(torchs, signal.SIGCHLD, sys._getframe())
    assert heard==[True, True, False]

def claim(args):
    os.chdir(args)
    return str(new_run('a', 'b'))

def test_two_runs_of_a_second_have_two_folders(tmp_path):
    with multiprocessing.get_context('fork').Pool(4) as pool: paths = pool.map(claim, [str(tmp_path)]*8, chunksize=1)
    assert len(set(paths))==8
    (tmp_path/'mine').mkdir()
    new_run('a', 'b', tmp_path/'mine')
    assert new_run('a', 'b', tmp_path/'mine')==tmp_path/'mine'   # begun and nothing written: the claim decides who has it
    (tmp_path/'mine/notes.txt').touch()
    with pytest.raises(UsageError, match='not empty'): new_run('a', 'b', tmp_path/'mine')

quick = [sys.executable, '-m', 'bot', 'train', 'digits', '--rung', 'baseline', '--arch', 'xresnet18d', '--widen', '0.0625', '--workers', '0']

@pytest.mark.slow
def test_nobody_reads_any_more(tmp_path):
    "`bot-train ... | head -1`, and a closed output"
    env = os.environ | dict(PYTHONPATH=str(Path(__file__).parents[1]), PYTHONWARNINGS='ignore')
    cmd = ' '.join(quick)
    out = subprocess.run(['bash', '-c', f'{cmd} --epochs 3 --out a | head -1; echo ${{PIPESTATUS[0]}}'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1]=='129' and not out.stderr and json.loads((tmp_path/'a/status.json').read_text())['state']=='interrupted'
    assert load_run(tmp_path/'a', device='cpu')
    out = subprocess.run(['bash', '-c', f'{cmd} --epochs 1 --out b >&-'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert out.returncode==0 and not out.stderr and json.loads((tmp_path/'b/status.json').read_text())['state']=='finished'

no_room = 'What is printed cannot be written any more (No space left on device)'

@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is full')
@pytest.mark.slow
@pytest.mark.parametrize('to,said,unbuffered', [('> /dev/full', no_room, ''), ('> /dev/full', no_room, '1'), ('> /dev/full 2>&1', '', '1'), ('2> /dev/full', None, '')])
def test_a_full_device(tmp_path, to, said, unbuffered):
    "A run whose words find no room goes on, with an image that cannot be read too; a command that has nothing to do keeps its exit code"
    for c in 'ab':
        (tmp_path/'photos'/c).mkdir(parents=True)
        for i in range(30): Image.fromarray((np.random.default_rng(i).random((32, 32, 3))*255).astype(np.uint8)).save(tmp_path/f'photos/{c}/{i}.png')
    for i in range(5, 9): (tmp_path/f'photos/a/{i}.png').write_bytes(b'no image')
    env = os.environ | dict(PYTHONPATH=str(Path(__file__).parents[1]), PYTHONWARNINGS='ignore', PYTHONUNBUFFERED=unbuffered)
    def sh(cmd): return subprocess.run(['bash', '-c', f'{cmd} {to}'], cwd=tmp_path, env=env, capture_output=True, text=True)
    cmd = ' '.join(quick).replace('digits', 'photos')+' --bad skip --size 32 --bs 8 --epochs 2 --out a'
    out = sh(cmd)
    status = json.loads((tmp_path/'a/status.json').read_text())
    assert out.returncode==0 and (status['state'], status['epochs'])==('finished', 2) and len((tmp_path/'a/metrics.csv').read_text().splitlines())==3
    if said is not None: assert not out.stdout and (said in out.stderr and 'Traceback' not in out.stderr if said else not out.stderr)
    assert [sh(o).returncode for o in (cmd, cmd.replace('photos', 'none')+'-2', cmd+' --zz', f'{sys.executable} -m bot zz')]==[0,3,2,2]

# ---- files from outside

@pytest.fixture(scope='module')
def good_run(tmp_path_factory): return run_of(small(digits(bs=128)), tmp_path_factory.mktemp('good')/'run')

settings_of = dict(arch=[7, None, ['a'], 'no_such', 'xresnet18d\x1b[2J', {}], widen=[1000, 1e30, -1, 'wide', [1], float('nan')], size=[1e9, 10**400, 0, -3, 'x', None, [32]],
    bs=['x'], eps=[2], jitter=['a', [1]], min_scale=[-1], flip=[9], pca=[{}], alpha=[[]], drops=[7, 'a', [10**400]], fp16=['perhaps'], no_such=[1],
    zz=[1, None], epochs=[10**400, -10**400, None, 1.5], mom=[None], sched=[None, [['step']]], wd=[1e300], lr=[10**400, 'a'],
    pretrained=[7, ['a']], teacher=[7, ['a']], T=[None], zero_gamma=[None])

def refused(f, *args, **kwargs):
    "In words, few lines of them, without an escape"
    with pytest.raises(BotError) as e: f(*args, **kwargs)
    assert str(e.value) and len(str(e.value).splitlines())<=3 and '\x1b' not in str(e.value)

@pytest.mark.parametrize('k', list(settings_of))
def test_hostile_settings_of_a_run(good_run, tmp_path, k):
    for v in settings_of[k]:
        args = yaml.safe_load((good_run/'args.yaml').read_text())
        args['settings'][k] = v
        if k=='no_such': args['settings'] = [args['settings']]
        bad = shutil.copytree(good_run, tmp_path/'run', dirs_exist_ok=True)
        (bad/'args.yaml').write_text(yaml.safe_dump(args))
        refused(load_run, bad, device='cpu')
        refused(small(digits()).distill, bad, load=load_run)

norms_of = [dict(mean=[1.]*4, std=[1.]*4), dict(mean=[1.]*2, std=[1.]*2), dict(mean=[10**400], std=[1.]), dict(mean=[1.], std=[1.], zz=1),
    7, {}, dict(mean=['a'], std=[1.]), dict(mean=[1.], std=[0.]), dict(mean=[1.,2.], std=[1.])]
nan = float('nan')
names_of = [7, [], None, [{}], [[1]], {'a':1}, [nan, 1.], [True, 'a'], [float('inf'), 1.], ['a', 1], ['a']*10, [1, 1.], [None, 'a']]
whole = dict(settings=[7, [], None, 'x'], classes=names_of, normalized=norms_of, rung=[7, 'no_such', None, ['mixup']], reading=['mine', 7, []])
whole |= dict(but=[7, [7], ['no_such'], None], given=[7, [], dict(zz=1), dict(cutmix=.5), dict(epochs=10**400), dict(jitter=None), {7:1}])
whole |= dict(data=[7, [], dict(reading=7), dict(size=[[1]]), dict(flip=7), dict(root=7), dict(exclude=[1]), dict(src=None)])
whole |= dict(best=[3, [], 'accuracy', None, {}, dict(by=7, better=None), dict(by='a')], resolved=[[], 7, None], changed=[7, {}, [7]], asked=[7, [], None])
whole |= dict(fingerprint=[7, [], dict(hash=7)], path=[7, ['a']], images=[7], command=[7], check=[7], n_train=['x', 1.5], n_valid=[[]], versions=[[]], python=[7])

@pytest.mark.parametrize('k', list(whole))
def test_hostile_args(good_run, tmp_path, k):
    bad = shutil.copytree(good_run, tmp_path/'run')
    for v in whole[k]:
        args = yaml.safe_load((good_run/'args.yaml').read_text())
        args[k] = v
        (bad/'args.yaml').write_text(yaml.safe_dump(args))
        refused(load_run, bad, device='cpu')

@pytest.mark.parametrize('k,vs', dict(files=[7, [7], dict(best=7), dict(best={}), dict(best=dict(name='../a', size=1, crc32=1)), dict(best=dict(name='a\0b', size=1, crc32=1)),
    dict(best=dict(name='a', size='x', crc32=1))], epochs=['x', [], None]).items())
def test_hostile_status(good_run, tmp_path, k, vs):
    "Read, gone on with, or as a teacher"
    bad = shutil.copytree(good_run, tmp_path/'run')
    for v in vs:
        (bad/'status.json').write_text(json.dumps(json.loads((good_run/'status.json').read_text()) | {k:v}))
        refused(load_run, bad, device='cpu'), refused(small(digits(bs=128)).fit_rung, resume=bad), refused(small(digits()).distill, bad, load=load_run)

def test_weights_by_hand_are_said(good_run, tmp_path, capsys):
    "Under the usual name, of another size or of the same; the run's own are read"
    run,kept = shutil.copytree(good_run, tmp_path/'run'),read_weights(good_run/'best.safetensors')[0]
    name = json.loads((run/'status.json').read_text())['files']['best']['name']
    load_run(run, device='cpu')
    assert 'has not the size' not in capsys.readouterr().out
    for new in {k:v+1 for k,v in kept.items()},{'fc.bias':torch.zeros(10)}:
        save_file(new, run/'best.safetensors', read_meta(good_run/'best.safetensors'))
        learn = load_run(run, device='cpu')
        assert torch.equal(learn.model.fc.weight, kept['fc.weight']) and f"best.safetensors' has not the size and checksum that status.json names: read is {name}" in capsys.readouterr().out

def test_a_run_goes_on_with_its_own_model_alone(tmp_path):
    "Of one class and other widths; and with a state that is none"
    class Stop(Callback):
        def after_batch(self): self.learn.run_folder.asked = KeyboardInterrupt()
    def model(k): return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, k), nn.ReLU(), nn.Linear(k, 10))
    def learner(k): return small(digits(bs=128), arch=model(k), widen=None, epochs=1)
    with pytest.raises(KeyboardInterrupt), recorded(learner(8), tmp_path) as learn: fit(learn, cbs=Stop())
    refused(quiet, learn := learner(16), learn.fit_rung, resume=tmp_path)
    f = run_file(tmp_path, 'state')
    status = json.loads((tmp_path/'status.json').read_text())
    save_file(dict(a=torch.zeros(1)), f)
    status['files']['state'] |= dict(size=f.stat().st_size, crc32=zlib.crc32(f.read_bytes()))
    (tmp_path/'status.json').write_text(json.dumps(status))
    refused(quiet, learn := learner(8), learn.fit_rung, resume=tmp_path)

def test_a_good_run_stays_good(good_run):
    args = yaml.safe_load((good_run/'args.yaml').read_text())
    assert not set(read_args(good_run/'args.yaml'))-set(args) and load_run(good_run, device='cpu')
    for classes in [['a','b']], [[1,2]], [[1.5,2]], [[False,True]]: assert check_run(read_args(good_run/'args.yaml') | dict(classes=classes[0]))['classes']==classes[0]

@pytest.mark.parametrize('k', ['classes','int8','complex','channels'])
def test_weights_of_another_run(good_run, tmp_path, k):
    "Of three classes under ten names, of integers, of gray images: refused, as a learner and as a teacher, and with a model that is given"
    bad = shutil.copytree(good_run, tmp_path/'run')
    (bad/'status.json').unlink()   # which names the files that belong to the run
    make = partial(make_xresnet, 'xresnet18d', widen=1/16)
    w = (make(n_out=3) if k=='classes' else make(n_out=10, c_in=1 if k=='channels' else 3)).state_dict()
    if k in ('int8','complex'): w['fc.weight'] = w['fc.weight'].to(torch.int8 if k=='int8' else torch.complex64)
    for o in 'best','last': save_file(w, bad/f'{o}.safetensors', read_meta(good_run/f'{o}.safetensors'))
    for f in partial(load_run, bad, device='cpu'),partial(load_run, bad, device='cpu', model=make(n_out=10)),partial(small(digits()).distill, bad, load=load_run):
        with pytest.raises(DataError, match='not the weights of this run'): f()

def read_meta(path):
    with safe_open(path, 'pt') as f: return f.metadata()

@pytest.mark.parametrize('text', ['', '7', '- a', '!!python/object/apply:os.system ["true"]', '{', '\x00', '[' * 5000, 'a: &a [*a]', 'settings: !!binary x', '!mine {a: 1}'])
def test_hostile_yaml(good_run, tmp_path, text):
    bad = shutil.copytree(good_run, tmp_path/'run')
    (bad/'args.yaml').write_text(text)
    refused(load_run, bad, device='cpu')
    (bad/'args.yaml').write_bytes(b'\xff\xfe'+text.encode())
    refused(load_run, bad, device='cpu')

metas = ['[1]', '7', 'null', '"a"', '{', '['*5000, '{"arch": 7}', '{"arch": ["xresnet18d"]}', *('{"arch": "xresnet18d", "data_cfg": %s}' % o for o in
    ('7', '[1]', f'"{{\\"mean\\": [1{"0"*400}], \\"std\\": [1]}}"', '"[1]"', '"{}"', '"{\\"mean\\": 7}"', '"{\\"mean\\": [\\"a\\"], \\"std\\": [1]}"', '"{\\"mean\\": [1], \\"std\\": [0]}"', '"{\\"size\\": 1e9}"', '"{\\"scale\\": 0}"', '"{\\"size\\": \\"x\\"}"'))]

@pytest.mark.parametrize('meta', metas)
def test_hostile_metadata(good_run, tmp_path, meta):
    "Nothing, or a refusal; a model that is made has a sane `data_cfg`"
    f = tmp_path/'w.safetensors'
    weights = read_weights(good_run/'last.safetensors')[0]
    save_file(weights, f, dict(bot=meta))
    make = partial(make_xresnet, 'xresnet18d', f, n_out=10, widen=1/16)
    if meta=='{"arch": "xresnet18d", "data_cfg": "{}"}': assert make().data_cfg['mean']
    else: refused(make)
    save_file(weights, f, dict(data_cfg='[1]', arch='xresnet18d'))
    refused(make)

@pytest.mark.parametrize('name,content', [('a.pth', b''), ('a.pth', b'no archive'), ('a.pt', b'PK\x03\x04'), ('a.safetensors', b''), ('a.safetensors', b'\xff'*64), ('a.bin', b'\x80\x04.'), ('a.tar', b'x'*2000)])
def test_hostile_weight_files(tmp_path, name, content):
    f = tmp_path/name
    f.write_bytes(content)
    refused(read_weights, f, trust=True)
    refused(make_xresnet, 'xresnet18d', f, trust=True)

@pytest.mark.parametrize('tensors', [{1: torch.zeros(1)}, [torch.zeros(1)], {'a': 7}, {'model': {'a': 1}}, torch.zeros(1), 7])
def test_hostile_state_dicts(tmp_path, tensors):
    torch.save(tensors, tmp_path/'a.pth')
    refused(make_xresnet, 'xresnet18d', tmp_path/'a.pth', trust=True)

def test_odd_tensors(tmp_path):
    own = xresnet18d(n_out=10, widen=1/16).state_dict()
    for bad in torch.zeros(10).to(torch.float8_e4m3fn),torch.full((10,), float('nan')),torch.zeros(3),torch.tensor(1.):
        save_file(own|{'fc.bias': bad}, tmp_path/'w.safetensors', dict(arch='xresnet18d'))
        try: make_xresnet('xresnet18d', tmp_path/'w.safetensors', n_out=10, widen=1/16)
        except BotError: pass
    save_file(own|{'a\x1b[2J': torch.zeros(1)}, tmp_path/'w.safetensors', dict(arch='xresnet18d'))
    refused(make_xresnet, 'xresnet18d', tmp_path/'w.safetensors', n_out=10, widen=1/16)

@pytest.mark.parametrize('text', ['[1]', '7', '{"architecture": 7, "pretrained_cfg": {}}', '{"architecture": "resnet18d", "pretrained_cfg": 7}', '{"architecture": "resnet18d", "pretrained_cfg": {"mean": 7}}',
    '{"architecture": "resnet18d", "pretrained_cfg": {"input_size": 7}}', '['*5000, '\x00'])
def test_hostile_config_beside_weights(good_run, tmp_path, text):
    f = tmp_path/'w.safetensors'
    save_file(read_weights(good_run/'last.safetensors')[0], f, {})
    (tmp_path/'config.json').write_text(text)
    try: model = make_xresnet('xresnet18d', f, n_out=10, widen=1/16)
    except BotError: return
    assert len(model.data_cfg['mean'])==3 and model.data_cfg['size']
