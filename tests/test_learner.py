"What `bag_learner` makes of models, data and runs that others made"
import shutil
import pytest, torch
from torch import nn
import bot.all
from bot.all import DataError, UsageError, bag_dls, bag_learner, load_run, norm_stats, recorded, save_args
from bot.args import python_of
from bot.cli import main
from bot.distill import Distillation
from bot.ladder import recipe
from bot.learner import fit_recipe
from bot.models import read_args
from bot.optimizer import decayed
from bot.settle import drop_epochs, warmup_epochs
from bot.models import xresnet18d
from fastai.data.transforms import Normalize
from fastai.torch_core import set_seed
from pictures import lay_colors

@pytest.fixture(scope='module')
def dls(): return bag_dls('digits', bs=16, num_workers=0, device='cpu')

def published(mean, weights):
    "A model with weights that expect other images"
    model = xresnet18d(n_out=10, widen=1/16)
    model.data_cfg = dict(mean=mean, std=(.5,.5,.5), scale=1, size=224, crop_pct=.875, interpolation='bilinear', weights=weights)
    return model

def test_two_learners_on_one_dls(dls, capsys):
    "Each has its own normalization; the caller's is not changed"
    before = torch.cat(norm_stats(dls))
    raw = dls.valid.one_batch()[0]
    a,b = (bag_learner(dls, 'baseline', arch=published((m,)*3, f'w{m}')) for m in (.25, .75))
    assert torch.equal(torch.cat(norm_stats(dls)), before)
    pixels = []
    for learn,m in (a,.25),(b,.75):
        mean,std = norm_stats(learn.dls)
        assert torch.allclose(mean, torch.full((3,), 255*m)) and torch.allclose(std, torch.full((3,), 127.5))
        pixels.append(learn.dls.valid.one_batch()[0]*127.5 + 255*m)
    mean,std = norm_stats(dls)
    for o in pixels: assert torch.allclose(torch.Tensor(o), torch.Tensor(raw)*std.view(3,1,1)+mean.view(3,1,1), atol=1e-2)
    assert "normalized as w0.25 expects" in capsys.readouterr().out

def test_weights_that_agree_share_the_dls(dls): assert bag_learner(dls, 'baseline', arch='xresnet18a', widen=1/16, epochs=120).dls is dls

def test_given_weights_stay(dls):
    model = published((.5,)*3, 'w')
    before = {k:v.clone() for k,v in model.state_dict().items()}
    learn = bag_learner(dls, 'smooth', arch=model)
    assert learn.model is model and all(torch.equal(v, before[k]) for k,v in model.state_dict().items())

@pytest.mark.parametrize('arch', ['mobilenetv3_small_050', xresnet18d])
def test_archs(dls, arch):
    learn = bag_learner(dls, 'smooth', arch=arch)
    assert learn.model(torch.randn(2, 3, 64, 64)).shape==(2, 10)
    assert all(not p.any() for k,p in learn.model.named_parameters() if k.endswith('conv.bias'))

def test_seed_decides_the_weights(dls):
    def weights(s):
        set_seed(s)
        dls.show_batch(show=False)
        return next(bag_learner(dls, 'baseline', widen=1/16).model.parameters()).clone()
    a,b,c = weights(0),weights(1),weights(0)
    assert torch.equal(a, c) and not torch.equal(a, b)

@pytest.fixture(scope='module')
def run(dls, tmp_path_factory):
    path = tmp_path_factory.mktemp('run')
    learn = bag_learner(dls, 'resnet_d', arch='xresnet18d', widen=1/16, epochs=1)
    save_args(path, learn)
    with learn.no_bar(), learn.no_logging(), recorded(learn, path): learn.fit_rung()
    return path,learn

def test_a_run_as_teacher(dls, run):
    "It sees the student's images as it saw its own"
    path,learn = run
    student = bag_learner(dls, 'mixup', teacher=str(path), widen=1/16)
    x = dls.valid.one_batch()[0]
    learn.model.eval()
    teacher = next(o for o in student.cbs if isinstance(o, Distillation)).teacher.eval()
    with torch.no_grad(): assert torch.allclose(teacher(x), learn.model(torch.Tensor(x)), atol=1e-4)
    assert not any(o is teacher for o in student.model.modules())

def test_a_loaded_run(run):
    path,learn = run
    mine = load_run(path, 'last', device='cpu')
    f = learn.dls.valid_ds.items[0][0]
    with mine.no_bar(), learn.no_bar(): assert torch.allclose(mine.predict(f)[2], learn.predict(f)[2], atol=1e-6)

def test_a_run_of_a_model_that_has_no_name(dls, tmp_path):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    learn = bag_learner(dls, 'baseline', arch=model, epochs=1)
    save_args(tmp_path, learn)
    with learn.no_bar(), learn.no_logging(), recorded(learn, tmp_path): learn.fit_rung()
    with pytest.raises(UsageError, match='Sequential'): load_run(tmp_path)
    again = load_run(tmp_path, 'last', model=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)))
    assert torch.equal(again.model[2].weight.cpu(), learn.model[2].weight)

def test_a_run_that_is_none(tmp_path):
    with pytest.raises(DataError, match='no run folder'): load_run(tmp_path)

def test_settings_of_the_data_are_set_there(dls):
    with pytest.raises(UsageError, match='give it to `bag_dls`'): bag_learner(dls, 'baseline', size=64)
    with pytest.raises(UsageError, match="did you mean 'epochs'"): bag_learner(dls, 'baseline', epohcs=3)

def test_plain_fastai_dls():
    "Anyone's `DataLoaders` will do"
    from fastai.vision.data import ImageDataLoaders
    from bot.sources import digits
    dls = ImageDataLoaders.from_folder(digits(), valid='valid', bs=32, num_workers=0, device='cpu', batch_tfms=Normalize.from_stats((.5,)*3, (.5,)*3))
    learn = bag_learner(dls, 'smooth', widen=1/16)
    assert (learn.recipe['size'], learn.recipe['bs'])==(32, 32) and abs(learn.lr-.1*32/256)<1e-9
    x,y = dls.one_batch()
    assert learn.model(torch.Tensor(x)).shape==(32, 10)

def test_an_earlier_fit_leaves_nothing_in_the_next(dls):
    "Momentum and decay are the recipe's again"
    learn = bag_learner(dls, 'baseline', widen=1/16, epochs=1)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, wd=.5)
        learn.fit_rung()
    assert learn.opt.hypers[-1]['mom']==.9 and learn.opt.hypers[-1]['wd']==1e-4
    with pytest.raises(UsageError, match='n_epoch=0'): learn.fit_rung(0)

def test_freeze_freezes(dls):
    learn = bag_learner(dls, 'baseline', widen=1/16)
    learn.freeze()
    trained = [p.requires_grad for p in learn.model.parameters()]
    assert 0<sum(trained)<len(trained)

def test_weights_that_break_after_the_last_step(dls):
    "The last step of an epoch is looked at too, and the good weights come back"
    from bot.guards import Diverged
    from fastai.callback.core import Callback
    class Break(Callback):
        order = 0
        def after_train(self): next(self.model.parameters()).data.fill_(float('nan'))
    learn = bag_learner(dls, 'baseline', widen=1/16, epochs=1, cbs=Break())
    with pytest.raises(Diverged), learn.no_bar(), learn.no_logging(): learn.fit_rung()
    assert all(o.isfinite().all() for o in learn.model.parameters())

def test_what_has_no_effect_is_said(dls, capsys):
    learn = bag_learner(dls, 'cosine', widen=1/16, drops=(1,2), mixup_off=3)
    said = capsys.readouterr().out
    for o in 'drops=(1.0, 2.0): without effect, the schedule is a cosine','mixup_off=3: without effect, there is no mixup': assert o in said and o in learn.recipe.notes
    bag_learner(dls, 'baseline', arch=xresnet18d(n_out=10, widen=1/16), init='msra')
    assert 'init=msra: without effect, the model has its weights' in capsys.readouterr().out

def test_smoothing_needs_two_classes(tmp_path):
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    items = [(torch.randn(3,32,32), torch.tensor(0))]*4
    dls = DataLoaders(*[DataLoader(items, bs=2) for _ in range(2)], device='cpu')
    dls.vocab = ['a']
    with pytest.raises(UsageError, match='eps=0.1 with 1 class'): bag_learner(dls, 'smooth', widen=1/16)

def test_a_teacher_of_other_width(dls):
    "A module names no classes, so it is asked about one image before anything is trained"
    with pytest.raises(DataError, match='answers with 7 values and the student with 10'): bag_learner(dls, 'mixup', teacher=xresnet18d(n_out=7, widen=1/16), widen=1/16)
    before = torch.get_rng_state()
    teacher = xresnet18d(n_out=10, widen=1/16)
    state = {k:v.clone() for k,v in teacher.state_dict().items()}
    learn = bag_learner(dls, 'resnet_d', arch='xresnet18d', widen=1/16)
    mine = {k:v.clone() for k,v in learn.model.state_dict().items()}
    torch.set_rng_state(before)
    learn.distill(teacher)
    assert torch.equal(torch.get_rng_state(), before) and learn.model.training and teacher.training
    for m,o in (teacher,state),(learn.model,mine): assert all(torch.equal(v, o[k]) for k,v in m.state_dict().items())

def test_a_run_teaches_any_learner(dls, run):
    "`distill` of a plain fastai learner takes a run folder with the function that loads it"
    from fastai.learner import Learner
    path,learn = run
    student = Learner(dls, xresnet18d(n_out=10, widen=1/16), bot.all.BagLoss(), opt_func=bot.all.nag, lr=.01).distill(path, load=load_run)
    x = dls.valid.one_batch()[0]
    learn.model.eval()
    with torch.no_grad(): assert torch.allclose(student.distillation.teacher.eval()(x), learn.model(torch.Tensor(x)), atol=1e-4)

norms = nn.BatchNorm2d(8),nn.SyncBatchNorm(8),nn.GroupNorm(2,8),nn.LayerNorm([8,32,32]),nn.RMSNorm([8,32,32])

@pytest.mark.parametrize('norm', norms, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize('rung,moves', [('zero_gamma',True), ('no_decay',False)])
def test_norms_of_any_shape(dls, norm, rung, moves):
    "A step without gradient moves what decays: all of it on the rung below, weights alone on the trick's"
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    learn = bag_learner(dls, rung, arch=model)
    learn.create_opt()
    for p in model.parameters(): p.data.fill_(1), setattr(p, 'grad', torch.zeros_like(p))
    learn.opt.step()
    moved = [k for k,p in model.named_parameters() if not p.eq(1).all()]
    assert moved==([k for k,_ in model.named_parameters()] if moves else ['0.weight','4.weight'])

def test_a_loaded_run_goes_on(dls, run):
    "Its schedule is the rung's again, whatever the length of the next fit"
    path,learn = run
    mine = load_run(path, 'last', device='cpu')
    mine.dls = dls
    assert 'bs' in mine.recipe.given and 'arch' not in mine.recipe.given
    for n in 1,24: assert (warmup_epochs(mine.recipe, n), drop_epochs(mine.recipe, n))==(n/24, tuple(n*o/4 for o in (1,2,3)))
    assert warmup_epochs(learn.recipe, 24)==1

def test_adam(tmp_path, capsys):
    "As a row and as a setting: its own rate and decay, whatever the batch and the length; on the command too"
    def made(*args, **kw): return bag_learner(bag_dls('digits', size=32, bs=kw.pop('bs', 64), num_workers=0, device='cpu'), *args, widen=1/16, **kw)
    for learn in made('adam'),made('adam', epochs=3),made('smooth', opt='adam'),made('adam', bs=16):
        learn.create_opt()
        assert (learn.lr,learn.recipe['wd'],learn.recipe['lr'])==(.003,.01,.003) and learn.recipe['min_scale']==.35
        assert set(decayed(learn.opt, learn.model))=={k for k,p in learn.model.named_parameters() if p.ndim>1}
    assert (made('adam', lr=.01, wd=.1).lr, made('adam', wd=.1).recipe['wd'])==(.01,.1)
    learn = made('adam', epochs=1)
    learn.dls = bag_dls('digits', size=32, bs=32, num_workers=0, device='cpu')
    assert learn.lr==.003
    assert 'nesterov=False: without effect, the optimizer is Adam' in made('adam', nesterov=False).recipe.notes
    tuned = fit_recipe(recipe('finetune', opt='adam', arch=torch.nn.Linear(1, 1)), 400, 64, torch.device('cpu'))
    assert (tuned['lr'],tuned['epochs'])==(.003,40)
    assert main([*'digits --rung adam --widen .0625 --epochs 1 --workers 0 --device cpu --out'.split(), str(tmp_path/'run')])==0
    args = read_args(tmp_path/'run/args.yaml')
    assert (args['settings']['opt'],args['settings']['lr'],args['resolved']['lr'])==('adam',.003,.003)

@pytest.mark.parametrize('rung', ['smooth', 'ema', 'modern', 'adam', 'repeat'])
def test_its_python_settles_nothing_anew(rung):
    "The script of a run has all that `as_paper` would change"
    learn = bag_learner(bag_dls('digits', size=32, bs=64, num_workers=0, device='cpu'), rung, widen=1/16, epochs=4)
    own = {}
    exec(python_of(learn).removesuffix('learn.fit_rung()'), own)
    other = own['learn'].recipe
    assert {k:(v,other.get(k)) for k,v in learn.recipe.items() if other.get(k)!=v}=={}

def test_rung_adam_without_adam():
    with pytest.raises(UsageError, match='take --rung smooth'): bag_learner(bag_dls('digits', size=32, bs=64, num_workers=0, device='cpu'), 'adam', opt='nag', widen=1/16)

def test_loaders_that_do_more_than_a_row_are_told(tmp_path):
    "Of a run with other tricks, for instance"
    dls = bag_dls('digits', size=32, bs=64, num_workers=0, device='cpu', erase=.1, trivial=True)
    assert 'trivial=True, erase=0.1: what `learn.dls` do, and rung smooth does not' in bag_learner(dls, 'smooth', widen=1/16).recipe.notes
    assert not [o for o in bag_learner(dls, 'modern', widen=1/16).recipe.notes if 'does not' in o]

def test_loaders_that_are_no_classes_of_the_model(tmp_path, capsys):
    learn = bag_learner(bag_dls(lay_colors(tmp_path/'a', train=8, valid=2), size=32, bs=8, num_workers=0, device='cpu'), 'smooth', widen=1/16)
    shutil.copytree(tmp_path/'a', tmp_path/'b')
    for part in 'train','valid': (tmp_path/'b'/part/'a').rename(tmp_path/'b'/part/'z')
    capsys.readouterr()
    learn.dls = bag_dls(tmp_path/'b', size=32, bs=8, num_workers=0, device='cpu')
    assert 'have the classes b, c, z; the model was made for a, b, c' in capsys.readouterr().out
    with pytest.raises(UsageError, match='is no DataLoaders'): learn.dls = learn.dls.train
