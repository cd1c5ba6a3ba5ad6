"What people do with fastai around a learner: change its data, look, freeze, compile, augment at test time, use other metrics, models and targets"
import json, pytest, torch, yaml
from torch import nn
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.callback.core import Callback, CancelBatchException
from fastai.learner import Learner, Recorder
from fastai.metrics import accuracy, error_rate, top_k_accuracy
from fastai.data.block import CategoryBlock, DataBlock
from fastai.vision.core import PILImageBW
from fastai.vision.data import ImageBlock
from bot.all import *
from bot.learner import run_card
from bot import precision
from bot.guards import Diverged
from bot.runs import best_by, is_best
from bot.models import get_model, param_groups

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
    assert learn.lr==lr/2==scale_lr(32) and learn.recipe['size']==64 and 'at 64 px' in run_card(learn)['model'] and 'of 32, lr 0.0125' in run_card(learn)['run']
    path = run_of(learn, tmp_path/'run')
    args = yaml.safe_load((path/'args.yaml').read_text())
    assert (args['settings']['size'], args['settings']['bs'], args['data']['size'], args['resolved']['lr'])==(64, 32, 64, scale_lr(32))
    assert 'size=64' in args['python'] and 'bs=32' in args['python'] and any(o.startswith('size: 32 -> 64') for o in args['changed'])
    mine = load_run(path, 'last', device='cpu')
    x = learn.dls.valid_ds.items[:16]
    a,b = (quiet(o, o.get_preds, dl=o.dls.test_dl(x))[0] for o in (learn, mine))
    assert torch.allclose(a, b, atol=1e-5)
    assert small(digits(size=64)).distill(path, load=load_run).distillation.teacher.size==64
    assert small(digits(size=64)).distill(learn).distillation.teacher.size==64
    learn.dls.train.bs,crop_of(learn.dls.train).size = 16,48
    assert learn.lr==scale_lr(16) and learn.recipe['size']==48 and 'batches of 16' in run_card(learn)['run']
    save_args(path, learn)
    args = yaml.safe_load((path/'args.yaml').read_text())
    assert (args['settings']['bs'], args['data']['bs'], args['settings']['size'], args['data']['size'])==(16, 16, 48, 48)

def test_a_rate_that_was_given_stays():
    learn = small(digits(), lr=.3)
    learn.dls = digits(bs=16)
    assert learn.lr==.3
    learn.lr = .2
    assert learn.lr==.2

def test_other_data_are_normalised_as_the_weights_expect(tmp_path, capsys):
    model = xresnet18d(n_out=10, widen=1/16)
    model.data_cfg = dict(mean=(.5,)*3, std=(.25,)*3, scale=1, size=32, crop_pct=.875, interpolation='bicubic', weights='somebody')
    learn = bag_learner(digits(), 'baseline', arch=model)
    learn.dls = digits(size=48)
    mean,std = norm_stats(learn.dls)
    assert torch.allclose(mean, torch.full((3,), 127.5)) and torch.allclose(std, torch.full((3,), 63.75)) and learn.recipe['size']==48
    mine = load_run(run_of(learn, tmp_path/'run'), model=xresnet18d(n_out=10, widen=1/16), device='cpu')
    mine.dls = digits()
    assert torch.allclose(norm_stats(mine.dls)[0], torch.full((3,), 127.5))

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

def test_freeze_leaves_the_head():
    "Of timm's, of a compiled one, of anybody's: the head and the norms move, rates of a slice differ"
    import torchvision.models as tv
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    compiled = torch.compile(xresnet18d(n_out=10, widen=1/16), backend='eager')
    for arch,head in ('mobilenetv3_small_050','classifier.'),(tv.resnet18(num_classes=10),'fc.'),(own,'4.'),(compiled,'_orig_mod.fc.'):
        learn = bag_learner(digits(bs=128), 'baseline', arch=arch)
        learn.freeze()
        got = moved(learn, learn.fit, 1)-norms(learn.model)
        assert got and all(k.startswith(head) for k in got), (head, got)
        learn.unfreeze()
        learn.opt.set_hypers(lr=slice(1e-5, 1e-2))
        rates = [h['lr'] for h in learn.opt.hypers]
        assert rates[0]==pytest.approx(1e-5) and rates[-1]==pytest.approx(1e-2) and len(set(rates))==len(rates)>1
    assert moved(learn, learn.fine_tune, 1, freeze_epochs=1)=={k for k,_ in learn.model.named_parameters()}

def test_one_layer_says_so(capsys):
    assert len(param_groups(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))))==1 and 'can be frozen' in capsys.readouterr().out

def test_a_compiled_model_leaves_plain_weights(tmp_path):
    model = torch.compile(xresnet18d(n_out=10, widen=1/16), backend='eager')
    learn = bag_learner(digits(bs=128), 'baseline', arch=model)
    path = run_of(learn, tmp_path/'run')
    assert not any('_orig_mod' in k for k in read_weights(path/'last.safetensors')[0])
    for o in xresnet18d(n_out=10, widen=1/16),torch.compile(xresnet18d(n_out=10, widen=1/16), backend='eager'):
        mine = load_run(path, 'last', device='cpu', model=o)
        assert torch.equal(mine.model.fc.weight, model.fc.weight)
    save = {f'_orig_mod.{k}':v for k,v in mine.model._orig_mod.state_dict().items()}   # as an earlier run has them
    load_weights(xresnet18d(n_out=10, widen=1/16), save)

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
    assert best('accuracy', .5, .5, .6, .4, .6)==[0,2] and best('error_rate', .5, .5, .4, .6)==[0,2] and best('my_loss', nan, .5, nan, .5, .4)==[1,4]
    assert best('f1', .1, .2, nan, .2)==[0,1] and best('f1', None, None)==[0,1]
    assert best_by(['epoch','train_loss','valid_loss','lr','time'])=='valid_loss' and best_by(['epoch','train_loss','lr']) is None

def test_a_run_on_foreign_data(tmp_path):
    dls = DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_x=lambda o: o[0], get_y=lambda o: o[1])
    items = [(PILImageBW.create((torch.rand(32, 32)*255).byte().numpy()), 'ab'[i%2]) for i in range(40)]
    learn = small(dls.dataloaders(items, bs=8, num_workers=0, device='cpu'))
    path = run_of(learn, tmp_path/'run')
    args = yaml.safe_load((path/'args.yaml').read_text())
    assert args['data']['bs']==8 and 'dls = ...' in args['python']

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

@pytest.mark.parametrize('n,scale,said', [(64, 2.**200, 'in all'), (10, 2.**200, 'in all')])
def test_overflow_without_end_is_an_error(monkeypatch, n, scale, said):
    "In float16, all steps of an epoch, or of a fit"
    monkeypatch.setattr(precision, 'fast_half', bool)
    x,y = torch.randn(n*2, 4),torch.randint(0, 2, (n*2,))
    dl = DataLoader(list(zip(x, y)), bs=2)
    class Infinite(Callback):
        order = 9
        def after_backward(self):
            for p in self.model.parameters(): p.grad.fill_(float('inf'))
    learn = Learner(DataLoaders(dl, dl), nn.Linear(4, 2), BagLoss(), nag, lr=.1, cbs=Infinite()).to_fp16()
    with pytest.raises(Diverged, match='in 51 steps in a row' if n>50 else said): fit(learn)
    short = Learner(DataLoaders(dl, dl), nn.Linear(4, 2), BagLoss(), nag, lr=.1).to_fp16()
    fit(short)
