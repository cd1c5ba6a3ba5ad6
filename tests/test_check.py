"The doctor: everything planted is found, nothing else is, no file is changed, and a check that was stopped goes on"
import csv, json, os, shutil, signal, subprocess, sys, time, unicodedata, zlib
from html.parser import HTMLParser
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image, ImageEnhance
import bot.check, bot.look
from bot.all import bag_dls, check, DataError, find_source
from bot.cases import case_kinds as kinds, quick_check
from bot.cli import check_main
from bot.images import Encoded, ImageError
from bot.look import read_looks
from pictures import encode, photos

root = Path(__file__).parents[1]
shared = next((o for o in (root.parent/'shared/data', root.parent.parent/'shared/data', root/'shared/data') if o.exists()), root/'shared/data')

def picture(i, size=(160,120)):
    "A picture unlike those of other numbers"
    rng = np.random.default_rng(i)
    noise = Image.fromarray(rng.integers(0, 256, (5,5,3), dtype=np.uint8)).resize((160,120), Image.Resampling.BICUBIC)
    return Image.blend(Image.fromarray(photos[i%2]).resize((160,120)), noise, .6).resize(size)

def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else encode(data, quality=92))
    return path

def lay(top, *folders, n=12, start=0):
    "`n` pictures in each of `folders`, all different"
    for k,o in enumerate(folders):
        for i in range(n): put(top/o/f'{i}.jpg', picture(start+1000*k+i))
    return top

def state(top): return {str(p): (p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else None) for p in sorted(top.rglob('*'))}
def names(cases): return {Path(f).name for o in cases for f in o.images}
def run(*args, cwd, **kwargs): return subprocess.run([sys.executable, '-W', 'ignore', '-m', 'bot', 'check', *map(str, args)], cwd=cwd, capture_output=True, text=True,
    env=os.environ | dict(PYTHONPATH=f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"), **kwargs)

# ---- 33 kinds of bad or odd input

def png_of(w, h, bits=1):
    "A PNG of nothing, however large"
    def chunk(name, data): return len(data).to_bytes(4, 'big')+name+data+zlib.crc32(name+data).to_bytes(4, 'big')
    head = w.to_bytes(4, 'big')+h.to_bytes(4, 'big')+bytes((bits, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', head)+chunk(b'IDAT', zlib.compress(bytes(h*(1+(w*bits+7)//8)), 1))+chunk(b'IEND', b'')

def frames(fmt): return encode(picture(1), fmt, save_all=True, append_images=[picture(2), picture(3)])
def deep(top): return encode(Image.fromarray(np.linspace(0, top, 96*96).astype(np.uint16).reshape(96,96)), 'PNG')
def turned(n):
    exif = Image.Exif()
    exif[0x0112] = n
    return encode(picture(4), exif=exif)

jpg,png = encode(picture(0), quality=92),encode(picture(0), 'PNG')
bad = {'empty.jpg':b'', 'half.jpg':jpg[:len(jpg)//2], 'head.jpg':jpg[:100], 'text.jpg':b'not here, try again later', 'page.jpg':b'<!doctype html><html><body>404</body></html>',
    'noise.jpg':np.random.default_rng(0).bytes(5000), 'half.png':png[:len(png)//2], 'sum.png':png[:60]+b'\x00\x01\x02\x03'+png[64:], 'half.webp':encode(picture(5), 'WEBP')[:900],
    'half.tif':encode(picture(6), 'TIFF')[:4000], 'float.tif':encode(Image.fromarray(np.random.rand(80,80).astype(np.float32)), 'TIFF'),
    'int.tif':encode(Image.fromarray(np.arange(6400, dtype=np.int32).reshape(80,80)), 'TIFF'), 'vector.png':b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'layers.jpg':b'8BPS\0\1'+bytes(60),
    'paper.jpg':b'%PDF-1.7\n', 'video.gif':b'\0\0\0\x18ftypmp42'+bytes(60), 'bomb.png':png_of(20000, 20000)}
odd = {'turned.jpg':('turned', turned(6)), 'mirror.jpg':('turned', turned(2)), 'deep.png':('deep', deep(65535)), 'camera.png':('deep', deep(4095)), 'moves.gif':('frames', frames('GIF')),
    'moves.webp':('frames', frames('WEBP')), 'pages.tif':('frames', frames('TIFF')), 'dot.png':('tiny', encode(Image.new('RGB', (1,1)), 'PNG')), 'line.png':('narrow', encode(picture(7).resize((1,5000)), 'PNG')),
    'wide.jpg':('narrow', encode(picture(8).resize((1000,90)))), 'vast.jpg':('huge', encode(picture(9).resize((6000,5000)), quality=30)),
    'red.jpg':('blank', encode(Image.new('RGB', (90,90), 'red'))), 'really.jpg':('misnamed', encode(picture(10), 'PNG'))}
fine = {'cmyk.jpg':encode(picture(11).convert('CMYK')), 'clear.png':encode(picture(12).convert('P'), 'PNG', transparency=0), 'tail.jpg':encode(picture(13))+b'more'}
places = {'pipe.jpg':os.mkfifo, 'folder.jpg':os.mkdir, 'gone.jpg':lambda p: os.symlink('nowhere', p), 'loop.jpg':lambda p: os.symlink('loop.jpg', p)} if hasattr(os, 'mkfifo') else {}

@pytest.fixture(scope='module')
def ward(tmp_path_factory):
    "Every kind among good images, looked at once"
    top = lay(tmp_path_factory.mktemp('ward')/'photos', 'train/a', 'train/b', 'valid/a', 'valid/b', start=500)
    for k,data in (bad | {k:d for k,(_,d) in odd.items()} | fine).items(): put(top/'train/a'/k, data)
    for k,make in places.items(): make(top/'train/a'/k)
    for k in (b'\xff\xfe.jpg', 'new\nline \x1b[31m.jpg'.encode(), b'<img src=x onerror=alert(1)>.jpg'): put(Path(os.fsdecode(os.fsencode(top)+b'/train/b/'+k)), b'no image')
    before = {k:v for k,v in state(top).items() if 'pipe' not in k}
    return top,check(top, top.parent/'out', workers=2),before

def test_33_kinds_are_found(ward):
    top,res,_ = ward
    assert len(bad)+len(odd)+len(places)>=33
    lost = (set(bad) | set(places))-names(res.findings['unreadable'])
    assert not lost
    for k,(kind,_) in odd.items(): assert k in names(res.remarks[kind]), k
    assert len(res.findings['unreadable'])==len(bad)+len(places)+3 and list(res.findings)==['unreadable']
    assert not set(fine) & {n for o in kinds for n in names([c for c in res.cases if c.kind==o])}
    assert res.code==3

def test_the_verdict_is_the_trainers(ward):
    "Of each file that can be asked: as `Encoded` has it, with its reason"
    top,res,_ = ward
    for o in res.rows:
        if 'pipe' in o.image: continue
        try: Encoded(o.image).decode(size=(64,64)), [None]
        except ImageError as e: assert e.reason==o.problem
        else: assert not o.problem

def test_nothing_of_the_users_is_changed(ward):
    top,_,before = ward
    assert {k:v for k,v in state(top).items() if 'pipe' not in k}==before

def test_without_what_it_names_nothing_is_found(ward):
    top,res,_ = ward
    again = check(top, top.parent/'again', exclude=res.out/'exclude.csv', workers=0)
    assert again.code==0 and f"{len(bad)+len(places)+3} excluded by exclude.csv" in str(again)
    dls = bag_dls(top, size=32, bs=4, num_workers=0, exclude=res.out/'exclude.csv')
    assert 'excluded by exclude.csv' in dls.bag['src'].describe() and dls.bag['exclude']==str(res.out/'exclude.csv')
    assert not {o[0] for o in dls.bag['src'].items} & set(res.excluded)

def test_a_random_split_stays(tmp_path):
    "The others are in the part that they were in"
    top = lay(tmp_path/'p', 'a', 'b', n=20)
    (tmp_path/'e.csv').write_text('image\na/3.jpg\nb/7.jpg\nb/99.jpg\n')
    whole,less = find_source(top),find_source(top, exclude=tmp_path/'e.csv')
    assert set(whole.train)-set(less.train) | set(whole.valid)-set(less.valid)=={(str(top/f'{c}/{i}.jpg'), c) for c,i in (('a',3), ('b',7))}
    assert set(less.train)<=set(whole.train) and set(less.valid)<=set(whole.valid)
    assert "2 excluded by e.csv; 1 that it names are not among the images, the first is" in less.describe()
    (tmp_path/'plain.txt').write_text('train/a/0.jpg\n')
    with pytest.raises(DataError, match="No column 'image'"): find_source(top, exclude=tmp_path/'plain.txt')   # whose only line would be its heading

# ---- leaks, twins, labels

def leaks():
    "One picture in twelve guises"
    def again(f): return lambda i: f(picture(i))
    def scaled(k, **kw): return again(lambda o: encode(o.resize((int(160*k), int(120*k)), Image.Resampling.LANCZOS), quality=88, **kw))
    return dict(copy=None, named=None, hard=None, link=None, coarse=again(lambda o: encode(o, quality=50)), smaller=scaled(.6), larger=scaled(2),
        png=again(lambda o: encode(o, 'PNG')), webp=again(lambda o: encode(o, 'WEBP', quality=70)), gray=again(lambda o: encode(o.convert('L'))),
        light=again(lambda o: encode(ImageEnhance.Brightness(o).enhance(1.15))),
        told=again(lambda o: encode(o, quality=92, comment=b'taken by me')))

def test_twelve_leaks(tmp_path):
    top = lay(tmp_path/'p', 'train/a', 'train/b', 'valid/a', 'valid/b', n=15)
    for i,(k,make) in enumerate(leaks().items()):
        of,to = top/f'train/a/{i}.jpg',top/f'valid/a/leak_{k}.{"png" if k=="png" else "webp" if k=="webp" else "jpg"}'
        if k=='hard': os.link(of, to)
        elif k=='link': os.symlink(of, to)
        else: put(to, make(i) if make else of.read_bytes())
    res = check(top, tmp_path/'out', workers=0)
    pairs = {frozenset(Path(f).name for f in o.images) for o in res.findings['leak']}
    assert pairs=={frozenset({f'{i}.jpg', f'leak_{k}.{"png" if k=="png" else "webp" if k=="webp" else "jpg"}'}) for i,k in enumerate(leaks())}
    assert {res.inner(f) for f in res.excluded}=={f'train/a/{i}.jpg' for i in range(12)}   # those in training go
    assert check(top, tmp_path/'again', workers=0, exclude=res.out/'exclude.csv').code==0

@pytest.mark.parametrize('a,b', [('cat','Cat'), ('new york','new_york'), ('A','\uff21'), ('dog','dog '), (unicodedata.normalize('NFC', 'caf\u00e9'), unicodedata.normalize('NFD', 'caf\u00e9'))])
def test_twins_of_names(tmp_path, a, b):
    res = check(lay(tmp_path/'p', a, b, 'other'), tmp_path/'out', workers=0)
    assert len(res.remarks['twins'])==1 and ('refused' in res.findings)==('\u0301' in b)

def test_one_image_under_two_labels(tmp_path):
    top = lay(tmp_path/'p', 'train/a', 'train/b', 'valid/a', 'valid/b')
    shutil.copy(top/'train/a/3.jpg', top/'train/b/x.jpg'), put(top/'train/b/y.jpg', encode(picture(4), quality=60))
    res = check(top, tmp_path/'out', workers=0)
    assert [sorted(Path(f).name for f in o.images) for o in res.findings['labels']]==[['3.jpg','x.jpg'], ['4.jpg','y.jpg']] and len(res.excluded)==4

def test_copies_and_a_random_split(tmp_path):
    "Any other seed may put copies on two sides, so one of each stays"
    top = lay(tmp_path/'p', 'a', 'b', n=20)
    for i in range(10): shutil.copy(top/f'a/{i}.jpg', top/f'a/copy{i}.jpg')
    res = check(top, tmp_path/'out', workers=0)
    found = [o for k in ('leak','copies') for o in (res.findings | res.remarks).get(k, [])]
    assert len(found)==10 and len(res.excluded)==10 and 'leak' in res.findings
    assert not check(top, tmp_path/'again', workers=0, split_seed=5, exclude=res.out/'exclude.csv').findings

def test_small_images_by_their_pixels(tmp_path):
    top = tmp_path/'p'
    for c in 'ab':
        for i in range(12): put(top/c/f'{i}.png', encode(picture(i+50*(c=='b'), (32,32)), 'PNG'))
    put(top/'a/same.bmp', encode(picture(3, (32,32)), 'BMP')), put(top/'a/near.jpg', encode(picture(4, (32,32)), quality=50))
    res = check(top, tmp_path/'out', workers=0)
    assert {frozenset(names([o])) for k in ('leak','copies') for o in (res.findings | res.remarks).get(k, [])}=={frozenset({'3.png','same.bmp'})}
    assert 'smaller than 64 px' in res.remarks['limits'][0].said

def test_classes(tmp_path):
    top = lay(tmp_path/'p', 'train/a', 'train/b', 'train/c', 'valid/a', 'valid/b')
    (top/'train/none').mkdir(), (top/'valid/c').mkdir(), lay(top, 'valid/new', n=3, start=7000), lay(top, 'train/a', n=150, start=9000)
    res = check(top, tmp_path/'out', workers=0)
    assert [o.said for o in res.findings['empty']]==["'train/none'", "'valid/c'"] and len(res.findings['unknown'][0].images)==3
    assert 'new' in res.findings['refused'][0].said and 'c' in res.remarks['unseen'][0].said and '150' in res.remarks['uneven'][0].said

def test_a_table(tmp_path):
    "Its labels may be anything, its rows twice"
    lay(tmp_path/'im', 'x', n=30)
    evil = '<script>alert(1)</script>'
    rows = [(f'x/{i}.jpg', evil if i%2 else 'b', 'train' if i<20 else 'valid') for i in range(30)]
    pd.DataFrame([*rows, ('x/0.jpg', evil, 'train'), ('x/2.jpg', 'b', 'valid')], columns=['image','label','split']).to_csv(tmp_path/'im/t.csv', index=False)
    res = check(tmp_path/'im/t.csv', tmp_path/'out', workers=0)
    assert names(res.findings['labels'])=={'0.jpg'} and names(res.findings['leak'])=={'2.jpg'}
    html = (res.out/'check.html').read_text()
    assert evil not in html and '&lt;script&gt;alert(1)' in html and check(pd.read_csv(tmp_path/'im/t.csv'), tmp_path/'frame', root=tmp_path/'im', workers=0).code==3

# ---- nothing that is not there

def test_digits_are_clean(tmp_path):
    res = check('digits', tmp_path/'out', workers=0)
    assert res.code==0 and list(res.remarks)==['limits'] and len(res.rows)==1797

@pytest.mark.slow
@pytest.mark.skipif(not (shared/'clothing').exists(), reason='needs the photographs of clothes')
def test_clothing(tmp_path):
    "Its one true pair, which two labels have"
    res = check(shared/'clothing', tmp_path/'out')
    assert {k:len(v) for k,v in res.findings.items()}=={'labels':1} and names(res.findings['labels'])=={'2047.jpg','2202.jpg'} and not res.remarks

@pytest.mark.slow
@pytest.mark.skipif(not (shared/'cifar10_sample').exists(), reason='needs the sample of CIFAR-10')
def test_cifar(tmp_path): assert check(shared/'cifar10_sample', tmp_path/'out').code==0

# ---- the page

class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags,self.text = [],''
        self.feed(text)
    def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
    def handle_data(self, data): self.text += data

def test_the_page(ward):
    top,res,_ = ward
    data = (res.out/'check.html').read_bytes()
    page = Tags(data.decode())
    images = [a for k,a in page.tags if k=='img']
    assert images and all(a['src'].startswith('data:image/jpeg;base64,') and 'onerror' not in a for a in images) and b'\x1b' not in data
    assert [k for k,_ in page.tags].count('script')==1 and not [a for k,a in page.tags if k in ('link','iframe') or str(a.get('href', '#'))[0]!='#']
    assert '<img src=x onerror=alert(1)>.jpg' in page.text and len(data)<5*2**20
    for o in res.findings: assert kinds[o].title in page.text

def test_a_page_keeps_to_its_budget(tmp_path):
    top = lay(tmp_path/'p', 'a', 'b', n=300)
    for i in range(250): shutil.copy(top/f'a/{i}.jpg', top/f'a/c{i}.jpg')
    res = check(top, tmp_path/'out', workers=0)
    page = Tags((res.out/'check.html').read_text())
    assert 50<sum(k=='img' for k,_ in page.tags)<=400 and 'more, see files.csv' in page.text
    assert len(pd.read_csv(res.out/'files.csv'))==850

# ---- as processes

def test_names_that_are_formulas(tmp_path):
    "Tables of a check open as text in a spreadsheet, and are read again as what they name"
    lay(tmp_path/'top', '=a()', '@b', n=8)
    for o in '=1+1.jpg','-2.jpg': put(tmp_path/'top/=a()'/o, b'no image')
    res = check(tmp_path/'top', tmp_path/'out')
    for file in 'files.csv','exclude.csv':
        with open(tmp_path/'out'/file, newline='') as f: cells = [o for row in csv.reader(f) for o in row]
        assert not [o for o in cells if o[:1] in tuple('=+@')] and [o for o in cells if o.startswith("'=")], file
    assert {o for o in read_looks(tmp_path/'out/files.csv')}=={os.path.relpath(o.image, tmp_path/'top') for o in res.rows}
    source = find_source(tmp_path/'top', exclude=tmp_path/'out/exclude.csv')
    assert source.n_train+source.n_valid==16

def test_exit_codes(tmp_path, monkeypatch, capsys):
    good,ill = lay(tmp_path/'good', 'a', 'b'),lay(tmp_path/'ill', 'a', 'b')
    put(ill/'a/3.jpg', b'')
    out = run('good', cwd=tmp_path)
    assert out.returncode==0 and 'no findings' in out.stdout and not out.stderr and [o.name[:5] for o in (tmp_path/'checks').iterdir()]==['good-']
    out = run('ill', '--out', 'o', '--workers', 2, cwd=tmp_path)
    assert out.returncode==3 and 'a/3.jpg: empty file' in out.stdout and '--exclude o/exclude.csv' in out.stdout
    monkeypatch.chdir(tmp_path)
    assert check_main(['ill', '--out', 'o2', '--exclude', 'o/exclude.csv', '--workers', '0'])==0
    for args,code,said in ((['none'], 3, 'No such folder'), (['good', '--out', 'good/x'], 2, 'inside of'), (['good', '--out', 'o'], 2, 'another source'), (['good', '--out', 'ill'], 2, 'not empty'),
        (['good', '--wrokers', '2'], 2, "did you mean '--workers'"), ([], 2, 'src'), (['.', '--out', 'x'], 2, 'inside of')):
        monkeypatch.chdir(good if '.' in args else tmp_path)
        got,err = check_main(args),capsys.readouterr().err
        assert got==code and said in err and len(err.splitlines())<=3, (args, got, err)
    monkeypatch.chdir(good)
    assert check_main(['.', '--workers', '0'])==0 and len(list((tmp_path/'checks').glob('good-*')))==2   # beside the images, from within them too
    assert not (good/'x').exists() and not (good/'checks').exists()

def test_a_check_is_no_data(tmp_path):
    "Even where somebody moves it among the images"
    top = lay(tmp_path/'p', 'a', 'b')
    res = check(top, tmp_path/'out', workers=0)
    shutil.copytree(res.out, top/'checks/p-1'), put(top/'checks/p-1/x.jpg', picture(1))
    assert find_source(top).classes==['a', 'b']

def test_it_goes_on_after_a_kill(tmp_path, monkeypatch):
    top = lay(tmp_path/'p', 'a', 'b', n=600)
    p = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', 'import sys, time, bot.look; f = bot.look._read; bot.look._read = lambda o: (time.sleep(.01), f(o))[1]; '
        f'from bot.check import check; check({str(top)!r}, {str(tmp_path/"out")!r}, workers=2)'], cwd=root)
    rows,end = tmp_path/'out/files.csv',time.monotonic()+60
    while (n := len(read_looks(rows)) if rows.exists() else 0)<200 and time.monotonic()<end: time.sleep(.05)
    p.send_signal(signal.SIGKILL), p.wait()
    done = len(read_looks(rows))
    assert 200<=done<1200 and json.loads((tmp_path/'out/check.json').read_text())['state']=='running'
    with rows.open('a') as f: f.write('a/59.jpg,12')   # half a row
    changed = Path(top/next(iter(read_looks(rows))))
    put(changed, b'')
    todo = []
    monkeypatch.setattr(bot.check, 'looks', lambda paths, workers: todo.extend(paths) or bot.look.looks(paths, workers))
    res = check(top, tmp_path/'out', workers=0)
    assert len(todo)==1200-done+1 and str(changed) in todo and len(res.rows)==1200 and names(res.findings['unreadable'])=={changed.name}
    fresh = check(top, tmp_path/'fresh', workers=0)
    assert res.rows==fresh.rows and (res.out/'files.csv').read_bytes()==(fresh.out/'files.csv').read_bytes()

def test_help_is_quick(tmp_path):
    out = subprocess.run([sys.executable, '-X', 'importtime', '-c', "from bot.cli import check_main; check_main(['--help'])"], cwd=root, capture_output=True, text=True)
    assert '--valid-pct' in out.stdout and not {'torch','fastai','pandas','numpy','scipy'} & {o.split('|')[-1].strip() for o in out.stderr.splitlines()}

# ---- in a second

def test_quick_check(tmp_path):
    assert quick_check(find_source('digits'))==[]
    top = lay(tmp_path/'p', 'train/a', 'train/b', 'valid/a', 'valid/b', n=12)
    shutil.copy(top/'train/a/0.jpg', top/'valid/a/0.jpg'), put(top/'train/b/9.jpg', b'')
    lines = quick_check(find_source(top))
    assert len(lines)==2 and '1 file is empty' in lines[0] and 'bot-check' in lines[1]
