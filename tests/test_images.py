"Image files: read, refused, cut and shrunk, with the same verdict and the same pixels whatever is installed."
import io, os, random, struct, subprocess, sys, time, warnings, zlib
from collections import Counter
from pathlib import Path
import numpy as np, pytest, torch
from PIL import EpsImagePlugin, Image, ImageCms, ImageFile, ImageOps
from fastai.vision.core import PILImage, TensorImage
from bot import formats, images
from bot.augment import random_box
from bot.block import EncodedImage, bag_dls
from bot.core import UsageError
from bot.formats import decode_plain, pil_decode, readable, stored_box, turns, upright
from bot.images import Encoded, ImageError, Verdicts, file_sign, shrink_by
from pictures import encode, photos, planes, psnr, resized


def oracle(data):
    im = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if im.mode.startswith('I'): im = Image.fromarray((np.asarray(im).astype(float)/257).round().astype(np.uint8))
    if im.mode in ('RGBA','LA','PA') or 'transparency' in im.info:
        im = im.convert('RGBA')
        im = Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im)
    return planes(im.convert('RGB'))

def small(mode):
    im = Image.fromarray(photos[1]).resize((60,40))
    if mode=='I;16': return Image.fromarray((np.asarray(im.convert('L')).astype(np.uint16)*257))
    if mode in ('RGBA','LA'): im.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40,1))))
    return im.convert(mode)

@pytest.mark.parametrize('mode,fmt', [('RGB','JPEG'), ('L','JPEG'), ('CMYK','JPEG'), ('RGB','PNG'), ('L','PNG'), ('LA','PNG'), ('RGBA','PNG'), ('P','PNG'), ('1','PNG'),
    ('I;16','PNG'), ('RGB','WEBP'), ('RGBA','WEBP'), ('P','GIF'), ('RGB','BMP'), ('RGB','TIFF'), ('I;16','TIFF'), ('CMYK','TIFF')])
def test_odd_files(mode, fmt):
    data = encode(small(mode), fmt)
    im = EncodedImage.create(data)
    assert torch.equal(im.decode(exact=True), oracle(data)) and im.size==(60,40)
    assert torch.equal(planes(EncodedImage.create(data)), oracle(data))

def test_transparent_palette():
    im = small('P')
    data = encode(im, 'PNG', transparency=int(np.asarray(im)[0,0]))
    assert torch.equal(EncodedImage.create(data).decode(), oracle(data))

@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize('fmt', ['JPEG','PNG','TIFF'])
def test_orientation(turn, fmt):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(small('RGB'), fmt, exif=exif)
    ref,im = oracle(data),EncodedImage.create(data)
    assert im.shape==tuple(ref.shape[1:])
    assert torch.equal(im.decode(), ref)
    assert torch.equal(EncodedImage.create(data).decode((3,5,20,30)), ref[:,3:23,5:35])
    x = torch.arange(12).view(3,4)
    full = upright(x, turns[turn])
    y,x0,h,w = stored_box((0,1,2,2), full.shape, turns[turn])
    assert torch.equal(upright(x[y:y+h,x0:x0+w], turns[turn]), full[0:2,1:3])

def xmp_of(turn): return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{turn}"/></x:xmpmeta>'.encode()

@pytest.mark.parametrize('fmt', ['JPEG','WEBP'])
def test_orientation_in_xmp(fmt):
    data = encode(small('RGB'), fmt, xmp=xmp_of(6))
    assert torch.equal(EncodedImage.create(data).decode(exact=True), oracle(data)) and oracle(data).shape==(3,60,40)

def test_png_exif_behind_the_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(small('RGB'), 'PNG', exif=exif)
    i = data.index(b'eXIf')-4
    chunk = data[i:i+12+int.from_bytes(data[i:i+4], 'big')]
    end = data.index(b'IEND')-4
    late = data[:i]+data[i+len(chunk):end]+chunk+data[end:]
    assert torch.equal(EncodedImage.create(late).decode(exact=True), oracle(late)) and oracle(late).shape==(3,60,40)

@pytest.mark.parametrize('odd', [dict(mode='CMYK'), dict(mode='RGB', tail=b'x'*100)])
def test_decoding_twice(odd):
    im = Image.fromarray(photos[0]).convert(odd['mode'])
    data = encode(im)+odd.get('tail', b'')
    x = EncodedImage.create(data)
    x.decode(size=(32,32))
    assert torch.equal(x.decode((10,10,100,100)), EncodedImage.create(data).decode((10,10,100,100)))

@pytest.mark.parametrize('mode', ['RGB','RGBA','L','I;16'])
def test_pixels_of_any_mode(mode):
    im = small(mode)
    assert torch.equal(EncodedImage.create(np.asarray(im)).decode(), oracle(encode(im, 'PNG')))

@pytest.fixture(params=['simplejpeg','without'])
def decoder(request, monkeypatch):
    if request.param=='without': monkeypatch.setattr(formats, 'simplejpeg', None)

def test_shrunk_decoding_is_close(decoder):
    seen = set()
    for data in (encode(Image.fromarray(o).resize((2802,1869)), quality=95) for o in photos):
        full = oracle(data)
        for i,size in enumerate((8, 16, 32, 64, 96, 400)*6):
            random.seed(i)
            box = y,x,h,w = random_box(1869, 2802)
            ref,ours = resized(full[:,y:y+h,x:x+w], (size,size)),EncodedImage.create(data).decode(box, (size,size))
            assert psnr(ours, ref)>=38 and (ours-ref).abs().mean()<=1.5, (size, box)
            assert (EncodedImage.create(data).decode(box, (size,size), exact=True)-ref).abs().max()<=1
            seen.add(shrink_by(h, w, (size,size)))
    assert seen=={1,2,4,8}

@pytest.mark.parametrize('kwargs', [dict(subsampling=0), dict(subsampling=1), dict(subsampling=2), dict(progressive=True), dict(restart_marker_blocks=3)])
@pytest.mark.parametrize('mode', ['RGB','L'])
def test_decoding_stops_below_the_crop(kwargs, mode):
    data = encode(Image.fromarray(photos[0]).convert(mode), quality=90, **kwargs)
    for k in (1,2,4,8):
        full = pil_decode(data, k)
        assert full.shape[1:]==(-(-427//k),-(-640//k))
        for h in (8, 100, 101, 238, 400, 424, 425, 426, 427):
            part,n = decode_plain(data, k, h),-(-h//k)
            assert torch.equal(part[:,:n], full[:,:n])
            assert part.shape[1]<=n+2 or 'progressive' in kwargs

def test_decoders_agree():
    data = encode(Image.fromarray(photos[0]))
    for k in (1,2,4,8): assert torch.equal(decode_plain(data, k), pil_decode(data, k))

small_photos = [Image.fromarray(o).resize((96,64)) for o in photos]
kinds = [dict(), dict(subsampling=0), dict(subsampling=1, optimize=True), dict(progressive=True), dict(restart_marker_blocks=2), dict(exif=b'Exif\0\0MM\0*\0\0\0\b\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0')]
jpegs = [encode(o.convert(m), **k) for o in small_photos for m in ('RGB','L') for k in kinds]+[encode(small_photos[0].convert('CMYK'))]
others = [encode(small_photos[0].convert(m), f) for m,f in (('RGB','PNG'), ('P','PNG'), ('RGBA','PNG'), ('P','GIF'), ('RGB','BMP'), ('RGB','WEBP'), ('RGB','TIFF'), ('L','PPM'), ('RGB','AVIF'), ('RGB','JPEG2000'))]
others += [encode(small_photos[0], 'TIFF', compression='tiff_lzw'), encode(small('I;16'), 'PNG'), encode(small('I;16'), 'TIFF')]

def mutant(data, r):
    "Damage of one of many kinds, once or a few times: bits, bytes, blocks, markers, what a broken download leaves"
    d = bytearray(data)
    for _ in range(r.choice((1,1,1,2,5))):
        n,kind = len(d),r.randrange(11)
        if n<20: break
        i,early,j = r.randrange(2, n),r.randrange(2, min(n, 700)),r.randrange(1, 200)
        if kind==0: d[i] ^= 1<<r.randrange(8)
        elif kind==1: d[early] ^= 1<<r.randrange(8)
        elif kind==2: d[early] = r.randrange(256)
        elif kind==3: d = d[:i]
        elif kind==4: d = d[:i]+d[r.randrange(2, n):]
        elif kind==5: d[i:i+j] = r.randbytes(j)
        elif kind==6: d[i:i+j] = bytes(j)
        elif kind==7: d[i:i] = bytes((0xff, r.randrange(0xc0, 0x100)))
        elif kind==8: d = d[:i]+data
        elif kind==9: d[i:i+2] = b'\xff\xc7'
        else: d += r.randbytes(j)
    return bytes(d)

def pillow_reads(data):
    "Pixels by Pillow alone, upright, or `None`"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: return planes(ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=[o for o in readable if o in Image.OPEN])).convert('RGB'))
        except Exception: return None

def read(data, *args):
    "What is read of it in one way, or `None` for an `ImageError`: anything else is a fault"
    try: return Encoded(data).decode(*args)
    except ImageError: return None

def rows(data, h, k):
    im = Encoded(data)
    try: return im.shape and im.decode_rows(h, k)[:,:h//k]
    except (ImageError, *images.image_problems): return None

def same(a, b): return a is None and b is None or a is not None and b is not None and torch.equal(a, b)

def ways(data, k, shape):
    "Whole, a corner, a corner after the whole, and shrunk"
    im = Encoded(data)
    try: im.decode(), im.decode((0,0,9,9))
    except ImageError: im = None
    return [read(data), read(data, (0,0,9,9)), im and im.decode((0,0,9,9)), rows(data, shape, k)]

def fuzz(n, monkeypatch):
    "Verdicts and pixels of `n` damaged JPEGs, with simplejpeg and without"
    r,seen = random.Random(0),Counter()
    Image.init()
    for i in range(n):
        data,k = mutant(r.choice(jpegs), r),r.choice((1,2,4,8))
        ref,with_it = pillow_reads(data),ways(data, k, 16)
        with monkeypatch.context() as m:
            for o in (formats, images): m.setattr(o, 'simplejpeg', None)
            without = ways(data, k, 16)
        assert all(map(same, with_it, without)), i
        assert [o is None for o in with_it]==[ref is None]*4, (i, [o is None for o in with_it])
        assert same(with_it[0], ref), i
        seen['refused' if ref is None else 'read'] += 1
    return seen

def test_damaged_jpegs(monkeypatch): assert min(fuzz(400, monkeypatch).values())>100

@pytest.mark.slow
def test_many_damaged_jpegs(monkeypatch): assert min(fuzz(10_000, monkeypatch).values())>3000

def fuzz_others(n):
    r,seen = random.Random(1),Counter()
    Image.init()
    for i in range(n):
        data = mutant(r.choice(others), r)
        ours,ref = read(data),pillow_reads(data)
        assert ours is None or ref is not None, i
        seen[ours is None] += 1
    return seen

def test_damaged_files_of_other_formats(capfd): assert min(fuzz_others(300).values())>30

@pytest.mark.slow
def test_many_damaged_files_of_other_formats(capfd): assert min(fuzz_others(5000).values())>500

def spoilt():
    "Three ways of a JPEG to be broken that a lenient decoder fills with gray"
    data,r = encode(Image.fromarray(photos[0])),random.Random(0)
    n = len(data)
    return [data[:n//3]+data, data[:n//3]+b'\xff\xc7'+data[n//3+2:], data[:n//2]+b'\xff\xd8'+r.randbytes(4096)+data[n//2:]]

@pytest.mark.parametrize('i', range(3))
@pytest.mark.parametrize('args', [(), ((0,0,20,20),), (None,(16,16)), ((0,0,400,640),(48,48))])
def test_broken_jpegs_are_refused_in_every_way(i, args, decoder, tmp_path):
    path = tmp_path/'a.jpg'
    path.write_bytes(spoilt()[i])
    assert pillow_reads(spoilt()[i]) is None
    for _ in range(2):   # also when it is met again
        for o in (spoilt()[i], path):
            with pytest.raises(ImageError, match='broken data'): Encoded(o).decode(*args)

def test_damage_that_pillow_reads_is_read(decoder, tmp_path):
    path,data = tmp_path/'a.jpg',encode(Image.fromarray(photos[0]))
    path.write_bytes(data := data[:len(data)//2]+bytes(50)+data[len(data)//2+50:])
    full = pillow_reads(data)
    for _ in range(2): assert torch.equal(Encoded(path).decode(), full) and torch.equal(Encoded(path).decode((0,0,9,9)), full[:,:9,:9])

@pytest.mark.parametrize('size', [(640,427), (333,251), (97,61), (17,16)])
@pytest.mark.parametrize('mode', ['RGB','L'])
@pytest.mark.parametrize('kwargs', kinds)
def test_a_sound_file_is_cut_and_never_slow(size, mode, kwargs, tmp_path, monkeypatch):
    path = tmp_path/'a.jpg'
    path.write_bytes(encode(Image.fromarray(photos[0]).resize(size).convert(mode), **kwargs))
    full = Encoded(path).decode(exact=True)
    assert torch.equal(full, pillow_reads(path.read_bytes())) and Encoded.verdicts[file_sign(os.stat(path))] is True
    monkeypatch.setattr(images, 'pil_decode', None)
    for h in range(1, full.shape[1]-1, 7):
        im = Encoded(path)
        assert torch.equal(im.decode((0,0,h,full.shape[2])), full[:,:h])
        if not {'progressive','exif'} & set(kwargs): assert im.decode_rows(h).shape[1]==min(h+2, full.shape[1])

def test_a_replaced_file_is_looked_at_anew(decoder, tmp_path):
    path = tmp_path/'a.jpg'
    path.write_bytes(encode(Image.fromarray(photos[0])))
    Encoded(path).decode(size=(8,8))
    path.write_bytes(spoilt()[0])
    with pytest.raises(ImageError): Encoded(path).decode((0,0,8,8), (8,8))

@pytest.mark.skipif(os.name=='nt', reason='Windows keeps no time of change that programs cannot set')
@pytest.mark.parametrize('how', ['in place','renamed'])
def test_a_file_of_the_same_size_and_time_is_looked_at_anew(how, decoder, tmp_path):
    path,new,data = tmp_path/'a.jpg',tmp_path/('a.jpg' if how=='in place' else 'b.jpg'),encode(Image.fromarray(photos[0]))
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))
    Encoded(path).decode(size=(8,8))
    time.sleep(.05)   # the clock of the disk is coarse
    i = len(data)//2
    new.write_bytes(data[:i]+b'\xff\xd8'+random.Random(0).randbytes(4096)+data[i+4098:])
    os.utime(new, ns=(10**18, 10**18))
    os.replace(new, path)
    assert pillow_reads(path.read_bytes()) is None and (path.stat().st_size, path.stat().st_mtime_ns)==(len(data), 10**18)
    with pytest.raises(ImageError): Encoded(path).decode((0,0,8,8), (8,8))

def test_verdicts_of_many_files():
    v,r = Verdicts(100_000),random.Random(0)
    signs = [r.randrange(1, 2**61)*2 for _ in range(100_000)]
    for o in signs: v[o] = True
    assert sum(v[o] is None for o in signs)<1000 and all(v[o+2] is None for o in signs[:1000])
    assert v.x.nbytes<=8*2**19 and v.shared(10).shared(10).x.is_shared()

@pytest.mark.parametrize('start', ['fork','spawn'])
def test_workers_share_what_they_found(start, tmp_path):
    for i in range(24):
        path = tmp_path/'ab'[i%2]/f'{i}.jpg'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(Image.fromarray(photos[i%2]).rotate(i).resize((64,48))))
    dls = bag_dls(tmp_path, size=24, bs=4, num_workers=2, start_method=start, valid_pct=.25)
    known = [Encoded.verdicts[file_sign(os.stat(o[0]))] for o in dls.train_ds.items]
    assert not all(known)
    for _ in dls.train: pass
    known = [Encoded.verdicts[file_sign(os.stat(o[0]))] for o in dls.train_ds.items]
    assert sum(o is True for o in known)>=len(known)//4*4   # the last batch is dropped

def test_no_program_is_started(tmp_path, monkeypatch):
    path = tmp_path/'x.jpg'
    Image.new('RGB', (8,8)).save(path, 'EPS')
    gs = tmp_path/'gs'
    gs.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n')
    gs.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    code = f"from bot.images import Encoded\nEncoded({str(path)!r}).decode()"
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'not an image of a known format' in res.stderr and not (tmp_path/'started').exists()

def an_eps(): return io.BytesIO(encode(Image.new('RGB', (8,8)), 'EPS'))

class Odd(ImageFile.StubImageFile):
    "A format that another program reads"
    format = 'ODD'
    def _open(self): self._mode,self._size = 'RGB',(8,8)
    def _load(self): raise AssertionError('started')

@pytest.mark.parametrize('made', [lambda: Image.open(an_eps()), an_eps, lambda: an_eps().getvalue(),
    lambda: PILImage(Image.open(an_eps())), lambda: Odd(io.BytesIO(b'a'))])
def test_no_way_in_starts_a_program(made, monkeypatch):
    def started(*args, **kwargs): raise AssertionError('started')
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', started)
    with pytest.raises(ImageError, match='not read here|without pixels|not an image'): EncodedImage.create(made()).decode()

@pytest.mark.parametrize('mode', ['RGB','L','RGBA','I;16'])
def test_open_files_are_read(mode, tmp_path):
    data = encode(small(mode), 'PNG')
    assert torch.equal(EncodedImage.create(Image.open(io.BytesIO(data))).decode(), oracle(data))
    assert torch.equal(EncodedImage.create(io.BytesIO(data)).decode(), oracle(data))
    im = PILImage(Image.open(io.BytesIO(data)).copy())
    assert torch.equal(EncodedImage.create(im).decode(), oracle(data))

pixels = [(np.zeros((8,8,3), int), 'int64 pixels'), (np.zeros((8,8)), 'float64 pixels'), (torch.rand(8,8,3), 'float32 pixels'), (TensorImage(torch.rand(3,8,8)), 'float32 pixels'),
    (np.zeros((3,8,8), np.uint8), 'shape'), (np.zeros((8,8,3), np.uint16), 'uint16 colors'), (np.zeros((0,8,3), np.uint8), 'no pixels')]

@pytest.mark.parametrize('x,words', pixels)
def test_pixels_of_no_known_scale_are_refused(x, words):
    with pytest.raises(ImageError, match=words): EncodedImage.create(x)

@pytest.mark.parametrize('x', [None, 3, ['a.jpg']])
def test_what_is_no_image(x):
    with pytest.raises(UsageError, match='is no image'): EncodedImage.create(x)

@pytest.mark.parametrize('kind', [np.asarray, Image.fromarray, lambda x: Image.open(io.BytesIO(encode(Image.fromarray(x), 'PNG')))])
def test_a_dark_image_in_memory_is_said(kind):
    formats.notes.clear()
    assert EncodedImage.create(kind(gray)).decode().max()<17
    (_,said), = formats.notes
    assert 'no value is above 4095' in said

def test_big_endian_16_bits():
    b,data = Image.fromarray(gray*16),encode(Image.fromarray(gray*16), 'TIFF')
    big = encode(Image.frombytes('I;16B', b.size, (gray*16).astype('>u2').tobytes()), 'TIFF')
    assert big[:2]==b'MM' and torch.equal(Encoded(big).decode(), Encoded(data).decode())
    assert torch.equal(EncodedImage.create(Image.open(io.BytesIO(big))).decode(), Encoded(data).decode())

gray = np.linspace(0, 4095, 48).astype(np.uint16)[None].repeat(32, 0)

def sbit(data, *bits):
    "A PNG that says how many bits of each channel mean something"
    chunk = b'sBIT'+bytes(bits)
    return data[:33]+len(bits).to_bytes(4, 'big')+chunk+zlib.crc32(chunk).to_bytes(4, 'big')+data[33:]

def tiff12():
    "A TIFF of 12 bits, packed"
    packed = b''.join(bytes((a>>4, (a&15)<<4|b>>8, b&255)) for a,b in gray.reshape(-1, 2).tolist())
    tags = [(256,3,48), (257,3,32), (258,3,12), (259,3,1), (262,3,1), (273,4,8), (277,3,1), (278,3,32), (279,4,len(packed))]
    ifd = struct.pack('<H', len(tags))+b''.join(struct.pack('<HHII', t, f, 1, v) for t,f,v in tags)+bytes(4)
    return b'II*\0'+struct.pack('<I', 8+len(packed))+packed+ifd

def tiff(x, top): return encode(Image.fromarray(x), 'TIFF', tiffinfo={281:top})

def png(x, *bits): return sbit(encode(Image.fromarray(x), 'PNG'), *bits)

scales = [(tiff(gray, 4095), 4095), (tiff(gray//16, 255), 255), (tiff12(), 4095), (png(gray, 12), 4095)]
scales += [(png(gray*16, 12), 65535)]   # it goes beyond what it declares, as the standard has it

@pytest.mark.parametrize('data,white', scales)
def test_a_declared_scale_is_kept(data, white):
    formats.notes.clear()
    x = gray.astype(float)*{4095:1, 255:1/16, 65535:16}[white]
    if white==255: x = np.floor(x)
    assert np.array_equal(Encoded(data).decode()[0].numpy(), (x*255/white).round().astype(np.uint8)) and not formats.notes

def tags(x, **kw): return encode(Image.fromarray(x), 'TIFF', tiffinfo={int(k[1:]):v for k,v in kw.items()})

def netpbm(x, top, kind=5): return f'P{kind} {x.shape[1]} {x.shape[0]} {top}\n'.encode()+x.astype('>u2' if top>255 else 'u1').tobytes()

def jp2(x): return encode(Image.fromarray(x), 'JPEG2000')

def white_is_zero(data):
    i = data.index(b'\x06\1\3\0\1\0\0\0\1\0')   # tag 262, one short: 1
    return data[:i+8]+b'\0'+data[i+9:]

nibble = (gray//273).astype(np.uint8)
few,broken,senseless = 'no value is above 4095', 'do not keep to', 'makes no sense'
doubtful = [(netpbm(gray, 65535), 0, 65535, few), (jp2(gray), 0, 65535, few), (tags(gray, t281=65535), 0, 65535, few), (png(gray, 16), 0, 65535, few),
    (white_is_zero(tags(gray, t281=65535)), 65535, 0, few), (tags(65535-gray, t281=65535), 0, 65535, 'no value is below 61166'),
    (tags(gray+30000, t281=65535), 0, 65535, 'differ by less than a 15th'), (tags(gray//16, t281=4095), 0, 4095, 'no value is above 255'),
    (tags(gray*16, t281=4095), 0, 65535, broken), (tags(gray*16, t280=9999), 0, 65535, broken),
    (tags(gray*16, t281=(1,2)), 0, 65535, senseless), (tags(gray, t280=9, t281=3), 0, 65535, few), (png(gray*16, 200), 0, 65535, senseless),
    (png(gray*16, 0), 0, 65535, senseless),
    (netpbm(gray*16, 4095), 0, 65535, broken), (netpbm(nibble*17, 99), 0, 255, broken), (netpbm(np.stack([gray*16]*3, 1), 4095), 0, 65535, broken),
    (tags(nibble, t281=15), 0, 15, 'less than 128'), (png(nibble, 4), 0, 15, 'less than 128'), (tags(nibble*2, t281=15), 0, 255, broken), (tags(nibble, t281=(1,2)), 0, 255, senseless)]

@pytest.mark.parametrize('i', range(len(doubtful)))
def test_a_doubtful_scale_is_said(i, tmp_path):
    data,black,white,words = doubtful[i]
    formats.notes.clear()
    (tmp_path/'a.img').write_bytes(data)
    ours = Encoded(tmp_path/'a.img').decode()[0].numpy()
    (path,said), = formats.notes
    assert path==str(tmp_path/'a.img') and words in said
    im = Image.open(io.BytesIO(data))
    if i not in (14,15,16): assert np.array_equal(ours, formats.to_bytes(np.asarray(im), (black,white)))   # the others Pillow would cut off
    else: assert ours.max()>250 and (ours==ours.max()).mean()<.1

@pytest.mark.parametrize('black,white', [(1000,3000), (0,3000), (1000,65535)])
def test_both_ends_are_used(black, white):
    x = np.linspace(black, white, 48).astype(np.uint16)[None].repeat(32, 0)
    formats.notes.clear()
    assert np.array_equal(Encoded(tags(x, t280=black, t281=white)).decode()[0].numpy(), formats.to_bytes(x, (black,white))) and not formats.notes
    y = Encoded(white_is_zero(tags(x, t280=black, t281=white))).decode()[0].numpy()
    assert np.array_equal(y, formats.to_bytes(x, (white,black)))

def test_a_white_of_128_or_more_is_no_scale_in_8_bits():
    formats.notes.clear()
    for data in (tags(nibble*10, t281=150), png(nibble*17, 5), tags(nibble, t281=255), netpbm(nibble, 255)):
        assert np.array_equal(Encoded(data).decode()[0].numpy(), np.asarray(Image.open(io.BytesIO(data)))) and not formats.notes
    inverted = Encoded(white_is_zero(tags(nibble, t281=15))).decode()[0].numpy()
    assert np.array_equal(inverted, 255-nibble*17)

@pytest.mark.parametrize('data', [jp2(np.stack([nibble]*3, -1)), encode(Image.fromarray(nibble), 'PNG')])
def test_eight_bits_may_be_dark(data):
    formats.notes.clear()
    assert Encoded(data).decode().max()<20 and not formats.notes

@pytest.mark.parametrize('fmt', ['PNG','TIFF'])
def test_a_scale_that_is_not_declared_is_said(fmt):
    for x,dark in ((gray, True), (gray*16, False)):
        formats.notes.clear()
        y = Encoded(encode(Image.fromarray(x), fmt)).decode()[0].numpy()
        assert np.array_equal(y, (x/257.).round().astype(np.uint8))
        assert len(formats.notes)==1 and ('no value is above 4095' in formats.notes[0][1])==dark

def deep(x, *chunks):
    "A PNG of 16-bit colors"
    h,w,_ = x.shape
    def chunk(name, data): return struct.pack('>I', len(data))+name+data+struct.pack('>I', zlib.crc32(name+data))
    lines = b''.join(b'\0'+o.astype('>u2').tobytes() for o in x)
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 16, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n'+head+b''.join(chunk(*o) for o in chunks)+chunk(b'IDAT', zlib.compress(lines))+chunk(b'IEND', b'')

def test_colors_of_16_bits():
    x = np.stack([gray]*3, -1)
    formats.notes.clear()
    assert abs(Encoded(deep(x*16)).decode().float().mean().item()-x.mean()*16/257)<1 and 'camera' not in formats.notes.pop()[1]
    Encoded(deep(x)).decode()
    assert 'no value is above 4095' in formats.notes.pop()[1]
    with pytest.raises(ImageError, match='white is 4095'): Encoded(sbit(deep(x), 12, 12, 12)).decode()
    assert Encoded(sbit(deep(x*16), 12, 12, 12)).decode().max()>250 and not formats.notes

@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_a_scale_that_cannot_be_known_is_refused(dtype):
    with pytest.raises(ImageError, match='scale is not known'): Encoded(encode(Image.fromarray(gray.astype(dtype)), 'TIFF')).decode()
    with pytest.raises(ImageError, match='scale is not known'): EncodedImage.create(gray.astype(dtype)).decode()

def test_white_is_zero():
    data = encode(Image.fromarray(gray*16), 'TIFF')
    assert np.array_equal(Encoded(white_is_zero(data)).decode()[0].numpy(), 255-Encoded(data).decode()[0].numpy())

def a_picture(mode, r):
    "A part of a photograph in any of Pillow's modes"
    im = Image.fromarray(photos[1]).resize((61,43)).crop((0, 0, r.randrange(1, 62), r.randrange(1, 44)))
    x = np.asarray(im.convert('L'))
    if mode=='I;16': return Image.fromarray(x.astype(np.uint16)*257)
    if mode in ('I','F'): return im.convert('L').convert(mode)
    if mode=='LAB': return ImageCms.profileToProfile(im, ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), outputMode='LAB')
    im = im.convert('P').convert('PA') if mode=='PA' else im.convert(mode)
    if mode[-1]=='A': im.putalpha(Image.frombytes('L', im.size, r.randbytes(x.size)))
    return im

def a_file(fmt, mode, r):
    "A valid file, turned and transparent at random; `None` if Pillow writes no such thing"
    im,kw,exif = a_picture(mode, r),{},Image.Exif()
    exif[0x0112] = r.randrange(1, 9)
    if fmt in ('JPEG','PNG','WEBP','TIFF','AVIF') and r.random()<.5: kw['exif'] = exif
    if fmt=='PNG' and mode in ('1','L','P','RGB','I;16') or fmt=='GIF' and mode=='P': kw |= {'transparency':im.getpixel((0,0))} if r.random()<.5 else {}
    if fmt=='TIFF' and mode in ('1','L','P','RGB','RGBA','CMYK') and r.random()<.5: kw['compression'] = r.choice(('tiff_lzw','tiff_adobe_deflate','packbits'))
    try: return encode(im, fmt, **kw)
    except (OSError, ValueError, KeyError): return

def over_white(data):
    "What Pillow reads, where the page says so on the scale of 16 bits and laid over white"
    im = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    clear = im.info.get('transparency')
    if im.mode[0]=='I':
        x = np.asarray(im).astype(float)
        y = np.rint(x/257).astype(np.uint8)
        return torch.from_numpy(np.where(x==clear, 255, y))[None].expand(3, -1, -1)
    rgb = np.asarray(im.convert('RGB')).astype(float)
    if im.mode[-1]!='A' and clear is None: return planes(im.convert('RGB'))
    a = np.asarray(im.convert('RGBA'))[...,3:]/255
    return torch.from_numpy(np.rint(rgb*a+255*(1-a)).astype(np.uint8)).permute(2,0,1)

@pytest.mark.parametrize('fmt', 'JPEG PNG GIF WEBP TIFF BMP DIB JPEG2000 AVIF PPM TGA ICO'.split())
def test_whatever_pillow_writes(fmt):
    r,seen = random.Random(fmt),Counter()
    for mode in '1 L LA P PA RGB RGBA CMYK YCbCr LAB HSV I I;16 F'.split()*4:
        if not (data := a_file(fmt, mode, r)): continue
        ours,seen['all'] = read(data),seen['all']+1
        if (fmt,mode)==('TIFF','YCbCr') and ours is None: continue   # some versions of Pillow take its numbers for red, green and blue
        if fmt in ('TGA','ICO') or ours is None: assert fmt in ('TGA','ICO') or Image.open(io.BytesIO(data)).mode in ('I','F'), (fmt, mode)
        else: assert (ours.int()-over_white(data).int()).abs().max()<=(Image.open(io.BytesIO(data)).mode[-1]=='A'), (fmt, mode)   # Pillow rounds blends otherwise
        seen['read'] += ours is not None
    assert seen['all']>=8 and (seen['read']>=8)==(fmt not in ('TGA','ICO'))

def test_colors_of_16_bits_in_jpeg_2000():
    data = bytearray(encode(Image.fromarray(photos[0]).resize((64,48)), 'JPEG2000', no_jp2=True))
    for i in (42,45,48): data[i] = 11   # a channel has 12 bits
    formats.notes.clear()
    Encoded(bytes(data)).decode()   # so flat, for these are the pixels of 8 bits
    assert 'differ by less than a 15th' in formats.notes[0][1]

def test_a_transparent_color_of_16_bits():
    x = np.stack([gray*16]*3, -1)
    x[:,:3] = (65520,256,300)
    y = Encoded(deep(x, (b'tRNS', struct.pack('>HHH', 65520, 256, 300)))).decode()
    assert (y[:,:,:3]==255).all() and y[:,:,3:20].float().mean()<100

memory = """
import re, sys
from pathlib import Path
from bot.images import Encoded, ImageError
def status(k): return int(re.search(k+r':\\s+(\\d+)', Path('/proc/self/status').read_text())[1])/1e3
im = Encoded(sys.argv[1])
Encoded(sys.argv[2]).decode()
im.shape
Path('/proc/self/clear_refs').write_text('5')
before = status('VmRSS')
try: im.decode(size=(224,224), exact=sys.argv[3]=='exact')
except ImageError as e: print('refused')
print(status('VmHWM')-before)
"""

largest = [('PNG', (8192,8191), {}), ('PNG', (8192,8191), dict(alpha=True)), ('TIFF', (8192,8191), {}), ('JPEG', (8192,8191), {}), ('JPEG', (6000,6000), dict(progressive=True)),
    ('WEBP', (5200,5200), dict(method=0)), ('JPEG2000', (4800,4800), {}), ('AVIF', (6800,6800), dict(speed=10))]

@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='needs Linux')
@pytest.mark.parametrize('fmt,size,kwargs', largest)
@pytest.mark.parametrize('how', ['plain','exact'])
def test_memory_is_bounded(fmt, size, kwargs, how, tmp_path):
    im = Image.effect_noise((512,512), 30).convert('RGB').resize(size)
    if kwargs.get('alpha'): im.putalpha(100)
    im.save(tmp_path/'a', fmt, **{k:v for k,v in kwargs.items() if k!='alpha'})
    (tmp_path/'b').write_bytes(jpegs[0])
    out = subprocess.run([sys.executable, '-c', memory, tmp_path/'a', tmp_path/'b', how], capture_output=True, text=True, check=True).stdout.split()
    assert len(out)==1 and float(out[0])<images.max_bytes/1e6*1.05

def test_a_remark_is_of_the_loader_that_read_the_image(tmp_path):
    "What the same process read before, for a prediction as it may be, is not said again with the images of somebody else"
    from bot.loader import KeyedDL
    formats.notes[:] = [('elsewhere.png', 'has several frames: the first is used')]
    dl = KeyedDL([0,1,2], bs=2, num_workers=0, device='cpu')
    list(dl)
    assert not dl.notes
