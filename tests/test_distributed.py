"Several processes train as one does: the same order, draws and weights, exact validation, one run folder, and words when something goes wrong."
import multiprocessing, socket, time
from pathlib import Path
import pytest, torch
import ranks_job
from ranks_job import fit, start

ctx = multiprocessing.get_context('forkserver')
ctx.set_forkserver_preload(['bot.all', 'bot.cli', 'bot.ranks', 'bot.reported', 'ranks_job'])

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def begin(world, f, log, *args, **kwargs):
    port = free_port()
    ps = [ctx.Process(target=start, args=(r, world, port, f, str(log), args, kwargs)) for r in range(world)]
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
        for k in 'preds','tta':
            assert torch.equal(o[k][1], one[k][1]) and (o[k][0]-one[k][0]).abs().max()<1e-6
        assert (o['loss']-one['loss']).abs().max()<1e-6
    assert all(o['values']==several[0]['values'] and apart(o['weights'], several[0]['weights'])==0 for o in several)
