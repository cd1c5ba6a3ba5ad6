"The tricks of the procedure together: every pair against a step written by hand, and with fastai's own callbacks."
import inspect, itertools, math, pickle, numpy as np, pytest, torch, torch.nn.functional as F
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from PIL import Image
from torch import nn, tensor
from fastcore.basics import class2attr
from fastai.callback.core import Callback
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner, Recorder, load_learner
from fastai.metrics import accuracy
from bot import average, distill, freezing, guards, logs, mixup, precision, sizes, watch
from bot.block import bag_dls
from bot.block import norm_stats
from bot.weights import input_cfg
from bot.guards import DivergenceGuard, Diverged
from bot.mixup import BagMixup
from bot.distill import Teacher, as_teacher
from bot.init import zero_gamma
from bot.core import DataError, UsageError
from bot.losses import BagLoss
from bot.models import xresnet18d
from bot.optimizer import decayed, nag
from bot.schedule import *

K,bs,n_iter,lr = 5,8,4,.01

@pytest.fixture(autouse=True)
def seed(): torch.manual_seed(0)

def quiet(learn, f, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): f(*args, **kwargs)
    return learn

def fit(learn, n=1, *args, **kwargs): return quiet(learn, learn.fit, n, *args, **kwargs)

def batches(dtype=torch.float32, n=n_iter*bs):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 32, 32, generator=g, dtype=dtype),torch.randint(0, K, (n,), generator=g)

def loaders(x, y):
    items = list(zip(x, y))
    return DataLoaders(DataLoader(items, bs=bs), DataLoader(items, bs=bs))

def network(): return xresnet18d(n_out=K, widen=.125)

class Keep(Callback):
    "What each step was given"
    order = 6
    def before_fit(self): self.pairs,self.targets,self.after = [],[],[]
    def after_batch(self): self.after.append(self.yb[0])
    def after_pred(self):
        if self.training: self.pairs.append(self.learn.bag_mixup.pairs if hasattr(self.learn, 'bag_mixup') else None), self.targets.append(self.yb[0])

# ---- every pair of tricks is the step written by hand

tricks = 'smooth','mixup','distill','no_decay','warmup','cosine','half','zero_gamma'

def with_tricks(on, model, teacher, x, y, reading):
    opt_func = partial(nag, wd=.1, decay_bias='no_decay' not in on)
    learn = Learner(loaders(x, y), model, BagLoss(.1 if 'smooth' in on else 0., reading), opt_func, lr=lr, cbs=Keep())
    learn.remove_cbs(Recorder)   # fastai's loss average is for float32
    if 'mixup' in on: learn.add_cb(BagMixup(.2, reading=reading))
    if 'distill' in on: learn.distill(teacher, 20., reading)
    if 'half' in on: learn.to_bf16()
    args = dict(sched='cosine' if 'cosine' in on else 'step', warmup=.5 if 'warmup' in on else 0, drops=(), reading=reading)
    return quiet(learn, learn.fit_warmup, 1, lr, **args)

def hand_lr(t, on, reading):
    m = 2 if 'warmup' in on else 0
    if t<m: return lr*(t+1)/m if reading=='paper' else lr*t/m
    return lr*(1+math.cos(math.pi*(t-m)/(n_iter-m)))/2 if 'cosine' in on else lr

def hand_loss(on, z, q, r, reading):
    e = .1 if 'smooth' in on else 0
    q = q*(1-e) + ((1-q)*e/(K-1) if reading=='paper' else e/K)
    hard = -(q*z.log_softmax(1)).sum(1).mean()
    if 'distill' not in on: return hard
    soft = -((r/20).softmax(1)*(z/20).log_softmax(1)).sum(1).mean()
    return hard + 400*soft if reading=='paper' else .5*hard + .5*400*soft

def by_hand(on, model, teacher, x, y, pairs, reading):
    bias = [p for p in model.parameters() if p.ndim<2]
    rest = [p for p in model.parameters() if p.ndim>1]
    groups = [dict(params=rest), dict(params=bias, weight_decay=0. if 'no_decay' in on else .1)]
    opt = torch.optim.SGD(groups, lr=lr, momentum=.9, nesterov=True, weight_decay=.1, fused=True)
    amp = torch.autocast('cpu', torch.bfloat16) if 'half' in on else nullcontext()
    for t in range(n_iter):
        xb,q = x[t*bs:(t+1)*bs],F.one_hot(y[t*bs:(t+1)*bs], K).to(x.dtype)
        if 'mixup' in on:
            lam,j = pairs[t][0].to(x.dtype),pairs[t][1]
            xb = lam.view(-1,1,1,1)*xb + (1-lam.view(-1,1,1,1))*xb[j]
            q = lam.view(-1,1)*q + (1-lam.view(-1,1))*q[j]
        with amp: z,r = model(xb),teacher(xb) if 'distill' in on else None
        hand_loss(on, z.to(x.dtype), q, r.detach().to(x.dtype) if r is not None else r, reading).backward()
        for g in opt.param_groups: g['lr'] = hand_lr(t, on, reading)
        opt.step(), opt.zero_grad()

@pytest.mark.parametrize('on', list(itertools.combinations(tricks, 2)), ids='+'.join)
def test_pair_is_the_step_by_hand(on):
    for reading in ('paper','gluoncv') if set(on) & {'smooth','mixup','distill','warmup'} else ['paper']:   # torchvision's has rates of its own
        dtype = torch.float32 if 'half' in on else torch.float64
        x,y = batches(dtype)
        a,teacher = network().to(dtype),network().to(dtype).eval()
        if 'zero_gamma' in on: assert zero_gamma(a)==8
        b = deepcopy(a)
        learn = with_tricks(on, a, teacher, x, y, reading)
        by_hand(on, b, teacher, x, y, learn.keep.pairs, reading)
        for (k,p),q in zip(a.named_parameters(), b.parameters()): torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-6, msg=lambda m: f'{k} {reading}: {m}')

# ---- with fastai's own callbacks

def all_on(path=None):
    learn = Learner(loaders(*batches()), network(), BagLoss(.1), partial(nag, decay_bias=False), lr=.05, metrics=accuracy, path=path)
    return learn.add_cbs([BagMixup(.2), DivergenceGuard(), Keep()]).distill(network()).to_bf16()

def test_accumulation_is_one_large_batch():
    x,y = batches(torch.float64)
    a = nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, K)).double()
    b,t = deepcopy(a),nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, K)).double()
    def new(m, bs):
        dl = DataLoader(list(zip(x, y)), bs=bs)
        return Learner(DataLoaders(dl, dl), m, BagLoss(.1), nag, lr=1e-3).distill(t).remove_cbs(Recorder)
    fit(new(a, 8), cbs=GradientAccumulation(32)), fit(new(b, 32))
    for p,q in zip(a.parameters(), b.parameters()): torch.testing.assert_close(p, q)

def test_accumulation_steps():
    learn = all_on()
    steps = []
    learn.create_opt()
    step,learn.opt.step = learn.opt.step,lambda *a: (steps.append(1), step())
    fit(learn, 2, cbs=GradientAccumulation(2*bs))
    assert len(steps)==4

def test_clip_sees_true_gradients(monkeypatch):
    monkeypatch.setattr(precision, 'fast_half', bool)
    norms = []
    class Norm(Callback):
        order = 12
        def before_step(self): norms.append(torch.stack([p.grad.norm() for p in self.model.parameters()]).norm())
    learn = fit(all_on().to_fp16(init_scale=1.), cbs=[GradientClip(.5), Norm()])
    assert norms and all(.4<o<=.5001 for o in norms), norms
    assert learn.half_precision.dtype==torch.float16

def test_logger_and_trackers(tmp_path):
    cbs = [CSVLogger(), SaveModelCallback(), EarlyStoppingCallback(patience=1, min_delta=1e9)]
    learn = fit(all_on(tmp_path), 5, cbs=cbs)
    rows = (tmp_path/'history.csv').read_text().splitlines()
    assert rows[0]=='epoch,train_loss,valid_loss,accuracy,time' and len(rows)==3
    assert (tmp_path/'models'/'model.pth').exists()
    fit(learn)

@pytest.mark.parametrize('cb', [MixUp, CutMix])
def test_fastai_mixes_with_our_loss(cb):
    seen = []
    class See(Callback):
        order = 5
        def after_loss(self):
            if not self.training: return
            o = self.learn.mix_up if cb is MixUp else self.learn.cut_mix
            e = .1*K/(K-1)
            l1,l2 = (F.cross_entropy(self.pred, y, reduction='none', label_smoothing=e) for y in (o.yb1[0],self.y))
            seen.append((self.loss_grad.item(), torch.lerp(l1, l2, torch.as_tensor(o.lam)).mean().item()))
    learn = Learner(loaders(*batches()), network(), BagLoss(.1), nag, lr=.05, cbs=[cb(.4), See()])
    fit(learn)
    assert len(seen)==n_iter
    for a,b in seen: assert a==pytest.approx(b, rel=1e-5)
    assert isinstance(learn.loss_func, BagLoss)

def test_one_cycle_and_finder_with_every_trick(tmp_path):
    learn = all_on(tmp_path)
    quiet(learn, learn.fit_one_cycle, 2, .05)
    assert np.isfinite(learn.recorder.losses[-1].item())
    quiet(learn, learn.lr_find, num_it=6, show_plot=False)

@pytest.mark.parametrize('value', ['nan','inf'])
def test_a_lost_loss_stops_before_its_step(value):
    "Where and at which rate is said, and the weights are the last good ones"
    class Spoil(Callback):
        order = 1
        def after_loss(self):
            if (self.epoch,self.iter)==(1,2): self.learn.loss = self.learn.loss_grad = self.loss_grad*float(value)
    learn,steps,good = all_on(),[],{}
    learn.create_opt()
    step,learn.opt.step = learn.opt.step,lambda *a: (steps.append(1), step())
    class Good(Callback):
        def before_train(self): good.update({k:v.clone() for k,v in self.model.state_dict().items()})
    with pytest.raises(Diverged, match=f'loss is {value} at batch 2 of epoch 1, with lr 0.05: training stopped\n.* start of epoch 1'): fit(learn, 3, cbs=[Spoil(), Good()])
    assert len(steps)==n_iter+2 and all(torch.equal(v, good[k]) for k,v in learn.model.state_dict().items())

def test_metrics_see_plain_targets():
    learn = all_on()
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True))
    fit(learn)
    assert learn.recorder.metric_names[1:4]==['train_loss','train_accuracy','valid_loss']
    soft,after = learn.keep.targets,learn.keep.after
    assert 0<=learn.recorder.values[-1][1]<=1 and all(o.is_floating_point() for o in soft) and not any(o.is_floating_point() for o in after)

def test_valid_loss_is_plain():
    learn = fit(all_on())
    for f in lambda: learn.recorder.values[-1][0 if len(learn.recorder.values[-1])==2 else 1],lambda: learn.validate()[0]:
        with learn.no_bar(): loss = f()
        with learn.no_bar(): p,t = learn.get_preds(act=lambda o: o)
        assert loss==pytest.approx(F.cross_entropy(p, t).item(), rel=1e-5)

# ---- groups: the same parameters at the same rates, with and without the trick

def halves(m): return [list(m[:5].parameters()),list(m[5:].parameters())]

@pytest.mark.parametrize('decay_bias', [True, False])
def test_freeze_slice_fine_tune(decay_bias):
    learn = Learner(loaders(*batches()), network(), BagLoss(), partial(nag, wd=.1, decay_bias=decay_bias), splitter=halves)
    start = {k:p.detach().clone() for k,p in learn.model.named_parameters()}
    def moved(): return {k for k,p in learn.model.named_parameters() if not torch.equal(p, start[k])}
    learn.freeze()
    fit(learn, 1, 1e-2)
    assert moved()=={k for k in start if k.startswith(('layer4','fc')) or start[k].ndim==1}   # fastai trains frozen norm layers
    assert [h['lr'] for h in learn.opt.hypers]==[1e-2]*2
    learn.unfreeze()
    fit(learn, 1, slice(1e-4, 1e-2))
    assert [h['lr'] for h in learn.opt.hypers]==pytest.approx([1e-4, 1e-2]) and moved()==set(start)
    quiet(learn, learn.fine_tune, 1, 1e-3)
    assert set(decayed(learn.opt, learn.model))=={k for k in start if decay_bias or start[k].ndim>1}

def test_frozen_layers_stay_after_training():
    "fastai keeps zero gradients of frozen layers, which its own optimizers go on decaying"
    learn = fit(Learner(loaders(*batches()), network(), BagLoss(), partial(nag, wd=.1), lr=.1, splitter=halves))
    learn.freeze()
    before = {k:p.detach().clone() for k,p in learn.model[:5].named_parameters() if p.ndim>1}
    fit(learn)
    for k,p in learn.model[:5].named_parameters(): assert p.ndim==1 or torch.equal(p, before[k]), k

# ---- fastai's vision learner

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path,rng = tmp_path_factory.mktemp('images'),np.random.default_rng(0)
    for i,c in enumerate('abc'):
        (path/c).mkdir()
        for j in range(10): Image.fromarray((rng.integers(0, 90, (40,48,3))+60*i).astype(np.uint8)).save(path/c/f'{j}.png')
    return path

@pytest.fixture(scope='module')
def dls(folder): return bag_dls(folder, size=32, bs=8, num_workers=0, device='cpu')

def vision(dls, **kwargs):
    return Learner(dls, xresnet18d(n_out=3, widen=.125), BagLoss(.1), partial(nag, decay_bias=False), lr=.05, metrics=accuracy, cbs=BagMixup(.2), **kwargs)

def test_interpretation_predict_export(dls, folder, tmp_path):
    learn = fit(vision(dls, path=tmp_path).distill(xresnet18d(n_out=3, widen=.125)), 2)
    with learn.no_bar():
        p,t,d,losses = learn.get_preds(with_loss=True, with_decoded=True)
        logits = learn.get_preds(act=lambda o: o)[0]
        torch.testing.assert_close(losses, F.cross_entropy(logits, t, reduction='none'))
        assert torch.equal(d, p.argmax(1)) and torch.allclose(p.sum(1), torch.ones(len(p)))
        interp = ClassificationInterpretation.from_learner(learn)
        assert interp.top_losses(2)[0][0].item()==pytest.approx(losses.max().item(), rel=1e-4)
        name,i,probs = learn.predict(folder/'a'/'0.png')
    assert name==dls.vocab[int(i)] and probs.argmax()==i
    learn.export('m.pkl')
    new = load_learner(tmp_path/'m.pkl')
    assert not any('teacher' in k for k in new.distillation.__dict__)
    with new.no_bar(): assert torch.allclose(new.predict(folder/'a'/'0.png')[2], probs, atol=1e-5)
    with pytest.raises(UsageError, match='without its teacher'): new.distillation.before_train()

def test_mixup_is_keyed(folder):
    "The same seed gives the same pairs, whatever the workers and whatever was drawn before"
    def losses(workers):
        dls = bag_dls(folder, size=32, bs=8, num_workers=workers, device='cpu', seed=5)
        torch.manual_seed(1)
        learn = vision(dls)
        torch.rand(workers)
        return fit(learn, 2).recorder.losses[-1].item()
    assert losses(0)==losses(2)

# ---- teachers

def test_teacher_of_a_learner(dls, folder):
    big = bag_dls(folder, size=64, bs=8, num_workers=0, device='cpu')
    assert norm_stats(dls)[0].tolist()==pytest.approx([123.68, 116.779, 103.939])
    teacher = vision(big)
    learn = fit(vision(dls).distill(teacher))
    assert isinstance(learn.distillation.teacher, Teacher) and not teacher.model.training
    big.vocab = ['a','b','x']
    with pytest.raises(DataError, match="Class 2 is 'x' to the teacher and 'c'"): vision(dls).distill(teacher)

def test_teacher_of_timm_has_its_own_normalization_and_size(dls):
    timm = pytest.importorskip('timm')
    m = timm.create_model('resnet18', num_classes=3)
    assert input_cfg(m)['size']==224 and input_cfg(m)['mean'][0]==pytest.approx(123.675)
    t = as_teacher(m, dls, size=48).eval()
    x = torch.rand(2, 3, 32, 32)*255
    theirs = (x-tensor([123.68, 116.779, 103.939]).view(1,3,1,1))/tensor([58.393, 57.12, 57.375]).view(1,3,1,1)
    own = (x/255-tensor([.485, .456, .406]).view(1,3,1,1))/tensor([.229, .224, .225]).view(1,3,1,1)
    own = F.interpolate(own, size=(48,48), mode='bilinear', antialias=True)
    torch.testing.assert_close(t(theirs), m(own), atol=1e-4, rtol=1e-4)
    fit(vision(dls).distill(m, size=32))

def test_asking_a_teacher_leaves_no_trace():
    "A module is asked about one image: generators, statistics and modes are as before"
    import random
    learn,teacher = Learner(loaders(*batches()), network(), BagLoss(), nag),network()
    before = [{k:v.clone() for k,v in m.state_dict().items()} for m in (learn.model,teacher)]
    states = torch.get_rng_state(),random.getstate()
    learn.distill(teacher)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate()==states[1] and learn.model.training and teacher.training
    for m,o in zip((learn.model,teacher), before): assert all(torch.equal(v, o[k]) for k,v in m.state_dict().items())
    with pytest.raises(DataError, match=f'answers with 7 values and the student with {K}'): learn.distill(xresnet18d(n_out=7, widen=.125))

def test_teacher_of_a_run_folder(dls, tmp_path):
    with pytest.raises(UsageError, match='load_run'): vision(dls).distill(tmp_path)
    asked = []
    learn = vision(dls).distill(tmp_path, load=lambda o: asked.append(o) or vision(dls))
    assert asked==[tmp_path] and learn.distillation.teacher.vocab==dls.vocab

def test_teacher_by_name(dls, monkeypatch):
    with pytest.raises(DataError, match="'resnet18'.*1000"): vision(dls).distill('resnet18')
    monkeypatch.setattr(distill, 'get_model', lambda name, n_out, pretrained: nn.Linear(2, n_out) if pretrained else None)
    assert distill.named_teacher('resnet18', 1000).out_features==1000

def test_teacher_in_the_students_precision(dls):
    types = []
    teacher = xresnet18d(n_out=3, widen=.125)
    learn = vision(dls).distill(teacher).to_bf16()
    teacher[0].register_forward_hook(lambda m,i,o: types.append((o.dtype, torch.is_inference_mode_enabled(), m.training)))
    fit(learn)
    assert set(types)=={(torch.bfloat16, True, False)}

# ---- names and pickles

def patched():
    "Methods that `bot` adds to fastai's learner"
    return [k for k,f in inspect.getmembers(Learner, inspect.isfunction) if f.__module__.startswith('bot.')]

def test_hooks_shadow_nothing():
    mods = guards,mixup,distill,precision,freezing,average,sizes,watch,logs
    hooks = {o for m in mods for o in vars(m).values() if isinstance(o, type) and issubclass(o, Callback) and o.__module__==m.__name__}
    taken = set(dir(Learner)) | set(vars(Learner(DataLoaders(), nn.Linear(1,1), nn.MSELoss()))) | set(dir(nn.Module()))
    assert len(hooks)==13
    for o in hooks: assert class2attr(o.__new__(o), 'Callback') not in taken, o
    assert set(patched())>={'distill','to_fp16','to_bf16','to_channelslast','fit_warmup','fit_warmup_cos','fit_warmup_step'}
    assert set(guards.hook_order)=={o.__name__ for o in hooks} and all(guards.hook_order[o.__name__]==o.order for o in hooks)

def test_pickles():
    for o in BagLoss(.1), BagMixup(.2), DivergenceGuard(), partial(nag, decay_bias=False), lr_schedule(.1, 3, 4): pickle.loads(pickle.dumps(o))

def test_a_model_laid_out_anew_between_fits():
    "Weights lie channels last from the second fit on, their momentum does not: the step is what it would have been"
    def after(anew):
        torch.manual_seed(0)
        x,y = batches()
        learn = Learner(loaders(x, y), network(), BagLoss(), nag, lr=.01)
        fit(learn)
        if anew: learn.to_channelslast(use_amp=False)
        fit(learn)
        return learn.model.state_dict()
    a,b = after(False),after(True)
    for k,v in a.items(): torch.testing.assert_close(v, b[k], atol=1e-5, rtol=1e-5)

# ---- on a GPU

@pytest.mark.gpu
@pytest.mark.parametrize('half,dtype', [('to_fp16',torch.float16), ('to_bf16',torch.bfloat16), ('to_channelslast',torch.float16)])
def test_half_on_cuda(half, dtype):
    types,x,y = [],*batches()
    items = [(a.cuda(),b.cuda()) for a,b in zip(x, y)]
    learn = Learner(DataLoaders(*[DataLoader(items, bs=bs) for _ in range(2)], device='cuda'), network(), BagLoss(.1), nag, lr=.01, cbs=BagMixup(.2))
    learn.distill(network())
    getattr(learn, half)()
    for m in learn.model,learn.distillation.teacher.model: m[0][0].register_forward_hook(lambda m,i,o: types.append((o.dtype, o.device.type)))
    fit(learn, 2)
    assert set(types)=={(dtype,'cuda')} and not torch.is_autocast_enabled('cuda') and np.isfinite(learn.recorder.losses[-1].item())

@pytest.mark.gpu
def test_nag_is_torchs_on_cuda():
    x,y = (o.cuda() for o in batches())
    a = network().cuda()
    b = deepcopy(a)
    torch.backends.cudnn.deterministic = True
    opts = nag(list(a.parameters()), .1),torch.optim.SGD(b.parameters(), .1, momentum=.9, weight_decay=1e-4, nesterov=True, fused=True)
    for m,opt in zip((a,b), opts):
        for _ in range(3): F.cross_entropy(m(x), y).backward(), opt.step(), opt.zero_grad()
    for p,q in zip(a.parameters(), b.parameters()): assert torch.equal(p, q)
