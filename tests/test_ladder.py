"""Every rung, in both readings, on our model and on timm's: it learns, and exactly its own tricks are at work.

What is at work is observed from outside (weights, rates, losses, activations), so a trick whose hook does nothing fails its cells: that is
the mutation test."""
import math, pytest, torch, torch.nn.functional as F
from functools import cache
from torch import nn, tensor
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from timm.models.resnet import BasicBlock, ResNet
from bot import distill, learner, losses, mixup, precision, prepared, resnet, schedule
from bot.core import UsageError
from bot.ladder import ladder, recipe
from bot.learner import bag_learner
from bot.losses import distill_loss, smooth_labels
from bot.models import xresnet18d
from bot.optimizer import Nesterov

names = list(ladder)
readings = 'paper','gluoncv'   # of the paper; torchvision's is that of its own ladder
K,bs,n_iter,n_epoch,n_steps,lr = 3,8,4,12,20,.05

def small_timm(num_classes=1000, in_chans=3):
    "A ResNet of timm's, with one narrow block a stage"
    return ResNet(BasicBlock, (1,1,1,1), num_classes=num_classes, in_chans=in_chans, channels=(8,16,32,64))

archs = dict(ours={}, timm=dict(arch=small_timm))

@pytest.fixture(autouse=True)
def small(monkeypatch):
    "Ours keeps its name and its variant, with one block a stage"
    monkeypatch.setitem(resnet.depths, 50, resnet.depths[50] | dict(blocks=(1,1,1,1)))

@pytest.fixture(scope='module')
def dls():
    g = torch.Generator().manual_seed(2)
    batch = [(torch.randn(3, 32, 32, generator=g),tensor(i%K)) for i in range(bs)]
    dls = DataLoaders(*[DataLoader(batch*n_iter, bs=bs) for _ in range(2)], device='cpu')
    dls.vocab = [*'abc']
    return dls

class Probe(Callback):
    "What reaches the model and the loss in each step, and what comes out"
    order,run_valid = 4.5,False
    def before_fit(self): self.lrs,self.mixed,self.lams,self.preds,self.soft,self.losses,self.plain = [],[],[],[],[],[],[]
    def before_batch(self):
        self.mixed.append(not any(torch.equal(self.x, o) for o in self.raw))
        if getattr(self.learn, 'bag_mixup', None) and self.learn.bag_mixup.pairs: self.lams.append(len(self.learn.bag_mixup.pairs[0]))
    def after_pred(self): self.preds.append(self.pred.detach()), self.soft.append(self.yb[0])
    def after_loss(self): self.losses.append(self.loss_grad.detach()), self.plain.append(self.yb[0])
    def after_batch(self):
        self.lrs.append(self.opt.hypers[-1]['lr'])
        if len(self.lrs)==self.n: raise CancelFitException

def plain_loss(learn):
    "Plain cross entropy of the plain batch, as the training model sees it"
    x,y = learn.probe.raw[0],learn.probe.y
    learn.model.train()
    with torch.no_grad(): return F.cross_entropy(learn.model(x), y).item()

@cache
def knowing(dls):
    "A teacher that knows the batch: one that knows nothing holds the student back, and by how much is chance"
    torch.manual_seed(0)
    (x,y),m = next(iter(dls.valid)),xresnet18d(n_out=K, widen=.125)
    opt = torch.optim.Adam(m.parameters(), .003)
    for _ in range(60):
        opt.zero_grad()
        F.cross_entropy(m(x), y).backward()
        opt.step()
    assert (m.eval()(x).argmax(1)==y).all()
    return m

def make(dls, rung, reading, arch, n=n_steps, **kwargs):
    teacher = dict(teacher=knowing(dls)) if recipe(rung, **{k:v for k,v in kwargs.items() if k=='but'})['teacher'] else {}
    torch.manual_seed(0)
    learn = bag_learner(dls, rung, reading=reading, as_paper=True, widen=None if arch=='timm' else .125, **archs[arch], **teacher, **kwargs)
    probe = Probe()
    probe.n,(x,probe.y) = n,next(iter(dls.valid))
    probe.raw = [x]
    return learn.add_cb(probe)

def run(learn):
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(n_epoch, lr)
    return learn

# ---- what is at work, seen from outside

def gammas(learn): return [o.weight for o in learn.model.modules() if isinstance(o, nn.BatchNorm2d)]

def decays_bias(learn):
    "Do biases move in a step without gradients?"
    learn.opt.set_hyper('lr', .1), learn.opt.clear_state()
    ps = [p for p in learn.model.parameters() if p.ndim<2]
    for p in learn.model.parameters():
        p.data += 1
        p.grad = torch.zeros_like(p)
    old = [p.detach().clone() for p in ps]
    learn.opt.step()
    return {not torch.equal(*o) for o in zip(old, ps)}

def scheduled(learn, kind, warm, reading, epochs):
    m = math.ceil(n_iter*n_epoch*5/epochs) if warm else 0
    def one(t):
        if t<m: return (t+(reading=='paper'))/m
        return (1+math.cos(math.pi*(t-m)/(n_iter*n_epoch-m)))/2 if kind=='cosine' else .1**sum(t>=n_iter*n_epoch*o/4 for o in (1,2,3))
    return learn.probe.lrs==pytest.approx([lr*one(t) for t in range(len(learn.probe.lrs))])

def student_losses(learn, eps, reading):
    p = learn.probe
    qs = [o if o.is_floating_point() else F.one_hot(o, K).float() for o in p.soft]
    return [F.cross_entropy(z, smooth_labels(q, K, eps, reading) if eps else q).item() for z,q in zip(p.preds, qs)]

def convs(m): return [o for o in m.modules() if isinstance(o, nn.Conv2d)]

def began(m):
    "The reading whose start the largest weight has: uniform ends at sqrt(3) deviations, a gaussian of so many goes on"
    w = max((o.weight for o in convs(m)), key=torch.numel)
    return 'paper' if w.abs().max()<1.8*w.std() else 'gluoncv'

def variant(m):
    "Which steps from A to D a model of ours has taken"
    if not isinstance(m, resnet.XResNet): return {}
    first = m.layer2[0]
    pooled = any(isinstance(o, nn.AvgPool2d) for o in first.shortcut)
    return dict(resnet_b=convs(first.path)[1].stride==(2,2), resnet_c=len(convs(m.stem))==3, resnet_d=pooled)

def observe(dls, rung, reading, arch, n=n_steps, **kwargs):
    "The tricks that are at work in a run of `rung`, and what the loss of its batch became"
    learn = make(dls, rung, reading, arch, n, **kwargs)
    asked = []
    if hasattr(learn, 'distillation'): learn.distillation.teacher.register_forward_hook(lambda m,i,o: asked.append(m.training))
    start,seen = plain_loss(learn),{}
    assert began(learn.model)==reading
    seen['zero_gamma'] = any(not o.any() for o in gammas(learn))
    seen['linear'] = recipe(rung)['bs']==1024 and learn.lr==pytest.approx(.1*bs/256)
    run(learn)
    epochs = learn.recipe['epochs']
    kinds = [(k,w) for k in ('step','cosine') for w in (False,True) if scheduled(learn, k, w, reading, epochs)]
    assert len(kinds)==1, learn.probe.lrs
    seen['cosine'],seen['warmup'] = kinds[0][0]=='cosine',kinds[0][1]
    seen['mixup'] = all(learn.probe.mixed) and all(o.is_floating_point() for o in learn.probe.soft)
    assert set(learn.probe.lams)==({bs if reading=='paper' else 1} if seen['mixup'] else set())
    assert seen['mixup'] or not any(learn.probe.mixed) and not any(o.is_floating_point() for o in learn.probe.soft)
    assert not any(o.is_floating_point() for o in learn.probe.plain)
    fits = {eps: learn.probe.losses==pytest.approx(student_losses(learn, eps, reading), rel=1e-4) for eps in (0,.1)}
    assert sum(fits.values())==1
    seen['smooth'] = fits[.1]
    seen['distill'] = len(asked)==n and not any(asked) and learn.distilled==n
    assert seen['distill'] or not asked or learn.distilled==0
    end = plain_loss(learn)
    bias, = decays_bias(learn)
    seen['no_decay'] = not bias
    return seen | variant(learn.model),end/start

class Distilled(Callback):
    "Counts the steps whose loss is the student's and the teacher's together"
    order,run_valid = 5.5,False
    def before_fit(self):
        self.learn.distilled = 0
        if hasattr(self.learn, 'distillation'): self.learn.distillation.teacher.register_forward_hook(lambda m,i,o: setattr(self, 'answer', o))

    def after_loss(self):
        hard,r = self.learn.probe.losses[-1],self.learn.recipe
        if torch.equal(self.loss_grad.detach(), hard): return
        want = distill_loss(hard, self.pred.detach(), self.answer, 20., r.reading)
        self.learn.distilled += torch.allclose(self.loss_grad.detach(), want, rtol=1e-4)

def expected(rung, arch, but=()):
    on = [o for o in names[1:names.index(rung)+1] if o not in but]
    return {o: o in on for o in names[1:] if o!='fp16' and (arch=='ours' or not o.startswith('resnet'))}

@pytest.fixture(autouse=True)
def counting(monkeypatch):
    old = make
    monkeypatch.setitem(globals(), 'make', lambda *args, **kwargs: old(*args, **kwargs).add_cb(Distilled()))

cells = [(o,r,a,()) for o in names for r in readings for a in archs] + [('mixup',r,a,('distill',)) for r in readings for a in archs]

@pytest.mark.parametrize('rung,reading,arch,but', cells, ids=['-'.join([o,r,a,*b]) for o,r,a,b in cells])
def test_rung(dls, rung, reading, arch, but):
    seen,ratio = observe(dls, rung, reading, arch, **(dict(but=but) if but else {}))
    assert seen==expected(rung, arch, but)
    assert ratio<.5

# ---- half precision, in one step: a CPU has to be told that it is fast

def last(x): return x.is_contiguous(memory_format=torch.channels_last)

def computed_in(dls, rung, reading, arch, **kwargs):
    "Types of the activations in one step of `rung`, and whether its images and weights lie channels last"
    learn,types = make(dls, rung, reading, arch, n=1, **kwargs),set()
    first,second = [o for o in learn.model.modules() if isinstance(o, nn.Conv2d) and o.kernel_size[0]==3][:2]
    first.register_forward_hook(lambda m,i,o: types.add((o.dtype,last(i[0]))))
    run(learn)
    assert {p.dtype for p in learn.model.parameters()}=={torch.float32} and not torch.is_autocast_enabled('cpu')
    assert {last(second.weight)}=={o for _,o in types}
    return types

half,full = (torch.float16,True),(torch.float32,False)

@pytest.fixture
def fast(monkeypatch):
    "Believe that a CPU is a GPU, as far as half precision goes"
    monkeypatch.setattr(precision, 'fast_half', lambda device: True)
    monkeypatch.setattr(precision, 'fast_channels_last', lambda device, half=True: half)

@pytest.mark.parametrize('rung,reading,arch,but', cells, ids=['-'.join([o,r,a,*b]) for o,r,a,b in cells])
def test_half_precision(dls, fast, rung, reading, arch, but):
    assert computed_in(dls, rung, reading, arch, **(dict(but=but) if but else {}))=={half if names.index(rung)>=names.index('fp16') else full}

def test_without_half_precision(dls, fast): assert computed_in(dls, 'mixup', 'paper', 'ours', but=('fp16','distill'))=={full}

def test_layout_is_announced(dls, fast, capsys):
    learn = bag_learner(dls, 'fp16', widen=.125, as_paper=True)
    assert 'images lie channels last' in capsys.readouterr().out and any('channels last' in o for o in learn.recipe.notes)

def test_layout_of_devices(): assert [[precision.fast_channels_last(o, h) for h in (True,False)] for o in ('cuda','cpu','mps')]==[[True,False],[False,True],[False,False]]

class Flat(nn.Module):
    "Fails where channels lie last"
    def __init__(self):
        super().__init__()
        self.conv,self.head = nn.Conv2d(3, 4, 3, padding=1),nn.Linear(4*32*32, K)
    def forward(self, x): return self.head(self.conv(x).view(len(x), -1))

@pytest.mark.parametrize('arch,lies', [('xresnet18d',True), ('resnet10t',True), (Flat(),False)])
def test_layout_on_a_cpu(dls, arch, lies):
    "Models by name lie channels last from the start; one's own keeps its order, which it may count on"
    learn = bag_learner(dls, 'smooth', arch=arch, widen=.125 if arch=='xresnet18d' else 1)
    convs = [o.weight for o in learn.model.modules() if isinstance(o, nn.Conv2d) and o.kernel_size==(3,3)]
    assert {o.is_contiguous(memory_format=torch.channels_last) for o in convs}=={lies}
    with learn.no_bar(), learn.no_logging(): learn.fit(1)

@pytest.mark.parametrize('arch,breaks', [('xresnet18b',True), ('xresnet18a',True), ('xresnet50a',False), ('xresnet18d',False)])
def test_layout_that_torch_cannot_compute(dls, arch, breaks):
    "A sixteenth of a network: where its strided 1x1 convolutions lie channels last, torch writes beyond its memory"
    learn = bag_learner(dls, 'baseline', arch=arch, widen=1/16)
    assert precision.breaks_last(learn.model)==breaks==(not any(isinstance(o, precision.ChannelsLastBatch) for o in learn.cbs))

def test_no_half_precision_on_a_cpu(dls, capsys):
    "Announced, kept in the recipe, and true"
    assert computed_in(dls, 'fp16', 'paper', 'timm')=={full}
    assert 'fp16: True -> False (on cpu)' in capsys.readouterr().out
    with pytest.warns(UserWarning, match='float16 is slow on cpu'): assert precision.half_dtype('fp16', 'cpu') is None
    assert not bag_learner(dls, 'fp16', widen=.125).recipe['fp16']

# ---- mutations: a trick whose hook does nothing is missed by its cell

def nothing(*args, **kwargs): pass
def one(*args, **kwargs): return 1.

def rows(**change): return {k: v|change for k,v in resnet.variants.items()}

mutations = {}
mutations['linear'] = prepared, 'scale_lr', lambda bs: .1
mutations['warmup'] = schedule, 'warmup_factor', one
mutations['zero_gamma'] = learner, 'zero_gamma', nothing
mutations['no_decay'] = Nesterov, 'decays', lambda self, p: True
mutations['fp16'] = precision, 'half_dtype', nothing
mutations['resnet_b'] = resnet, 'variants', rows(strided=0)
mutations['resnet_c'] = resnet, 'variants', rows(stem=(64,))
mutations['resnet_d'] = resnet, 'variants', rows(pool=False)
mutations['cosine'] = schedule, 'cosine_factor', one
mutations['smooth'] = losses, 'smooth_labels', lambda y, k, *args: y if y.is_floating_point() else F.one_hot(y, k).float()
mutations['distill'] = distill.Distillation, 'after_loss', nothing
mutations['mixup'] = mixup.BagMixup, 'before_batch', nothing

def test_every_trick_has_a_mutation(): assert list(mutations)==names[1:]

@pytest.mark.parametrize('trick', mutations)
@pytest.mark.parametrize('rung', ['itself','mixup'])
def test_a_mutation_is_noticed(dls, fast, monkeypatch, trick, rung):
    where,what,broken = mutations[trick]
    monkeypatch.setattr(where, what, broken)
    rung = trick if rung=='itself' else rung
    if trick=='fp16': return half_fails(dls, rung)
    for o in 'fast_half','fast_channels_last': monkeypatch.setattr(precision, o, lambda *args: False)
    try: seen,_ = observe(dls, rung, 'paper', 'ours', n=5)
    except AssertionError: return
    want = expected(rung, 'ours')
    assert {k for k in want if seen[k]!=want[k]}=={trick}

def half_fails(dls, rung):
    with pytest.MonkeyPatch.context() as m:
        m.setattr(precision, 'half_dtype', nothing)
        assert computed_in(dls, rung, 'paper', 'ours')=={(torch.float32,True)}

def test_a_mutation_of_the_layout_is_noticed(dls, fast, monkeypatch):
    monkeypatch.setattr(precision.ChannelsLastBatch, 'before_batch', nothing)
    with pytest.raises(AssertionError): computed_in(dls, 'mixup', 'paper', 'ours')

# ---- what is refused, and what every rung promises

def test_no_teacher_is_refused(dls):
    with pytest.raises(UsageError, match="but='distill'"): bag_learner(dls, 'distill', widen=.125)

@pytest.mark.parametrize('rung', names)
def test_valid_loss_is_plain(dls, rung):
    learn = make(dls, rung, [*readings][names.index(rung)%2], 'timm', n=1)
    with learn.no_bar():
        z,y = learn.get_preds(act=lambda o: o)
        assert learn.validate()[0]==pytest.approx(F.cross_entropy(z, y).item(), rel=1e-5)

@pytest.mark.parametrize('kwargs,text', [(dict(eps=1.5), 'eps=1.5'), (dict(alpha=-1.), 'alpha=-1'), (dict(T=0., teacher='x'), 'T=0'), (dict(eps=-.1), 'eps=-0.1')])
def test_bad_settings(dls, kwargs, text):
    if 'teacher' in kwargs: kwargs = kwargs | dict(teacher=xresnet18d(n_out=K, widen=.125))
    with pytest.raises(UsageError, match=text): bag_learner(dls, 'baseline', widen=.125, **kwargs)

def test_every_setting_arrives(dls):
    "Values that nobody has as a default, each where it acts"
    teacher = xresnet18d(n_out=K, widen=.125)
    learn = bag_learner(dls, 'mixup', widen=.125, teacher=teacher, mom=.7, wd=.03, eps=.2, T=3., alpha=.6, mixup_off=2, lr=.07,
        decay_bias=True, reading='gluoncv', warmup=1, epochs=9)
    learn.create_opt()
    mix,kd = learn.bag_mixup,learn.distillation
    assert [learn.opt.hypers[-1][o] for o in ('mom','wd','lr')]==[.7,.03,.07] and learn.opt.decay=='all' and learn.loss_func.eps==.2
    assert (mix.alpha,mix.off,mix.reading,kd.T,kd.reading,learn.loss_func.reading)==(.6,2,'gluoncv',3.,'gluoncv','gluoncv') and kd.teacher.model is teacher
    assert {'TargetCheck','DivergenceGuard','Throughput'}<={type(o).__name__ for o in learn.cbs}
    asked = {}
    learn.fit_warmup = lambda n, lr, sched, warmup, drops, **kwargs: asked.update(n=n, sched=sched, warmup=warmup, drops=drops, reading=kwargs['reading'])
    learn.fit_rung()
    assert asked==dict(n=9, sched='cosine', warmup=1, drops=(2.25,4.5,6.75), reading='gluoncv')
