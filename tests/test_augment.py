"The paper's pipeline against independent sources, and beside fastai's own transforms."
import io, random
import numpy as np, pytest, torch, torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock, RegressionBlock
from fastai.data.core import TfmdDL
from fastai.data.transforms import IntToFloatTensor, Normalize, RandomSplitter, get_image_files, parent_label
from fastai.torch_core import TensorImage
from fastai.vision.augment import CropPad, DihedralItem, Flip, FlipItem, RandomErasing, Resize, aug_transforms
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock, MaskBlock, PointBlock
from fasttransform.transform import Transform
from fastai.vision.learner import _add_norm
from PIL import Image
from sklearn.datasets import load_sample_images
from bot.augment import ColourDraw, colour, gluoncv_colour, gluoncv_image, paper_mean, paper_std, random_box
from bot.block import BagCrop, BagImageBlock, BagNormalize, bag_block, bag_dls
from bot.block import EncodedImage
from bot.sources import digits, find_source
from bot.loader import KeyedDL
from bot.core import UsageError

photos = load_sample_images().images
mean,std = torch.tensor(paper_mean),torch.tensor(paper_std)

def encode(im, fmt='JPEG', **kwargs):
    b = io.BytesIO()
    im.save(b, fmt, **kwargs)
    return b.getvalue()

def planes(im): return torch.from_numpy(np.array(im)).permute(2,0,1)

def psnr(a, b): return (10*torch.log10(255**2/(a.float()-b.float()).pow(2).mean())).item()

def oracle(data): return planes(Image.open(io.BytesIO(data)).convert('RGB'))

def resized(x, size, antialias=True): return F.interpolate(x[None].float(), size=size, mode='bilinear', antialias=antialias, align_corners=False)[0]

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
    d = ColourDraw(4000)
    assert len(d.factors.unique(dim=0))==4000
    assert d.factors.min()>=.6 and d.factors.max()<=1.4 and abs(d.factors.mean()-1)<.01
    assert len(d.order.unique(dim=0))==6 and d.order.float().mean(0).sub(1).abs().max()<.05
    alpha = (d.noise @ torch.tensor([[-.5675,.7192,.4009],[-.5808,-.0045,-.8140],[-.5836,-.6948,.4203]]))/torch.tensor([55.46,4.794,1.148])
    assert (alpha.std(0)-.1).abs().max()<.005

def test_batch_and_image_agree():
    x,d = torch.randint(0, 256, (12,3,900), dtype=torch.uint8),ColourDraw(12)
    a,b = torch.empty(x.shape),torch.empty(x.shape)
    args = d.factors,d.order,d.noise
    gluoncv_colour(x, a, *args, mean, std)
    for i in range(12): gluoncv_image(x[i:i+1], b[i:i+1], *(o[i:i+1] for o in args), mean, std)
    levels = (a-b).abs()*std[:,None]
    assert levels.max()<1.01 and (levels>1e-3).float().mean()<1e-3

def test_gluoncv_against_numpy():
    x,d = torch.randint(0, 256, (6,3,8,8), dtype=torch.uint8),ColourDraw(6)
    ours = colour(x, d, mean, std, 'gluoncv')
    for i in range(6):
        y = x[i].numpy().astype(np.float32)
        for k in d.order[i].tolist():
            a = np.float32(d.factors[i,k].item())
            g = y[0]*np.float32(.114)+y[1]*np.float32(.587)+y[2]*np.float32(.299)
            base = (np.float32(0),torch.from_numpy(g).mean().numpy(),g)[k]
            y = np.floor(np.clip(y*a+base*(np.float32(1)-a), 0, 255))
        y = np.floor(np.clip(y+d.noise[i].numpy()[:,None,None], 0, 255))
        assert np.array_equal((ours[i]*std[:,None,None]+mean[:,None,None]).round().numpy(), y)

@pytest.mark.slow
@pytest.mark.parametrize('reading', ['paper','gluoncv'])
def test_compiled_agrees(reading):
    x,d = torch.randint(0, 256, (4,3,64,64), dtype=torch.uint8),ColourDraw(4)
    diff = (colour(x, d, mean, std, reading, True)-colour(x, d, mean, std, reading))*std[:,None,None]
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

def test_erasing_after_normalisation_stays():
    dls = block_with(batch_tfms=RandomErasing(p=1.)).dataloaders(digits(), bs=8, num_workers=0)
    assert [type(o) for o in dls.train.after_batch.fs][-2:]==[BagNormalize,RandomErasing] and dls.one_batch()[0].isfinite().all()

def block_with(**kwargs):
    return DataBlock((BagImageBlock(24), CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=RandomSplitter(seed=0), **kwargs)

@pytest.mark.parametrize('target,get_y', [(PointBlock, point_of), (MaskBlock, mask_of)])
def test_targets_with_places_are_refused(target, get_y):
    block = DataBlock((BagImageBlock(24), target), get_items=get_image_files, get_y=get_y, splitter=RandomSplitter(seed=0))
    with pytest.raises(UsageError, match='cropped'): block.dataloaders(digits(), bs=8, num_workers=0)

def test_what_comes_after_normalisation_is_refused():
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

def test_nothing_is_normalised_twice():
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
