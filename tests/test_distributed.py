"Several processes train as one does: the same order, draws and weights, exact validation, one run folder, and words when something goes wrong."
import csv, multiprocessing, os, signal, socket, subprocess, sys, time
from pathlib import Path
import pytest, torch, torch.distributed, yaml
from bot.files import read_status
from pictures import lay_colors
from ranks_job import command, command_each, disturb, disturbed, fit, recorded_fit, shares_by_hand, start

ctx = multiprocessing.get_context('forkserver')
ctx.set_forkserver_preload(['bot.all', 'bot.cli', 'bot.ranks', 'bot.reported', 'ranks_job'])

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

stores = []

def begin(world, f, log, *args, only=None, port=None, **kwargs):
    if not only: stores.append(torch.distributed.TCPStore('127.0.0.1', 0, None, True, wait_for_workers=False))   # as torchrun's
    port = port or (free_port() if only else stores[-1].port)
    ps = [ctx.Process(target=start, args=(r, world, port, f, str(log), args, kwargs, not only)) for r in only or range(world)]
    for p in ps: p.start()
    return ps

def finish(ps, log, limit=120):
    "Exit codes"
    until = time.monotonic()+limit
    for p in ps: p.join(max(0, until-time.monotonic()))
    alive = [p for p in ps if p.exitcode is None]
    for p in alive: p.kill()
    assert not alive, said(log)
    return [p.exitcode for p in ps]

def said(log): return '\n'.join(f'--- {f.name}\n{f.read_text()}' for f in sorted(Path(log).parent.glob(f'{Path(log).name}-*')))

def run(tmp, world, f=fit, **kwargs):
    "What each process left, after all have trained"
    out = Path(tmp)/f'{world}'
    out.mkdir(parents=True)
    codes = finish(begin(world, f, out/'log', str(out), **kwargs), out/'log')
    assert codes==[0]*world, said(out/'log')
    return [torch.load(out/f'{r}.pt', weights_only=False) for r in range(world)]

def apart(a, b): return max((a[k].double()-b[k].double()).abs().max().item() for k in a)

def assert_same_rows(one, several):
    "Each row was seen once, by one process, with the same bits"
    rows = {k:v for o in several for k,v in o['rows'].items()}
    assert len(rows)==sum(len(o['rows']) for o in several) and rows==one['rows']

worlds = [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]

@pytest.fixture(scope='module')
def one(tmp_path_factory): return run(tmp_path_factory.mktemp('one'), 1, preds=True)[0]

@pytest.mark.parametrize('world', worlds)
def test_the_run_of_one_process(one, tmp_path, world):
    "Rung mixup with a teacher, 44 steps: pixels and soft targets to the bit, weights to rounding, and 359 validation images counted exactly"
    several = run(tmp_path, world, preds=True)
    assert len(one['losses'])==44 and len(one['rows'])==44*64
    assert_same_rows(one, several)
    for o in several:
        assert apart(o['weights'], one['weights'])<1e-10
        assert apart(dict(a=torch.tensor(o['losses'])), dict(a=torch.tensor(one['losses'])))<1e-6
        assert [round(v[2]*359, 6) for v in o['values']]==[round(v[2]*359) for v in one['values']]==[round(v[2]*359, 3) for v in one['values']]
        assert all(abs(a[1]-b[1])<1e-6 for a,b in zip(o['values'], one['values']))
        assert all(torch.equal(o[k][1], one[k][1]) and (o[k][0]-one[k][0]).abs().max()<1e-6 for k in ('preds','tta'))
        assert (o['loss']-one['loss']).abs().max()<1e-6
    assert all(o['values']==several[0]['values'] and apart(o['weights'], several[0]['weights'])==0 for o in several)

batches = [dict(grad_accum_steps=2, but='distill', class_weights='balanced')]
more_batches = [dict(but='distill', alpha=0., class_weights='balanced'), dict(grad_accum_steps=2), dict(grad_accum_steps=3, bs=66, alpha=0., cutmix=1.), dict(bs=61),
    dict(grad_accum_steps=2, alpha=0., class_weights='balanced')]

@pytest.mark.parametrize('kw', batches+[pytest.param(o, marks=pytest.mark.slow) for o in more_batches], ids=str)
def test_other_batches(tmp_path, kw):
    "In passes, of which the last one sends gradients, with weights of classes, and with a batch size that the processes do not divide: all as one process in one pass"
    a, = run(tmp_path, 1, **kw)
    several = run(tmp_path, 2, **kw)
    assert_same_rows(a, several)
    whole, = run(tmp_path/'whole', 1, **kw | dict(grad_accum_steps=None))
    assert all(apart(o['weights'], a['weights'])<1e-10 for o in [*several,whole])

@pytest.fixture(scope='module')
def few(tmp_path_factory):
    "48 training and 12 validation images of three classes: six batches of 8"
    return dict(src=str(lay_colors(tmp_path_factory.mktemp('few'), train=16, valid=4)), bs=8, but='distill')

def test_the_average_is_judged_by_all(few, tmp_path):
    "Of 12 validation images, by the same sums as the model itself; and with batch norm the processes stay together"
    kw = few | dict(alpha=0., ema=4, ema_steps=1)
    (a,),several = run(tmp_path, 1, **kw),run(tmp_path, 2, **kw)
    assert len(a['values'][0])==5
    for o in several:
        assert apart(o['weights'], a['weights'])<1e-10
        assert all(abs(x-y)<1e-6 for v,w in zip(o['values'], a['values']) for x,y in zip(v[1:], w[1:]))
    one,two = run(tmp_path/'norm', 2, **kw, norm=True)
    assert apart(one['weights'], two['weights'])==0 and one['values']==two['values']

def test_the_authors_mixup(few, tmp_path):
    "One share for the whole batch, and each process's rows backwards"
    a, = run(tmp_path, 1, reading='gluoncv', epochs=1, **few)
    several = run(tmp_path, 2, reading='gluoncv', epochs=1, **few)
    rows = {k for o in several for k in o['rows']}
    assert rows==set(a['rows']) and len(several[0]['rows'])==6*4 and several[0]['rows']!={k:a['rows'][k] for k in several[0]['rows']}
    plain = [run(tmp_path/'plain', w, reading='gluoncv', epochs=1, alpha=0., **few) for w in (1,2)]
    assert_same_rows(plain[0][0], plain[1])

def is_by_hand(several, tmp, **kwargs):
    "Have several processes the bits of a loop that computes the same two halves, each with batch norm of its own, and averages?"
    assert finish(begin(1, shares_by_hand, tmp/'log', str(tmp), several[0]['lrs'], **kwargs), tmp/'log')==[0], said(tmp/'log')
    return all(apart(o['weights'], torch.load(tmp/'hand.pt'))==0 for o in several)

@pytest.mark.slow
def test_batch_norm_of_44_steps(tmp_path):
    several = run(tmp_path, 2, but='distill', alpha=0., norm=True)
    assert len(several[0]['lrs'])==44 and is_by_hand(several, tmp_path)

@pytest.mark.parametrize('bn_stats', [None, 'mean'])
def test_batch_norm_is_each_processs_own(few, tmp_path, bn_stats):
    "Judged and saved are the running statistics of the first process, or the mean; a run that is stopped within an epoch ends with the same"
    kw = few | dict(alpha=0., norm=True, bn_stats=bn_stats)
    several = run(tmp_path, 2, **kw)
    assert len(several[0]['lrs'])==12 and is_by_hand(several, tmp_path, bn_stats=bn_stats, src=few['src'], bs=8)
    for i,at in enumerate((2, None)): parts = run(tmp_path/str(i), 2, recorded_fit, path=str(tmp_path/'run'), signal_at=at, **kw)
    assert all(apart(o['weights'], several[0]['weights'])<=(1e-6 if bn_stats else 0) for o in parts)

def test_batch_norm_over_all_takes_gpus(few, tmp_path):
    kw = few | dict(sync_bn=True, epochs=1)
    assert run(tmp_path, 1, **kw) and 'sync_bn=True: without effect, there is one process' in (tmp_path/'1/log-0').read_text()
    assert finish(begin(2, disturb, tmp_path/'log', str(tmp_path), 'nothing', **kw), tmp_path/'log')==[2,2]
    assert said(tmp_path/'log').count("does not compute on 'cpu'")==1 and 'without effect' not in said(tmp_path/'log')

@pytest.fixture(scope='module')
def spoilt(tmp_path_factory):
    "48 training and 12 validation images of three classes; of the training images one in three cannot be read, and one of validation"
    path = lay_colors(tmp_path_factory.mktemp('spoilt'), train=16, valid=4)
    for f in sorted((path/'train').rglob('*.*'))[::3]+sorted((path/'valid').rglob('*.*'))[5:6]: f.write_bytes(b'no image')
    return path

@pytest.mark.parametrize('bs', [3, pytest.param(8, marks=pytest.mark.slow)])
def test_images_that_cannot_be_read(spoilt, tmp_path, bs):
    "A process may have none of a batch, and takes part with weight 0; all know at the end what could not be read"
    kw = dict(src=str(spoilt), bs=bs, bad='skip', but='distill')
    a, = run(tmp_path, 1, **kw)
    several = run(tmp_path, 2, **kw)
    own = [{k:v for k,v in o['rows'].items() if k in a['rows']} for o in several]
    assert own[0] | own[1]==a['rows']
    for o in several:
        assert apart(o['weights'], a['weights'])<1e-10 and o['dropped']==a['dropped'] and len(o['dropped'][0])==16 and len(o['dropped'][1])==1
        assert abs(o['values'][-1][1]-a['values'][-1][1])<1e-6 and round(o['values'][-1][2]*11, 6)==round(a['values'][-1][2]*11, 4)

@pytest.mark.slow
def test_a_metric_of_all_predictions(tmp_path):
    from fastai.metrics import F1Score
    one,*_ = run(tmp_path, 1, epochs=1, but='distill', metrics=[F1Score(average='macro')])
    several = run(tmp_path, 2, epochs=1, but='distill', metrics=[F1Score(average='macro')])
    assert all(o['values'][0][2]==one['values'][0][2] for o in several)

# ---- a run folder

def goes_on(one, tmp, hits, batches, n_valid, **kwargs):
    "The rows of all parts together are those of a run that was never stopped"
    parts,path = [],tmp/'run'
    for i,(world,at) in enumerate(hits):
        parts += [run(tmp/str(i), world, recorded_fit, path=str(path), signal_at=at, who=world-1, **kwargs)]
        status = read_status(path)
        assert status['state']==('saved' if at else 'finished') and not list(path.glob('.claim*'))
        if at: assert status['epochs']*batches+status['batch'] in (at+1, at+2)
    assert_same_rows(one, [o for p in parts for o in p])
    assert apart(parts[-1][0]['weights'], one['weights'])<1e-10
    assert [o['epoch'] for o in csv.DictReader((path/'metrics.csv').open())]==['0', '1']
    assert len((path/'predictions.csv').read_text().splitlines())==n_valid+1
    return parts[-1][0]

def test_goes_on_with_another_number_of_processes(few, tmp_path):
    "In a script too, where `fit_rung(resume=...)` names the folder"
    one, = run(tmp_path, 1, **few)
    goes_on(one, tmp_path, [(2,8), (1,None)], 6, 12, **few)
    goes_on(one, tmp_path/'script', [(1,2), (2,8), (2,None)], 6, 12, plain=True, **few)

def test_the_average_goes_on_with_another_number_of_processes(few, tmp_path):
    "From the middle of an epoch, so it is judged as that of a run that nobody stopped"
    kw = few | dict(alpha=0., ema=4, ema_steps=1)
    one, = run(tmp_path, 1, **kw)
    last = goes_on(one, tmp_path, [(2,8), (1,None)], 6, 12, **kw)
    assert len(last['values'][-1])==5 and all(abs(x-y)<1e-6 for x,y in zip(last['values'][-1][1:], one['values'][-1][1:]))

@pytest.mark.slow
@pytest.mark.parametrize('hits', [[(2,30), (1,33), (2,None)], [(4,3), (2,20), (1,None)]], ids=str)
def test_goes_on_in_44_steps(one, tmp_path, hits): goes_on(one, tmp_path, hits, 22, 359)

small = '--arch xresnet18d --widen 0.0625 --size 32 --bs 64 --epochs 2 --device cpu --workers 0'.split()

def test_the_command_leaves_the_same_folder(few, tmp_path):
    "The same files, and settings that differ in nothing; the first process alone prints"
    words = [few['src'], *small, '--bs', '8']
    for w in 1,2:
        ps = begin(w, command, tmp_path/f'log{w}', [*words, '--out', str(tmp_path/f'run{w}')])
        assert finish(ps, tmp_path/f'log{w}')==[0]*w, said(tmp_path/f'log{w}')
    def names(w): return sorted(o.name for o in (tmp_path/f'run{w}').iterdir())
    def args(w): return (tmp_path/f'run{w}'/'args.yaml').read_text().replace(f'run{w}', 'run')
    assert names(1)==names(2) and args(1)==args(2)
    assert (tmp_path/'log2-1').read_text()=='' and (tmp_path/'log2-0').read_text().count('epoch 1/2')==1
    ps = begin(2, command, tmp_path/'again', [*words, '--out', str(tmp_path/'run2')])
    assert finish(ps, tmp_path/'again')==[0,0] and 'nothing to do' in (tmp_path/'again-0').read_text()

# ---- what goes wrong

@pytest.mark.parametrize('what, code, words', [('nan_on_1', 4, 'The loss is nan'), pytest.param('apart_on_1', 1, 'process 1 has other weights', marks=pytest.mark.slow), ('die_on_1', 1, 'Another process of the run was lost')])
def test_all_end(tmp_path, what, code, words):
    "The loss of one is no number, its weights are others, it is killed: all end soon, and one says why"
    begun = time.monotonic()
    codes = finish(begin(2, disturb, tmp_path/'log', str(tmp_path), what, epochs=1), tmp_path/'log')
    assert codes[0]==code and codes[1]==(-9 if what=='die_on_1' else code), said(tmp_path/'log')
    assert said(tmp_path/'log').count(words)==1 and time.monotonic()-begun<60

def test_an_image_that_one_cannot_read(tmp_path):
    "The process that met it says so, once; the run folder notes it, and both end with the code for data"
    path = lay_colors(tmp_path/'photos', train=16, valid=4)
    sorted((path/'train').rglob('*.*'))[-1].write_bytes(b'no image')
    argv = [str(path), *small, '--bad', 'stop', '--out', str(tmp_path/'run')]
    argv[argv.index('--bs')+1] = '8'
    assert finish(begin(2, command, tmp_path/'log', argv), tmp_path/'log')==[3,3], said(tmp_path/'log')
    status = read_status(tmp_path/'run')
    assert status.get('state')=='failed' and 'cannot read' in status['error'].lower(), said(tmp_path/'log')
    assert said(tmp_path/'log').count('bot-train (process ')==1 and 'gloo' not in said(tmp_path/'log')+status['error'] and 'Exception occured' not in status['error']

@pytest.mark.slow
def test_what_is_frozen_later_learns(tmp_path):
    a, = run(tmp_path, 1, disturbed, what='thaw_later')
    several = run(tmp_path, 2, disturbed, what='thaw_later')
    assert all(apart(o['weights'], a['weights'])<1e-10 for o in several)

def test_what_is_nobodys_by_name_differs(few, tmp_path):
    "Dropout draws by a key with the number of the process, and the first's is that of one process alone"
    (one,),(a,b) = (run(tmp_path, w, drop=.5, **few) for w in (1,2))
    assert len(one['masks'])==len(a['masks'])==len(b['masks'])==12 and one['masks'][0].shape==(8,288)
    for whole,x,y in zip(*(o['masks'] for o in (one, a, b))):
        assert torch.equal(x, whole[:4]) and .4<(x==y).double().mean()<.6 and .4<x.double().mean()<.6
    assert not torch.equal(a['masks'][0], a['masks'][6])   # nor are they those of the epoch before

@pytest.mark.parametrize('argvs, words', [
    ([['digits','--seed','1'], ['digits','--seed','2']], 'Process 1 has other settings than process 0: seed 1 -> 2'),
    ([['digits','--bs','1','--epochs','1','--arch','xresnet18d','--widen','.0625','--size','32','--device','cpu']]*2, 'bs=1 is fewer images'),
    ([['digits','--epohcs','1']]*2, "did you mean '--epochs'")], ids=['others','small','slip'])
def test_what_cannot_begin(few, tmp_path, argvs, words):
    argvs = [[few['src'], *o[1:], '--out', str(tmp_path/'run')] for o in argvs]
    assert finish(begin(2, command_each, tmp_path/'log', argvs), tmp_path/'log')==[2,2]
    assert said(tmp_path/'log').count(words)==1 and 'Traceback' not in said(tmp_path/'log')
    assert not (tmp_path/'run'/'args.yaml').exists()

def test_a_missing_process(tmp_path):
    ps = begin(2, command, tmp_path/'log', ['digits', *small], only=[0], timeout=3)
    assert finish(ps, tmp_path/'log')==[2] and 'Process 0 of 2 could not meet the others' in said(tmp_path/'log')

def test_a_port_in_use(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        ps = begin(2, command, tmp_path/'log', ['digits', *small], only=[0], port=s.getsockname()[1], timeout=3)
        assert finish(ps, tmp_path/'log')==[2] and 'the port is in use' in said(tmp_path/'log')

# ---- through torchrun

def torchrun(tmp, *argv, restarts=0):
    "The launcher, with two processes"
    words = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--rdzv-backend', 'c10d', '--rdzv-endpoint', f'localhost:{free_port()}',
        '--signals-to-handle', 'SIGTERM,SIGINT,SIGHUP,SIGUSR1', '--max-restarts', str(restarts), '-m', 'bot', 'train', *argv]
    log = open(Path(tmp)/'torchrun.txt', 'w')
    return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, cwd=tmp)

def children(pid): return [int(o) for o in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]

def wait_for_batch(path, limit=90):
    "Until a run has saved something"
    until = time.monotonic()+limit
    while time.monotonic()<until and not read_status(path).get('files'): time.sleep(.1)
    assert read_status(path).get('files'), (path.parent/'torchrun.txt').read_text()

signals = [pytest.param(s, to, marks=[] if (s,to)==('SIGUSR1','agent') else pytest.mark.slow) for s in ('SIGUSR1','SIGTERM','SIGINT') for to in ('agent','worker')]

@pytest.mark.parametrize('sig, to', signals)
def test_signals(tmp_path, sig, to):
    "The run is saved, its processes end with 0, and none is left"
    path = tmp_path/'run'
    argv = ['digits', *small[:-5], '200', '--device', 'cpu', '--workers', '0', '--save-minutes', '0', '--out', str(path)]
    p = torchrun(tmp_path, *argv)
    try:
        wait_for_batch(path)
        workers = children(p.pid)
        os.kill(p.pid if to=='agent' else workers[-1], getattr(signal, sig))
        p.wait(30)
    finally:
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
    status = read_status(path)
    assert len(workers)==2 and not any(Path(f'/proc/{o}').exists() for o in workers)
    assert status['state']=='saved' and (status['epochs'] or status['batch']), (tmp_path/'torchrun.txt').read_text()
    if to=='worker': assert p.returncode==0, (tmp_path/'torchrun.txt').read_text()

# ---- two machines, as network namespaces

@pytest.mark.slow
@pytest.mark.parametrize('what', ['lose_guest','lose_holder'])
def test_a_machine_is_lost(tmp_path, what):
    "The job goes on without it, or ends in words and goes on with the same command"
    import machines_job
    try:
        with machines_job.machines(): pass
    except OSError as e: pytest.skip(f'takes root and network namespaces: {e}')
    getattr(machines_job, what)(tmp_path)

# ---- launch files

launch = sorted((Path(__file__).parents[1]/'examples/launch').glob('*.sh'))

def dry(script, tmp, argv, **env):
    "The words of each command that a launch file calls, where a stand-in for each program writes down its own"
    (tmp/'bin').mkdir()
    for k,does in dict(torchrun='', srun='shift 0; exec "$@"', scontrol='[ "$1" = show ] && printf "node1\\nnode2\\n"', **{'bot-status':'exit ${STATUS:-0}'}).items():
        (tmp/'bin'/k).write_text(f'#!/bin/bash\necho {k} "$@" >> {tmp}/said\n{does}\nexit 0\n' if k!='srun' else f'#!/bin/bash\n{does}\n')
        (tmp/'bin'/k).chmod(0o755)
    p = subprocess.run(['bash', str(script), *argv], env=os.environ | env | dict(PATH=f"{tmp}/bin:{os.environ['PATH']}"), capture_output=True, text=True, cwd=tmp)
    return p,(tmp/'said').read_text().splitlines()

def check_words(words, out, nproc='8'):
    "What torchrun makes of the words after it; the command takes those that are its own"
    from torch.distributed.run import get_args_parser
    from bot.cli import parse
    o = get_args_parser().parse_args(words)
    assert o.nproc_per_node==nproc and o.signals_to_handle=='SIGTERM,SIGINT,SIGHUP,SIGUSR1' and o.max_restarts==3 and o.module and o.training_script=='bot'
    assert o.training_script_args[0]=='train' and parse(o.training_script_args[1:])==dict(src='photos', rung='mixup', but='distill', out=out)
    return o

@pytest.mark.parametrize('script', launch, ids=lambda o: o.stem)
def test_launch_files(tmp_path, script):
    "torchrun and the command take the words, and the signals that save a run reach it"
    args = ['photos', '--rung', 'mixup', '--but', 'distill']
    env = dict(HEAD='node1', RUN='runs/first', SLURM_NNODES='2', SLURM_JOB_NODELIST='node[1-2]', SLURM_JOB_ID='7', SLURM_GPUS_ON_NODE='8')
    p,said = dry(script, tmp_path, args if script.stem=='slurm' else ['8', *args, '--out', 'runs/first'], **env)
    assert p.returncode==0, p.stderr
    o = check_words(next(l for l in said if l.startswith('torchrun')).split()[1:], 'runs/first')
    assert script.stem=='one_machine' or (o.nnodes,o.rdzv_backend,o.rdzv_endpoint)==('2','c10d','node1:29500')

@pytest.mark.parametrize('args', [[], ['photos']], ids=str)
@pytest.mark.parametrize('script', launch, ids=lambda o: o.stem)
def test_launch_files_say_how_they_are_called(tmp_path, script, args):
    p = subprocess.run(['bash', str(script), *args], env={k:v for k,v in os.environ.items() if k not in ('RUN','HEAD')}, capture_output=True, text=True, cwd=tmp_path)
    assert p.returncode and script.name in p.stderr and 'unbound' not in p.stderr and any(o in p.stderr for o in ('usage: ', 'give the ')), p.stderr

@pytest.mark.parametrize('status, times, again', [(0, 0, False), (75, 3, True), (75, 50, False), (1, 0, False)])
def test_the_queue_is_asked_again(tmp_path, status, times, again):
    "Only a run that can go on is put back into the queue, and not without end"
    env = dict(SLURM_RESTART_COUNT=str(times), RUN='runs/first', SLURM_NNODES='2', SLURM_JOB_NODELIST='node[1-2]', SLURM_JOB_ID='7', SLURM_GPUS_ON_NODE='8', STATUS=str(status))
    p,said = dry(next(o for o in launch if o.stem=='slurm'), tmp_path, ['photos'], **env)
    assert p.returncode==status and ('scontrol requeue 7' in said)==again

def read_yaml(name): return yaml.safe_load((launch[0].parent/name).read_text())

def test_skypilot(tmp_path):
    "The variables that SkyPilot sets reach torchrun, and its `run` is one command, so that its exit code is the job's"
    task = read_yaml('skypilot.yaml')
    assert set(task)=={'name','workdir','num_nodes','resources','volumes','envs','setup','run'} and task['resources']['accelerators']=='H100:8'
    (tmp_path/'run.sh').write_text(task['run'])
    env = task['envs'] | dict(SRC='photos', RUN='/shared/runs/first', SKYPILOT_NUM_NODES='2', SKYPILOT_NUM_GPUS_PER_NODE='8', SKYPILOT_NODE_IPS='10.0.0.1\n10.0.0.2', SKYPILOT_TASK_ID='sky-7')
    p,said = dry(tmp_path/'run.sh', tmp_path, [], **env)
    assert p.returncode==0 and len(said)==1, p.stderr
    o = check_words(said[0].split()[1:], '/shared/runs/first')
    assert (o.nnodes,o.rdzv_backend,o.rdzv_endpoint,o.rdzv_id)==('2','c10d','10.0.0.1:29500','sky-7')

def test_trainjob(monkeypatch):
    "torchrun takes machines and processes from the variables that the trainer of Kubeflow sets"
    job = read_yaml('trainjob.yaml')
    spec = job['spec']['trainer']
    assert (job['kind'],job['spec']['runtimeRef'])==('TrainJob',dict(name='torch-distributed')) and spec['numProcPerNode']==spec['resourcesPerNode']['limits']['nvidia.com/gpu']
    assert spec['command'][0]=='torchrun' and all(type(o) is str for o in spec['command'])
    for k,v in dict(NNODES=spec['numNodes'], NPROC_PER_NODE=spec['numProcPerNode'], NODE_RANK=1, MASTER_ADDR='node-0').items(): monkeypatch.setenv(f'PET_{k}', str(v))
    o = check_words(spec['command'][1:], '/shared/runs/first')
    assert (o.nnodes,o.node_rank,o.master_addr)==('2',1,'node-0')
