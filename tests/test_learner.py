"What `bag_learner` makes of models, data and runs that others made"
import pytest, torch
from torch import nn
import bot.all
from bot.all import DataError, UsageError, bag_dls, bag_learner, load_run, norm_stats, recorded, save_args
from bot.callbacks import Distillation
from bot.models import xresnet18d
from fastai.data.transforms import Normalize
from fastai.torch_core import set_seed

@pytest.fixture(scope='module')
def dls(): return bag_dls('digits', bs=16, num_workers=0, device='cpu')

def published(mean, weights):
    "A model with weights that expect other images"
    model = xresnet18d(n_out=10, widen=1/16)
    model.data_cfg = dict(mean=mean, std=(.5,.5,.5), scale=1, size=224, crop_pct=.875, interpolation='bicubic', weights=weights)
    return model

def test_two_learners_on_one_dls(dls, capsys):
    "Each has its own normalisation; the caller's is not changed"
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
    assert "normalised as w0.25 expects" in capsys.readouterr().out

def test_weights_that_agree_share_the_dls(dls): assert bag_learner(dls, 'baseline', arch='xresnet18a', widen=1/16).dls is dls

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
    with pytest.raises(TypeError): bag_learner(dls, 'baseline', epohcs=3)

def test_plain_fastai_dls():
    "Anyone's `DataLoaders` will do"
    from fastai.vision.data import ImageDataLoaders
    from bot.data import digits
    dls = ImageDataLoaders.from_folder(digits(), valid='valid', bs=32, num_workers=0, device='cpu', batch_tfms=Normalize.from_stats((.5,)*3, (.5,)*3))
    learn = bag_learner(dls, 'smooth', widen=1/16)
    assert (learn.recipe['size'], learn.recipe['bs'])==(32, 32) and abs(learn.lr-.1*32/256)<1e-9
    x,y = dls.one_batch()
    assert learn.model(torch.Tensor(x)).shape==(32, 10)

def test_names_hide_nothing_of_fastai():
    "`from bot.all import *` after fastai's own replaces these names and no others: ours does more under the same name"
    import fastai.vision.all as theirs
    ours = {k for k in vars(bot.all) if not k.startswith('_')}
    hidden = {k for k in ours if hasattr(theirs, k) and getattr(theirs, k) is not getattr(bot.all, k)}
    assert hidden=={'Source', 'XResNet', 'get_model'}

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
    from bot.callbacks import Diverged
    from fastai.callback.core import Callback
    class Break(Callback):
        order = 0
        def after_train(self): next(self.model.parameters()).data.fill_(float('nan'))
    learn = bag_learner(dls, 'baseline', widen=1/16, epochs=1, cbs=Break())
    with pytest.raises(Diverged), learn.no_bar(), learn.no_logging(): learn.fit_rung()
    assert all(o.isfinite().all() for o in learn.model.parameters())
