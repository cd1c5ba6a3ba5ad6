"A model that was handed on: each form answers as the run does, what does not is refused and leaves nothing, and the pages' service is started and asked"
import csv, json, os, re, shutil, signal, socket, subprocess, sys, time, zipfile
from pathlib import Path
import numpy as np, pytest, torch
from fastcore.nbio import read_nb
from safetensors.torch import load_file
from torch import nn
import bot.export as exporting
from bot.all import *
from bot.augment import batch_input, view
from bot.exported import read_exported
from bot.forms import ask_onnx, import_onnx, timm_arch, write_onnx, write_timm
from bot.models import make_xresnet
from bot.resnet import our_names
from bot.weights import import_timm

root = Path(__file__).parents[1]
runtime = import_onnx()   # in [dev]
tolerance = 1e-4

def run_in(path, src='digits', epochs=1, **kwargs):
    torch.manual_seed(0)
    learn = bag_learner(bag_dls(src, size=32, bs=64, num_workers=0), 'baseline', epochs=epochs, **kwargs)
    with recorded(learn, path), learn.no_bar(), learn.no_logging(): learn.fit_rung()
    return path

@pytest.fixture(scope='module')
def few(tmp_path_factory):
    "192 digits to train on and 100 to validate"
    src,path = find_source('digits'),tmp_path_factory.mktemp('few')
    for part,items,n in ('train',src.train,192),('valid',src.valid,100):
        for i in range(n):
            f,y = items[i*len(items)//n]
            (path/part/y).mkdir(parents=True, exist_ok=True)
            shutil.copy(f, path/part/y)
    return path

@pytest.fixture(scope='module')
def wide(few, tmp_path_factory): return run_in(tmp_path_factory.mktemp('wide')/'run', few, 3, arch='xresnet18d', widen=1., lr=.02, warmup=0)

@pytest.fixture(scope='module')
def small(tmp_path_factory): return run_in(tmp_path_factory.mktemp('small')/'run', arch='xresnet18d', widen=1/16)

@pytest.fixture(scope='module')
def served(wide): return export(wide, wide.parent/'served', onnx=True, torch_export=True, timm=True)

@pytest.fixture(scope='module')
def prepared(wide): return export(wide, wide.parent/'prepared', onnx=True, torch_export=True, timm=True, prepare=True)

files = [find_source('digits').valid[i*359//100][0] for i in range(100)]

@pytest.fixture(scope='module')
def want(wide):
    "fastai's own way to the answers of the run"
    learn = load_run(wide, device='cpu')
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(files, num_workers=0))[0]

@pytest.fixture(scope='module')
def x(wide):
    cfg = load_run(wide, device='cpu').model.data_cfg
    return torch.stack([view(Encoded(o), cfg) for o in files])

def floats(x): return batch_input(x, make_xresnet('xresnet18d').data_cfg)   # digits are normalized with the paper's numbers
def session(path): return runtime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
def by_onnx(path, x): return torch.from_numpy(session(path).run(None, dict(image=x.numpy()))[0])

def via_exported(s, p, x): return load_exported(s)(floats(x)).softmax(1)
def via_onnx(s, p, x): return by_onnx(s/'model.onnx', floats(x)).softmax(1)
def via_onnx_bytes(s, p, x): return by_onnx(p/'model.onnx', x.permute(0,2,3,1).contiguous())
def via_pt2(s, p, x): return torch.export.load(s/'model.pt2').module()(floats(x)).softmax(1)
def via_pt2_bytes(s, p, x): return torch.export.load(p/'model.pt2').module()(x.permute(0,2,3,1))
def via_timm(s, p, x): return import_timm().create_model(f'local-dir:{s/"timm"}', pretrained=True).eval()(floats(x)).softmax(1)

ways = [via_exported, via_onnx, via_onnx_bytes, via_pt2, via_pt2_bytes, via_timm]

@pytest.mark.parametrize('ask', ways)
def test_all_forms_agree(served, prepared, want, x, ask):
    "On 100 real images; the answers with the classes shuffled, and those to other images, do not"
    with torch.no_grad(): p = ask(served, prepared, x)
    assert len(p)==100 and want.max()>.3 and (p-want).abs().max()<tolerance
    for other in want.roll(1, 1), want.roll(1, 0): assert (p-other).abs().max()>100*tolerance

@pytest.mark.parametrize('n', [1, 2, 33])
def test_any_number_of_images(served, prepared, want, x, n):
    for f in ways:
        with torch.no_grad(): assert (f(served, prepared, x[:n])-want[:n]).abs().max()<tolerance, f

def test_what_the_folder_says(served, prepared, wide, small):
    card = json.loads((served/'model.json').read_text())
    assert set(card['files'])=={'model.safetensors','model.onnx','model.pt2','timm/config.json','timm/model.safetensors'}
    assert card['reached']['accuracy']==max(float(o['accuracy']) for o in csv.DictReader((wide/'metrics.csv').open())) and card['reached']['n_valid']==100
    assert (card['rung'], card['arch'], card['classes'], card['licence'])==('baseline', 'xresnet18d', list('0123456789'), None) and card['versions']['onnxruntime']
    for f,o in card['files'].items(): assert (served/f).stat().st_size==o['size']
    assert 'uint8' in json.loads((prepared/'model.json').read_text())['files']['model.onnx']['takes']
    inside = session(served/'model.onnx').get_modelmeta().custom_metadata_map
    extra = {'model.json': ''}
    torch.export.load(served/'model.pt2', extra_files=extra)
    for o in inside, extra: assert json.loads(o['model.json'])['data_cfg']==card['data_cfg']
    assert json.loads((export(small, small.parent/'mine', licence='cc-by-4.0')/'model.json').read_text())['licence']=='cc-by-4.0'

def test_no_path_of_this_machine_is_inside(served, wide):
    names = [o.encode() for o in (str(root), str(wide.parent), str(Path.home()), sys.prefix)]
    for f in served.rglob('*'):
        if not f.is_file(): continue
        z = zipfile.ZipFile(f) if f.suffix=='.pt2' else None
        for data in [z.read(o) for o in z.namelist()] if z else [f.read_bytes()]: assert not [o for o in names if o in data], f

def in_a_process(code, **kwargs):
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(root)), **kwargs)
    assert out.returncode==0, out.stderr
    return out.stdout.strip()

def test_loaded_without_fastai_and_without_pickle(served):
    code = f"""
import pickle, sys, torch
from bot.exported import load_exported
from bot.export import load_exported
pickle.load = pickle.loads = pickle.Unpickler = torch.load = None
m = load_exported({str(served)!r})
print(m.classes[3], m.data_cfg['size'], m.training, [o for o in sys.modules if o.split('.')[0] in ('fastai','onnx','timm')])"""
    assert in_a_process(code)=='3 32 False []'

def test_graphs_need_no_code_of_ours(served, prepared):
    code = f"""
import sys, torch, onnxruntime
sys.modules['bot'] = sys.modules['fastai'] = None
print(tuple(torch.export.load({str(prepared/'model.pt2')!r}).module()(torch.zeros(3,32,32,3, dtype=torch.uint8)).shape))"""
    assert in_a_process(code)=='(3, 10)'
    code = f"""
import sys, numpy as np, onnxruntime
sys.modules['torch'] = sys.modules['bot'] = None
print(onnxruntime.InferenceSession({str(prepared/'model.onnx')!r}).run(None, dict(image=np.zeros((3,32,32,3), np.uint8)))[0].shape)"""
    assert in_a_process(code)=='(3, 10)'

def test_timm_shows_the_same_pixels(served, want):
    "timm's own transform of the files, and its network"
    from PIL import Image
    timm = import_timm()
    m = timm.create_model(f'local-dir:{served/"timm"}', pretrained=True).eval()
    show = timm.data.create_transform(**timm.data.resolve_data_config(model=m))
    with torch.no_grad(): p = m(torch.stack([show(Image.open(o).convert('RGB')) for o in files])).softmax(1)
    assert (p-want).abs().max()<.02 and (p.argmax(1)==want.argmax(1)).float().mean()>.97

# ---- what timm has

def test_timm_has_the_same_tensors():
    "Of all names: those that timm has the same network of, with the same tensors; the others are refused by their name"
    timm,has = import_timm(),[]
    for o in our_names():
        try: name = timm_arch(o)
        except UsageError as e:
            assert o in str(e)
            continue
        with torch.device('meta'): ours,theirs = to_timm(make_xresnet(o, n_out=2).state_dict()),timm.create_model(name, num_classes=2).state_dict()
        assert {k:v.shape for k,v in ours.items()}=={k:v.shape for k,v in theirs.items()}
        has.append(o.removeprefix('xresnet'))
    assert has==['18a','18b','18d','26b','26d','34a','34b','34d','50b','50c','50d','101b','101c','101d','152b','152c','152d','200b','200d']

@pytest.mark.parametrize('arch', ['xresnet18a','xresnet18b','xresnet26b','xresnet50c','xresnet26d'])
def test_timm_computes_the_same(tmp_path, x, arch):
    net = make_xresnet(arch, n_out=2).eval()
    write_timm(net, tmp_path/'timm', dict(arch=arch, widen=1., classes=['a','b'], data_cfg=net.data_cfg))
    with torch.no_grad(): assert (import_timm().create_model(f'local-dir:{tmp_path}/timm', pretrained=True).eval()(floats(x[:8]))-net(floats(x[:8]))).abs().max()<1e-4

def test_an_a_of_bottlenecks_would_be_wrong_in_silence(x):
    "Why it is refused: timm takes its tensors and answers otherwise"
    net,timms = make_xresnet('xresnet26a', n_out=2).eval(),import_timm().create_model('resnet26', num_classes=2).eval()
    timms.load_state_dict(to_timm(net.state_dict()))
    with torch.no_grad(): assert (timms(floats(x[:8])).softmax(1)-net(floats(x[:8])).softmax(1)).abs().max()>tolerance
    with pytest.raises(UsageError, match='xresnet26a.*wrong answers'): timm_arch('xresnet26a')

def test_a_model_of_timms_own(few, tmp_path):
    path = run_in(tmp_path/'run', few, arch='resnet10t', warmup=0)
    out = export(path, tmp_path/'out', onnx=True, timm=True)
    m,t = load_exported(out),import_timm().create_model(f'local-dir:{out}/timm', pretrained=True).eval()
    with torch.no_grad(): assert torch.equal(m(torch.ones(1,3,32,32)), t(torch.ones(1,3,32,32)))

# ---- what is refused leaves nothing

def left(path): return sorted(o.name for o in path.iterdir())

def damage(name):
    def write(net, path, card, prepare):
        write_onnx(net, path, card, prepare)
        data = bytearray(path.read_bytes())
        w = net.state_dict()['fc.weight'].numpy().tobytes()
        if name=='cut off': data = data[:len(data)//2]
        if name=='a weight': data = data.replace(w[:64], np.full(16, 3, np.float32).tobytes())
        if name=='classes': data = data.replace(w, np.roll(np.frombuffer(w, np.float32).reshape(10,-1), 1, 0).tobytes())
        if name=='no numbers': data = data.replace(w[:64], np.full(16, np.nan, np.float32).tobytes())
        if name=='another': data = b'this is no model'
        assert bytes(data)!=path.read_bytes()
        path.write_bytes(data)
    return write

@pytest.mark.parametrize('name', ['cut off', 'a weight', 'classes', 'no numbers', 'another'])
def test_a_corrupted_onnx_is_refused(small, tmp_path, monkeypatch, name):
    monkeypatch.setitem(exporting.forms, 'onnx', ('model.onnx', damage(name), ask_onnx))
    with pytest.raises(UsageError, match='model.onnx.*\nNothing was written') as e: export(small, tmp_path/'out', onnx=True)
    assert len(str(e.value).splitlines())<=3 and left(tmp_path)==[]

def test_beside_the_run_too(small, monkeypatch):
    monkeypatch.setitem(exporting.forms, 'onnx', ('model.onnx', damage('another'), ask_onnx))
    before = left(small)
    with pytest.raises(UsageError): export(small, onnx=True)
    assert left(small)==before

@pytest.mark.parametrize('e', [KeyboardInterrupt(), OSError(28, 'No space left on device'), RuntimeError('Unsupported: aten::odd\nmore'), MemoryError()])
def test_whatever_goes_wrong_leaves_nothing(small, tmp_path, monkeypatch, e):
    def write(*args): raise e
    monkeypatch.setitem(exporting.forms, 'torch_export', ('model.pt2', write, None))
    with pytest.raises(KeyboardInterrupt if isinstance(e, KeyboardInterrupt) else BotError) as got: export(small, tmp_path/'out', torch_export=True)
    assert left(tmp_path)==[] and (isinstance(e, KeyboardInterrupt) or 'model.pt2' in str(got.value) and len(str(got.value).splitlines())<=3)

@pytest.mark.parametrize('lacks', ['onnx', 'onnxscript', 'onnxruntime'])
def test_without_the_extra(small, tmp_path, monkeypatch, lacks):
    monkeypatch.setitem(sys.modules, lacks, None)
    with pytest.raises(UsageError, match=f'pip install {lacks}$'): export(small, tmp_path/'out', onnx=True)
    assert left(tmp_path)==[]

def test_what_cannot_be_exported(small, tmp_path):
    (tmp_path/'empty').mkdir(), (tmp_path/'full').mkdir(), (tmp_path/'full/a').touch()
    full = tmp_path/'full'
    bad = [(tmp_path/'none', {}, DataError, 'no run folder'), (tmp_path/'empty', {}, DataError, 'no run folder'), (small, dict(which='worst'), UsageError, 'worst')]
    bad += [(small, kw, UsageError, said) for kw,said in ((dict(timm=True), 'widen=0.0625'), (dict(out=full), 'not empty'), (dict(out=full/'a'), 'not empty'))]
    bad += [(small, dict(images=o), DataError, said) for o,said in ((tmp_path/'empty', 'No images'), (full, 'images='))]
    for run,kwargs,kind,said in bad:
        with pytest.raises(kind, match=said): export(run, **(dict(out=tmp_path/'out') | kwargs))
    begun = tmp_path/'begun'
    begun.mkdir(), shutil.copy(small/'args.yaml', begun), (begun/'status.json').write_text('{"state": "running", "epochs": 0}')
    with pytest.raises(DataError, match='first epoch'): export(begun, tmp_path/'out')
    assert left(tmp_path)==['begun','empty','full']
    assert export(small, tmp_path/'empty')==tmp_path/'empty' and left(tmp_path/'empty')==['model.json','model.safetensors']

def test_images_that_are_gone(small, tmp_path):
    "Given ones do, those that cannot be read are passed over"
    run = shutil.copytree(small, tmp_path/'run')
    (run/'args.yaml').write_text((run/'args.yaml').read_text().replace('path: digits', f'path: {tmp_path}/gone'))
    with pytest.raises(DataError, match='(?s)needed to check.*--images'): export(run, tmp_path/'out')
    (tmp_path/'given').mkdir()
    for i,o in enumerate(files[:3]): shutil.copy(o, tmp_path/f'given/{i}.png')
    (tmp_path/'given/notes.txt').write_text('no image')
    assert load_exported(export(run, tmp_path/'out', images=tmp_path/'given')).classes

def test_a_model_that_was_given(few, tmp_path):
    "It has no name to be made by: given again, it is exported and loaded"
    class Tiny(nn.Sequential): pass
    def make(): return Tiny(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    learn = bag_learner(bag_dls(few, size=32, bs=64, num_workers=0), 'baseline', arch=make(), epochs=1, warmup=0)
    with recorded(learn, tmp_path/'run'), learn.no_bar(), learn.no_logging(): learn.fit_rung()
    with pytest.raises(BotError, match='No model'): export(tmp_path/'run', tmp_path/'out')
    out = export(tmp_path/'run', tmp_path/'out', onnx=True, model=make())
    assert torch.equal(load_exported(out, make())[5].weight, learn.model[5].weight.cpu())
    with pytest.raises(BotError): load_exported(out)

def test_weights_of_last_and_best(few, tmp_path):
    "Each is what it says"
    run = run_in(tmp_path/'run', few, 2, arch='xresnet18d', widen=1/16, lr=.5, warmup=0)
    for k in 'best','last':
        out = export(run, tmp_path/k, which=k)
        a,b = load_file(out/'model.safetensors'),load_file(run/f'{k}.safetensors')
        assert all(torch.equal(a[o], b[o]) for o in b) and json.loads((out/'model.json').read_text())['weights']==k

# ---- files from outside

@pytest.fixture(scope='module')
def good(small): return export(small, small.parent/'good')

nan = float('nan')
odd_cfg = [dict(mean=o) for o in (['a']*3, [1.], [nan]*3)] + [dict(size=o) for o in (1e9, 'x', 0)]
odd_cfg += [dict(std=[0.]*3), dict(scale=0), dict(interpolation='lanczos7'), dict(mean=[1.]*4, std=[1.]*4)]
odd = dict(arch=[7, None, ['a'], 'no_such', 'xresnet18d\x1b[2J', {}, 'xresnet34d', 'xresnet18b', 'local-dir:.', 'hf-hub:a/b'], widen=[1000, 1e30, -1, 0, 'wide', [1], nan, None, True, 10**400],
    classes=[7, [], None, [{}], [[1]], {'a':1}, [nan, 1.], [True, 'a'], ['a', 1], ['a']*10, [None, 'a'], ['a','b']], rung=[7, None, ['mixup']], but=[7, None, 'x'], reading=['mine', 7, [], None],
    data_cfg=[7, [], None, 'x', *(dict(mean=[1.]*3, std=[1.]*3) | o for o in odd_cfg)],
    files=[7, [], None, {}, {'model.safetensors': 7}, {'model.safetensors': {}}, {'model.safetensors': dict(size='x', crc32=1)}])

def refused(f, *args):
    with pytest.raises(BotError) as e: f(*args)
    assert str(e.value) and len(str(e.value).splitlines())<=3 and '\x1b' not in str(e.value)

@pytest.mark.parametrize('k', odd)
def test_hostile_model_json(good, tmp_path, k):
    bad = shutil.copytree(good, tmp_path/'bad')
    for v in odd[k]:
        (bad/'model.json').write_text(json.dumps(json.loads((good/'model.json').read_text()) | {k:v}))
        refused(load_exported, bad)
    card = json.loads((good/'model.json').read_text())
    del card[k]
    (bad/'model.json').write_text(json.dumps(card))
    if k in ('but','reading'): assert load_exported(bad)   # of use to people alone
    else: refused(load_exported, bad)

@pytest.mark.parametrize('text', ['', '7', '[1]', 'null', '{', '['*5000, '\x00', '{"a": 1' + '0'*5000 + '}', '{"arch": NaN}'])
def test_hostile_text(good, tmp_path, text):
    bad = shutil.copytree(good, tmp_path/'bad')
    (bad/'model.json').write_text(text)
    refused(load_exported, bad)
    (bad/'model.json').write_bytes(b'\xff\xfe'+text.encode())
    refused(load_exported, bad)
    (bad/'model.json').unlink()
    refused(load_exported, bad)

def test_files_of_two_folders(good, served, tmp_path):
    bad = shutil.copytree(good, tmp_path/'bad')
    shutil.copy(served/'model.safetensors', bad)
    with pytest.raises(DataError, match='missing or damaged'): load_exported(bad)
    (bad/'model.safetensors').unlink()
    refused(load_exported, bad)
    assert read_exported(good)[0]['rung']=='baseline'

def test_odd_names(tmp_path):
    "Classes and folders with quotes, brackets and letters of any script"
    from PIL import Image
    src,names = tmp_path/'bilder "ü" & <b>',['<script>alert(1)</script>'.replace('/','_'), '=cmd()', 'кот 🐈', "it's"]
    for part,n in ('train',4),('valid',2):
        for k,name in enumerate(names):
            (src/part/name).mkdir(parents=True)
            for i in range(n): Image.new('RGB', (40,40), (60*k, 20*i, 9)).save(src/part/name/f'{i}.png')
    learn = bag_learner(bag_dls(src, size=32, bs=4, num_workers=0), 'baseline', arch='xresnet18d', epochs=1, warmup=0)
    with recorded(learn, tmp_path/'rün'), learn.no_bar(), learn.no_logging(): learn.fit_rung()
    out = export(tmp_path/'rün', tmp_path/'öut "1"', onnx=True, timm=True, torch_export=True)
    assert load_exported(out).classes==sorted(names) and json.loads((out/'timm/config.json').read_text())['label_names']==sorted(names)

# ---- the page

page = [o.source for o in read_nb(root/'nbs/tutorials/07_serve.ipynb').cells if o.cell_type=='code']
scripts = {m[1]:o.split('\n', 1)[1] for o in page if (m := re.match(r'%%writefile (\S+)', o))}

@pytest.fixture
def service(prepared, tmp_path):
    "The service of the page, started by its command"
    shutil.copytree(prepared, tmp_path/'served')
    for k,v in scripts.items(): (tmp_path/k).write_text(v)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | dict(PYTHONPATH=str(root), PYTHONWARNINGS='ignore')
    server = subprocess.Popen([sys.executable, '-m', 'uvicorn', 'service:app', '--port', str(port), '--log-level', 'error'], cwd=tmp_path, env=env)
    yield f'http://127.0.0.1:{port}/predict'
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) in (0, -signal.SIGTERM)

def test_the_service_is_asked(service, want):
    import httpx
    for _ in range(120):
        try: httpx.get(service)
        except httpx.ConnectError: time.sleep(.5)
        else: break
    with httpx.Client(timeout=60) as client:
        for f,p in zip(files[:20], want):
            o = client.post(service, content=Path(f).read_bytes())
            assert o.status_code==200 and (torch.tensor(list(o.json().values()))-p).abs().max()<2*tolerance and list(o.json())==list('0123456789')
        for bad in b'', b'no image', Path(files[0]).read_bytes()[:60]:
            o = client.post(service, content=bad)
            assert o.status_code==422 and 'Cannot read' in o.json()['error']
        assert client.get(service).status_code==405 and client.post(service, content=Path(files[0]).read_bytes()).status_code==200

@pytest.mark.parametrize('name, far', [('plain.py', tolerance), ('runtime.py', .02)])
def test_the_scripts_of_the_page(prepared, want, tmp_path, name, far):
    shutil.copytree(prepared, tmp_path/'served')
    (tmp_path/name).write_text(scripts[name])
    out = subprocess.run([sys.executable, '-W', 'ignore', name, *files[:20]], cwd=tmp_path, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(root)))
    rows = [o.split() for o in out.stdout.splitlines()]
    assert len(rows)==20, out.stderr
    for (c,p),q in zip(rows, want): assert abs(float(p)-q.max())<far and c==str(q.argmax().item())

def test_runtime_needs_neither_torch_nor_bot(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path/'served')
    code = f"import sys\nsys.modules['torch'] = sys.modules['bot'] = None\nsys.argv = ['', {files[0]!r}]\n{scripts['runtime.py']}"
    assert in_a_process(code, cwd=tmp_path)
