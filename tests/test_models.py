"What no section of `08_resnet`, `09_weights` and `10_models` shows: every model against timm or torchvision, weights both ways, fastai, detection, compilers"
import importlib, json, pickle, re, shutil, sys, time
from functools import lru_cache, partial
from types import SimpleNamespace

import pytest, timm, torch, torchvision
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import bot.models as models
from bot.init import inits, zero_gamma
from bot.core import UsageError
from bot.resnet import *
from bot.weights import *
from bot.models import *

importlib.import_module('bot.learner')   # tells fastai where our models are cut
deep = 26,50,101,152,200

def make(name, *args, **kwargs): return getattr(models, name)(*args, **kwargs)

def shaken(model):
    "`model` with random gammas, betas and statistics, so that no norm is an identity"
    g = torch.Generator().manual_seed(0)
    for m in model.modules():
        if not isinstance(m, nn.BatchNorm2d): continue
        for o in m.weight.data,m.running_var: o.copy_(torch.rand(o.shape, generator=g)*.5+.75)
        for o in m.bias.data,m.running_mean: o.copy_(torch.randn(o.shape, generator=g)*.1)
    return model.eval()

def timm_ref(name):
    "timm's `ResNet` with the arguments that make the network of ours called `name`"
    depth,v = int(name[7:-1]),name[-1]
    block = timm.models.resnet.Bottleneck if depths[depth]['bottleneck'] else timm.models.resnet.BasicBlock
    stem = dict(stem_width=32, stem_type='deep') if v in 'cd' else {}
    return timm.models.resnet.ResNet(block, depths[depth]['blocks'], avg_down=v=='d', zero_init_last=False, **stem)

def tv_ref(name):
    "torchvision's `resnet50` and the like, with the stride moved to the first convolution"
    m = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, list(depths[int(name[7:-1])]['blocks']))
    for o in m.layer2[0],m.layer3[0],m.layer4[0]: o.conv1.stride,o.conv2.stride = o.conv2.stride,o.conv1.stride
    return m

def reference(name): return tv_ref(name) if name[-1]=='a' and int(name[7:-1]) in deep else timm_ref(name)

def close(y, z, tol): assert (y.float()-z).abs().max() <= tol*z.abs().max(), (y.float()-z).abs().max()/z.abs().max()

# -- the same network elsewhere

def same_outputs(name, sizes, bs):
    ref,m = shaken(reference(name)),make(name).eval()
    w = ref.state_dict()
    m.load_state_dict(from_timm(w))
    back = to_timm(m.state_dict())
    assert list(back)==list(w) and all(torch.equal(back[k], w[k]) for k in w)
    for s in sizes:
        x = torch.randn(bs,3,s,s)
        with torch.no_grad(): close(m(x), ref(x), 1e-5)

@pytest.mark.parametrize('name', [f'xresnet{d}{v}' for d in (18,26) for v in variants])
def test_forward(name): same_outputs(name, (65,64), 1)

@pytest.mark.parametrize('name', [f'xresnet50{v}' for v in variants])
def test_forward_50(name): same_outputs(name, (197,65), 1)

class Ops(TorchDispatchMode):
    "Every operation, backward too, with the shapes it is given"
    def __init__(self):
        super().__init__()
        self.seen = []
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        self.seen.append((str(f), [tuple(o.shape) for o in args if isinstance(o, torch.Tensor)]))
        return f(*args, **(kwargs or {}))

def ops(m):
    "Operations of a training step's forward and backward"
    m.train()
    with Ops() as res: F.cross_entropy(m(torch.ones(2,3,65,65, device='meta')), torch.zeros(2, device='meta').long()).backward()
    return res.seen

@pytest.mark.parametrize('name', ['xresnet18b','xresnet26a','xresnet26c','xresnet50d'])
def test_same_operations(name):
    "As fast as timm and torchvision can only be who does what they do: the same operations on the same shapes, in the same order"
    with torch.device('meta'): m,ref = make(name),reference(name)
    a,b = ops(m),ops(ref)
    assert a==b and sum('convolution_backward' in o for o,_ in a)==sum(isinstance(o, nn.Conv2d) for o in m.modules())

@pytest.mark.slow
@pytest.mark.parametrize('name', our_names())
def test_forward_all(name): same_outputs(name, (224,197,65), 2)

def test_names_of_timm():
    "The arguments of `timm_ref` are those of timm's named models"
    for k in 'resnet18','resnet26d','resnet50c':
        with torch.device('meta'): named,ref = timm.create_model(k),timm_ref(f'x{k}' if k[-1] in 'cd' else f'x{k}b')
        assert str(named)==str(ref)

@pytest.mark.parametrize('depth', list(depths))
def test_names_both_ways(depth):
    "Every name and shape; those of A are B's"
    for v in 'bcd':
        name = f'xresnet{depth}{v}'
        with torch.device('meta'): ours,ref = make(name).state_dict(),reference(name).state_dict()
        assert list(to_timm(ours))==list(ref) and list(from_timm(ref))==list(ours)
        assert [o.shape for o in ours.values()]==[o.shape for o in ref.values()]
        assert list(from_timm(to_timm(ours)))==list(ours)

@pytest.mark.slow
@pytest.mark.parametrize('name', [k for k in our_names() if k[-1]!='a'])
def test_weights_both_ways(name):
    "Tensor for tensor, from timm's model with random weights and statistics, and back"
    ref = shaken(timm_ref(name)).state_dict()
    m = load_weights(make(name), ref)
    back = to_timm(m.state_dict())
    assert list(back)==list(ref) and all(torch.equal(back[k], ref[k]) for k in ref)

def empty(make):
    "A model of zeros, made without drawing its weights"
    with torch.device('meta'): m = make()
    m = m.to_empty(device='cpu')
    for o in m.state_dict().values(): o.zero_()
    return m

def test_conversion_is_quick():
    "152 layers, renamed, checked and loaded, in less than 2 s of processor time"
    ref,m = empty(lambda: timm_ref('xresnet152d')),empty(xresnet152d)
    ref.fc.bias.data += 1
    start = time.process_time()
    load_weights(m, ref.state_dict())
    assert time.process_time()-start<2 and m.fc.bias.sum()==1000

@lru_cache
def cost(name):
    "Parameters, multiply-adds at 224, and the numbers that norms put out there"
    n = []
    with torch.device('meta'): m = make(name)
    for o in m.modules():
        if isinstance(o, nn.BatchNorm2d): o.register_forward_hook(lambda m,x,y: n.append(y.numel()))
    return n_params(m),macs(m),sum(n)

def test_costs():
    "The exact ones of part E of the paper's fact sheet"
    listed = dict(xresnet18d=(11_708_744,2.054), xresnet26d=(16_014_408,2.582), xresnet34d=(21_816_904,3.903), xresnet50a=(25_557_032,3.858),
        xresnet50b=(25_557_032,4.089), xresnet50c=(25_576_264,4.329), xresnet50d=(25_576_264,4.329), xresnet101d=(44_568_392,8.041),
        xresnet152d=(60_212_040,11.753), xresnet200d=(64_693_064,15.247))
    for k,o in listed.items(): assert (cost(k)[0],round(cost(k)[1]/1e9,3))==o, k

def test_costs_of_timm():
    """timm's table, rounded: parameters in millions, and multiply-adds in G. Its counter adds two operations for each number that a norm puts out, which ours,
    as the paper, leaves out: 0.2 to 0.8% in all"""
    listed = dict(xresnet18b=(11.69,1.82), xresnet26b=(16.00,2.36), xresnet34b=(21.80,3.67), xresnet50b=(25.56,4.11), xresnet50c=(25.58,4.35),
        xresnet101b=(44.55,7.83), xresnet152b=(60.19,11.56), xresnet200b=(64.67,15.07), xresnet18d=(11.71,2.06), xresnet26d=(16.01,2.60),
        xresnet34d=(21.82,3.91), xresnet50d=(25.58,4.35), xresnet101d=(44.57,8.08), xresnet152d=(60.21,11.80))
    for k,o in listed.items():
        n,g,out = cost(k)
        assert (round(n/1e6, 2), round((g+2*out)/1e9, 2))==o, k

@pytest.mark.parametrize('v', list(variants))
def test_arguments_combine(v):
    given = (5,) if v in 'ab' else (4,6,7)
    for depth,widen,stem in (18,.3,None),(18,1.5,given),(26,.3,given),(26,.25,None):
        m = make(f'xresnet{depth}{v}', n_out=7, c_in=4, widen=widen, stem=stem)
        assert m(torch.randn(2,4,17,40)).shape==(2,7)
    assert n_params(m)==summary(m, 64)[-1][2]

def test_refusals():
    bad = {'stem=':dict(stem=(8,8)), 'at least 1 wide':dict(stem=(0,8,8)), 'n_out=-1':dict(n_out=-1), 'c_in=0':dict(c_in=0),
        'widen=nan':dict(widen=float('nan')), 'leaves a layer':dict(widen=.01)}
    for match,kwargs in bad.items():
        with pytest.raises(UsageError, match=match): xresnet50d(**kwargs)
    with pytest.raises(UsageError, match="did you mean 'xresnet50d'"): get_model('xresnet50dd', 10)
    with pytest.raises(UsageError, match='16x40 are too small .* 17'): xresnet18d()(torch.zeros(1,3,16,40))
    for f in macs,summary:
        with pytest.raises(UsageError, match='the smallest that works is 17'): f(xresnet18d(), 8)

def test_rows_are_the_difference():
    "Basic blocks know no difference between A and B; bottlenecks only where the stride is"
    assert str(xresnet18a())==str(xresnet18b())
    a,b = str(xresnet26a()),str(xresnet26b())
    assert a!=b and a.count('stride=(2, 2)')==b.count('stride=(2, 2)')

def test_pickled():
    for k in our_names(): assert pickle.loads(pickle.dumps(getattr(models, k))) is getattr(models, k)
    assert set(our_names())<=set(models.__all__)

# -- weights

@pytest.fixture
def hub(tmp_path, monkeypatch):
    "The Hugging Face hub, as a folder of random weights; lists what was asked for"
    asked = []
    def fetch(repo_id, filename, **kwargs):
        asked.append((repo_id, filename))
        path = tmp_path/repo_id/filename
        if not path.exists():
            path.parent.mkdir(parents=True)
            save_file(shaken(timm.create_model(repo_id.split('/')[1].split('.')[0])).state_dict(), path)
        return str(path)
    monkeypatch.setattr('huggingface_hub.hf_hub_download', fetch)
    monkeypatch.setattr('timm.models._hub.hf_hub_download', fetch)
    return SimpleNamespace(asked=asked, path=tmp_path)

def test_pretrained(hub):
    m = xresnet50d(pretrained='gluon_in1k').eval()
    assert hub.asked==[('timm/resnet50d.gluon_in1k','model.safetensors')]
    ref = timm.create_model('resnet50d', checkpoint_path=str(hub.path/'timm/resnet50d.gluon_in1k/model.safetensors')).eval()
    x = torch.randn(1,3,64,64)
    with torch.no_grad(): close(m(x), ref(x), 1e-5)
    cfg = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg('resnet50d.gluon_in1k').to_dict())
    for k in 'mean','std','crop_pct','interpolation': assert m.data_cfg[k]==cfg[k]
    assert m.data_cfg['weights']=='resnet50d.gluon_in1k' and m.data_cfg['size']==224
    theirs = input_cfg(m, 'gluoncv')
    assert theirs['mean']==(123.68,116.779,103.939) and theirs['std']==(58.393,57.12,57.375) and theirs['interpolation']=='bilinear'
    assert pickle.loads(pickle.dumps(m)).data_cfg==m.data_cfg

def test_pretrained_defaults():
    "True means the authors' weights where they exist; timm states one mean for all of the defaults, that of `model_meta`"
    from fastai.vision.core import imagenet_stats
    for name in our_names():
        known = timm.models.get_arch_pretrained_cfgs(timm_name(name)).items()
        if not any(o.has_weights for _,o in known):
            with pytest.raises(UsageError, match='no published weights'): weights_name(timm_name(name))
            continue
        full = weights_name(timm_name(name))
        assert full.endswith('gluon_in1k') == any('gluon_in1k' in o for o,_ in known)
        cfg = timm_cfg(timm.models.get_pretrained_cfg(full).to_dict(), full)
        assert (list(cfg['mean']),list(cfg['std']))==(list(imagenet_stats[0]),list(imagenet_stats[1]))
    assert [weights_name('resnet50d'), weights_name('resnet26d')]==['resnet50d.gluon_in1k','resnet26d.bt_in1k']
    assert weights_name('resnet50d', 'resnet50d.ra2_in1k')==weights_name('resnet50d', 'ra2_in1k')=='resnet50d.ra2_in1k'

def test_pretrained_adapts(hub, capsys):
    m = xresnet18b('gluon_in1k', n_out=5, c_in=1)
    said = capsys.readouterr().out
    assert 'fc starts anew with 5 classes' in said and 'adapted from 3 channels to 1' in said
    ref = timm.create_model('resnet18.gluon_in1k', pretrained=True, in_chans=1, num_classes=5)
    assert torch.equal(m.stem[0].weight, ref.conv1.weight) and torch.equal(m.layer4[1].path[3].weight, ref.layer4[1].conv2.weight)
    assert m.fc.out_features==5 and m.fc.bias.abs().max()==0
    five = timm.create_model('resnet18.gluon_in1k', pretrained=True, in_chans=5)
    assert torch.equal(xresnet18b('gluon_in1k', c_in=5).stem[0].weight, five.conv1.weight)

def test_pretrained_refused(hub, monkeypatch):
    with pytest.raises(UsageError, match='nothing was loaded'): xresnet18d(True, widen=.5)
    with pytest.raises(UsageError, match="did you mean 'ra2_in1k'"): xresnet18d('ra_in1k')
    with pytest.raises(UsageError, match='no published weights for xresnet50a: xresnet50b'): xresnet50a(True)
    def offline(*args, **kwargs): raise OSError('We cannot connect')
    monkeypatch.setattr('huggingface_hub.hf_hub_download', offline)
    with pytest.raises(UsageError, match='Cannot get timm/resnet18d.ra2_in1k: We cannot connect'): xresnet18d('ra2_in1k')
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(UsageError, match='pip install timm'): xresnet18d(True)

def quarter(name='xresnet18d', *args, **kwargs): return make(name, *args, n_out=10, widen=.25, **kwargs)

def test_files(tmp_path, capsys):
    m = shaken(quarter())
    w,x = m.state_dict(),torch.randn(2,3,32,32)
    save_file(w, tmp_path/'a.safetensors')
    save_file(to_timm(w), tmp_path/'b.safetensors')
    save_file({k:v for k,v in w.items() if 'tracked' not in k}, tmp_path/'c.safetensors', dict(arch='xresnet18d'))
    torch.save(dict(model=w, opt={}), tmp_path/'d.pth')
    for o in 'abc': assert torch.equal(quarter(pretrained=tmp_path/f'{o}.safetensors').eval()(x), m(x))
    with pytest.raises(UsageError, match='trust=True'): quarter(pretrained=tmp_path/'d.pth')
    assert torch.equal(quarter(pretrained=str(tmp_path/'d.pth'), trust=True).eval()(x), m(x))
    assert capsys.readouterr().out.count('does not say how its images were normalized')==4
    with pytest.raises(UsageError, match='has the weights of xresnet18d, not of xresnet18b'): xresnet18b(tmp_path/'c.safetensors')
    with pytest.raises(UsageError, match='No such weight file'): xresnet18d(tmp_path/'e.safetensors')

def test_our_files_say_it_all(tmp_path, capsys):
    "What a run saved is exact: the network, A or B, and how it saw images, up to the learner's batches"
    from bot.block import bag_dls
    from bot.block import norm_stats
    from bot.weights import input_cfg
    from bot.args import seen_cfg
    from bot.runs import save_weights
    from bot.learner import bag_learner
    dls,path = bag_dls('digits', bs=16, num_workers=0, device='cpu'),tmp_path/'w.safetensors'
    m = quarter('xresnet26a')
    m.data_cfg = dict(mean=(.1,.2,.3), std=(.5,.6,.7), scale=1, size=32, crop_pct=.875, interpolation='bilinear', weights='x')
    learn = bag_learner(dls, 'baseline', arch=m)
    save_weights(learn.model, path, seen_cfg(learn))
    capsys.readouterr()
    with pytest.raises(UsageError, match='has the weights of xresnet26a, not of xresnet26b: nothing was loaded'): quarter('xresnet26b', path)
    new = quarter('xresnet26a', path)
    assert capsys.readouterr().out=='' and new.data_cfg['mean']==pytest.approx([25.5,51,76.5])
    other = bag_learner(dls, 'baseline', arch='xresnet26a', widen=.25, pretrained=str(path))
    assert torch.allclose(torch.cat(norm_stats(other.dls)), torch.cat(norm_stats(learn.dls)))
    assert not torch.allclose(norm_stats(dls)[0], norm_stats(other.dls)[0])
    assert all(torch.equal(a, b) for a,b in zip(other.model.state_dict().values(), m.state_dict().values()))
    assert input_cfg(new)['std']==pytest.approx([127.5,153,178.5])

def test_files_of_the_hub(tmp_path, capsys):
    "timm's file with its `config.json`: the network and the images it says; a basic A is a B"
    (tmp_path/'config.json').write_text(json.dumps(dict(architecture='resnet18', pretrained_cfg=timm.models.get_pretrained_cfg('resnet18.gluon_in1k').to_dict())))
    save_file(timm.create_model('resnet18').state_dict(), tmp_path/'model.safetensors')
    for name in 'xresnet18a','xresnet18b':
        m = make(name, tmp_path/'model.safetensors')
        assert m.data_cfg['weights']=='resnet18.gluon_in1k' and m.data_cfg['mean']==(.485,.456,.406)
        assert input_cfg(m, 'gluoncv')['mean']==(123.68,116.779,103.939)
    assert get_model('resnet18', 1000, pretrained=tmp_path/'model.safetensors').data_cfg==m.data_cfg
    assert capsys.readouterr().out==''
    with pytest.raises(UsageError, match='of resnet18, not of xresnet18c'): xresnet18c(tmp_path/'model.safetensors')

def test_cfg_is_timms():
    "Defaults included, for all published weights of ours"
    for name in our_names():
        for k,o in timm.models.get_arch_pretrained_cfgs(timm_name(name)).items():
            theirs,ours = timm.data.resolve_data_config(pretrained_cfg=o.to_dict()),timm_cfg(o.to_dict())
            assert [ours[k] for k in ('mean','std','crop_pct','interpolation')]==[theirs[k] for k in ('mean','std','crop_pct','interpolation')], k
            assert ours['size']==theirs['input_size'][-1]
    theirs = timm.data.resolve_data_config(pretrained_cfg=dict(url=''))
    assert all(timm_cfg({})[k]==theirs[k] for k in ('mean','std','crop_pct','interpolation'))

def test_wrong_tensors():
    "Every kind of fault is named, and the model stays as it was"
    w,m,k = quarter().state_dict(),quarter(),'layer2.0.path.3.weight'
    before = {k:v.clone() for k,v in m.state_dict().items()}
    bad = {f'missing: {k}':{o:v for o,v in w.items() if o!=k}, 'surplus: x':w|dict(x=torch.ones(2)), f'broken: {k}':w|{k:w[k]*float('nan')},
        f'misshapen: {k}':w|{k:w[k][:2]}, 'like those of xresnet34d':quarter('xresnet34d').state_dict(),
        'like those of xresnet18c':quarter('xresnet18c').state_dict(), 'missing: stem.0.weight':{}}
    for match,o in bad.items():
        with pytest.raises(UsageError, match=re.escape(match)) as e: load_weights(m, o, 'file')
        assert len(str(e.value).splitlines())<=3
        assert all(torch.equal(v, before[k]) for k,v in m.state_dict().items())

# -- any model

def test_get_model():
    m = xresnet18d(n_out=4)
    assert get_model(m, 4) is m
    with pytest.raises(UsageError, match='for 4 classes'): get_model(m, 5)
    with pytest.raises(UsageError, match='takes 3 channels'): get_model(m, 4, c_in=1)
    with pytest.raises(UsageError, match='made already'): get_model(m, 4, pretrained=True)
    assert get_model(xresnet18d, 4, c_in=1, widen=.5).fc.in_features==256
    assert get_model(partial(xresnet18d, widen=.5), 4).fc.in_features==256
    assert get_model(torchvision.models.resnet18, 4).fc.out_features==4
    with pytest.raises(UsageError, match='no `n_out`'): get_model(nn.ReLU, 4)
    with pytest.raises(UsageError, match='widen=0.5'): get_model('mobilenetv1_100', 4, widen=.5)

def test_get_model_of_timm(hub, capsys):
    m = get_model('mobilenetv1_100', 4, c_in=1, pretrained=True)
    said = capsys.readouterr().out
    assert m.num_classes==4 and 'the head starts anew with 4' in said and 'adapted from 3 channels to 1' in said
    assert m.data_cfg['weights'].startswith('mobilenetv1_100.') and hub.asked
    save_file(timm.create_model('mobilenetv1_100').state_dict(), hub.path/'good.safetensors')
    save_file(dict(a=torch.ones(1)), hub.path/'bad.safetensors')
    assert get_model('mobilenetv1_100', 4, pretrained=hub.path/'good.safetensors').num_classes==4
    with pytest.raises(UsageError, match='not the weights of'): get_model('mobilenetv1_100', 4, pretrained=hub.path/'bad.safetensors')
    with pytest.raises(UsageError, match='nearest|did you mean|known'): get_model('mobilenetv1_100', 4, pretrained='ra9_in1k')

def test_inits_and_zero_gamma():
    for depth,n in (18,8),(26,8),(50,16),(101,33):
        for v in variants:
            with torch.device('meta'): assert zero_gamma(make(f'xresnet{depth}{v}'))==n
    for f in inits.values():
        m = f(shaken(quarter()))
        assert zero_gamma(m)==8
        for b in [b for s in (m.layer1,m.layer2,m.layer3,m.layer4) for b in s]:
            assert not b.path[-1].weight.any() and b.path[1].weight.eq(1).all() and not b.path[1].bias.any()
            if isinstance(b.shortcut, nn.Sequential): assert b.shortcut[-1].weight.eq(1).all()

# -- fastai

class Noise:
    "Random images with classes, or with masks"
    def __init__(self, size, mask): self.size,self.mask = size,mask
    def __len__(self): return 6
    def __getitem__(self, i):
        from fastai.torch_core import TensorCategory
        from fastai.vision.core import TensorImage, TensorMask
        y = TensorMask(torch.randint(3, (self.size,self.size))) if self.mask else TensorCategory(i%3)
        return TensorImage(torch.rand(3,self.size,self.size)),y

def noise_dls(size=64, mask=False):
    from fastai.data.core import DataLoaders
    dls = DataLoaders.from_dsets(Noise(size, mask), Noise(size, mask), bs=3, num_workers=0, device='cpu')
    dls.c = 3
    return dls

def train(learn, lr):
    from fastai.callback.progress import ProgressCallback
    with learn.removed_cbs(learn.cbs.filter(lambda o: isinstance(o, ProgressCallback))), learn.no_logging(): learn.fit(1, lr)

def test_groups_of_layers():
    m = models.xresnet18d(n_out=3, widen=1/16)
    groups = xresnet_split(m)
    names = [{k.split('.')[0] for k,p in m.named_parameters() if any(p is o for o in g)} for g in groups]
    assert names==[{'stem','layer1','layer2'},{'layer3','layer4'},{'fc'}]

def test_vision_learner(hub, tmp_path, monkeypatch):
    from fastai.torch_core import defaults
    monkeypatch.setattr(defaults, 'use_cuda', False)   # or fastai's `Normalize` puts its numbers on a GPU, whatever the loaders say
    from fastai.data.transforms import Normalize
    from fastai.losses import CrossEntropyLossFlat
    from fastai.vision.learner import vision_learner
    learn = vision_learner(noise_dls(), xresnet18b, loss_func=CrossEntropyLossFlat(), path=tmp_path)
    norm, = [o for o in learn.dls.after_batch.fs if isinstance(o, Normalize)]
    assert hub.asked[0][0]=='timm/resnet18.gluon_in1k' and norm.mean.flatten().tolist()==pytest.approx((.485,.456,.406))
    assert len(learn.opt.param_lists)==3 and learn.opt.frozen_idx==2
    def early(): return [v.clone() for k,v in learn.model[0].named_parameters() if '.path.0.' in k]
    before = early()
    train(learn, 1e-2)
    assert all(torch.equal(a, b) for a,b in zip(before, early()))
    learn.unfreeze()
    train(learn, slice(1e-5,1e-3))
    assert [f"{h['lr']:.0e}" for h in learn.opt.hypers]==['1e-05','1e-04','1e-03']
    assert not any(torch.equal(a, b) for a,b in zip(before, early()))

def test_unet_learner(tmp_path):
    from fastai.losses import CrossEntropyLossFlat
    from fastai.vision.learner import unet_learner
    for arch,size in (xresnet18d,64),(partial(xresnet26a, widen=.25),96):
        learn = unet_learner(noise_dls(size, True), arch, pretrained=False, loss_func=CrossEntropyLossFlat(axis=1), path=tmp_path)
        assert learn.model.eval()(torch.randn(1,3,size,size)).shape==(1,3,size,size)
        assert all(len(o) for o in learn.splitter(learn.model))
    assert learn.model(torch.randn(1,3,64,64)).shape[-2:]==(64,64)
    train(learn, 1e-3)

@pytest.mark.parametrize('name', our_names()[:8])
def test_create_body(name):
    from fastai.vision.learner import create_body, model_meta
    f = getattr(models, name)
    for cut in None,model_meta[f]['cut']:
        body = create_body(f(), n_in=1, pretrained=False, cut=cut)
        assert body(torch.randn(1,1,64,64)).shape[1:]==(2048 if '26' in name else 512,2,2)

# -- detection and segmentation

def one_step(net, loss):
    opt = torch.optim.SGD(net.parameters(), 1e-3)
    before = [p.clone() for p in net.parameters()]
    loss.backward()
    opt.step()
    assert loss.isfinite() and not torch.equal(before[0], next(net.parameters()))

def detects(net):
    x,target = list(torch.rand(2,3,64,64)),dict(boxes=torch.tensor([[4.,4.,30.,40.]]), labels=torch.tensor([1]))
    one_step(net, sum(net.train()(x, [target]*2).values()))
    assert [set(o) for o in net.eval()(x)]==[{'boxes','labels','scores'}]*2

def test_faster_rcnn():
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    body = features(quarter(), (3,))
    detects(FasterRCNN(body, 3, rpn_anchor_generator=AnchorGenerator(((16,32),), ((.5,1.,2.),)), min_size=64, max_size=64,
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(['0'], 7, 2), box_detections_per_img=5))

def test_faster_rcnn_fpn():
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    m = quarter()
    body = BackboneWithFPN(m, {f'layer{i}':str(i-1) for i in range(1,5)}, features(m).channels, 32)
    detects(FasterRCNN(body, 3, min_size=64, max_size=64, box_detections_per_img=5))

def test_fcn():
    from torchvision.models.segmentation.fcn import FCN, FCNHead
    body = features(quarter('xresnet26d'), {3:'aux', 4:'out'})
    aux,out = body.channels
    net = FCN(body, FCNHead(out, 5), FCNHead(aux, 5))
    res = net(torch.rand(2,3,65,97))
    assert res['out'].shape==(2,5,65,97)
    y = torch.randint(5, (2,65,97))
    one_step(net, F.cross_entropy(res['out'], y) + .4*F.cross_entropy(res['aux'], y))

def test_features_refuse():
    with pytest.raises(UsageError, match="'layer"): features(xresnet18d(), (5,))

# -- formats and compilers; tolerances are shares of the largest logit of float32

small = [f'xresnet{d}{v}' for d in (18,26) for v in variants]

@pytest.mark.parametrize('name', small)
def test_formats(name):
    "channels_last 1e-5, bf16 autocast 4e-2"
    m,x = shaken(quarter(name)),torch.randn(2,3,65,65)
    with torch.no_grad():
        y = m(x)
        with torch.autocast('cpu', torch.bfloat16): close(m(x), y, 4e-2)
        m,x = m.to(memory_format=torch.channels_last),x.to(memory_format=torch.channels_last)
        close(m(x), y, 1e-5)
        assert all(o.is_contiguous(memory_format=torch.channels_last) for o in features(m)(x).values())

@pytest.mark.parametrize('name', small)
def test_export(name):
    m,x = shaken(quarter(name)),torch.randn(2,3,65,65)
    with torch.no_grad():
        exported = torch.export.export(m, (x,), dynamic_shapes=({0:torch.export.Dim('bs')},)).module()
        for o in x,torch.cat([x,x,x]): close(exported(o), m(o), 1e-5)

def one_graph(name, backend, tol):
    "The whole model is one graph, in training too"
    torch._dynamo.reset()
    m,x = shaken(quarter(name)),torch.randn(2,3,65,65)
    c = torch.compile(m, backend=backend, fullgraph=True)
    close(c(x).detach(), m(x).detach(), tol)
    c.train()(x).sum().backward()
    assert all(p.grad is not None for p in m.parameters())

@pytest.mark.parametrize('name', ['xresnet26d'])
def test_one_graph(name): one_graph(name, 'eager', 1e-5)

@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which('g++') or shutil.which('clang++')), reason='no compiler')
@pytest.mark.parametrize('name', small)
def test_compiled(name): one_graph(name, 'inductor', 1e-4)

@pytest.mark.gpu
@pytest.mark.parametrize('name', ['xresnet50a','xresnet50d'])
def test_fp16_on_gpu(name):
    m,x = shaken(make(name)).cuda(),torch.randn(4,3,224,224, device='cuda')
    with torch.no_grad():
        y = m(x)
        m,x = m.to(memory_format=torch.channels_last),x.to(memory_format=torch.channels_last)
        with torch.autocast('cuda', torch.float16): close(m(x), y, 2e-2)
