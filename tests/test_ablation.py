"An ablation: what its statistics promise, a plan that holds, cells that are trained once, whoever is killed"
import csv, json, multiprocessing, os, random, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest, yaml
from bot.chance import decided, looks_for
from bot.cli import main_of
from bot.core import UsageError
from bot.files import read_status
from bot.grid import fix_plan, ladder_rows, make_plan, read_plan
from bot.judge import mcnemar
from bot.turns import cell_path, grid_order, is_done, work
from bot.verdict import read_ablation, save_table
from bot.wait import time_cells
from pictures import lay_colors
from ablation_job import worker

root = Path(__file__).parents[1]
sys.path.insert(0, str(root/'bench'))
import chance as bench
ctx = multiprocessing.get_context('forkserver')
ctx.set_forkserver_preload(['bot.all', 'bot.turns', 'ablation_job'])

# ---- what is promised of the numbers

@pytest.mark.parametrize('world', ['usual', 'lucky_runs', 'other_images', 'good_models'])
def test_an_interval_covers_its_target(world):
    here,new = bench.coverage(500, **bench.worlds[world])
    assert .925<here<.98 and .925<new<.98

def test_a_ladder_without_effects_is_left_alone(): assert bench.alarms(150, rungs=5)<=.07

def test_pooled_predictions_would_not_do():
    "What the table does not do: McNemar's test on the predictions of all seeds as if each were an image of its own"
    rng,hits = np.random.default_rng(0),0
    for _ in range(200):
        a,b = bench.planted(rng, [0,0], **(bench.usual | dict(run=.2, image=0.)))[0]
        hits += mcnemar(a.ravel(), b.ravel())<.05
    assert hits/200>.12

def test_an_effect_is_found():
    "As large as was said to be seen"
    rng,found = np.random.default_rng(0),0
    for _ in range(30):
        right = bench.planted(rng, [0,.6], **bench.usual)[0].astype(float)
        found += decided(dict(a=right[1]-right[0]), looks_for(8)).get('a', {}).get('better', False)
    assert found>=28

@pytest.mark.slow
@pytest.mark.parametrize('world', list(bench.worlds))
def test_a_thousand_ladders(world):
    here,new = bench.coverage(2000, **bench.worlds[world])
    assert .93<=here<=.97 and .93<=new<=.97
    assert bench.alarms(1000, **bench.worlds[world])<=.07 and bench.alarms(1000, only_new=True, **bench.worlds[world])<=.07

def test_the_kept_simulation_holds():
    with open(root/'bench/results/chance.csv') as f: rows = list(csv.DictReader(f))
    assert {o['world'] for o in rows}==set(bench.worlds) and all(int(o['ladders'])>=1000 for o in rows)
    for o in rows: assert all(.93<=float(o[k])<=.97 for k in ('covers_these','covers_new')) and max(float(o['alarms']), float(o['alarms_new']))<=.07, o

# ---- the plan and the command

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "48 training, 18 validation and 12 test images of three classes"
    return lay_colors(tmp_path_factory.mktemp('photos'), 200, 50, train=16, valid=6, test=4)

tiny = dict(device='cpu', widen=.0625, size=32, bs=16)
words = '--device cpu --widen .0625 --size 32 --bs 16 --jobs 1 --workers 0'.split()

def run(capsys, *args):
    capsys.readouterr()
    code = main_of(['ablate', *map(str, args)])
    out = capsys.readouterr()
    return code,out.out,out.err

def test_the_command(photos, tmp_path, capsys):
    out = tmp_path/'a'
    args = photos,'--rungs','baseline,linear,smooth','--seeds',2,'--epochs',1,'--out',out,*words
    code,text,err = run(capsys, *args)
    assert code==0 and "same run here as 'baseline': no test" in text and 'cannot tell' in text, err
    assert {o.name for o in out.iterdir()}=={'plan.json','cells','ablation.csv','report.html'}
    rows = list(csv.DictReader((out/'ablation.csv').open()))
    assert [o['row'] for o in rows]==['baseline','linear','smooth'] and all(float(o['accuracy'])<=1 for o in rows) and rows[1]['published']=='-0.7'
    assert sorted(o.name for o in (out/'cells').iterdir())==['baseline-0','baseline-1','smooth-0','smooth-1']
    was = (out/'ablation.csv').read_text()
    code,text,err = run(capsys, *args)
    assert code==0 and '0 of 4 trainings are left' in text and (out/'ablation.csv').read_text()==was

@pytest.mark.parametrize('jobs, workers, wanted', [(1, None, None), (2, None, 0), (2, 1, 1)])
def test_a_step_is_timed_as_the_cells_are_trained(photos, tmp_path, monkeypatch, jobs, workers, wanted):
    "With as many processes that read images; else the estimate is of another training"
    import bot.ablation as a
    seen = []
    def timed(plan, device, workers, threads): return seen.append(workers) or time_cells(plan, device, 0, 1)
    monkeypatch.setattr(a, 'time_cells', timed)
    a.ablate(photos, 'baseline', seeds=2, epochs=1, jobs=jobs, workers=workers, dry_run=True, out=tmp_path/'a', **tiny)
    assert seen==[wanted]

def test_what_cannot_be_is_refused(photos, tmp_path, capsys):
    out = tmp_path/'a'
    base = photos,'--rungs','baseline,smooth','--out',out,*words
    for more,says in (['--budget','1s'], 'not enough'), (['--rungs','basline'], "did you mean 'baseline'"), (['--sweep','lr=1'], 'two or more values'), (['--leave-one-out'], 'three ways'), (['--budget','soon'], '30m'):
        code,_,err = run(capsys, *base, *more)
        assert code==2 and says in err and not out.exists()
    (out/'mine').mkdir(parents=True)
    code,_,err = run(capsys, *base)
    assert code==2 and 'is no ablation' in err

def test_a_run_that_diverges_is_no_test(photos, tmp_path, capsys):
    f = tmp_path/'mine.yaml'
    f.write_text('calm: {lr: 0.01}\nwild: {lr: 1e30}\nother: {lr: 0.02}\n')
    code,text,err = run(capsys, photos, '--cells', f, '--seeds', 2, '--epochs', 1, '--out', tmp_path/'a', *words)
    rows = {o['row']:o for o in csv.DictReader((tmp_path/'a/ablation.csv').open())}
    assert code==1 and 'no verdict: seed 0 diverged' in rows['wild']['verdict'] and 'cannot tell' in rows['other']['verdict']
    assert read_plan(tmp_path/'a')['family']==['wild','other']   # it stays in the family

def test_a_teacher_is_a_cell_or_its_rows_are_left_out(photos, tmp_path):
    plan = make_plan(photos, ladder_rows('smooth,distill'), seeds=1, epochs=1, **tiny)
    fix_plan(tmp_path/'a', plan, {})
    assert work(tmp_path/'a', 'cpu', 0)=={} and is_done(tmp_path/'a', 'distill', 0) and is_done(tmp_path/'a', 'teacher', 999)
    args = yaml.safe_load((cell_path(tmp_path/'a', 'distill', 0)/'args.yaml').read_text())
    assert args['settings']['teacher'].endswith('cells/teacher-999')
    assert make_plan(photos, ladder_rows('smooth,distill'), teacher='none', **tiny)['left_out']==['distill']

def test_the_second_ladder(photos, tmp_path, capsys):
    "By its name; the averaged weights are judged, and what was published is that ladder's"
    words_of = photos,'--ladder','torchvision','--rungs','smooth,resize','--but','long,fixres','--seeds',1,'--epochs',2,'--out',tmp_path/'a',*words
    assert run(capsys, *words_of)[0]==0
    rows = list(csv.DictReader((tmp_path/'a/ablation.csv').open()))
    assert [o['row'] for o in rows]==['torchvision.smooth','resize'] and rows[1]['published']=='1.56'
    path = cell_path(tmp_path/'a', 'resize', 0)
    args = yaml.safe_load((path/'args.yaml').read_text())
    assert args['settings']['ema'] and args['reading']=='torchvision' and args['but']==['long','fixres']
    last = list(csv.DictReader((path/'metrics.csv').open()))[-1]
    assert float(rows[1]['accuracy'])==pytest.approx(float(last['ema_accuracy']), abs=1e-6)

def test_a_sweep_chooses_by_validation_and_reports_by_test(photos, tmp_path):
    plan = make_plan(photos, ladder_rows('baseline,smooth'), seeds=2, epochs=1, sweep='lr=.0001,.02', **tiny)
    fix_plan(tmp_path/'a', plan, {})
    assert work(tmp_path/'a', 'cpu', 0)=={}
    table = save_table(read_ablation(tmp_path/'a'))
    assert plan['n_valid']==12 and len([o for o in table.notes if 'was best of 2' in o])==2
    args = yaml.safe_load((cell_path(tmp_path/'a', 'smooth', 0)/'args.yaml').read_text())
    assert args['settings']['lr'] in (.0001,.02) and table.rows[1]['these'] is not None
    assert {s for k,s in grid_order(read_plan(tmp_path/'a')) if k in plan['cells']['smooth']['among']}=={1000,1001}

def test_more_seeds_open_the_plan_again(photos, tmp_path, capsys):
    args = photos,'--rungs','baseline,smooth','--epochs',1,'--out',tmp_path/'a',*words
    assert run(capsys, *args, '--seeds', 1)[0]==0
    code,text,_ = run(capsys, *args, '--seeds', 2)
    assert code==0 and '2 seeds instead of 1: one more look' in text and '6%' in text and len(list((tmp_path/'a/cells').iterdir()))==4
    assert run(capsys, *args, '--seeds', 3, '--dry-run')[0]==0 and read_plan(tmp_path/'a')['seeds']==2

# ---- workers

def start(path, log, **kw):
    p = ctx.Process(target=worker, args=(str(path), str(log)), kwargs=kw)
    p.start()
    return p

def notes(log, *kinds): return [o.split() for o in Path(log).read_text().splitlines() if o.split()[0] in kinds] if Path(log).exists() else []

def wait_for(f, limit=120):
    begin = time.monotonic()
    while not f():
        assert time.monotonic()-begin<limit, 'it took too long'
        time.sleep(.01)

def table(path):
    save_table(read_ablation(path))
    return [{k:v for k,v in o.items() if k!='step_ms'} for o in csv.DictReader((path/'ablation.csv').open())]

def check_cells(path, logs, epochs, gone=1):
    "No finished cell was trained again, each has its epochs once, and nothing is left lying"
    assert not [o for log in logs for o in notes(log, 'again')]
    judged = [o[1] for log in logs for o in notes(log, 'judge')]
    assert len(judged)-len(set(judged))<=gone   # of processes that were killed or stopped while they judged
    for o in grid_order(read_plan(path)):
        run = cell_path(path, *o)
        assert [r['epoch'] for r in csv.DictReader((run/'metrics.csv').open())]==[str(i) for i in range(epochs)], run
        assert read_status(run)['state']=='finished' and not list(run.glob('.claim-*'))

@pytest.fixture(scope='module')
def alone(photos, tmp_path_factory):
    "The same ablation by one worker that nothing happens to"
    path = tmp_path_factory.mktemp('alone')/'a'
    plan = fix_plan(path, make_plan(photos, ladder_rows('baseline,smooth'), seeds=3, epochs=2, **tiny), {})
    p = start(path, path.parent/'log')
    p.join(120)
    return plan,table(path)

def grid(photos, alone, tmp_path):
    fix_plan(tmp_path/'a', {k:v for k,v in alone[0].items() if k not in ('looks','planned')} | dict(cells={k:v | dict(seeds=None) for k,v in alone[0]['cells'].items()}), {})
    return tmp_path/'a'

def test_workers_that_are_killed(photos, alone, tmp_path):
    "Two workers, one of which is killed in the middle of a cell; another comes"
    path,logs = grid(photos, alone, tmp_path),[tmp_path/f'log{i}' for i in range(3)]
    ps = [start(path, log) for log in logs[:2]]
    wait_for(lambda: len(notes(logs[0], 'done'))>=1 and len(notes(logs[0], 'begin'))>=2 and notes(logs[0], 'batch')[-1][1]!='-'.join(notes(logs[0], 'done')[-1][1:3]))
    os.kill(ps[0].pid, signal.SIGKILL)
    ps.append(start(path, logs[2]))
    for p in ps: p.join(120)
    assert [p.exitcode for p in ps]==[-signal.SIGKILL,0,0]
    check_cells(path, logs, 2)
    assert table(path)==alone[1]

def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]!='Z'
    except OSError: return False

def test_no_worker_outlives_a_command_that_is_killed(photos, tmp_path):
    "It would go on with the whole ablation"
    p = subprocess.Popen([sys.executable, '-m', 'bot', 'ablate', str(photos), '--rungs', 'baseline,smooth', '--epochs', '200', '--out', str(tmp_path/'a'), *words, '--jobs', '2'], cwd=root,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(tmp_path.glob('a/cells/*/.claim-*')))>=2)
    ids = [int(o) for o in Path(f'/proc/{p.pid}/task/{p.pid}/children').read_text().split()]
    assert len(ids)>=2
    p.kill(), p.wait()
    wait_for(lambda: not any(map(alive, ids)), 20)

def test_a_worker_of_another_machine_that_sleeps(photos, alone, tmp_path):
    "It is taken for dead after its silence; when it wakes up it leaves the cell to the other, and goes on with others"
    path,logs = grid(photos, alone, tmp_path),[tmp_path/f'log{i}' for i in range(2)]
    ps = [start(path, logs[0], place='here', beat=.2, silence=2.)]
    wait_for(lambda: len(notes(logs[0], 'batch'))>=2)
    os.kill(ps[0].pid, signal.SIGSTOP)
    mine = notes(logs[0], 'begin')[-1][1:3]
    ps.append(start(path, logs[1], place='there', beat=.2, silence=2.))
    wait_for(lambda: mine in [o[1:3] for o in notes(logs[1], 'done')])
    os.kill(ps[0].pid, signal.SIGCONT)
    for p in ps: p.join(120)
    assert [p.exitcode for p in ps]==[0,0]
    check_cells(path, logs, 2)
    assert table(path)==alone[1]

@pytest.mark.slow
def test_four_workers_ten_kills_and_one_that_sleeps(photos, tmp_path):
    "13 rungs of 8 seeds"
    plan = make_plan(photos, ladder_rows(), seeds=8, epochs=1, **tiny)
    quiet,path,rng = tmp_path/'quiet',tmp_path/'a',random.Random(0)
    fix_plan(quiet, plan, {}), fix_plan(path, plan, {})
    ps = [start(quiet, tmp_path/f'quiet{i}') for i in range(2)]
    for p in ps: p.join(1800)
    logs,kw = [],dict(beat=.5, silence=6.)
    def new(i):
        logs.append(tmp_path/f'log{len(logs)}')
        return start(path, logs[-1], place=f'machine {len(logs)}', **kw)
    ps = [new(i) for i in range(4)]
    def done(): return sum(is_done(path, *o) for o in grid_order(plan | dict(cells=read_plan(path)['cells'])))
    for k in range(10):
        wait_for(lambda: done()>=5*k+4, 600)   # all kills are among the first 49 of 81
        time.sleep(rng.random())
        i = rng.randrange(4)
        os.kill(ps[i].pid, signal.SIGKILL)
        ps[i].join()
        ps[i] = new(i)
        if k==4:
            wait_for(lambda: len(notes(logs[-1], 'batch'))>=1, 600)
            os.kill(ps[i].pid, signal.SIGSTOP)
            time.sleep(12)
            os.kill(ps[i].pid, signal.SIGCONT)
    for p in ps: p.join(1800)
    assert [p.exitcode for p in ps]==[0]*4
    check_cells(path, logs, 1, 11)
    assert table(path)==table(quiet)

# ---- workers as jobs of a queue

def array(n, *argv, **env):
    "The example's jobs"
    pytest.importorskip('submitit', reason='the extra [slurm]')
    words = [str(o) for o in (sys.executable, root/'examples/launch/ablate_array.py', n, *argv)]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(root)) | env, timeout=300)

def test_workers_as_jobs(photos, tmp_path):
    "Two jobs of this machine do what one command does"
    p = array(2, '--cluster', 'local', '--out', tmp_path/'a', photos, '--rungs', 'baseline,smooth', '--seeds', 1, '--epochs', 1, *words)
    assert p.returncode==0 and '2 workers are queued' in p.stdout, p.stdout+p.stderr
    plan = read_plan(tmp_path/'a')
    assert all(is_done(tmp_path/'a', *o) for o in grid_order(plan)) and len(list(csv.DictReader((tmp_path/'a/ablation.csv').open())))==2

def test_an_array_for_slurm(tmp_path):
    "What `sbatch` is given, where a stand-in takes it"
    (tmp_path/'bin').mkdir()
    for k,does in dict(sbatch=f'cat "$1" > {tmp_path}/script; echo "Submitted batch job 7"', srun='').items():
        (tmp_path/'bin'/k).write_text(f'#!/bin/bash\n{does}\n')
        (tmp_path/'bin'/k).chmod(0o755)
    p = array(4, '--hours', 2, '--gpus', 1, '--partition', 'short', '--out', tmp_path/'a', 'photos', '--rungs', 'baseline,smooth', PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert p.returncode==0 and '4 workers are queued: 7_0' in p.stdout, p.stdout+p.stderr
    script = (tmp_path/'script').read_text()
    assert all(f'#SBATCH --{o}' in script for o in ('array=0-3','time=120','gpus-per-node=1','partition=short')), script

def test_what_cannot_be_judged_is_said(photos, tmp_path, capsys):
    "A cell that was trained and whose weights are damaged is no endless loop"
    fix_plan(tmp_path/'a', make_plan(photos, ladder_rows('baseline,cosine'), seeds=1, epochs=1, **tiny), {})
    assert work(tmp_path/'a', 'cpu', 0)=={}
    out = cell_path(tmp_path/'a', 'cosine', 0)
    shutil.rmtree(out/'answers')
    for o in out.glob('*.safetensors'): o.write_bytes(b'damaged')
    failed = work(tmp_path/'a', 'cpu', 0)
    assert list(failed)==[('cosine',0)] and 'safetensors' in failed['cosine',0] and 'safetensors' in capsys.readouterr().err

def test_a_plan_goes_on_from_any_folder(photos, tmp_path, monkeypatch, capsys):
    "Its images are those that it was made for, however a command names them, and other ones of these names are refused"
    top = tmp_path/'top'
    (top/'sub').mkdir(parents=True)
    shutil.copytree(photos, top/'img')
    monkeypatch.chdir(top)
    assert run(capsys, 'img','--rungs','baseline,cosine','--seeds',1,'--epochs',1,'--out','a',*words)[0]==0
    shutil.copytree(photos, top/'sub/img')
    (top/'sub/img/train/a').rename(top/'sub/img/train/was'), (top/'sub/img/train/b').rename(top/'sub/img/train/a'), (top/'sub/img/train/was').rename(top/'sub/img/train/b')
    monkeypatch.chdir(top/'sub')
    assert run(capsys, '../img','--rungs','baseline,cosine','--seeds',2,'--epochs',1,'--out','../a',*words)[0]==0
    for k in 'baseline','cosine': assert yaml.safe_load((cell_path(top/'a', k, 1)/'args.yaml').read_text())['path']==str(top/'img')
    shutil.move(top/'img', tmp_path/'elsewhere')   # as another machine has them
    assert run(capsys, tmp_path/'elsewhere','--rungs','baseline,cosine','--seeds',3,'--epochs',1,'--out','../a',*words)[0]==0

@pytest.mark.parametrize('words_of, why', [(['--rung','cosine'], 'that of leave_one_out'), (['--rungs','baseline,cosine','--but','cosine'], 'named in rungs and left out'), (['--log','tensorboard'], "No option '--log'"),
    (['--rungs','distill,mixup','--teacher','none'], 'nothing to train'), (['--rungs','baseline,cosine','--sweep','lr=.1,.2','--cells'], 'three ways')])
def test_what_would_be_ignored_is_refused(photos, tmp_path, capsys, words_of, why):
    f = tmp_path/'cells.yaml'
    f.write_text('a:\n')
    code,out,err = run(capsys, photos, *words_of, *([f] if words_of[-1]=='--cells' else []), '--dry-run', '--out', tmp_path/'a', *words)
    assert code==2 and why in err, (out, err)

def test_names_that_meet_are_refused(photos):
    rows = [dict(name=k, rung=r, but=[], changes={}, vs=None) for k,r in (('a-lr0.1','baseline'),('a','cosine'))]
    with pytest.raises(UsageError, match="Two trainings would have the name 'a-lr0.1'"): make_plan(photos, rows, sweep='lr=.1,.2', **tiny)

def test_no_number_of_seeds_is_that_of_the_plan(photos, tmp_path, capsys):
    "A command that goes on does not plan anew"
    argv = photos,'--rungs','baseline,cosine','--epochs',1,'--out',tmp_path/'a',*words
    assert run(capsys, *argv, '--seeds', 2)[0]==0
    code,out,err = run(capsys, *argv)
    assert code==0 and '0 of 4 trainings are left' in out and 'instead of' not in out

def test_a_swept_row_is_told_with_the_settings_it_has(photos, tmp_path, capsys):
    argv = photos,'--rungs','baseline,smooth','--seeds',2,'--sweep','epochs=1,2','--out',tmp_path/'a',*words
    assert run(capsys, *argv)[0]==0
    for o in csv.DictReader((tmp_path/'a/ablation.csv').open()):
        args = yaml.safe_load((cell_path(tmp_path/'a', o['row'], 0)/'args.yaml').read_text())
        assert int(o['epochs'])==args['settings']['epochs']

def test_more_seeds_are_told_before_they_are_asked_for(photos, tmp_path, capsys):
    "How many trainings and how long, and the plan stays as it was"
    argv = photos,'--rungs','baseline,cosine','--epochs',1,'--out',tmp_path/'a',*words
    assert run(capsys, *argv, '--seeds', 2)[0]==0
    code,out,err = run(capsys, *argv, '--seeds', 3, '--dry-run')
    assert code==0 and '2 of 6 trainings are left, about ' in out and '3 seeds instead of 2' in out
    assert read_plan(tmp_path/'a')['seeds']==2

@pytest.mark.parametrize('change', [dict(seeds=True), dict(cells={}), dict(rows=None), dict(format=9), dict(asked=None), dict(fingerprint=None)])
def test_a_plan_that_is_none_is_refused(photos, tmp_path, capsys, change):
    fix_plan(tmp_path/'a', make_plan(photos, ladder_rows('baseline,cosine'), seeds=1, epochs=1, **tiny), {})
    f = tmp_path/'a/plan.json'
    f.write_text(json.dumps(json.loads(f.read_text()) | change))
    code,out,err = run(capsys, photos, '--rungs', 'baseline,cosine', '--epochs', 1, '--out', tmp_path/'a', *words)
    assert code==3 and 'no plan of this version' in err and 'Traceback' not in err, err
