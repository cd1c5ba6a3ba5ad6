"What the tests of images share: photographs, and how to encode and compare them"
import io
import numpy as np, torch, torch.nn.functional as F
from sklearn.datasets import load_sample_images

photos = load_sample_images().images

def encode(im, fmt='JPEG', **kwargs):
    b = io.BytesIO()
    im.save(b, fmt, **kwargs)
    return b.getvalue()

def planes(im): return torch.from_numpy(np.array(im)).permute(2,0,1)

def psnr(a, b): return (10*torch.log10(255**2/(a.float()-b.float()).pow(2).mean())).item()

def resized(x, size, antialias=True): return F.interpolate(x[None].float(), size=size, mode='bilinear', antialias=antialias, align_corners=False)[0]
