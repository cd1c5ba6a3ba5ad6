"The paper's numbers by section (arXiv 1812.01187v2), one line each, in both readings where they differ: what ours gives, and what it says."
import colorsys, math, random, numpy as np, pytest, torch, torch.nn.functional as F
from functools import lru_cache, partial
from itertools import permutations
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from torch import nn, tensor
from fastai.callback.core import Callback, CancelBatchException
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import AvgMetric, Learner
from bot import models, precision
from bot.augment import ColorDraw, brightness, color, contrast, gray, middle, paper_mean, paper_std, pca_axes, pca_noise, pca_values
from bot.augment import random_box, reading_cfg, saturation, scale_hsv, short_edge, valid_shape
from bot.block import BagCrop, bag_dls
from bot.core import DataError
from bot.mixup import BagMixup, draw_pairs, mix
from bot.args import is_best, save_args
from bot.resume import recorded
from bot.runs import load_run
from bot.init import msra, xavier, zero_gamma
from bot.ladder import ladder, recipe
from bot.settle import drop_epochs, warmup_epochs
from bot.learner import bag_learner
from bot.published import native_size
from bot.losses import BagLoss, distill_loss, logit_gap, smooth_labels, teacher_loss
from bot.resnet import conv_bn, macs, n_params
from bot.optimizer import decayed, nag, scale_lr
from bot.schedule import lr_schedule

# ---- what ours gives

@lru_cache
def net(name): return getattr(models, name)()

@lru_cache
def gmacs(name): return round(macs(net(name))/1e9, 3)

def gmacs_at(name, size):
    with torch.device('meta'): return macs(getattr(models, name)(), size)/1e9

def strides(m): return [o.stride[0] for o in m.modules() if isinstance(o, nn.Conv2d)]
def kinds(m): return [type(o).__name__ for o in m]
def convs(m): return [(o.in_channels,o.out_channels,o.kernel_size[0],o.stride[0],o.bias is not None) for o in m.modules() if isinstance(o, nn.Conv2d)]
def changes(rung, **kwargs): return {k:v for k,v in recipe(rung, **kwargs).items() if recipe('baseline', reading=kwargs.get('reading', 'paper'))[k]!=v}

@lru_cache
def boxes(reading='paper'):
    random.seed(0)
    return np.array([random_box(375, 500, reading=reading) for _ in range(3000)])

def ratios(share, reading='paper'):
    "Ratios of boxes so small that none of their kind was refused"
    b = boxes(reading)
    b = b[b[:,2]*b[:,3]<share*375*500]
    return b[:,3]/b[:,2]

def quarters(side, reading='paper'):
    "Shares of boxes that begin in each quarter of the room they have, in height (0) or width (1)"
    b = boxes(reading)
    room = (375,500)[side]-b[:,2+side]
    return np.histogram((b[:,side]/room.clip(1))[room>60], 4, (0,1))[0]/(room>60).sum()

def corner(shape, reading):
    "Row and column where the middle of an image begins"
    h,w = shape
    y,x = middle(torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')), 224, reading_cfg(reading)['crop'])[:,0,0].tolist()
    return y,x

def centered(reading):
    "Column where `BagCrop` begins in validation, in an image that is decoded to 227 columns"
    class Wide:
        shape = 256,227
        def decode(self, size, **kwargs): return torch.arange(227).expand(256, 227)
    return BagCrop.encodes._f(BagCrop(224, reading=reading), Wide())[0,0].item()

@lru_cache
def filled(init):
    torch.manual_seed(0)
    m = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.Linear(512, 1000))
    nn.init.ones_(m[2].bias), nn.init.zeros_(m[1].weight)
    (xavier if init=='xavier' else msra)(m)
    return m

@lru_cache
def zeroed(name):
    m = getattr(models, name)()
    return zero_gamma(m),m

def block_out(m, x): return m.layer1[1].eval()(x)

def steps(opt_func, n=4):
    w = nn.Parameter(torch.linspace(-1, 1, 6).view(2,3).double())
    opt = opt_func([w])
    for i in range(n):
        w.grad = (w.detach()+i).sin()
        opt.step()
    return w.detach()

def mxnet_nag(w, n=4, mu=.9, wd=1e-4, lr=.1):
    "MXNet's NAG, as its optimizer.py has it"
    mom = torch.zeros_like(w)
    for i in range(n):
        g = (w+i).sin() + wd*w
        mom = mu*mom + g
        w = w - lr*(g + mu*mom)
    return w

@lru_cache
def sched(kind='cosine', n_epoch=120, reading='paper'):
    return lr_schedule(.4, n_epoch, 1251, kind, warmup=5, drops=(30,60,90), reading=reading)

def at(batch, n_epoch=120, **kwargs): return sched(n_epoch=n_epoch, **kwargs)(batch/(n_epoch*1251))

@lru_cache
def drawn():
    torch.manual_seed(0)
    return ColorDraw(4000)

def colored(reading, flip=False):
    "Bytes through the color steps and back to the scale of 0 to 255, perhaps flipped before"
    x,draw = torch.randint(256, (4,3,8,8), generator=torch.Generator().manual_seed(0)).byte(),ColorDraw(4)
    draw.factors,draw.order,draw.noise = (getattr(drawn(), o)[:4] for o in ('factors','order','noise'))
    y = color(x.flip(-1) if flip else x, draw, tensor(paper_mean), tensor(paper_std), reading)
    return (y.flip(-1) if flip else y)*tensor(paper_std).view(3,1,1) + tensor(paper_mean).view(3,1,1)

def whole(x): return (x-x.round()).abs().max().item()<1e-3

def flipped(n=2000):
    "How often a crop is followed by a flip"
    class One:
        shape = 8,8
        def decode(self, *args, **kwargs): return torch.arange(2.)
    crop = BagCrop(8)
    crop.train = True
    random.seed(0)
    return sum(BagCrop.encodes._f(crop, One())[0].item() for _ in range(n))/n

def bytes_of(x, factors=(1,1,1), noise=0., draw=None):
    "Pixels `x`, n x 3, through the authors' steps, on the scale of 0 to 255"
    n = len(x)
    d = draw or SimpleNamespace(factors=tensor([factors]*n).float(), order=tensor([[0,1,2]]*n), noise=torch.full((n,3), noise))
    return (color(x.byte().view(n,3,1,1), d, torch.zeros(3), torch.ones(3), 'gluoncv')).view(n,3)

def mean_level(v):
    "Mean of gray `v` after the authors' jitter"
    draw = SimpleNamespace(factors=drawn().factors, order=drawn().order, noise=torch.zeros(4000, 3))
    return bytes_of(torch.full((4000,3), v), draw=draw).mean().item()

class Look(Callback):
    "What a step in half precision computes with"
    order,run_valid = 20,False
    def before_fit(self):
        m,self.types = self.model,{}
        m[0].register_forward_hook(lambda m,x,y: self.types.update(activations=y.dtype))
        m[1].register_forward_pre_hook(lambda m,x: self.types.update(norm={o.dtype for o in (m.weight,m.running_mean)}))
        m[4].register_forward_hook(lambda m,x,y: self.types.update(logits=y.dtype))
    def after_loss(self): self.types['loss'] = self.loss.dtype
    def before_backward(self): self.types['scale'] = (self.loss_grad/self.loss).item()
    def after_train(self):
        ps = list(self.model.parameters())
        self.types |= dict(weights={o.dtype for o in ps}, momentum={self.opt.state[o]['grad_avg'].dtype for o in ps})

@lru_cache
def half_step():
    "A step of a learner in half precision, on a CPU that is taken for a device which is fast at it"
    m = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    dls = DataLoaders(*[DataLoader([(torch.randn(3,8,8),tensor(i)) for i in range(3)], bs=3) for _ in range(2)], device='cpu')
    learn = Learner(dls, m, BagLoss(), opt_func=nag, lr=.1, cbs=Look()).to_fp16()
    with pytest.MonkeyPatch.context() as p, learn.no_bar(), learn.no_logging():
        p.setattr(precision, 'fast_half', lambda device: True)
        learn.fit(1)
    return learn.look.types

def mixed(epoch=0, i=0, off=0, reading='paper', n=8):
    "Images, targets and pairs as `BagMixup` leaves them in batch `i` of 10 of an epoch of 200; the images are the one-hot labels"
    cb,x = BagMixup(.2, off, reading),torch.eye(n)
    cb.learn = SimpleNamespace(xb=(x,), yb=(torch.arange(n),), x=x, pred=torch.zeros(n, n), epoch=epoch, iter=i, n_iter=10, n_epoch=200, loss_func=None)
    cb.before_batch(), cb.after_pred()
    return cb.learn.xb[0],cb.learn.yb[0],cb.pairs

@lru_cache
def digits(): return bag_dls('digits', bs=64, num_workers=0, device='cpu')

class Marks(Callback):
    "A model that says which epoch it is of"
    def before_batch(self):
        if self.iter: raise CancelBatchException   # one step is enough
    def after_train(self): self.model[-1].bias.data.fill_(self.epoch)

@lru_cache
def kept():
    "The epoch whose weights a run of three gives, as it is and if asked for the last"
    accs = iter((.5,.7,.6))
    class Accuracy(AvgMetric):
        def reset(self): self.now = next(accs)
        def accumulate(self, learn): pass
        value = property(lambda self: self.now)
        name = 'accuracy'
    dls = bag_dls('digits', size=32, bs=512, num_workers=0, device='cpu')
    learn = bag_learner(dls, 'resnet_d', arch='xresnet18d', widen=1/16, epochs=3)
    learn.metrics = [Accuracy(None)]
    learn.add_cb(Marks())
    with TemporaryDirectory() as path, learn.no_bar(), learn.no_logging():
        save_args(path, learn)
        with recorded(learn, path): learn.fit(3)
        return [load_run(path, **o).model[-1].bias.unique().tolist() for o in ({}, dict(which='last'))]

def hsv(rgb, hue, sat):
    h,s,v = colorsys.rgb_to_hsv(*(o/255 for o in rgb))
    return [255*o for o in colorsys.hsv_to_rgb(h*hue, min(1, s*sat), v)]

pixel = tensor([200.,100.,50.]).view(1,3,1)
two = tensor([[200.,10],[100,20],[50,30]])[None]
def flat(x): return x.flatten().tolist()
def named_decayed(m): return decayed(nag(list(m.parameters()), .1, decay_bias=False), m)
def cv_gray(r, g, b): return (3735*r+19235*g+9798*b+2**14)>>15   # cv::cvtColor(RGB2GRAY) on BGR: whole numbers throughout

q3 = partial(smooth_labels, tensor([0]), 3, .1)
one,z,r = torch.eye(3),tensor([[1.,2,3]]),tensor([[2.,0,1]])
hard,soft = F.cross_entropy(z, tensor([0])),-((r/20).softmax(1)*(z/20).log_softmax(1)).sum()
lam,partner = tensor([.3,.6,.9]),tensor([2,0,1])
ramp = torch.linspace(-1, 1, 256*36).view(1,256,6,6)
def slope(f): return torch.func.grad(lambda z: f(z).sum())(z).flatten().tolist()

# ---- section, what, ours, the paper's (`g` marks the authors' code, GluonCV)

rows = []
def row(section, what, ours, paper): rows.append((section, what, ours, paper))

row('A1', 'batch, epochs, size', lambda: [recipe('baseline')[k] for k in ('bs','epochs','size')], [256,120,224])
row('A1', 'crop: area from 8%', lambda: (boxes()[:,2:].prod(1)/(375*500)).min()>.078, True)
row('A1', 'crop: area to 100%', lambda: .9<(boxes()[:,2:].prod(1)/(375*500)).max()<=1, True)
row('A1', 'crop: area is uniform', lambda: np.mean([o for o in boxes()[:,2:].prod(1)/(375*500) if o<.3]), pytest.approx((.08+.3)/2, abs=.01))
row('A1', 'crop: ratio 3/4 to 4/3', lambda: ((boxes()[:,3]/boxes()[:,2]).min()>.74, (boxes()[:,3]/boxes()[:,2]).max()<1.35), (True,True))
row('A1', 'flip, jitter, PCA noise', lambda: [recipe('baseline')[k] for k in ('flip','jitter','pca')], [.5,.4,.1])
row('A1', 'flip: half of the images', lambda: flipped(), pytest.approx(.5, abs=.04))
row('A1', 'size of Inception', lambda: native_size("inception_v3")[0], 299)
row('A1', 'mean', lambda: paper_mean, (123.68,116.779,103.939))
row('A1', 'deviation', lambda: paper_std, (58.393,57.12,57.375))
row('A1', 'mean and deviation of 0 to 1', lambda: [round(o/255, 5) for o in paper_mean+paper_std], [.48502,.45796,.40760,.22899,.22400,.22500])
row('A1', 'validation: short edge 256 for 224', lambda: short_edge(224), 256)
row('A1', 'validation of Inception: 342 for 299', lambda: short_edge(299), 342)
row('A1', 'Xavier: bound', lambda: filled('xavier')[2].weight.abs().max().item(), pytest.approx(math.sqrt(6/(512+1000)), rel=1e-3))
row('A1', 'Xavier: uniform', lambda: filled('xavier')[2].weight.std().item(), pytest.approx(math.sqrt(6/(512+1000))/math.sqrt(3), rel=1e-2))
row('A1', 'biases 0, gamma 1, beta 0', lambda: [o.unique().tolist() for o in (filled('xavier')[2].bias, *filled('xavier')[1].parameters())], [[0],[1],[0]])
row('A1', 'lr .1 for 256', lambda: scale_lr(256), .1)
row('A1', 'divided by 10 at 30, 60, 90', lambda: [lr_schedule(.1, 120, 5004, 'step', drops=(30,60,90))(e/120) for e in (29.9,30,60,90)], pytest.approx([.1,.01,.001,.0001]))
row('A2', 'linear scaling: .4 for 1024', lambda: scale_lr(1024), .4)
row('A2', 'warmup: batch i of m has i*eta/m', lambda: [at(i-1)/.4*6255 for i in (1,2,6255)], pytest.approx([1,2,6255]))
row('A2', 'warmup: 5 epochs', lambda: warmup_epochs(recipe('warmup'), 120), 5)
row('A2', 'zero gamma: every residual block', lambda: zeroed('xresnet50d')[0], 3+4+6+3)
row('A2', 'zero gamma: a block returns its input', lambda: torch.equal(block_out(zeroed('xresnet50d')[1], torch.ones(1,256,7,7)), torch.ones(1,256,7,7)), True)
row('A2', 'no bias decay: weights alone', lambda: all(k.endswith('weight') and p.ndim>1 for k,p in net('xresnet50d').named_parameters()
    if k in decayed(nag(list(net('xresnet50d').parameters()), .1, decay_bias=False), net('xresnet50d'))), True)
row('A2', 'no bias decay: that of the linear layer included', lambda: 'fc.bias' in named_decayed(net('xresnet50d')), False)
row('A2', 'no bias decay: 53 convolutions, 1 linear', lambda: len(decayed(nag(list(net('xresnet50b').parameters()), .1, decay_bias=False), net('xresnet50b'))), 54)
row('A2', 'efficient: step decay, 120 epochs', lambda: [recipe('fp16')[k] for k in ('sched','epochs','drops')], ['step',120,(30,60,90)])
row('A2', 'efficient: the settings', lambda: changes('fp16'), dict(bs=1024, warmup=5, zero_gamma=True, decay_bias=False, fp16=True))
row('A3', 'A: strides of a downsampling block', lambda: strides(net('xresnet50a').layer2[0]), [2,1,1,2])
row('A3', 'B: strides of a downsampling block', lambda: strides(net('xresnet50b').layer2[0]), [1,2,1,2])
row('A3', 'D: strides of a downsampling block', lambda: strides(net('xresnet50d').layer2[0]), [1,2,1,1])
row('A3', 'other blocks have stride 1', lambda: {o for k in 'abcd' for i in range(1,5) for b in net(f'xresnet50{k}')[1+i][1:] for o in strides(b)}, {1})
row('A3', 'first stage has stride 1', lambda: {o for k in 'abcd' for o in strides(net(f'xresnet50{k}').layer1)}, {1})
row('A3', 'max pool: 3x3, stride 2', lambda: [getattr(net('xresnet50a').maxpool, o) for o in ('kernel_size','stride')], [3,2])
row('A3', 'A, B: stem', lambda: [convs(net(f'xresnet50{o}').stem) for o in 'ab'], [[(3,64,7,2,False)]]*2)
row('A3', 'C, D: stem', lambda: [convs(net(f'xresnet50{o}').stem) for o in 'cd'], [[(3,32,3,2,False),(32,32,3,1,False),(32,64,3,1,False)]]*2)
row('A3', 'D: 2x2 average pool before a 1x1', lambda: (kinds(net('xresnet50d').layer2[0].shortcut)[0], net('xresnet50d').layer2[0].shortcut[0].kernel_size), ('AvgPool2d',2))
row('A3', 'widths of the first downsampling block', lambda: [o[1] for o in convs(net('xresnet50a').layer2[0])], [128,128,512,512])
row('A3', '7x7 is 5.4 of a 3x3', lambda: round(macs(nn.Sequential(*conv_bn(64, 64, 7)), 56)/macs(nn.Sequential(*conv_bn(64, 64, 3)), 56), 1), 5.4)
row('A3', 'D: within 15% of A', lambda: 1<gmacs('xresnet50d')/gmacs('xresnet50a')<1.15, True)
row('A4', 'cosine: ends of it and the middle', lambda: [round(sched()(e/120), 6) for e in (5, 120)], [.4,0])
row('A4', 'cosine: half way', lambda: at(6255+115*1251//2), pytest.approx(.2, abs=1e-5))
row('A4', 'Fig. 3a: steps at 30 and 60', lambda: [sched('step')(e/120) for e in (29.99,30,60)], pytest.approx([.4,.04,.004]))
row('A4', 'smoothing: eq. (4)', lambda: q3().tolist()[0], pytest.approx([.9,.05,.05]))
row('A4', 'smoothing: eps', lambda: recipe('smooth')['eps'], .1)
row('A4', 'smoothing: eq. (5), "around 9.1"', lambda: round(logit_gap(1000, .1), 3), 9.104)
row('A4', 'smoothing: no gap at (K-1)/K', lambda: logit_gap(1000, .999), pytest.approx(0, abs=1e-9))
row('A4', 'distillation: eq. (6)', lambda: distill_loss(hard, z, r, 20.), pytest.approx((hard + 400*soft).item()))
row('A4', 'distillation: T', lambda: recipe('distill')['T'], 20)
row('A4', 'distillation: teacher', lambda: recipe('distill')['teacher'], 'xresnet152d')
row('A4', 'mixup: alpha, epochs', lambda: [recipe('mixup')[k] for k in ('alpha','epochs')], [.2,200])
row('A4', 'mixup: images', lambda: mix(one, lam, partner).tolist(), [pytest.approx(o) for o in ([.3,0,.7],[.4,.6,0],[0,.1,.9])])
row('A4', 'mixup: a batch becomes as many new examples', lambda: (mixed()[0].shape, (mixed()[0]==1).any(1).all().item(), len(mixed()[2][0])), ((8,8),False,8))
row('A4', 'mixup: labels as images', lambda: [torch.equal(*mixed(reading=o)[:2]) for o in ('paper','gluoncv')], [True,True])
row('A4', 'mixup: smoothed labels as well', lambda: flat(mix(smooth_labels(one, 3, .1), lam, partner)), pytest.approx(flat(smooth_labels(mix(one, lam, partner), 3, .1))))
row('A5', 'efficient -> cosine', lambda: (recipe('resnet_d')['sched'], recipe('cosine')['sched']), ('step','cosine'))
row('A5', 'distillation w/o mixup: 120 epochs', lambda: [recipe('distill')[k] for k in ('epochs','alpha','eps','sched')], [120,0,.1,'cosine'])
row('A5', 'mixup w/o distillation', lambda: [recipe('mixup', but='distill')[k] for k in ('epochs','alpha','teacher')], [200,.2,None])
row('A5', 'distillation w/ mixup', lambda: [recipe('mixup')[k] for k in ('epochs','alpha','teacher')], [200,.2,'xresnet152d'])
row('B', 'Table 2', lambda: ladder['baseline'].top1, 75.87)
row('B', 'Table 4', lambda: [ladder[o].top1 for o in ('linear','warmup','zero_gamma','no_decay','fp16')], [75.17,75.93,76.37,76.03,76.21])
row('B', 'Table 5', lambda: [ladder[o].top1 for o in ('fp16','resnet_b','resnet_c','resnet_d')], [76.21,76.66,76.87,77.16])
row('B', 'Table 6', lambda: [ladder[o].top1 for o in ('resnet_d','cosine','smooth','distill','mixup')]+[ladder['mixup'].alone], [77.16,77.91,78.31,78.67,79.29,79.15])
row('C-1', 'hue and saturation multiply HSV', lambda: flat(scale_hsv(pixel, tensor([[1.3]]), tensor([[.7]]))), pytest.approx(hsv((200,100,50), 1.3, .7), rel=1e-4))
row('C-1', 'factors from .6 to 1.4', lambda: (drawn().factors.min().item(), drawn().factors.max().item(), drawn().factors.mean().item()), pytest.approx((.6,1.4,1), abs=.01))
row('C-1', 'hue of every kind of pixel', lambda: [o for p in permutations((200,100,50)) for o in flat(scale_hsv(tensor(p).float().view(1,3,1), tensor([[1.3]]), tensor([[.7]])))],
    pytest.approx([o for p in permutations((200,100,50)) for o in hsv(p, 1.3, .7)], abs=1e-2))
row('C-1', 'saturation ends at 1', lambda: flat(scale_hsv(pixel, tensor([[1.]]), tensor([[1.4]]))), pytest.approx(hsv((200,100,50), 1, 1.4), abs=1e-3))
row('C-1 g', 'brightness: cut to bytes, rounded to nearest', lambda: flat(brightness(pixel.clone(), 1.37)), [255,137,68])
row('C-1 g', 'bytes: halves go to the even one', lambda: [flat(brightness(tensor([[[1.,3,5,7]]]), a)) for a in (.5,1.5)], [[0,2,2,4],[2,4,8,10]])
row('C-1 g', 'contrast, about the mean of gray', lambda: flat(contrast(two.clone(), .6)), [round(.6*o+.4*(cv_gray(200,100,50)+cv_gray(10,20,30))/2) for o in flat(two)])
row('C-1 g', 'saturation, about gray', lambda: flat(saturation(pixel.clone(), .6)), [round(.6*o+.4*cv_gray(200,100,50)) for o in flat(pixel)])
row('C-1 g', 'gray: whole, red and blue swapped', lambda: [gray(*tensor(o)).item() for o in ((255.,0,0),(0,255.,0),(0,0,255.),(200.,100,50))], [29,150,76,96])
row('C-1 g', 'grays 1, 3, 10 keep their level', lambda: [mean_level(o) for o in (1,3,10)], [1, pytest.approx(2.995, abs=.04), pytest.approx(9.981, abs=.12)])
row('C-1 g', 'six orders', lambda: len({tuple(o) for o in drawn().order.tolist()}), 6)
row('C-2', 'eigenvalues', lambda: pca_values, pytest.approx([255*o for o in (.2175,.0188,.0045)], abs=5e-3))
row('C-2', 'eigenvectors', lambda: pca_axes, ((-.5675,.7192,.4009), (-.5808,-.0045,-.8140), (-.5836,-.6948,.4203)))
row('C-2', 'offset: one coefficient an axis', lambda: flat(pca_noise(tensor([[.1,0,0]]))), pytest.approx([5.546*o for o in (-.5675,-.5808,-.5836)], abs=1e-4))
row('C-2', 'coefficients: deviation .1', lambda: drawn().noise.std(0).tolist(), pytest.approx((.1*(tensor(pca_axes)*tensor(pca_values)).norm(dim=1)).tolist(), rel=.05))
row('C-2', 'coefficients: three an image, each its own', lambda: (drawn().noise.double()@torch.linalg.inv(tensor(pca_axes).double()).T/tensor(pca_values)).T.corrcoef().flatten().tolist(),
    pytest.approx([1,0,0,0,1,0,0,0,1], abs=.06))
row('C-2 g', 'whole numbers in bytes after the noise', lambda: (whole(colored('gluoncv')), colored('gluoncv').min()>-.01, colored('gluoncv').max()<255.01), (True,True,True))
row('C-2 g', 'noise: its fraction is cut off, not rounded', lambda: [bytes_of(tensor([[100,0,255]]), noise=o).tolist() for o in (.9,-.1,-.9)], [[[100,0,255]],[[99,0,254]],[[99,0,254]]])
row('C-3', 'color steps in floats', lambda: whole(colored('paper')), False)
row('C-3', 'a flip before or after is the same', lambda: [(colored(o)-colored(o, True)).abs().max().item() for o in ('paper','gluoncv')], pytest.approx([0,0], abs=1e-3))
row('C-4', 'crop: ratio is uniform', lambda: ratios(.4).mean(), pytest.approx(sum((3/4,4/3))/2, abs=.02))
row('C-4 g', 'crop: sides swapped half of the time', lambda: ratios(.4, 'gluoncv').mean(), pytest.approx((25/24 + math.log(16/9)/(7/12))/2, abs=.02))
row('C-4', 'crop: anywhere in the image', lambda: [quarters(i, o) for i in (0,1) for o in ('paper','gluoncv')], pytest.approx(np.full((4,4), .25), abs=.04))
row('C-4', 'crop: the fallback is the middle', lambda: random_box(100, 2000), (0,(2000-133)//2,100,133))
row('C-4 g', 'crop: the fallback is enlarged with its aspect', lambda: random_box(100, 2000, reading='gluoncv'), (0,950,100,100))
row('C-4 g', 'crop: the fallback of a large image is not', lambda: [random_box(*o, reading='gluoncv') for o in ((300,4000),(4001,301))], [(38,1888,224,224),(1888,38,224,224)])
row('C-4 g', 'crop: the fallback of other sizes', lambda: [random_box(100, 2000, o, reading='gluoncv') for o in (64,128)], [(18,968,64,64),(0,950,100,100)])
row('C-5', 'validation: the long side is rounded down', lambda: [valid_shape(*o, 224) for o in ((375,500),(500,333))], [(256,341),(384,256)])
row('C-5 g', 'validation: the center begins at (H-224)//2', lambda: [corner(o, 'gluoncv') for o in ((227,230),(256,341),(257,225))], [(1,3),(16,58),(16,0)])
row('C-5', 'validation: the center begins at the nearest pixel', lambda: [corner(o, 'paper') for o in ((227,230),(256,341),(257,225))], [(2,3),(16,58),(16,0)])
row('C-5 g', 'validation: the crop takes its reading', lambda: [centered(o) for o in ('paper','gluoncv')], [2,1])
row('C-6', 'Xavier counts the kernel', lambda: filled('xavier')[0].weight.abs().max().item(), pytest.approx(math.sqrt(6/(9*(64+128))), rel=1e-3))
row('C-6 g', 'MSRAPrelu: its deviation', lambda: filled('msra')[0].weight.std().item(), pytest.approx(math.sqrt(2/(1+.25**2)/(9*(64+128)/2)), rel=1e-2))
row('C-6 g', 'MSRAPrelu: on the linear layer', lambda: filled('msra')[2].weight.std().item(), pytest.approx(math.sqrt(2/(1+.25**2)/((512+1000)/2)), rel=1e-2))
row('C-6 g', 'init', lambda: [recipe('baseline', reading=o)['init'] for o in ('paper','gluoncv')], ['xavier','msra'])
row('C-7', 'NAG is MXNet\'s', lambda: steps(partial(nag, lr=.1)).flatten().tolist(), pytest.approx(mxnet_nag(torch.linspace(-1, 1, 6).double()).tolist()))
row('C-7', 'momentum, decay', lambda: [recipe('baseline')[k] for k in ('mom','wd')], [.9,1e-4])
row('C-8 g', 'warmup starts at 0', lambda: [at(0, reading=o) for o in ('paper','gluoncv')], pytest.approx([.4/6255,0]))
row('C-8 g', 'the log of batch 49', lambda: f"{at(49, reading='gluoncv'):.6f}", '0.003133')
row('C-8 g', 'epoch 5 starts at .4', lambda: [at(6255, reading=o) for o in ('paper','gluoncv')], [.4,.4])
row('C-8', 'the baseline has no warmup', lambda: recipe('baseline')['warmup'], 0)
row('C-8', 'warmup climbs with each batch', lambda: [at(i+1)-at(i) for i in (0,1250,1251,6253)], pytest.approx([.4/6255]*4))
row('C-8 g', 'the last batch of warmup', lambda: [at(6254, reading=o)/.4*6255 for o in ('paper','gluoncv')], pytest.approx([6255,6254]))
row('C-9', 'cosine over what warmup leaves', lambda: at(6255+1251), pytest.approx(.2*(1+math.cos(math.pi/115))))
row('C-9', 'the last batch is near 0', lambda: 0<at(120*1251-1)<1e-6, True)
row('C-9', 'drops are in epochs from the start, warmup or not', lambda: [lr_schedule(.4, 120, 1251, 'step', warmup=w, drops=(30,60,90))(30/120) for w in (0,5)], pytest.approx([.04,.04]))
row('C-9', '200 epochs keep 5 of warmup', lambda: warmup_epochs(recipe('mixup'), 200), 5)
row('C-9', 'drops of shorter and longer runs', lambda: [drop_epochs(recipe('baseline'), n) for n in (90,100,120,200)], [(22.5,45,67.5),(25,50,75),(30,60,90),(50,100,150)])
row('C-9', 'batches of an epoch: whole ones', lambda: len(digits().train), len(digits().train_ds)//64)
row('C-10', 'stem of C: 56x56 before the stages', lambda: net('xresnet50c').maxpool(net('xresnet50c').stem(torch.zeros(1,3,224,224))).shape[1:], (64,56,56))
row('C-11', 'no pool in the first stage of D', lambda: 'AvgPool2d' in kinds(net('xresnet50d').layer1[0].shortcut), False)
row('C-11', 'pool: ceil, without padding', lambda: [getattr(net('xresnet50d').layer2[0].shortcut[0], o) for o in ('ceil_mode','count_include_pad')], [True,False])
row('C-12', 'shortcut keeps gamma 1', lambda: zeroed('xresnet50d')[1].layer2[0].shortcut[-1].weight.unique().tolist(), [1])
row('C-12', 'a downsampling block starts as its shortcut', lambda: torch.equal(zeroed('xresnet50d')[1].layer2[0].eval()(ramp), zeroed('xresnet50d')[1].layer2[0].shortcut(ramp).relu()), True)
row('C-12', 'zero gamma on basic blocks too', lambda: zeroed('xresnet18d')[0], 8)
row('C-13', 'the baseline decays everything', lambda: len(decayed(nag(list(net('xresnet50a').parameters()), .1), net('xresnet50a')))==len(list(net('xresnet50a').parameters())), True)
row('C-14', 'no biases before norms', lambda: any(o[4] for o in convs(net('xresnet50a'))), False)
row('C-14', 'biases of the 1x1 that A leaves out: 18,880', lambda: sum(o[1] for k in range(1,5) for b in net('xresnet50a')[1+k] for o in convs(b.path) if o[2]==1), 18_880)
row('C-14', 'A with them: 25,575,912', lambda: n_params(net('xresnet50a'))+18_880, 25_575_912)
row('C-15 g', 'smoothing: eps/K', lambda: q3('gluoncv').tolist()[0], pytest.approx([.9+.1/3,.1/3,.1/3]))
row('C-15', 'gaps of the readings', lambda: [round(logit_gap(k, .1, o), 3) for k in (1000,10,20) for o in ('paper','gluoncv')], [9.104,9.105,4.394,4.511,5.142,5.198])
row('C-15', 'torch: eps*K/(K-1)', lambda: F.cross_entropy(z, q3()).item(), pytest.approx(F.cross_entropy(z, tensor([0]), label_smoothing=.15).item()))
row('C-15 g', 'torch: eps', lambda: F.cross_entropy(z, q3('gluoncv')).item(), pytest.approx(F.cross_entropy(z, tensor([0]), label_smoothing=.1).item()))
row('C-16 g', 'distillation: half the paper\'s', lambda: distill_loss(hard, z, r, 20., 'gluoncv'), pytest.approx((.5*400*soft + .5*hard).item()))
row('C-16', 'teacher\'s term', lambda: teacher_loss(z, r, 20.), pytest.approx(soft.item()))
row('C-16', 'the loss is computed in float32', lambda: teacher_loss(z.half(), r.half(), 20.).dtype, torch.float32)
row('C-16', 'cross entropy and KL have one gradient', lambda: slope(lambda z: teacher_loss(z, r, 20.)), pytest.approx(slope(lambda z: F.kl_div((z/20).log_softmax(1), (r/20).softmax(1), reduction='batchmean'))))
row('C-17', 'mixup: a lambda for each pair', lambda: len(draw_pairs(64, .2)[0].unique())>32, True)
row('C-17 g', 'mixup: one lambda, batch reversed', lambda: (len(draw_pairs(4, .2, 'gluoncv')[0]), draw_pairs(4, .2, 'gluoncv')[1].tolist()), (1,[3,2,1,0]))
row('C-17', 'mixup: not folded to above 1/2', lambda: .4<(draw_pairs(2000, .2)[0]<.5).float().mean()<.6, True)
row('C-17', 'mixup: on to the last epoch', lambda: (recipe('mixup')['mixup_off'], mixed(199, 9)[2] is not None), (0,True))
row('C-17', 'mixup: off in the last `mixup_off` epochs', lambda: [mixed(*o, off=20)[2] is not None for o in ((0,0),(179,0),(179,9),(180,0),(199,9))], [True,True,True,False,False])
row('C-17 g', 'mixup: smoothed labels are mixed', lambda: flat(mix(smooth_labels(one, 3, .1, 'gluoncv'), lam, partner)),
    pytest.approx(flat(smooth_labels(mix(one, lam, partner), 3, .1, 'gluoncv'))))
row('C-18', 'activations and logits in float16', lambda: [half_step()[k] for k in ('activations','logits')], [torch.float16]*2)
row('C-18', 'norms, weights, momentum in float32', lambda: [half_step()[k] for k in ('norm','weights','momentum')], [{torch.float32}]*3)
row('C-18', 'loss in float32', lambda: half_step()['loss'], torch.float32)
row('C-18', 'the loss is scaled, by more than the authors\' 1024', lambda: half_step()['scale'], 2**16)
row('C-18', 'fp16 comes with the batch of 1024', lambda: [(recipe(o)['fp16'],recipe(o)['bs']) for o in ('no_decay','fp16','mixup')], [(False,1024),(True,1024),(True,1024)])
row('C-19', 'BatchNorm: eps, momentum', lambda: {(o.eps,o.momentum) for o in net('xresnet50d').modules() if isinstance(o, nn.BatchNorm2d)}, {(1e-5,.1)})
row('C-20', 'the best epoch is kept', lambda: [is_best([dict(accuracy=o) for o in x]) for x in ((.5,),(.5,.6),(.6,.5),(.6,.6))], [True,True,False,False])
row('C-20', 'a run gives its best epoch, or its last', lambda: kept(), [[1],[2]])
row('E', 'parameters of A to D', lambda: [n_params(net(f'xresnet50{o}')) for o in 'abcd'], [25_557_032,25_557_032,25_576_264,25_576_264])
row('E', 'multiply-adds of A to D, in G', lambda: [gmacs(f'xresnet50{o}') for o in 'abcd'], [3.858,4.089,4.329,4.329])
row('E', 'Table 5: in G', lambda: [abs(gmacs(f'xresnet50{o}')-g)<.06 for o,g in zip('abcd', (3.8,4.1,4.3,4.3))], [True]*4)   # A is 3.858, printed as 3.8
timm_macs = {('18d',288):3.41, ('26d',288):4.29, ('34d',288):6.47, ('50d',288):7.19, ('101d',256):10.55, ('101d',320):16.48, ('152d',256):15.41, ('152d',320):24.08,
    ('200d',256):20., ('200d',320):31.25}   # in G; timm counts a little more than convolutions and linear layers
row('E', 'timm\'s multiply-adds at 256, 288, 320', lambda: [gmacs_at(f'xresnet{k}', n) for k,n in timm_macs], pytest.approx(list(timm_macs.values()), rel=.01))
row('E', 'D over A: 12.2%', lambda: round(100*(gmacs('xresnet50d')/gmacs('xresnet50a')-1), 1), 12.2)

@pytest.mark.parametrize('section,what,ours,paper', rows, ids=[f'{o[0]} {o[1]}' for o in rows])
def test_paper(section, what, ours, paper):
    got = ours()
    assert (tuple(got) if isinstance(got, torch.Size) else got.item() if isinstance(got, torch.Tensor) and got.ndim==0 else got)==paper

def test_every_trick_of_the_ladder_has_a_row():
    assert {o[0].split()[0] for o in rows}>={'A1','A2','A3','A4','A5','B','E',*(f'C-{i}' for i in range(1,21))}
    assert all(o.top1 and o.table for o in ladder.values())

@pytest.mark.parametrize('q', [F.one_hot(torch.arange(3), 3), F.one_hot(torch.arange(3), 3).bool(), torch.ones(4,3).long()])
def test_whole_number_rows_are_no_indices(q):
    for f in (lambda: smooth_labels(q, 3, .1), lambda: BagLoss()(torch.zeros(q.shape), q)):
        with pytest.raises(DataError, match='argmax'): f()
