"A run that is stopped at any moment goes on, and ends with the bits of one that was never stopped."
import csv, json, multiprocessing, os, random, resource, shutil, signal, time
from itertools import product
from pathlib import Path
import numpy as np, pytest, torch
import safetensors.torch as safetensors
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.torch_core import set_seed
from bot.block import bag_dls
from bot import cli
from bot.cli import main
from bot.core import BotError, Terminated
from bot.files import is_whole, read_status, run_file
from bot import args, precision, sources
from bot.learner import bag_learner
from bot.precision import be_deterministic
from bot.resume import recorded, RunFolder
from bot.runs import load_run
from bot.state import read_state
from pictures import lay_colors
from resume_job import command

ctx = multiprocessing.get_context('forkserver')
ctx.set_forkserver_preload(['bot.all', 'bot.cli', 'resume_job'])

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "96 training and 24 validation images of three classes"
    return lay_colors(tmp_path_factory.mktemp('photos'), train=32, valid=8)

small = '--arch xresnet18d --widen 0.0625 --size 32 --bs 16 --epochs 3 --seed 3 --device cpu --pca 1'.split()

def start(argv, log, **kwargs):
    p = ctx.Process(target=command, args=([str(o) for o in argv], str(log)), kwargs=kwargs)
    p.start()
    return p

def finish(argv, log, **kwargs):
    p = start(argv, log, **kwargs)
    p.join(120)
    assert p.exitcode is not None, Path(f'{log}.out').read_text()[-2000:]
    return p.exitcode

def steps(log): return [tuple(map(int, o.split()[1:3])) for o in Path(log).read_text().splitlines() if o.startswith('train')] if Path(log).exists() else []

def noted(log, word): return sum(o.split()[0]==word for o in Path(log).read_text().splitlines()) if Path(log).exists() else 0

def wait_for(p, log, word, n=1, limit=60):
    "Until the log has `n` lines that begin with `word`, or the process has ended"
    begin = time.monotonic()
    while time.monotonic()-begin<limit:
        if noted(log, word)>=n or not p.is_alive(): return
        time.sleep(.005)
    raise AssertionError(f"no {word}: {Path(f'{log}.out').read_text()[-2000:]}")

def rows(path): return (Path(path)/'metrics.csv').read_text().splitlines()

def plain_rows(path): return [{k:v for k,v in o.items() if k not in ('time','img_per_s')} for o in csv.DictReader(rows(path))]

def final_state(path):
    s = read_state(run_file(path, 'state'))
    return {k:s[k] for k in ('opt','train_iter','epoch','batch')} | {k:s['recorder'][k] for k in ('lrs','losses','smooth','values')}

def same(a, b):
    if isinstance(a, torch.Tensor): return isinstance(b, torch.Tensor) and a.dtype==b.dtype and torch.equal(a, b)
    if isinstance(a, dict): return a.keys()==b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list,tuple)): return len(a)==len(b) and all(map(same, a, b))
    return a==b or a!=a and b!=b

def assert_same_run(a, b):
    "The bits of two finished runs"
    for o in 'last','best':
        x,y = (safetensors.load_file(run_file(p, o)) for p in (a,b))
        assert same(x, y), o
    assert plain_rows(a)==plain_rows(b)
    assert same(final_state(a), final_state(b))
    assert run_file(a, 'predictions').read_bytes()==run_file(b, 'predictions').read_bytes()
    for p in (a,b):
        s = read_status(p)
        assert s['state']=='finished' and all(is_whole(p/o['name'], o) for o in s['files'].values())
        names = {o['name'] for o in s['files'].values()} | {'args.yaml','metrics.csv','status.json','last.safetensors','best.safetensors','predictions.csv'}
        assert {o.name for o in p.iterdir()}-{'report.html'}==names   # written by those that import `bot.all` or run the command

@pytest.fixture(scope='module')
def teacher(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp('teacher')
    assert finish([photos, *small, '--rung', 'baseline', '--workers', 0, '--out', path/'run'], path/'log')==0
    return path/'run'

@pytest.fixture(scope='module')
def mixed(photos, teacher): return [photos, *small, '--rung', 'mixup', '--teacher', teacher, '--save-minutes', 0]

@pytest.fixture(scope='module')
def whole(mixed, tmp_path_factory):
    "A run that nobody stops"
    path = tmp_path_factory.mktemp('whole')
    assert finish([*mixed, '--workers', 0, '--out', path/'run'], path/'log')==0
    assert steps(path/'log')==list(product(range(3), range(6)))
    return path/'run'

def finished_rows(path):
    "Heading and rows of the epochs that `status.json` counts"
    n = read_status(path).get('epochs', 0)
    return rows(path)[:n+1] if n else []

def kill_at(p, log, aim, rng, longest):
    "Kill a run in a save, in validation, between two epochs, before it has done anything, or at any moment"
    if aim in ('save','valid','ended') or aim=='any' and rng.random()<.9: wait_for(p, log, 'train' if aim=='any' else aim, noted(log, 'train' if aim=='any' else aim)+1)
    time.sleep(rng.uniform(.03, .05) if aim=='save' else rng.uniform(0, dict(valid=.02, ended=.03, again=.2).get(aim, longest)))
    p.kill()

def kill_and_go_on(argv, out, log, aims, rng, longest=.4, began=None):
    "The same command until it ends, killed once for each of `aims`; those that met it alive. `began` gets the steps that it went on with"
    before,met = [],[]
    for i in range(100):
        at = read_status(out) if out.exists() else {}
        n = len(steps(log))
        p = start(argv, log, slow=.03)
        if i<len(aims): kill_at(p, log, aims[i], rng, longest)
        p.join(120)
        if p.exitcode==-signal.SIGKILL: met.append(aims[i])
        new = steps(log)[n:]
        if began is not None: began += new[:1]
        if new and at.get('files'): assert new[0]==(at['epochs'],at['batch']) or at['batch']==6 and new[0]==(at['epochs']+1,0), 'begins where it was saved'
        assert (rows(out)[:len(before)] if before else [])==before, 'rows of finished epochs stay as they are'
        before = finished_rows(out)
        if p.exitcode==0: return met
    raise AssertionError('never ends')

def test_random_kills(mixed, whole, tmp_path):
    "SIGKILL at random moments of a run with workers, augmentation, mixup and a teacher"
    kill_and_go_on([*mixed, '--workers', 2, '--out', tmp_path/'run'], tmp_path/'run', tmp_path/'log', ['any']*6, random.Random(0))
    assert_same_run(tmp_path/'run', whole)
    done = steps(tmp_path/'log')
    assert 18<=len(done)<=18+6   # with a save after each batch, a kill costs one

@pytest.mark.slow
@pytest.mark.parametrize('i', range(25))
def test_many_kills(mixed, whole, tmp_path, i):
    "In a save, in validation, between epochs, at any moment, and again before the run has gone on; `bench/kills.py` counts them"
    rng = random.Random(100+i)
    aims = ['save','valid','ended','any']
    rng.shuffle(aims)
    j = rng.randrange(4)
    aims[j:j] = ['any','again']
    met = kill_and_go_on([*mixed, '--workers', i%3, '--out', tmp_path/'run'], tmp_path/'run', tmp_path/'log', [*aims,'any','any'], rng, longest=.15)
    assert_same_run(tmp_path/'run', whole)
    if 'BOT_KILLS' in os.environ:
        with open(os.environ['BOT_KILLS'], 'a') as f: print(i, len(steps(tmp_path/'log'))-18, *met, file=f)

@pytest.mark.parametrize('minutes', [0, pytest.param(10, marks=pytest.mark.slow)])   # 0: a save after each step too
def test_a_kill_before_each_step_of_a_save(mixed, whole, tmp_path, minutes):
    "Before each fsync, each rename and each link: of a save within an epoch, and of one at its end"
    argv = [*mixed[:-1], minutes, '--workers', 0, '--out', tmp_path/'run']
    for k in range(1, 60):
        before = finished_rows(tmp_path/'run') if (tmp_path/'run').exists() else []
        code = finish(argv, tmp_path/'log', kill_at=k)
        if (tmp_path/'run/status.json').exists():
            s = read_status(tmp_path/'run')
            assert all(is_whole(tmp_path/'run'/o['name'], o) for o in s.get('files', {}).values())
            assert (rows(tmp_path/'run')[:len(before)] if before else [])==before
        if code==0: break
        assert code==-signal.SIGKILL
    if code: assert finish(argv, tmp_path/'log')==0
    assert k>=20
    assert_same_run(tmp_path/'run', whole)

def test_begun_from_the_start_is_noticed(mixed, whole, tmp_path):
    "The control: a program that starts again from epoch 0 fails the test of kills"
    argv = [*mixed, '--workers', 0, '--out', tmp_path/'run']
    p = start(argv, tmp_path/'log')
    wait_for(p, tmp_path/'log', 'train', 8)
    p.kill(), p.join()
    shutil.rmtree(tmp_path/'run')
    assert finish(argv, tmp_path/'log')==0
    done = steps(tmp_path/'log')
    assert len(done)>18+6 and done.count((0,0))==2

# ---- signals

codes = dict(SIGTERM=143, SIGINT=130, SIGUSR1=75, SIGHUP=129)
ends = dict(SIGTERM='terminated', SIGINT='interrupted', SIGUSR1='saved', SIGHUP='interrupted')

def alone(pid):
    "Is nobody left of the process group?"
    for _ in range(100):
        try: os.killpg(pid, 0)
        except ProcessLookupError: return True
        time.sleep(.1)

@pytest.mark.parametrize('name,at,group', [('SIGTERM','train',False), ('SIGTERM','valid',True), ('SIGINT','train',True), ('SIGINT','save',False), ('SIGUSR1','valid',False),
    ('SIGUSR1','train',True), ('SIGHUP','save',True), ('SIGHUP','train',False)])
def test_a_signal_saves_and_ends(mixed, whole, tmp_path, name, at, group):
    "To the process or to its whole group, in training, in validation and in a save: its own exit code, whole files, the status as it is, nobody left"
    argv,log = [*mixed[:-1], 0 if at=='save' else 10, '--workers', 2, '--out', tmp_path/'run'],tmp_path/'log'
    p = start(argv, log, group=True, slow=.03)
    wait_for(p, log, at, 3)
    begin = time.monotonic()
    (os.killpg if group else os.kill)(p.pid, getattr(signal, name))
    p.join(30)
    out = Path(f'{log}.out').read_text()
    assert p.exitcode==codes[name] and time.monotonic()-begin<10, out[-2000:]
    s,done = read_status(tmp_path/'run'),steps(log)
    assert s['state']==ends[name] and all(is_whole(tmp_path/'run'/o['name'], o) for o in s['files'].values())
    assert len(done)==6*s['epochs']+s['batch'] and 'Traceback' not in out and 'goes on' in out
    assert alone(p.pid)
    assert finish(argv, log)==0
    assert len(steps(log))==18
    assert_same_run(tmp_path/'run', whole)

@pytest.mark.parametrize('name', ['SIGTERM',pytest.param('SIGINT', marks=pytest.mark.slow)])
def test_a_second_signal_ends_at_once(mixed, whole, tmp_path, name):
    argv,log = [*mixed, '--workers', 2, '--out', tmp_path/'run'],tmp_path/'log'
    p = start(argv, log, group=True, slow=.5)
    wait_for(p, log, 'train', 2)
    for _ in range(2):
        os.killpg(p.pid, getattr(signal, name))
        time.sleep(.1)
    p.join(30)
    s = read_status(tmp_path/'run')
    assert p.exitcode==codes[name] and s['state']==ends[name] and alone(p.pid)
    assert all(is_whole(tmp_path/'run'/o['name'], o) for o in s['files'].values())
    assert finish(argv, log)==0
    assert_same_run(tmp_path/'run', whole)

def test_what_was_ignored_stays_ignored(mixed, tmp_path):
    "As `nohup` has it"
    p = start([*mixed, '--workers', 2, '--out', tmp_path/'run'], tmp_path/'log', group=True, ignore=[signal.SIGHUP], slow=.02)
    wait_for(p, tmp_path/'log', 'train', 3)
    os.killpg(p.pid, signal.SIGHUP)
    p.join(60)
    assert p.exitcode==0 and read_status(tmp_path/'run')['state']=='finished'

@pytest.mark.parametrize('method', ['fork','spawn',pytest.param('forkserver', marks=pytest.mark.slow)])
def test_workers_end_with_a_killed_run(mixed, tmp_path, method):
    p = start([*mixed, '--workers', 1, '--out', tmp_path/'run'], tmp_path/'log', group=True, slow=.2, method=method)
    wait_for(p, tmp_path/'log', 'train', 2)
    p.kill(), p.join()
    assert alone(p.pid)

def test_two_at_once(mixed, tmp_path):
    "The second is told who is at work, and changes nothing"
    argv = [*mixed, '--workers', 0, '--out', tmp_path/'run']
    p = start(argv, tmp_path/'log', slow=.1)
    wait_for(p, tmp_path/'log', 'train', 2)
    assert finish(argv, tmp_path/'second')==2
    assert f'is held by process {p.pid}' in Path(f"{tmp_path/'second'}.out").read_text()
    p.join(60)
    assert p.exitcode==0 and len(steps(tmp_path/'log'))==18

# ---- what goes wrong

def little_room(): resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def test_a_full_disk(mixed, whole, tmp_path):
    "The state before is whole, the cause is named with file and size, and the command goes on once there is room"
    argv,log = [*mixed, '--workers', 0, '--out', tmp_path/'run'],tmp_path/'log'
    p = start(argv, log, slow=.05)
    wait_for(p, log, 'saved', 4)
    os.kill(p.pid, signal.SIGUSR1)
    p.join(30)
    before = read_status(tmp_path/'run')
    assert finish(argv, log, before=little_room)==1
    out = Path(f'{log}.out').read_text()
    assert "Cannot write '" in out and 'File too large' in out and ' MB)' in out and 'Traceback' not in out
    after = read_status(tmp_path/'run')
    assert after['files']==before['files'] and after['state']=='failed' and all(is_whole(tmp_path/'run'/o['name'], o) for o in after['files'].values())
    assert finish(argv, log)==0
    assert_same_run(tmp_path/'run', whole)

@pytest.mark.parametrize('go', [shutil.rmtree, lambda o: o.rename(o.with_name('moved')), lambda o: (o.rename(o.with_name('moved')), o.touch())], ids=['removed','moved','a file'])
def test_a_folder_that_goes(mixed, tmp_path, go):
    "It is said once that the folder is there no more, and not that the command would go on; at its new place the run does"
    argv = [*mixed[:-1], 10, '--workers', 0, '--out']
    p = start([*argv, tmp_path/'run'], tmp_path/'log', slow=.1)
    wait_for(p, tmp_path/'log', 'saved', 1)
    go(tmp_path/'run')
    p.join(60)
    out = Path(f"{tmp_path/'log'}.out").read_text()
    assert p.exitcode==1 and 'Traceback' not in out and out.count(f"'{tmp_path/'run'}' is there no more: it was moved, renamed or removed")==1
    assert 'stopped after 1 of 3 epochs' in out and '--out' not in out.split('stopped after')[1]
    if (tmp_path/'moved').exists(): assert finish([*argv, tmp_path/'moved'], tmp_path/'again')==0 and steps(tmp_path/'again')[0]==(1,0)

def stopped(argv, out, log):
    "A run that was asked to stop in its second epoch"
    p = start([*argv, '--out', out], log, slow=.05)
    wait_for(p, log, 'train', 8)
    os.kill(p.pid, signal.SIGUSR1)
    p.join(30)
    assert p.exitcode==75
    return read_status(out)['files']

def test_a_file_of_the_moment_that_is_gone(mixed, whole, tmp_path):
    "Under one of its names it is enough; else it is named, what to do is said, and nothing is written. The predictions are no part of what training needs"
    argv,run = [*mixed[:-1], 10, '--workers', 0],tmp_path/'run'
    files = stopped(argv, tmp_path/'part', tmp_path/'log')
    def again(*gone):
        shutil.rmtree(run, ignore_errors=True), shutil.copytree(tmp_path/'part', run)
        for o in gone: (run/o).unlink()
        before,log = {o.name:o.read_bytes() for o in run.iterdir()},tmp_path/f'log-{len(os.listdir(tmp_path))}'
        return finish([*argv, '--out', run], log),Path(f'{log}.out').read_text(),before
    for k in 'best','last','weights','state':
        code,out,before = again(files[k]['name'], *[f'{o}.safetensors' for o in ('best','last') if k==o or files[o]['name']==files[k]['name']])
        assert code==3 and f"{files[k]['name']}' is missing or damaged" in out and '--fresh' in out and 'Error' not in out
        assert before=={o.name:o.read_bytes() for o in run.iterdir()}
    assert again(files['best']['name'], files['predictions']['name'])[0]==0
    assert_same_run(run, whole)
    code,out,_ = again(files['predictions']['name'], 'predictions.csv')
    assert code==0 and 'goes on without it' in out

def test_an_error_in_a_save_hides_nothing(photos, tmp_path, monkeypatch):
    "The first error is the one that is told, and the epoch does not count"
    learn = bag_learner(bag_dls(photos, size=32, bs=16, num_workers=0, device='cpu'), 'baseline', arch='xresnet18d', widen=1/16, epochs=2)
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    class Fill(Callback):
        def before_validate(self): monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(BotError, match='No space left'), learn.no_bar(), learn.no_logging(), recorded(learn, tmp_path/'run'): learn.fit_rung(cbs=Fill())
    monkeypatch.undo()
    assert read_status(tmp_path/'run')['epochs']==0 and learn.run_folder.rows==[]

# ---- the same command

def test_the_same_command(mixed, photos, tmp_path):
    argv,log = [*mixed, '--workers', 0, '--out', tmp_path/'run'],tmp_path/'log'
    p = start(argv, log, slow=.05)
    wait_for(p, log, 'train', 8)
    os.kill(p.pid, signal.SIGTERM)
    p.join(30)
    def said(argv, code):
        n = len(Path(f'{log}.out').read_text())
        assert finish(argv, log)==code
        return Path(f'{log}.out').read_text()[n:]
    assert 'lr: None -> 0.5' in said([*argv, '--lr', .5], 2)
    assert 'bad: stop -> skip' in said([*argv, '--bad', 'skip'], 2)
    moved = tmp_path/'moved'
    shutil.copytree(photos, moved)
    (moved/'train/a/0.png').unlink()
    assert 'training images 96 -> 95' in said([moved, *argv[1:]], 3)
    (moved/'train/a/0.png').write_bytes((photos/'train/a/0.png').read_bytes()+b'0')
    assert 'other files, sizes' in said([moved, *argv[1:]], 3)
    shutil.copy(photos/'train/a/0.png', moved/'train/a/0.png')
    assert 'goes on after 1 epoch' in said([moved, *argv[1:], '--workers', 2], 0)
    assert args.plain_args(tmp_path/'run')['command'].startswith(f'bot-train {moved} ')
    out = said([*argv, '--epochs', 7], 0)
    assert 'is finished' in out and '--epochs 7 changes nothing' in out
    assert f"out     {tmp_path/'run-2'}" in said([*argv, '--fresh'], 0)
    learn = load_run(tmp_path/'run', data=True, src=photos)
    with learn.no_bar(), learn.no_logging():
        assert abs(learn.validate()[1]-max(float(o['accuracy']) for o in plain_rows(tmp_path/'run')))<1e-6

def test_files_are_looked_at_once(photos, tmp_path, monkeypatch):
    "By whatever asks for their sizes before a run begins, or goes on: one list of them is hashed, and the look ends with that"
    sources_made,looked,hashed,after,size_of,digest = [],[],[],RunFolder.after_epoch,sources.size_of,args.items_hash
    find = sources.find_source
    monkeypatch.setattr(sources, 'find_source', lambda *a, **kw: sources_made.append(find(*a, **kw)) or sources_made[-1])
    monkeypatch.setattr(args, 'items_hash', lambda *a: hashed.append(1) or digest(*a))
    monkeypatch.setattr(sources, 'size_of', lambda p: looked.append(p) or size_of(p))
    def stop(self): raise KeyboardInterrupt(after(self))
    argv = [str(o) for o in (photos, *small, '--workers', 0, '--out', tmp_path/'run')]
    monkeypatch.setattr(RunFolder, 'after_epoch', stop)
    for code in 130,0:
        looked.clear(), hashed.clear()
        assert main(argv)==code and len(looked)==len(set(looked))==120 and len(hashed)==1+(code==130) and sources_made[-1].look is None   # a new run also notes its validation images
        monkeypatch.setattr(RunFolder, 'after_epoch', after)

# ---- parity

moments = 'first','middle','last','end'
kinds = 'plain','adam','mixup','distill','accumulate','trackers','fastai mixup','frozen 1','frozen 2'

class Break(Callback):
    "Stop after a batch of an epoch, or at its end"
    order = 1001
    def __init__(self, at, on=1): self.n,self.on = dict(first=0, middle=2, last=5, end=None)[at],on
    def after_batch(self):
        if self.training and (self.epoch,self.iter)==(self.on,self.n): raise KeyboardInterrupt
    def after_epoch(self):
        if self.n is None and self.epoch==self.on: raise KeyboardInterrupt

def parity_run(photos, teacher, path, kind, workers, half, cbs=(), seed=0, device='cpu'):
    set_seed(seed)
    dls = bag_dls(photos, size=32, bs=16, num_workers=workers, device=device, seed=3)
    rung,kw = dict(adam=('adam',{}), mixup=('mixup',dict(but='distill', alpha=.4, mixup_off=.5)), distill=('distill',dict(teacher=teacher))).get(kind, ('smooth',{}))
    if kind.startswith('frozen'): rung,kw = 'finetune',dict(pretrained=str(teacher/'best.safetensors'), freeze=int(kind[-1]))   # the border lies before the epoch that is broken off, or after it
    if kind=='mixup': kw['reading'] = 'gluoncv'
    if kind=='mixup': dls = bag_dls(photos, size=32, bs=16, num_workers=workers, device=device, seed=3, reading='gluoncv')
    learn = bag_learner(dls, rung, arch='xresnet18d', epochs=3, **(dict(widen=1/16) | kw))
    learn.path = path.parent/f'{path.name}-files'
    learn.path.mkdir(exist_ok=True)
    if half=='fp16': learn.to_fp16(init_scale=2.**30, growth_interval=4)   # overflows at first, and grows again
    elif half: learn.to_bf16()
    own = dict(accumulate=lambda: [GradientAccumulation(40)], trackers=lambda: [EarlyStoppingCallback(patience=3), SaveModelCallback(), CSVLogger()])
    own["fastai mixup"] = lambda: [MixUp(.4)]
    with learn.no_bar(), learn.no_logging(), recorded(learn, path, save_minutes=0): learn.fit_rung(cbs=[*own.get(kind, list)(), *cbs])
    return learn

@pytest.fixture(scope='module')
def wholes(): return {}

def check_parity(photos, teacher, tmp_path, wholes, at, workers, half, kind, device='cpu'):
    if (kind,half) not in wholes: wholes[kind,half] = parity_run(photos, teacher, tmp_path/'whole', kind, 0, half, device=device),tmp_path/'whole'
    learn,whole = wholes[kind,half]
    with pytest.raises(KeyboardInterrupt): parity_run(photos, teacher, tmp_path/'run', kind, workers, half, [Break(at)], device=device)
    broken = safetensors.load_file(run_file(tmp_path/'run', 'weights'))
    again = parity_run(photos, teacher, tmp_path/'run', kind, workers, half, seed=1, device=device)
    assert_same_run(tmp_path/'run', whole)
    assert same(dict(again.model.state_dict()), dict(learn.model.state_dict()))
    assert not same(broken, safetensors.load_file(run_file(whole, 'last')))   # the control: what was saved is not yet the end
    assert again.recorder.lrs==learn.recorder.lrs and same(list(again.recorder.losses), list(learn.recorder.losses))
    assert again.train_iter==learn.train_iter==18 and again.pct_train==learn.pct_train
    if kind=='trackers':
        a,b = ([o.rsplit(',', 1)[0] for o in (p.parent/f'{p.name}-files/history.csv').read_text().splitlines()] for p in (tmp_path/'run',whole))
        assert a==b and len(a)==4

pairs = [('first',0,False,'plain'), ('middle',2,True,'plain'), ('last',0,True,'mixup'), ('end',2,False,'mixup'), ('first',2,True,'distill'),
    ('last',2,False,'distill'), ('end',0,True,'accumulate'), ('middle',2,False,'accumulate'), ('end',2,True,'trackers'), ('middle',0,False,'trackers'),
    ('last',2,False,'fastai mixup'), ('middle',2,False,'adam'), ('first',0,False,'frozen 1'), ('middle',2,False,'frozen 1'), ('end',0,False,'frozen 2'), ('last',2,False,'frozen 2')]

@pytest.mark.parametrize('at,workers,half,kind', pairs)
def test_parity(photos, teacher, tmp_path, wholes, at, workers, half, kind): check_parity(photos, teacher, tmp_path, wholes, at, workers, half, kind)

@pytest.mark.slow
@pytest.mark.parametrize('at,workers,half,kind', [o for o in product(moments, (0,2), (False,True), kinds) if o not in pairs])
def test_all_of_parity(photos, teacher, tmp_path, wholes, at, workers, half, kind): check_parity(photos, teacher, tmp_path, wholes, at, workers, half, kind)

@pytest.mark.parametrize('at,workers', [('middle',0), ('end',2)])
def test_the_loss_scale_goes_on(photos, teacher, tmp_path, wholes, monkeypatch, at, workers):
    "float16 with a scale that overflows, is halved and grows; a CPU has to be told that it is fast"
    monkeypatch.setattr(precision, 'fast_half', lambda device: True)
    check_parity(photos, teacher, tmp_path, wholes, at, workers, 'fp16', 'plain')
    learn,_ = wholes['plain','fp16']
    assert learn.half_precision.skips>2 and learn.half_precision.steps==18

@pytest.fixture
def exact():
    be_deterministic()
    yield
    be_deterministic(False)

@pytest.mark.gpu
@pytest.mark.parametrize('at,workers,half,kind', [('first',0,False,'plain'), ('middle',2,'fp16','plain'), ('last',0,'fp16','mixup'), ('end',2,True,'distill'),
    ('middle',2,'fp16','accumulate'), ('end',0,'fp16','trackers'), ('middle',0,'fp16','fastai mixup')])
def test_parity_on_cuda(photos, teacher, tmp_path, wholes, exact, at, workers, half, kind):
    wholes = {}   # those of a CPU have other bits
    check_parity(photos, teacher, tmp_path, wholes, at, workers, half, kind, 'cuda')

class Counts(Callback):
    "A hook of a user's that acts late, and that the bits depend on"
    order,n = 70,0
    def after_batch(self): self.n += self.training
    def after_backward(self):
        for p in self.model.parameters(): p.grad *= 1+self.n/100
    def state_dict(self): return dict(n=self.n)
    def load_state_dict(self, o): self.n = o['n']

def test_a_late_hook_goes_on(photos, teacher, tmp_path):
    "A save within an epoch has what hooks of any order made of its batch"
    def run(path, *cbs): return parity_run(photos, teacher, tmp_path/path, 'plain', 0, False, [hook := Counts(), *cbs]),hook
    whole,a = run('whole')
    with pytest.raises(KeyboardInterrupt): run('run', Break('middle'))
    again,b = run('run')
    assert a.n==b.n==18 and same(dict(again.model.state_dict()), dict(whole.model.state_dict()))

def test_ended_before_it_has_begun(mixed, tmp_path, monkeypatch):
    "Between the making of the folder and the first look at the images: nothing says that it runs, and the same command begins"
    argv = [str(o) for o in (*mixed, '--workers', 0, '--epochs', 1, '--out', tmp_path/'run')]
    def ended(*args): raise Terminated
    with monkeypatch.context() as m:
        m.setattr(cli, '_verdict', ended)
        assert main(argv)==Terminated.code and read_status(tmp_path/'run')=={'state':'begun','epochs':0}
        assert cli.status_main([str(tmp_path/'run')])==75
    assert main(argv)==0 and read_status(tmp_path/'run')['state']=='finished'

def test_what_a_kill_leaves_of_a_beginning(mixed, tmp_path):
    "An empty status.json is no run; one that was removed beside a run's files is told"
    argv,out = [*mixed, '--workers', 0, '--out', tmp_path/'run'],tmp_path/'run'
    out.mkdir()
    (out/'status.json').touch()
    p = start(argv, tmp_path/'log', slow=.05)
    wait_for(p, tmp_path/'log', 'saved', 3)
    p.kill(), p.join()
    status = (out/'status.json').read_bytes()
    (out/'status.json').unlink()
    assert finish(argv, tmp_path/'log')==3 and 'no status.json' in Path(f"{tmp_path/'log'}.out").read_text() and list(out.glob('state-*'))
    (out/'status.json').write_bytes(status)
    assert finish(argv, tmp_path/'log')==0

# ---- in Jupyter

def learner_of(photos, **kwargs):
    set_seed(0)
    return bag_learner(bag_dls(photos, size=32, bs=16, num_workers=0, device='cpu', seed=3), 'baseline', arch='xresnet18d', widen=1/16, epochs=3, **kwargs)

class NoBetter(EarlyStoppingCallback):
    def __init__(self): super().__init__('train_loss', comp=np.greater, patience=1)   # what gets better is taken for worse

def quiet_fit(learn, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(**kwargs)

def test_a_stop_by_a_hook_is_for_good(photos, tmp_path):
    "Killed after its last save, and before it was noted as finished"
    quiet_fit(learner_of(photos, cbs=NoBetter()), resume=tmp_path/'run')
    before,s = rows(tmp_path/'run'),read_status(tmp_path/'run')
    assert len(before)-1<3
    (tmp_path/'run/status.json').write_text(json.dumps(s | dict(state='running')))
    quiet_fit(learner_of(photos, cbs=NoBetter()), resume=tmp_path/'run')
    assert rows(tmp_path/'run')==before and read_status(tmp_path/'run')['state']=='finished'

@pytest.mark.parametrize('other', [{}, dict(lr=.2), dict(lr=.1, wd=1e-3)])
def test_another_rate_is_another_run(photos, tmp_path, other):
    with pytest.raises(KeyboardInterrupt): quiet_fit(learner_of(photos, cbs=Break('middle')), resume=tmp_path/'run', lr=.1)
    with pytest.raises(BotError, match=r'is another one: fit_rung: .*0\.1'): quiet_fit(learner_of(photos), resume=tmp_path/'run', **other)
    quiet_fit(learner_of(photos), resume=tmp_path/'run', lr=.1)
    quiet_fit(whole := learner_of(photos), lr=.1)
    assert len(plain_rows(tmp_path/'run'))==3 and float(plain_rows(tmp_path/'run')[-1]['train_loss'])==pytest.approx(whole.recorder.values[-1][0], abs=0)

def test_a_cell_run_again_begins_anew(photos, tmp_path):
    "Interrupted before anything was saved: with this learner the run would begin on trained weights"
    learn = learner_of(photos, cbs=Break('middle', 0))
    with pytest.raises(KeyboardInterrupt): quiet_fit(learn, resume=tmp_path/'run')
    learn.remove_cbs(Break)
    with pytest.raises(BotError, match='Make the learner anew'): quiet_fit(learn, resume=tmp_path/'run')
    quiet_fit(learner_of(photos), resume=tmp_path/'run'), quiet_fit(whole := learner_of(photos))
    assert float(plain_rows(tmp_path/'run')[-1]['train_loss'])==whole.recorder.values[-1][0]

def test_settings_that_cannot_be_written(photos, tmp_path, monkeypatch):
    from bot import resume
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(resume, 'note_args', full)
    with pytest.raises(OSError, match='No space left'): quiet_fit(learner_of(photos), resume=tmp_path/'run')
    assert read_status(tmp_path/'run')['state']=='failed'

class Told(Callback):
    "Half of a pair: nothing can be given back"
    def state_dict(self): return dict(n=1)

class Taken(Callback):
    "The other half: nothing is kept"
    def load_state_dict(self, o): raise AssertionError

@pytest.mark.parametrize('first,then,words', [(Told,Told,'as new: Told'), (Taken,Taken,'as new: Taken'), (None,Counts,'as new: Counts'), (Counts,None,'without hooks that it had: Counts'), (Counts,Counts,None)])
def test_hooks_that_are_not_kept_are_named(photos, tmp_path, capsys, first, then, words):
    def cbs(kind, *more): return [*([kind()] if kind else []), *more]
    with pytest.raises(KeyboardInterrupt): quiet_fit(learner_of(photos, cbs=cbs(first, Break('middle'))), resume=tmp_path/'run')
    capsys.readouterr()
    quiet_fit(learner_of(photos, cbs=cbs(then)), resume=tmp_path/'run')
    out = capsys.readouterr().out
    assert words in out if words else 'Goes on, but' not in out
    assert read_status(tmp_path/'run')['state']=='finished'

@pytest.mark.parametrize('name,was,now', [('wd','0.0001','0.1'), pytest.param('epochs', '3', '4', marks=pytest.mark.slow), pytest.param('seed', '3', '4', marks=pytest.mark.slow)])
def test_settings_edited_by_hand(mixed, tmp_path, name, was, now):
    "The optimizer would not follow, so the run is refused, and goes on once it is put back"
    argv,f = [*mixed[:-1], 10, '--workers', 0],tmp_path/'run/args.yaml'
    stopped(argv, tmp_path/'run', tmp_path/'log')
    text = f.read_text()
    assert text.count(f'  {name}: {was}\n')
    f.write_text(text.replace(f'  {name}: {was}\n', f'  {name}: {now}\n', 1))
    assert finish([*argv, '--out', tmp_path/'run'], tmp_path/'second')==2
    out = Path(f"{tmp_path/'second'}.out").read_text()
    assert 'was edited since' in out and f'{name}: {was} -> {now}' in out
    f.write_text(text)
    assert finish([*argv, '--out', tmp_path/'run'], tmp_path/'log')==0

def test_moved_images(photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path/'a')
    with pytest.raises(KeyboardInterrupt): quiet_fit(learner_of(tmp_path/'a', cbs=Break('middle')), resume=tmp_path/'run')
    (tmp_path/'a').rename(tmp_path/'b')
    quiet_fit(learner_of(tmp_path/'b'), resume=tmp_path/'run')
    assert len(load_run(tmp_path/'run', data=True).dls.valid_ds)==24
