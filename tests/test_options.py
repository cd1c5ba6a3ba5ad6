"Passes, class weights, a compiled model and logs: each does what it says, and a run with it goes on to the bit"
import os, subprocess, sys
from pathlib import Path
import numpy as np, pytest, safetensors.torch as safetensors, torch, torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import nn, tensor
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import set_seed
from bot.args import python_of
from bot.block import bag_dls
from bot.cli import main
from bot.core import UsageError
from bot.files import run_file
from bot.ladder import recipe
from bot.learner import bag_learner, fit_recipe
from bot.losses import BagLoss
from bot.words import run_card
from bot.models import read_args
from bot.resnet import macs
from bot.resume import recorded
from bot.runs import load_run
from pictures import lay_colors
from test_resume import assert_same_run, Break, same

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Training images 48, 32 and 16 of three classes, and 8 of each for validation"
    return lay_colors(tmp_path_factory.mktemp('uneven'), train=(48,32,16), valid=8)

def plain_net(num_classes=3, in_chans=3):
    "Without batch norm"
    return nn.Sequential(nn.Conv2d(in_chans, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, num_classes))

class Look(Callback):
    "What each pass is given, and what each step has counted"
    order,run_valid = 4.5,False
    def before_fit(self): self.soft,self.sizes,self.n = [],[],[]
    def after_loss(self): self.sizes.append(len(self.x))
    def after_pred(self): self.soft.append(self.yb[0].is_floating_point())
    def after_batch(self): self.n.append(len(self.x))

def make(photos, rung='smooth', workers=0, bs=16, device='cpu', **kwargs):
    set_seed(0)
    dls = bag_dls(photos, size=32, bs=bs, num_workers=workers, device=device, seed=3)
    return bag_learner(dls, rung, **dict(arch='xresnet18d', widen=1/16, epochs=3) | kwargs)

def fitted(learn, *cbs):
    learn.add_cb(Look())
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(cbs=cbs)
    return learn

# ---- passes

def test_passes_are_the_whole_batch(photos):
    "Without batch norm: the same weights within rounding, the same rates and losses, each image once and counted once"
    a,b = (fitted(make(photos, arch=plain_net, widen=1., grad_accum_steps=n)) for n in (1,4))
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert a.recorder.lrs==b.recorder.lrs and a.lr==b.lr and len(a.recorder.lrs)==18
    torch.testing.assert_close(torch.stack(list(a.recorder.losses)), torch.stack(list(b.recorder.losses)), rtol=1e-4, atol=1e-5)
    for x,y in zip(a.recorder.values, b.recorder.values): assert list(x)==pytest.approx(list(y), abs=1e-4)
    assert b.look.sizes==[4]*72 and b.look.n==[16]*18 and a.throughput.n==b.throughput.n==96
    c = fitted(make(photos, arch=plain_net, widen=1., bs=4))
    assert max((p-q).abs().max() for p,q in zip(a.model.parameters(), c.model.parameters()))>1e-3   # the control: small batches are something else

@pytest.mark.parametrize('off', [0, .5, 1, 1.3])
def test_mixup_ends_in_the_same_steps(photos, off):
    a,b = (fitted(make(photos, 'mixup', but='distill', mixup_off=off, grad_accum_steps=n)) for n in (1,2))
    assert b.look.soft==[o for o in a.look.soft for _ in range(2)] and True in a.look.soft

def test_what_is_left_of_an_epoch(photos):
    "A last batch of 16, in batches of 20, is one step of its own: nothing is carried on"
    learn = make(photos, arch=plain_net, widen=1., grad_accum_steps=4, bs=20)
    learn.dls.train.drop_last = False
    learn = fitted(learn)
    assert learn.look.n==[20,20,20,20,16]*3 and learn.look.sizes==([5]*16+[4]*4)*3
    assert all(p.grad is None or not p.grad.any() for p in learn.model.parameters())

def test_a_teacher_and_half_precision_in_passes(photos):
    teacher = plain_net()
    a,b = (fitted(make(photos, 'distill', teacher=teacher, arch=plain_net, widen=1., grad_accum_steps=n).to_bf16()) for n in (1,4))
    assert max((p-q).abs().max() for p,q in zip(a.model.parameters(), b.model.parameters()))<.02

def test_passes_that_cannot_be(photos):
    for kw in dict(grad_accum_steps=3),dict(grad_accum_steps=0),dict(grad_accum_steps=1.5):
        with pytest.raises(UsageError, match='grad_accum_steps'): make(photos, **kw)
    with pytest.raises(UsageError, match='both add up'): fitted(make(photos, grad_accum_steps=2), GradientAccumulation(16))

def test_passes_hold_the_papers_batch():
    r = recipe('smooth', grad_accum_steps=32)
    assert fit_recipe(r, 1_281_167, 375, torch.device('cpu'))['bs']==1024 and fit_recipe(recipe('smooth'), 1_281_167, 375, torch.device('cpu'))['bs']==32

# ---- class weights

def test_class_weights(photos):
    "In training alone, those of scikit-learn, on the run card, and in what makes the run again"
    learn = make(photos, class_weights='balanced')
    y = [learn.dls.vocab.o2i[c] for _,c in learn.dls.train_ds.items]
    w = tensor(compute_class_weight('balanced', classes=np.arange(3), y=y)).float()
    torch.testing.assert_close(learn.loss_func.weight, w)
    z,t = torch.randn(3, 3, requires_grad=True),tensor([0,1,2])
    torch.testing.assert_close(learn.loss_func(z, t), BagLoss(.1, weight=w)(z, t))
    assert learn.loss_func(z, t)!=BagLoss(.1)(z, t)
    with torch.no_grad(): assert learn.loss_func(z, t)==F.cross_entropy(z, t)
    assert 'class_weights: 0.667 (a) to 2 (c), in training alone' in run_card(learn)['fitted']
    assert "class_weights='balanced'" in python_of(learn)
    assert make(photos).loss_func.weight is None and 'passes' not in run_card(learn)['run']
    assert 'batches of 16 in 4 passes, lr' in run_card(make(photos, grad_accum_steps=4))['run']

def test_class_weights_count_for_all_targets(photos):
    "With mixup and a teacher too: another rate of learning for the rare class, and a plain validation loss"
    for kw in dict(rung='smooth'),dict(rung='mixup', but='distill'),dict(rung='distill', teacher=plain_net()):
        a,b = (fitted(make(photos, arch=plain_net, widen=1., class_weights=o, **kw)) for o in (None,'balanced'))
        bias = [o.model[-1].bias.detach() for o in (a,b)]
        assert bias[1][2]-bias[1][0]>bias[0][2]-bias[0][0]
        with b.no_bar(), b.no_logging():
            p,t = b.get_preds(act=lambda o: o)
            assert b.validate()[0]==pytest.approx(F.cross_entropy(p, t).item(), abs=1e-5)

def test_class_weights_are_not_lost_with_another_loss(photos):
    learn = make(photos, class_weights='balanced')
    for f in CrossEntropyLossFlat(),BagLoss(),F.cross_entropy:
        learn.loss_func = f
        with pytest.raises(UsageError, match='class_weights'): fitted(learn)
    with pytest.raises(UsageError, match="balanced"): make(photos, class_weights='balancd')

# ---- a run goes on

def run(photos, path, cbs=(), seed=0, workers=0, **kwargs):
    learn = make(photos, workers=workers, **kwargs)
    set_seed(seed)
    with learn.no_bar(), learn.no_logging(), recorded(learn, path, save_minutes=0): learn.fit_rung(cbs=cbs)
    return learn

def check_parity(photos, tmp_path, at, **kwargs):
    run(photos, tmp_path/'whole', **kwargs)
    with pytest.raises(KeyboardInterrupt): run(photos, tmp_path/'run', [Break(at)], workers=2, **kwargs)
    run(photos, tmp_path/'run', seed=1, **kwargs)
    assert_same_run(tmp_path/'run', tmp_path/'whole')
    assert set(safetensors.load_file(run_file(tmp_path/'run', 'last')))==set(make(photos).model.state_dict())
    learn = load_run(tmp_path/'run')
    assert same(dict(learn.model.state_dict()), safetensors.load_file(run_file(tmp_path/'run', 'best')))
    return learn

options = dict(passes=dict(grad_accum_steps=4), weights=dict(class_weights='balanced'))
options['all of them'] = dict(rung='mixup', but='distill', mixup_off=.5) | options['passes'] | options['weights']

@pytest.mark.parametrize('at,k', [('middle','passes'), ('first','weights'), ('end','all of them')])
def test_goes_on(photos, tmp_path, at, k): check_parity(photos, tmp_path, at, **options[k])

@pytest.mark.slow
@pytest.mark.parametrize('at', ['first', 'middle', 'last', 'end'])
@pytest.mark.parametrize('k', options)
def test_goes_on_at_any_moment(photos, tmp_path, at, k): check_parity(photos, tmp_path, at, **options[k])

@pytest.mark.parametrize('k,v', [('grad_accum_steps',2), ('class_weights','balanced'), ('lr',.01)])
def test_another_run(photos, tmp_path, k, v):
    "Begun with an option and gone on without it, or the other way round"
    for a,b in (dict([(k,v)]),{}),({},dict([(k,v)])):
        path = tmp_path/('with' if a else 'without')
        with pytest.raises(KeyboardInterrupt): run(photos, path, [Break('middle')], **a)
        with pytest.raises(UsageError, match=f'another one: {k}: '): run(photos, path, **b)

# ---- a compiled model

def test_no_compiler(tmp_path):
    code = "from bot.precision import compile_model\nfrom torch import nn\ncompile_model(nn.Linear(2,2))"
    env = os.environ | dict(CXX=str(tmp_path/'none'), PATH=str(tmp_path), TORCHINDUCTOR_CACHE_DIR=str(tmp_path/'cache'))
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, env=env)
    assert 'UsageError: torchcompile: torch.compile does not work on cpu here: ' in out.stderr and 'g++' in out.stderr.splitlines()[-1], out.stderr[-3000:]

@pytest.mark.slow
def test_a_compiled_net(photos, tmp_path):
    "The same weights within rounding, under the same names, in passes too; what is asked of the model beside is not compiled"
    kw = dict(arch=plain_net, widen=1., grad_accum_steps=2)
    a,b = make(photos, **kw),make(photos, torchcompile=True, **kw)
    assert b.model._compiled_call_impl is not None and macs(a.model, 32)==macs(b.model, 32)
    fitted(a), fitted(b)
    assert list(a.model.state_dict())==list(b.model.state_dict())
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)
    torch._dynamo.reset()

@pytest.mark.slow
@pytest.mark.parametrize('at', ['middle', 'end'])
def test_a_compiled_run_goes_on(photos, tmp_path, at):
    learn = check_parity(photos, tmp_path, at, torchcompile=True)
    assert learn.model._compiled_call_impl is None and read_args(tmp_path/'run/args.yaml')['settings']['torchcompile'] is True
    torch._dynamo.reset()

# ---- logs

def test_a_log_that_is_not_installed(monkeypatch, capsys):
    monkeypatch.setattr('bot.logs.find_spec', lambda k: None)
    assert main(['no such folder', '--log', 'wandb'])==2
    assert 'log=wandb: wandb is not installed here: pip install wandb' in capsys.readouterr().err
    assert main(['digits', '--log', 'wandbb'])==2 and "did you mean 'wandb'" in capsys.readouterr().err

def test_a_run_may_take_up_a_log(photos, tmp_path, monkeypatch):
    "Begun without, gone on with one: the same run, and the log has what came after"
    EventAccumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator').EventAccumulator
    argv = [str(photos), *'--arch xresnet18d --widen 0.0625 --size 32 --bs 16 --epochs 3 --seed 3 --device cpu --workers 0 --save-minutes 0'.split()]
    assert main([*argv, '--out', str(tmp_path/'whole')])==0
    from bot import resume
    save,n = resume.RunFolder.after_batch,[]
    def stop(self):
        save(self)
        n.append(self.training)
        if sum(n)==8: raise KeyboardInterrupt
    monkeypatch.setattr(resume.RunFolder, 'after_batch', stop)
    assert main([*argv, '--out', str(tmp_path/'run')])==130
    monkeypatch.undo()
    assert main([*argv, '--log', 'tensorboard', '--out', str(tmp_path/'run')])==0
    for o in 'last','best': assert same(*(safetensors.load_file(run_file(tmp_path/p, o)) for p in ('run','whole')))
    acc = EventAccumulator(str(tmp_path/'run/tensorboard')).Reload()
    assert [o.step for o in acc.Scalars('epoch/accuracy')]==[12,18]
    assert {o.name for o in (tmp_path/'run').iterdir()}-{o.name for o in (tmp_path/'whole').iterdir()}=={'tensorboard'}
    assert not list((tmp_path/'run').rglob('*.pkl'))+list((tmp_path/'run').rglob('*.pth'))

def test_the_command_keeps_its_log(photos, tmp_path):
    pytest.importorskip('tensorboard')
    assert main([str(photos), *'--arch xresnet18d --widen 0.0625 --size 32 --bs 16 --epochs 1 --device cpu --workers 0 --log tensorboard --out'.split(), str(tmp_path/'run')])==0
    assert '--log tensorboard' in read_args(Path(tmp_path)/'run/args.yaml')['command']
