"What the tests of images share: photographs, how to encode and compare them, and folders of made ones"
import io
import numpy as np, torch, torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_images

photos = load_sample_images().images

def encode(im, fmt='JPEG', **kwargs):
    b = io.BytesIO()
    im.save(b, fmt, **kwargs)
    return b.getvalue()

def planes(im): return torch.from_numpy(np.array(im)).permute(2,0,1)

def psnr(a, b): return (10*torch.log10(255**2/(a.float()-b.float()).pow(2).mean())).item()

def resized(x, size, antialias=True): return F.interpolate(x[None].float(), size=size, mode='bilinear', antialias=antialias, align_corners=False)[0]

def shade(y, i): return Image.fromarray(np.random.RandomState(i).randint(0, 90, (40,48,3)).astype(np.uint8) + np.uint8(120*y))

def lay_shades(root):
    "Dark and bright noise: `train|test/<class>/*.jpg`"
    for part,n in dict(train=16, test=6).items():
        for y,c in enumerate(('dark', 'light')):
            (root/part/c).mkdir(parents=True)
            for i in range(n): shade(y, i+100*len(part)).save(root/part/c/f'{i}.jpg')
    return root

def lay_colors(root, high=120, more=100, **parts):
    "Noise with more red in class `a`, green in `b`, blue in `c`: `<part>/<class>/*.png`, as many as `parts` says, for each class or for all alike"
    rng = np.random.default_rng(0)
    for part,ns in parts.items():
        for k,(c,n) in enumerate(zip('abc', [ns]*3 if isinstance(ns, int) else ns)):
            (root/part/c).mkdir(parents=True)
            for i in range(n):
                x = rng.integers(0, high, (40,40,3))
                x[..., k] += more
                Image.fromarray(x.astype(np.uint8)).save(root/part/c/f'{i}.png')
    return root
