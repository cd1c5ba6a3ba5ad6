"What a GPU does beside a CPU: the same draws, the same pictures, each rung, a run that moves from one to the other."
import json, os, subprocess, sys
from pathlib import Path
import pytest, torch
from torch.testing import assert_close
from fastai.torch_core import set_seed
from bot.augment import ColorDraw, color, paper_mean, paper_std
from bot.block import bag_dls
from bot.distill import Teacher
from bot.keys import Step
from bot.ladder import ladder, readings
from bot.learner import bag_learner
from bot.resume import recorded
from bot.runs import load_run

device_of = dict(argvalues=['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])   # the CPU's are the siblings of the GPU's
mean,std = torch.tensor(paper_mean),torch.tensor(paper_std)

def batch_view(device, reading, compile=False):
    torch.manual_seed(0)
    x = torch.randint(0, 256, (8,3,40,40), dtype=torch.uint8).to(device)
    with Step(3, 0, 0, list(range(8)), list(range(8))): draw = ColorDraw(len(x), .4, .1, x.device)
    return color(x, draw, mean.to(device), std.to(device), reading, compile).cpu()

@pytest.mark.gpu
@pytest.mark.parametrize('compile', [False, True])
@pytest.mark.parametrize('reading', readings)
def test_batch_view(reading, compile):
    "Colors of a batch are drawn alike, and come out alike within a rounding of bytes"
    a,b = batch_view('cpu', reading),batch_view('cuda', reading, compile)
    diff = (a-b).abs()*std.view(1,3,1,1)
    assert diff.max()<(.05 if reading=='paper' else 3.01) and diff.mean()<.02, (diff.max(), diff.mean())

def small(device, rung, workers=0, **kwargs):
    set_seed(0)
    return bag_learner(bag_dls('digits', bs=64, num_workers=workers, device=device, seed=1), rung, arch='xresnet18d', widen=1/16, **kwargs)

@pytest.mark.parametrize('reading', readings)
@pytest.mark.parametrize('rung', list(ladder))
@pytest.mark.gpu
def test_each_rung(rung, reading):
    set_seed(0)
    kw = dict(teacher=small('cuda', 'baseline').model) if rung in ('distill','mixup') else {}
    dls = bag_dls('digits', bs=64, num_workers=2, device='cuda', reading=reading)
    learn = bag_learner(dls, rung, reading=reading, arch='xresnet18d', widen=1/16, epochs=2, fp16=rung!='baseline' and list(ladder).index(rung)>=5, **kw)
    types = set()
    learn.model.layer1.register_forward_hook(lambda m,i,o: types.add((o.dtype, o.device.type, o.is_contiguous(memory_format=torch.channels_last))))
    with learn.no_bar(), learn.no_logging(): learn.fit_rung()
    first,last = (o[0] for o in learn.recorder.values)   # of training: two epochs are too few for another loss to be sure to fall
    half = list(ladder).index(rung)>=5
    assert last<first and ((torch.float16 if half else torch.float32),'cuda') in {o[:2] for o in types}
    assert not half or all(o[2] for o in types if o[0]==torch.float16)

@pytest.mark.parametrize('device', ['meta', pytest.param('cuda', marks=pytest.mark.gpu)])
def test_a_teacher_is_whole_where_its_model_is(device):
    "A teacher of another normalization, whose model was put onto a device before: it answers there"
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)).to(device)
    res = Teacher(model, (mean,std), (std,mean))(torch.randn(2,3,8,8, device=device))
    assert res.device.type==device and res.shape==(2,2)

@pytest.mark.parametrize('device', **device_of)
def test_workers_change_nothing(device):
    "Bits of a run with 0 workers and with 2, pinned memory and all"
    from bot.precision import be_deterministic
    be_deterministic()
    try:
        models = []
        for workers in 0,2:
            learn = small(device, 'smooth', workers, epochs=1)
            with learn.no_bar(), learn.no_logging(): learn.fit_rung()
            models.append(learn.model.cpu().state_dict())
        assert all(torch.equal(v, models[1][k]) for k,v in models[0].items())
    finally: be_deterministic(False)

@pytest.mark.gpu
def test_a_run_moves(tmp_path):
    "A run of a GPU says the same on a CPU, and goes on there; what it was begun on is said"
    learn = small('cuda', 'smooth', epochs=1)
    with learn.no_bar(), learn.no_logging(), recorded(learn, tmp_path/'run'): learn.fit_rung()
    a,b = (load_run(tmp_path/'run', device=o, data=True) for o in ('cuda','cpu'))
    for o in a,b: assert next(o.model.parameters()).device.type==torch.device(o.dls.device).type
    with a.no_bar(), b.no_bar(): p,q = (o.get_preds()[0].cpu() for o in (a,b))
    assert_close(p, q, atol=1e-3, rtol=0)
    with torch.no_grad(): assert a.predict(a.dls.valid_ds.items[0][0])[0]==b.predict(b.dls.valid_ds.items[0][0])[0]

quick = [sys.executable, '-m', 'bot', 'train', 'digits', '--rung', 'fp16', '--widen', '0.125', '--arch', 'xresnet18d', '--epochs', '4', '--seed', '3']

@pytest.mark.gpu
def test_the_command(tmp_path):
    "`bot-train` on a GPU, stopped and gone on with, has the bits of one that was not"
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')]))
    def go(out, *more): return subprocess.run([*quick, '--deterministic', '--out', str(out), *more], env=env, cwd=tmp_path, capture_output=True, text=True)
    o = go(tmp_path/'a')
    assert o.returncode==0, o.stdout+o.stderr
    p = subprocess.Popen([*quick, '--deterministic', '--out', str(tmp_path/'b')], env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    next(line for line in p.stdout if line.startswith('epoch'))
    p.terminate()
    p.communicate()
    o = go(tmp_path/'b')
    assert o.returncode==0 and p.returncode in (0,143), o.stdout+o.stderr
    a,b = (json.loads((tmp_path/k/'status.json').read_text())['files']['weights'] for k in 'ab')
    assert {k:v for k,v in a.items() if k!='name'}=={k:v for k,v in b.items() if k!='name'}
