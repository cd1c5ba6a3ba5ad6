"""How fast is the input pipeline, on one core, beside everyone else's?

    python bench/pipeline.py [FOLDER of JPEGs] [--n 100] [--rounds 5] [--compile] [--out bench/results/pipeline.csv]

Without a folder it makes JPEGs of about 500x375 from the two photographs that scikit-learn ships. Peers that are not installed are left out
(`pip install -e ".[bench]"` installs them). Times are CPU time of one thread, the best of several rounds in which all take turns.

- worker part: A worker has bytes to read and a cropped, flipped image in bytes to hand on. Full decoding alone stands beside it. In the first epoch a run decodes each JPEG whole, to know that it is sound; that is the row `bot, first epoch`.

- worker profile: Decoding is most of it, and most of decoding is the Huffman code: where a bit stands is known only when all before it are read, so that no
decoder can leave out what lies above the crop or beside it. What lies below is left out. That is the limit of a worker's speed, and why it is less than twice
fastai's, which decodes whole images with Pillow.

- large photographs: The same code limits large photographs. A version of 1/8 the size skips nearly all but that, and still takes about half the time of a full
decode; four times as fast as that is out of reach for any decoder.

- full chain: From bytes to normalized floats, with color and noise. Peers that lack a step are spared it; the fastest that does all of them is torchvision.

- batch transform: The pass over a batch, beside the least that can be done to one.

- accuracy: How close crops come to a full decode and a resize in floats, in gray levels, at 224 to 8 px and of all photographs of the folder. Promised for any crop: a mean difference of at most 1.5 levels, and a PSNR of at least 38 dB.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse, csv, io, platform, random, time, warnings
from importlib.util import find_spec
from pathlib import Path
import numpy as np, torch, torchvision
import torchvision.transforms as T, torchvision.transforms.v2 as T2
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.torch_core import TensorImage
from fastai.vision.augment import Brightness, FlipItem, Hue, RandomResizedCrop, Saturation
from fastai.vision.core import PILImage
from fasttransform.transform import Pipeline
from PIL import Image, ImageOps
try: from torchvision.io import ImageReadMode, decode_jpeg
except ImportError: decode_jpeg = None   # deprecated in 0.29
from bot.augment import paper_mean, paper_std, pca_noise, random_box
from bot.block import BagCrop, BagNormalize, EncodedImage
from bot.formats import decode_plain, pil_decode
from bot.images import crop, resize
from bot.workers import keep_memory

warnings.filterwarnings('ignore')
torch.set_num_threads(1)
keep_memory()   # as our workers do; here everyone profits
size,bs = 224,32
mean,std = (np.array(o)/255 for o in (paper_mean,paper_std))
mean,std = mean.tolist(),std.tolist()

def photos(folder, n):
    "Encoded photographs"
    if folder: return [o.read_bytes() for o in sorted(Path(folder).rglob('*')) if o.suffix.lower() in ('.jpg','.jpeg')][:n]
    from sklearn.datasets import load_sample_images
    rng,res = random.Random(0),[]
    for i in range(n):
        im = Image.fromarray(load_sample_images().images[i%2])
        y,x = rng.randrange(427-375),rng.randrange(640-500)
        res.append(jpeg(im.crop((x, y, x+500, y+375)), 95))
    return res

def jpeg(im, quality):
    b = io.BytesIO()
    im.save(b, 'JPEG', quality=quality)
    return b.getvalue()

def buffer(data): return torch.frombuffer(data, dtype=torch.uint8)

def pil(data): return Image.open(io.BytesIO(data)).convert('RGB')

def tensor_of(im): return torch.from_numpy(np.array(im)).permute(2,0,1)

def tv_decode(data): return decode_jpeg(buffer(data), mode=ImageReadMode.RGB) if decode_jpeg else tensor_of(pil(data))

def decoders():
    "Full decoding alone"
    res = {'pillow':pil} | ({'torchvision':tv_decode} if decode_jpeg else {})
    if find_spec('simplejpeg'):
        import simplejpeg
        res['simplejpeg'] = simplejpeg.decode_jpeg
    if find_spec('cv2'): res['opencv'] = cv_decode
    return res

def cv_decode(data):
    import cv2
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

def known(data, again=True):
    "An image of ours; `again`: of a file that the run has read before, and found sound"
    im = EncodedImage.create(data)
    if again: im.encoded.sound = True
    return im

def bot_worker(reading='paper', again=True):
    f = BagCrop(size, reading=reading)
    return lambda data: f(known(data, again), split_idx=0)

def fastai_worker():
    f = Pipeline([RandomResizedCrop(size, min_scale=.08), FlipItem()], split_idx=0)
    return lambda data: tensor_of(f(PILImage.create(data)))

def timm_crop():
    from timm.data.transforms import RandomResizedCropAndInterpolation
    return T.Compose([pil, RandomResizedCropAndInterpolation(size, interpolation='bilinear'), T.RandomHorizontalFlip()])

def albumentations_crop():
    import albumentations as A, cv2
    cv2.setNumThreads(0)
    return [A.RandomResizedCrop((size,size), scale=(.08,1)), A.HorizontalFlip()]

def albumentations_run(tfms, data, last=tensor_of): return last(tfms(image=cv_decode(data))['image'])

def workers():
    "Bytes to a cropped and flipped image in bytes"
    v1 = T.Compose([pil, T.RandomResizedCrop(size), T.RandomHorizontalFlip(), tensor_of])
    v2 = T2.Compose([tv_decode, T2.RandomResizedCrop(size, antialias=True), T2.RandomHorizontalFlip()])
    res = {'bot':bot_worker(), 'bot, first epoch':bot_worker(again=False), 'bot gluoncv':bot_worker('gluoncv'), 'fastai':fastai_worker(), 'torchvision v1':v1, 'torchvision v2':v2}
    if find_spec('timm'): res['timm'] = T.Compose([timm_crop(), tensor_of])
    if find_spec('albumentations'):
        import albumentations as A
        tfms = A.Compose(albumentations_crop())
        res['albumentations'] = lambda data: albumentations_run(tfms, data)
    return res

def noise(x): return x+pca_noise(torch.randn(1, 3)*.1)[0][:,None,None]/255

def chains(compile=False):
    "Bytes to normalized floats: crop, flip, color, noise, normalization; what a peer has none of is left out, to its advantage"
    jitter = dict(brightness=.4, saturation=.4, hue=.4)
    v1 = T.Compose([pil, T.RandomResizedCrop(size), T.RandomHorizontalFlip(), T.ColorJitter(**jitter), T.ToTensor(), noise, T.Normalize(mean, std)])
    v2 = T2.Compose([tv_decode, T2.RandomResizedCrop(size, antialias=True), T2.RandomHorizontalFlip(), T2.ColorJitter(**jitter),
        T2.ToDtype(torch.float, scale=True), noise, T2.Normalize(mean, std)])
    res = {'torchvision v1':each(v1), 'torchvision v2':each(v2), 'fastai':fastai_chain(), 'bot':bot_chain('paper'), 'bot gluoncv':bot_chain('gluoncv')}
    if compile: res |= {f'{k} compiled':bot_chain(r, True) for k,r in {'bot':'paper', 'bot gluoncv':'gluoncv'}.items()}
    if find_spec('timm'): res['timm, no hue or noise'] = each(T.Compose([timm_crop(), T.ColorJitter(.4, .4, .4), T.ToTensor(), T.Normalize(mean, std)]))
    if find_spec('albumentations'):
        import albumentations as A
        tfms = A.Compose(albumentations_crop()+[A.ColorJitter((.6,1.4), (1,1), (.6,1.4), (-.4,.4), p=1), A.FancyPCA(.1, p=1), A.Normalize(mean, std)])
        res['albumentations'] = each(lambda data: albumentations_run(tfms, data))
    return res

def each(f): return lambda batch: torch.stack([f(o) for o in batch])

def fastai_chain():
    worker,color = fastai_worker(),fastai_color()
    return lambda batch: color(TensorImage(torch.stack([worker(o) for o in batch])))

def fastai_color():
    norm = Normalize(*(torch.tensor(o).view(1,3,1,1) for o in (mean,std)))
    return Pipeline([IntToFloatTensor(), Hue(.4, p=1), Saturation(.4, p=1), Brightness(.4, p=1), norm], split_idx=0)

def bot_chain(reading, compile=False):
    worker,norm = bot_worker(reading),BagNormalize(reading, compile=compile)
    return lambda batch: norm(TensorImage(torch.stack([worker(o).as_subclass(torch.Tensor).permute(1,2,0) for o in batch]).permute(0,3,1,2)), split_idx=0)

def race(fs, xs, rounds):
    "Best seconds of each of `fs` for all of `xs`, taking turns"
    best = dict.fromkeys(fs, float('inf'))
    for r in range(rounds):
        for k,f in fs.items():
            random.seed(r), torch.manual_seed(r), np.random.seed(r)
            start = time.process_time()
            for x in xs: f(x)
            best[k] = min(best[k], time.process_time()-start)
    return best

def batch_transforms(compile):
    "The color pass over a batch, beside the least that could be done"
    m,s = (torch.tensor(o).view(1,3,1,1) for o in (paper_mean,paper_std))
    res = {'(x.float()-mean)/std':lambda x: (x.float()-m)/s}
    for o in ('paper','gluoncv'):
        for c in (False, True)[:1+compile]:
            f = BagNormalize(o, compile=c)
            res[f"bot {o}{' compiled' if c else ''}"] = lambda x, f=f: f(TensorImage(x), split_idx=0)
    f = fastai_color()
    return res | {'fastai hue, saturation, brightness, normalize':lambda x: f(TensorImage(x))}

def twelve_megapixels():
    from sklearn.datasets import load_sample_images
    return [jpeg(Image.fromarray(o).resize((4000,3000), Image.Resampling.BICUBIC), 90) for o in load_sample_images().images]

def accuracy(ims, to):
    "Worst mean difference, PSNR and difference of our crops from full decoding and a resize in floats; the last also for `exact=True`"
    rows = []
    for i,data in enumerate(ims):
        random.seed(i)
        full = tensor_of(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))
        box = random_box(*full.shape[1:])
        ref = torch.nn.functional.interpolate(crop(full, box)[None].float(), size=(to,to), mode='bilinear', antialias=True)[0]
        ours,exact = (EncodedImage.create(data).decode(box, (to,to), exact=o).as_subclass(torch.Tensor)-ref for o in (False,True))
        rows.append((ours.abs().mean().item(), 10*np.log10(255**2/ours.square().mean().item()), ours.abs().max().item(), exact.abs().max().item()))
    d,p,m,e = map(np.array, zip(*rows))
    return {'mean difference, worst crop':d.max(), 'PSNR (dB), worst crop':p.min(), 'largest difference':m.max(), 'largest difference, exact=True':e.max()}

def profile(ims, rounds):
    "Where our worker's time goes, seconds for all images by step, and what no decoder can leave out"
    best = {}
    for r in range(rounds):
        random.seed(r)
        took = dict.fromkeys(('header','draw','decode','resize','flip',huffman), 0.)
        for data in ims:
            marks = [time.process_time()]
            def mark(): marks.append(time.process_time())
            im = known(data)
            h,w = im.shape
            mark()
            box = random_box(h, w)
            mark()
            x = im.encoded.decode_rows(box[0]+box[2])
            mark()
            x = resize(crop(x, box), (size,size))
            mark()
            x = TensorImage(x.flip(-1) if random.random()<.5 else x)
            mark()
            huffman_only(data)
            mark()
            for k,a,b in zip(took, marks, marks[1:]): took[k] += b-a
        best = {k:min(v, best.get(k, v)) for k,v in took.items()}
    return best

def huffman_only(data):
    if decode_plain(data, 8, 2**16) is None: pil_decode(data, 8)

huffman = 'Huffman code and little else (decoded to 1/8)'

def cpu():
    "Model of the processor"
    try: return next(l.split(':')[1].strip() for l in Path('/proc/cpuinfo').read_text().splitlines() if l.startswith('model name'))
    except (OSError, StopIteration): return platform.processor()

def report(rows, group, about, best, n, base, what):
    "Print a table of one group and keep its rows"
    print(f'\n{group}: {about}\n{"":48}{what:>14}{"ms each":>10}   ratio to {base}')
    for k,t in sorted(best.items(), key=lambda o: o[1]):
        ratio = best[base]/t if what=='images/s' else t/best[base]
        print(f'{k:48}{n/t:14.1f}{1e3*t/n:10.2f}   {ratio:.2f}')
        rows.append(dict(group=group, name=k, per_s=round(n/t, 2), ms=round(1e3*t/n, 4), ratio=round(ratio, 3), ratio_to=base))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', nargs='?', help='Folder of JPEGs; unset, some are made')
    p.add_argument('--n', type=int, default=96, help='Photographs that are timed')
    p.add_argument('--rounds', type=int, default=5, help='Times that each is timed; the best counts')
    p.add_argument('--compile', action='store_true', help='Compile the pass over a batch too')
    p.add_argument('--out', default=str(Path(__file__).parent/'results'/'pipeline.csv'), help='Table of the results')
    args = p.parse_args()
    ims,rows = photos(args.folder, args.n),[]
    n,sizes = len(ims),np.array([Image.open(io.BytesIO(o)).size for o in ims])
    print(f'{n} JPEGs, mean {sizes[:,0].mean():.0f}x{sizes[:,1].mean():.0f}, {np.mean([len(o) for o in ims])/1e3:.0f} kB; {cpu()}, one thread, torch {torch.__version__}')
    both = race(decoders() | {f'{k} (worker)':v for k,v in workers().items()}, ims, args.rounds)
    decode = {k:v for k,v in both.items() if not k.endswith('(worker)')}
    fastest = min(decode, key=decode.get)
    report(rows, 'worker part', 'bytes to a cropped, flipped 224x224 in bytes, and full decoding alone', both, n, fastest, 'images/s')
    report(rows, 'worker profile', 'where the time of our worker goes', profile(ims, args.rounds), n, 'decode', 'images/s')
    whole = ims[:n//bs*bs] or ims
    batches = [whole[i:i+bs] for i in range(0, len(whole), bs)]
    report(rows, 'full chain', 'bytes to normalized floats', race(chains(args.compile), batches, max(2, args.rounds-2)), len(whole), 'bot', 'images/s')
    x = torch.randint(0, 256, (bs,3,size,size), dtype=torch.uint8)
    tfms = batch_transforms(args.compile)
    for f in tfms.values(): f(x)
    report(rows, 'batch transform', f'{bs}x3x{size}x{size}', race(tfms, [x], 2*args.rounds), 1, '(x.float()-mean)/std', 'batches/s')
    big = twelve_megapixels()
    report(rows, 'large photographs', '12 megapixels to a cropped, flipped 224x224 in bytes', race(decoders() | {huffman:huffman_only, 'bot (worker)':bot_worker(), 'fastai (worker)':fastai_worker()}, big, 20), len(big), 'bot (worker)', 'images/s')
    print('\naccuracy of our crops, in gray levels')
    for to in (224, 64, 48, 32, 16, 8):
        found = accuracy(photos(args.folder, 10**6) if args.folder else ims, to)
        rows += [dict(group='accuracy', name=f'{k}, {to} px', value=round(float(v), 3)) for k,v in found.items()]
        print(f'{to:4} px: ' + ', '.join(f'{k} {v:.2f}' for k,v in found.items()))
    about = dict(source=Path(args.folder).name if args.folder else 'made from two photographs', cpu=cpu(), cores=os.cpu_count(), threads=1, images=n,
        kilobytes=round(np.mean([len(o) for o in ims])/1e3, 1), torch=torch.__version__, torchvision=torchvision.__version__)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, 'w', newline='') as f:
        w = csv.DictWriter(f, list(rows[0] | dict(value=None) | about))
        w.writeheader()
        w.writerows(o | about for o in rows)

if __name__=='__main__': main()
