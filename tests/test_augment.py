"The paper's pipeline against independent sources, and beside fastai's own transforms."
import io, random
from pathlib import Path
import numpy as np, pytest, torch
import torchvision.transforms.v2.functional as TF
from fastai.callback.core import Callback
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock, RegressionBlock
from fastai.data.core import TfmdDL
from fastai.data.transforms import IntToFloatTensor, Normalize, RandomSplitter, get_image_files, parent_label
from fastai.torch_core import TensorImage
from fastai.vision.augment import CropPad, DihedralItem, Flip, FlipItem, RandomErasing, Resize, aug_transforms
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock, MaskBlock, PointBlock
from fasttransform import Pipeline
from fasttransform.transform import Transform
from fastai.vision.learner import _add_norm
from PIL import Image
from bot.augment import ColorDraw, color, color_steps, cut_bytes, gluoncv_color, gluoncv_image, paper_mean, paper_std, pca_noise, random_box
from bot.block import BagCrop, BagImageBlock, BagNormalize, EncodedImage, bag_block, bag_dls
from bot.sources import digits, find_source
from bot.keys import Step, step_draw
from bot.loader import KeyedDL
from bot.learner import bag_learner
from bot.core import UsageError
from pictures import encode, photos, planes, psnr, resized

mean,std = torch.tensor(paper_mean),torch.tensor(paper_std)

def oracle(data): return planes(Image.open(io.BytesIO(data)).convert('RGB'))

@pytest.mark.parametrize('i', [0, 1])
@pytest.mark.parametrize('reading', ['paper','gluoncv'])
def test_crops_are_exact(i, reading):
    data = encode(Image.fromarray(photos[i]), quality=95)
    full = oracle(data)
    for k in range(20):
        random.seed(k)
        y,x,h,w = random_box(427, 640, reading=reading)
        random.seed(k)
        ours = BagCrop(224, flip=0., reading=reading)(EncodedImage.create(data), split_idx=0)
        ref = resized(full[:,y:y+h,x:x+w], (224,224), reading=='paper')
        diff = ours.float()-ref
        assert diff.abs().max()<=1.1 and diff.abs().mean()<.5 and diff.mean().abs()<.1 and psnr(ours, ref)>50
        ours = EncodedImage.create(data).decode((y,x,h,w), (224,224), reading=='paper', exact=True)
        assert (ours.float()-ref).abs().max()<=.501

@pytest.mark.parametrize('shape', [(375,500), (500,375), (427,640), (224,224), (100,90), (256,256), (30,900)])
@pytest.mark.parametrize('size', [224, 299])
def test_validation_view(shape, size):
    im = Image.fromarray(photos[0]).resize(shape[::-1])
    ref = TF.center_crop(TF.resize(planes(im).float(), round(size*256/224), antialias=True), size)
    ours = BagCrop(size)(EncodedImage.create(encode(im, 'PNG')), split_idx=1)
    assert ours.shape==(3,size,size) and (ours-ref).abs().max()<=1

@pytest.mark.parametrize('shape', [(1,1), (1,5000), (5000,1)])
def test_thin_images(shape):
    data = encode(Image.new('RGB', shape[::-1], 'red'), 'PNG')
    for split in (0, 1): assert BagCrop(24)(EncodedImage.create(data), split_idx=split).shape==(3,24,24)

def test_draws_are_each_images_own():
    torch.manual_seed(0)
    d = ColorDraw(4000)
    assert len(d.factors.unique(dim=0))==4000
    assert d.factors.min()>=.6 and d.factors.max()<=1.4 and abs(d.factors.mean()-1)<.01
    assert len(d.order.unique(dim=0))==6 and d.order.float().mean(0).sub(1).abs().max()<.05
    alpha = (d.noise @ torch.tensor([[-.5675,.7192,.4009],[-.5808,-.0045,-.8140],[-.5836,-.6948,.4203]]))/torch.tensor([55.46,4.794,1.148])
    assert (alpha.std(0)-.1).abs().max()<.005

def test_batch_and_image_agree():
    x,d = torch.randint(0, 256, (12,3,900), dtype=torch.uint8),ColorDraw(12)
    a,b = torch.empty(x.shape),torch.empty(x.shape)
    args = d.factors,d.order,d.noise
    gluoncv_color(x, a, *args, mean, std)
    for i in range(12): gluoncv_image(x[i:i+1], b[i:i+1], *(o[i:i+1] for o in args), mean, std)
    levels = (a-b).abs()*std[:,None]
    assert levels.max()<1.01 and (levels>1e-3).float().mean()<1e-3

def test_gluoncv_against_numpy():
    x,d = torch.randint(0, 256, (6,3,8,8), dtype=torch.uint8),ColorDraw(6)
    ours = color(x, d, mean, std, 'gluoncv')
    for i in range(6):
        y = x[i].numpy().astype(np.float32)
        for k in d.order[i].tolist():
            a = np.float32(d.factors[i,k].item())
            g = ((y.astype(np.int64)*np.array([3735,19235,9798])[:,None,None]).sum(0)+2**14>>15).astype(np.float32)
            base = (np.float32(0),g.mean(),g)[k]
            y = np.rint(np.clip(y*a+base*(np.float32(1)-a), 0, 255))
        y = np.floor(np.clip(y+d.noise[i].numpy()[:,None,None], 0, 255))
        assert np.array_equal((ours[i]*std[:,None,None]+mean[:,None,None]).round().numpy(), y)

# What the authors' program makes of a PNG of 2x4 pixels: MXNet 1.9.1, `ImageRecordIter(brightness=.4, contrast=.4, saturation=.4, pca_noise=.1, seed_aug=...)`.
# Its draws are those of C++'s `mt19937(111+seed_aug)` in the order of image_aug_default.cc; with them OpenCV's arithmetic gives 5,759 of 5,760 values of 120 such runs.
mx_pixels = [[140,137,79,129,237,25,254,212],[235,255,133,144,71,134,20,146],[37,72,203,192,204,252,178,101]]
mx_runs = [   # order, factors of brightness, contrast, saturation, coefficients of the noise, result
    ((1,0,2), (.900046,1.16606,1.112244), (.152717,-.012959,.113453),
        [[117,112,48,105,235,0,242,205],[227,231,110,122,39,111,0,126],[0,37,193,178,196,235,170,74]]),
    ((0,1,2), (.721306,.701135,1.294996), (-.002057,-.076605,-.096577),
        [[97,93,61,92,167,23,183,149],[161,171,97,103,58,97,30,106],[32,51,142,133,146,173,134,77]]),
    ((1,2,0), (.756874,.833254,1.16222), (.204052,.155403,-.13849),
        [[98,94,55,91,173,14,187,154],[166,179,94,101,51,94,16,104],[21,45,144,136,147,180,131,71]]),
    ((2,0,1), (.961129,1.23221,.839467), (-.050881,.011961,.161242),
        [[138,139,75,126,228,22,238,205],[233,255,128,141,63,132,6,139],[37,75,197,189,196,249,164,95]]),
    ((2,1,0), (1.278275,.734305,.998265), (.008331,.029941,-.042364),
        [[181,178,123,170,254,72,254,248],[254,254,174,184,115,175,68,186],[83,117,239,229,241,254,216,143]]),
    ((0,2,1), (1.142365,.89244,1.010367), (-.092571,.26537,-.102557),
        [[163,161,100,152,248,45,248,237],[248,248,156,168,92,157,40,169],[56,92,227,215,228,247,202,122]])]

def in_steps(x, out, factors, order, noise, mean, std):
    "Each image by the functions of single steps"
    for o,f,ks,n,res in zip(x.float(), factors, order, noise, out):
        for k in ks.tolist(): o = color_steps[k](o[None], f[k].item())[0]
        res.copy_(cut_bytes(o+n[:,None]))

def one_by_one(x, out, *args):
    for i in range(len(x)): gluoncv_image(x[i:i+1], out[i:i+1], *(o[i:i+1] for o in args[:3]), *args[3:])

def all_at_once(x, out, *args):
    d = ColorDraw(len(x))
    d.factors,d.order,d.noise = args[:3]
    out.copy_(color(x[:,:,None], d, *args[3:], 'gluoncv')[:,:,0])

def by_compiler(x, out, *args): torch.compile(gluoncv_color)(x, out, *args)

@pytest.mark.parametrize('f', [in_steps, one_by_one, gluoncv_color, all_at_once, pytest.param(by_compiler, marks=pytest.mark.slow)])
def test_gluoncv_is_the_authors_program(f):
    order,factors,alpha,ref = (torch.tensor(o) for o in zip(*mx_runs))
    x,out = torch.tensor([mx_pixels]*len(mx_runs)).byte(),torch.empty(len(mx_runs), 3, 8)
    f(x, out, factors, order, pca_noise(alpha), torch.zeros(3), torch.ones(3))
    assert torch.equal(out, ref.float())

@pytest.mark.slow
@pytest.mark.parametrize('reading', ['paper','gluoncv'])
def test_compiled_agrees(reading):
    x,d = torch.randint(0, 256, (4,3,64,64), dtype=torch.uint8),ColorDraw(4)
    diff = (color(x, d, mean, std, reading, True)-color(x, d, mean, std, reading))*std[:,None,None]
    assert diff.abs().max()<1.01 and (diff.abs()>1e-3).float().mean()<1e-3

def loaders(target=CategoryBlock, size=24, get_y=parent_label, block_kwargs={}, **kwargs):
    block = DataBlock(blocks=(BagImageBlock(size, **block_kwargs), target), get_items=files, get_y=get_y, splitter=RandomSplitter(seed=0), **kwargs)
    return block.dataloaders(digits(), bs=8, num_workers=0, device='cpu')

def files(path): return get_image_files(path)[:40]

def labels_of(path): return [parent_label(path),'digit']

def number_of(path): return float(parent_label(path))

@pytest.mark.parametrize('target,get_y', [(CategoryBlock,parent_label), (MultiCategoryBlock,labels_of), (RegressionBlock,number_of)])
def test_any_target(target, get_y):
    dls = loaders(target, get_y=get_y)
    x,y = dls.one_batch()
    assert x.shape==(8,3,24,24) and len(y)==8 and isinstance(dls.train, KeyedDL)
    dls.show_batch(max_n=2)

@pytest.mark.parametrize('tfms', [(), aug_transforms(), [Flip()]])
@pytest.mark.parametrize('reading', ['paper','gluoncv'])
def test_scales_beside_batch_transforms(tfms, reading):
    dls = loaders(batch_tfms=list(tfms), block_kwargs=dict(reading=reading))
    assert dls.train.after_batch.fs[0].needed==bool(tfms)
    x,_ = dls.valid.one_batch()
    ref = torch.stack([BagCrop(24, reading=reading)(EncodedImage.create(f), split_idx=1) for f in dls.valid_ds.items[:8]])
    assert torch.allclose(x.as_subclass(torch.Tensor), BagNormalize()(ref, split_idx=1).as_subclass(torch.Tensor), atol=1e-3)
    back = dls.train.decode(dls.train.one_batch())[0].float()
    assert 20<back.mean()<200 and back.std()>20

def test_float_and_bytes_agree():
    x = TensorImage(torch.randint(0, 256, (4,3,16,16), dtype=torch.uint8))
    for reading in ('paper','gluoncv'):
        norm,ys = BagNormalize(reading),[]
        for o in (x, TensorImage(x.float()/255)):
            torch.manual_seed(0)
            ys.append(norm(o, split_idx=0))
        assert (ys[0]-ys[1]).abs().max()<1e-4

def test_image_target_keeps_its_scale():
    dls = loaders(ImageBlock, get_y=None, item_tfms=Resize(24))
    x,y = dls.one_batch()
    assert y.min()>=0 and y.max()<=1 and x.min()<-.5
    dls.show_batch(max_n=2)

def point_of(o): return [[10,10]]

def mask_of(o): return np.zeros((32,32), dtype=np.uint8)

@pytest.mark.parametrize('bad', [IntToFloatTensor(div=1), Normalize.from_stats([.5]*3, [.2]*3, cuda=False)])
def test_wrong_scales_are_refused(bad):
    with pytest.raises(UsageError): loaders(batch_tfms=[bad])

class Times255(Transform):
    order = 50
    def encodes(self, x:TensorImage): return x*255.

def test_floats_of_another_scale_are_refused():
    with pytest.raises(UsageError, match='floats above 1'): block_with(batch_tfms=Times255()).dataloaders(digits(), bs=8, num_workers=0)

def test_erasing_after_normalization_stays():
    dls = block_with(batch_tfms=RandomErasing(p=1.)).dataloaders(digits(), bs=8, num_workers=0)
    assert [type(o) for o in dls.train.after_batch.fs][-2:]==[BagNormalize,RandomErasing] and dls.one_batch()[0].isfinite().all()

def block_with(**kwargs):
    return DataBlock((BagImageBlock(24), CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=RandomSplitter(seed=0), **kwargs)

@pytest.mark.parametrize('target,get_y', [(PointBlock, point_of), (MaskBlock, mask_of)])
def test_targets_with_places_are_refused(target, get_y):
    block = DataBlock((BagImageBlock(24), target), get_items=get_image_files, get_y=get_y, splitter=RandomSplitter(seed=0))
    with pytest.raises(UsageError, match='cropped'): block.dataloaders(digits(), bs=8, num_workers=0)

def test_what_comes_after_normalization_is_refused():
    late = Flip()
    late.order = 100
    with pytest.raises(UsageError, match='Flip'): loaders(batch_tfms=[late])

def darker(x:PILImage): return x.point(half)

def half(v): return v//2

@pytest.mark.parametrize('tfm', [FlipItem(1.), DihedralItem(), CropPad(20), darker])
def test_item_transforms_before_the_crop_run(tfm, capsys):
    dls = loaders(item_tfms=tfm)
    assert dls.one_batch()[0].shape==(8,3,24,24)
    assert capsys.readouterr().out.count('before the crop')==1

def test_flip_before_the_crop_flips():
    a,b = (loaders(block_kwargs=dict(flip=0., min_scale=1., jitter=0., pca=0.), item_tfms=o).train for o in (None, FlipItem(1.)))
    a,b = (o.at(0).one_batch()[0] for o in (a,b))
    assert (a.flip(-1)-b).abs().max()<.04

def test_item_transforms_without_effect_are_refused():
    with pytest.raises(UsageError, match='Resize'): loaders(item_tfms=Resize(24))

def test_nothing_is_normalized_twice():
    dls = loaders()
    _add_norm(dls, {'stats':([.5]*3,[.2]*3)}, True)
    assert sum(isinstance(o, Normalize) for o in dls.train.after_batch.fs)==1

def test_plain_loader():
    block = bag_block('digits', size=24)
    dls = block.dataloaders(find_source('digits'), bs=8, num_workers=0, dl_type=TfmdDL)
    assert type(dls.train) is TfmdDL and dls.one_batch()[0].shape==(8,3,24,24)

@pytest.mark.parametrize('kwargs', [dict(size=24.5), dict(size=(24,32)), dict(pca=float('nan')), dict(flip=7), dict(pca=-1), dict(num_workers=-1), dict(start_method='frok'),
    dict(valid_pct=-1), dict(valid_pct=20), dict(size=0), dict(reading='papr'), dict(jitter=1.), dict(min_scale=0.), dict(bad='ignore'), dict(bs=0)])
def test_bad_settings(kwargs):
    with pytest.raises(UsageError): bag_dls('digits', **dict(size=24, bs=8, num_workers=0) | kwargs)

class Drawing:
    "Items that are what they draw"
    def __len__(self): return 40
    def __getitem__(self, i): return torch.rand(1),torch.tensor(i)

def drawing(**kwargs): return KeyedDL(Drawing(), bs=8, num_workers=0, device='cpu', **kwargs)

def test_an_epoch_has_its_own_order():
    dl = drawing(shuffle=True)
    a,b,again = (torch.cat([o[1] for o in dl.at(e)]).tolist() for e in (0,1,0))
    assert a!=b and a==again and sorted(a)==sorted(b)==list(range(40))

def test_an_item_has_its_own_draws_in_each_epoch():
    dl = drawing()
    draws = {(e,i): dl.fetch(e, 0, [i])[1][0].item() for e in range(3) for i in range(40)}
    assert len(set(draws.values()))==120
    assert dl.fetch(1, 4, [7])[1][0].item()==draws[1,7]   # in whatever batch it is
    assert len(dl.fetch(1, 0, [7]*8)[1][0].unique())==8   # and one that is there twice draws twice

@pytest.mark.parametrize('reading', ['paper','gluoncv'])
def test_a_place_that_cannot_be_read_moves_no_other_draw(tmp_path, reading):
    "A step draws by name and for all places of its batch: what is left of a batch has the pixels, shares and partners that it has in the whole one"
    rng = np.random.default_rng(0)
    for c in 'ab':
        (tmp_path/c).mkdir()
        for i in range(10): Image.fromarray(rng.integers(0, 256, (40,48,3), dtype=np.uint8)).save(tmp_path/c/f'{i}.png')
    def steps(workers):
        learn = bag_learner(bag_dls(tmp_path, size=32, bs=8, reading=reading, num_workers=workers, bad='skip', valid_pct=.1, device='cpu', pca=1.), 'mixup', but='distill',
            widen=1/16, arch='xresnet18d', alpha=1.)
        seen = []
        class See(Callback):
            order = 99
            def before_batch(self):
                if self.training: seen.append((Step.now.items,Step.now.rows,self.bag_mixup.pairs,self.xb[0].as_subclass(torch.Tensor).clone()))
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 0., cbs=See())
        return seen,learn.dls.train.items
    whole,items = steps(0)
    for o in items[3],items[12]: Path(o[0]).write_bytes(b'no image')
    part,_ = steps(2)
    assert len(whole)==len(part)==4 and sum(len(o[1])<8 for o in part)>=2
    for (idx,rows,(lam,partner),x),(idx2,rows2,(lam2,partner2),x2) in zip(whole, part):
        assert idx==idx2 and rows==list(range(8))
        if reading=='gluoncv':
            assert torch.equal(lam, lam2)
            continue
        assert torch.equal(lam[rows2], lam2)
        same = [k for k,r in enumerate(rows2) if rows2[partner2[k]]==partner[r]]
        assert len(same)>=len(rows2)-2
        for k in same: assert torch.equal(x[rows2[k]], x2[k])
    lams = torch.stack([o[2][0] for o in whole])
    assert len(lams.unique())==lams.numel()   # each step its own
    draw = ColorDraw(8)
    with Step(0, 0, 0, list(range(8)), list(range(8))): a,b = (step_draw(k, 8, torch.rand) for k in ('a','b'))
    assert not torch.equal(a, b)

@pytest.mark.parametrize('where', ['before_batch','after_batch'])
def test_a_batch_has_its_own_draws_in_each_epoch(where):
    seen,draws = [],{}
    def note(b):
        seen.append(torch.rand(1).item())
        return b
    dl = drawing(shuffle=True)
    setattr(dl, where, Pipeline([note]))
    for e in range(3):
        seen.clear()
        list(dl.at(e))
        draws[e] = list(seen)
    assert len({o for d in draws.values() for o in d})==3*len(draws[0])>=15
    seen.clear()
    list(dl.at(1, 2))
    assert seen==draws[1][2*len(draws[1])//5:]
