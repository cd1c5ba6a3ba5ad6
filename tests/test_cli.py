"`bot-train` from the outside: exit codes, messages, the run folder, and the same number whatever the workers"
import csv, json, re, signal, subprocess, sys
from functools import partial
from pathlib import Path
import pytest, yaml
from bot.cli import main, parser, predict_main, rung_values, train
from bot.ladder import recipe
from pictures import lay_shades, shade

code = 'import sys; from bot.cli import main; sys.exit(main())'
tiny = ['--arch', 'xresnet18d', '--widen', '.0625', '--size', '32', '--bs', '8', '--workers', '0', '--device', 'cpu']

def shell(*args, cwd, **kw): return subprocess.run([sys.executable, '-c', code, *map(str, args)], cwd=cwd, capture_output=True, text=True, **kw)

@pytest.fixture(scope='session')
def images(tmp_path_factory): return lay_shades(tmp_path_factory.mktemp('images'))

def run(capsys, *args):
    capsys.readouterr()
    rc = main([str(o) for o in args])
    out = capsys.readouterr()
    return rc,out.out,out.err

def rows(path): return list(csv.DictReader((Path(path)/'metrics.csv').open()))

@pytest.fixture(scope='session')
def done(images, tmp_path_factory):
    "A finished run, as a process"
    out = tmp_path_factory.mktemp('runs')/'a'
    return out,shell(images, '--epochs', 2, '--out', out, *tiny, cwd=out.parent)

def test_a_run(done):
    out,p = done
    assert p.returncode==0, p.stderr
    named = {o['name'] for o in json.loads((out/'status.json').read_text())['files'].values()}
    assert {o.name for o in out.iterdir()}=={'args.yaml', 'metrics.csv', 'last.safetensors', 'best.safetensors', 'predictions.csv', 'status.json', 'report.html'} | named
    assert {o.split('-')[0] for o in named}=={'weights', 'state', 'predictions'}
    assert list(rows(out)[0])==['epoch', 'train_loss', 'valid_loss', 'accuracy', 'lr', 'img_per_s', 'time']
    assert [o['epoch'] for o in rows(out)]==['0', '1']
    assert json.loads((out/'status.json').read_text())['state']=='finished'
    assert p.stderr=='' and '\r' not in p.stdout

def test_what_it_says(done):
    out,p = done
    for o in "32 training and 12 validation images", "folder 'test'", '2 classes', 'xresnet18d', 'parameters', 'cpu', 'epoch 2/2', 'img/s', '95% interval', str(out):
        assert o in p.stdout, o
    assert len(re.findall(r'^epoch ', p.stdout, re.M))==2

def test_its_last_lines_run(done):
    "The Python that is printed loads the run and predicts"
    out,p = done
    lines = '\n'.join(p.stdout.splitlines()[-3:])
    q = subprocess.run([sys.executable, '-W', 'ignore', '-c', lines], cwd=out.parent, capture_output=True, text=True)
    assert q.returncode==0 and re.search(r"'(dark|light)'", q.stdout), q.stderr

def test_args(done):
    args = yaml.safe_load((done[0]/'args.yaml').read_text())
    assert args['settings']['bs']==8 and args['settings']['arch']=='xresnet18d' and args['classes']==['dark', 'light']
    assert {'python', 'torch', 'fastai', 'bot'} <= set(args['versions'])
    assert any(o.startswith('fp16: True -> False') for o in args['changed'])

def test_its_python_is_the_run(done, tmp_path):
    "The script in `args.yaml` gives the same numbers"
    args = yaml.safe_load((done[0]/'args.yaml').read_text())
    script = args['python'] + '\nprint(learn.recorder.values[-1][:2])'
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', script], cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    got = [float(o) for o in re.findall(r'\d+\.\d+(?:e-?\d+)?', p.stdout.splitlines()[-1])]
    assert got==[float(rows(done[0])[-1][k]) for k in ('train_loss', 'valid_loss')]

def test_workers_change_nothing(done, images, tmp_path, capsys):
    rc,_,_ = run(capsys, images, '--epochs', 2, '--out', tmp_path/'b', *tiny, '--workers', 2)
    assert rc==0
    assert [o['valid_loss'] for o in rows(tmp_path/'b')]==[o['valid_loss'] for o in rows(done[0])]
    assert (tmp_path/'b/last.safetensors').read_bytes()==(done[0]/'last.safetensors').read_bytes()

def test_another_seed_does(done, images, tmp_path, capsys):
    assert run(capsys, images, '--epochs', 1, '--out', tmp_path/'b', *tiny, '--seed', 1)[0]==0
    assert rows(tmp_path/'b')[0]['valid_loss']!=rows(done[0])[0]['valid_loss']

def test_from_python(images, tmp_path, monkeypatch):
    "The same function in Jupyter; without `out`, a folder under `runs/`"
    monkeypatch.chdir(tmp_path)
    learn = train(str(images), 'baseline', epochs=1, arch='xresnet18a', widen=1/16, size=32, bs=8, workers=0, device='cpu')
    assert len(learn.run_folder.rows)==1
    assert [re.sub(r'\d', '0', o.name) for o in (tmp_path/'runs').iterdir()]==['00000000-000000-xresnet00a-baseline']

bad = """2 | IMAGES --size 0 | size=0
2 | IMAGES --bs 0 | bs=0
2 | IMAGES --bs 33 | 33
2 | IMAGES --rung mixpu | 'mixup'
2 | IMAGES --arch xresnet51d | xresnet51d
2 | IMAGES --epohcs 3 | '--epochs'
2 | IMAGES --epoch 3 | '--epochs'
2 | IMAGES --bs many | many
2 | IMAGES --device toaster | toaster
2 | IMAGES --but distil | 'distill'
2 | IMAGES --rung mixup | but='distill'
2 | IMAGES --epochs 2 --warmup 3 | warmup=3
2 | IMAGES --eps 1 | eps=1
2 | IMAGES --T 0 | T=0
2 | IMAGES --alpha -1 | alpha=-1
2 | IMAGES --workers -1 | workers=-1
2 | IMAGES --valid-pct 2 | valid_pct=2
2 | IMAGES --drops abc | abc
3 | no/such/place | no/such/place""".splitlines()

@pytest.mark.parametrize('k', bad)
def test_bad_values(k, images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rc,args,word = k.split(' | ')
    got,out,err = run(capsys, *args.replace('IMAGES', str(images)).split())
    assert got==int(rc), err
    assert word in err and len(err.splitlines())<=3 and 'Traceback' not in err
    assert not list(tmp_path.iterdir()), 'nothing is written'

def folders(root, **counts):
    for c,n in counts.items():
        (root/c).mkdir(parents=True)
        for i in range(n): shade(0, i).save(root/c/f'{i}.png')
    return root

def test_a_file_whose_name_begins_with_a_dash(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('-x.jpg').touch()
    assert predict_main(['run', '-x.jpg'])==2 and "write './-x.jpg'" in capsys.readouterr().err

def test_bad_folders(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty,one,unreadable = tmp_path/'empty',folders(tmp_path/'one', cat=3),folders(tmp_path/'unreadable', cat=3, dog=0)
    empty.mkdir(), (unreadable/'dog/1.jpg').write_text('not an image'), (unreadable/'dog/2.jpg').write_text('nor this')
    strange = tmp_path/'strange'
    folders(strange/'train', cat=3, dog=3), folders(strange/'valid', cat=1, cow=1)
    for src,words in {empty:'No images', one:"'cat'", unreadable:"'dog'", strange:"'cow'"}.items():
        rc,_,err = run(capsys, src)
        assert rc==3 and words in err and len(err.splitlines())<=3, (src, err)
    assert not (tmp_path/'runs').exists()

def test_hidden_folders_are_no_classes(images, tmp_path):
    from bot.sources import find_source
    root = folders(tmp_path, cat=5, dog=5)
    folders(tmp_path, **{'.ipynb_checkpoints':5})
    assert find_source(root).classes==['cat', 'dog']

def test_an_output_folder_that_is_not_empty(images, tmp_path, capsys):
    (tmp_path/'mine.txt').write_text('mine')
    rc,_,err = run(capsys, images, '--out', tmp_path)
    assert rc==2 and str(tmp_path) in err
    assert [o.name for o in tmp_path.iterdir()]==['mine.txt']

def test_debug_shows_where(images, capsys):
    with pytest.raises(Exception, match='no/such'): main(['no/such/place', '--debug'])

def test_divergence(images, tmp_path, capsys):
    rc,_,err = run(capsys, images, '--epochs', 2, '--out', tmp_path/'a', *tiny, '--rung', 'baseline', '--lr', 1e30)
    assert rc==4 and 'lr' in err and 'batch' in err
    assert json.loads((tmp_path/'a/status.json').read_text())['state']=='diverged'

@pytest.mark.parametrize('sig,rc,state', [pytest.param(signal.SIGINT, 130, 'interrupted', marks=pytest.mark.slow), (signal.SIGTERM, 143, 'terminated')])
def test_interrupts_keep_finished_epochs(sig, rc, state, images, tmp_path):
    out = tmp_path/'a'
    p = subprocess.Popen([sys.executable, '-c', code, str(images), '--epochs', '500', '--out', str(out), *tiny], stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))   # a background shell ignores it for its children
    try:
        for line in p.stdout:
            if line.startswith('epoch '): break
        p.send_signal(sig)
        p.communicate(timeout=60)
    finally: p.kill()
    assert p.returncode==rc
    assert rows(out) and (out/'last.safetensors').is_file() and (out/'best.safetensors').is_file()
    assert json.loads((out/'status.json').read_text())['state']==state
    assert not [o for o in out.iterdir() if o.name.startswith('.')]

def test_skipped_images_are_counted(images, tmp_path, capsys):
    root = folders(tmp_path/'data'/'train', cat=12, dog=12).parent
    folders(root/'valid', cat=4, dog=4)
    for o in root/'train/cat/3.png', root/'valid/dog/1.png': o.write_bytes(o.read_bytes()[:60])
    args = [root, '--epochs', 1, *tiny]
    rc,_,err = run(capsys, *args, '--out', tmp_path/'stop')
    assert rc==3 and '3.png' in err
    rc,out,err = run(capsys, *args, '--out', tmp_path/'skip', '--bad', 'skip')
    assert rc==0 and 'of 7 validation images, 1 unreadable' in out
    names = (tmp_path/'skip/unreadable.csv').read_text()
    assert 'train,' in names and 'valid,' in names and '3.png' in names and '1.png' in names

def test_help_lists_every_setting_with_its_rungs_default():
    for rung in 'baseline','mixup':
        h = ' '.join(parser(rung_values(['--rung', rung])).format_help().split())
        for k,v in recipe(rung).items(): assert f"--{k.replace('_', '-')} " in h and f'default: {v})' in h, k

def test_help_is_quick_and_light(tmp_path):
    p = shell('--help', cwd=tmp_path)
    assert p.returncode==0 and '--mixup-off' in p.stdout
    p = subprocess.run([sys.executable, '-X', 'importtime', '-c', code, '--help'], capture_output=True, text=True)
    assert not re.search(r'\b(torch|fastai|numpy|matplotlib|pandas)\b', p.stderr)

def test_an_interrupt_while_a_command_is_imported(monkeypatch, capsys):
    "Importing takes seconds, and Ctrl-C is as likely there as anywhere"
    from bot import cli
    def interrupted(*args): raise KeyboardInterrupt
    monkeypatch.setattr(cli, 'import_module', interrupted)
    for o in cli.eval_main, cli.predict_main, cli.export_main, cli.report_main: assert o([])==130
    monkeypatch.setattr(cli, 'parse', interrupted)
    assert main([])==130
    assert capsys.readouterr().err==''

def test_every_plain_switch_takes_true_and_false():
    from bot.call import opts_of, words_for
    from bot.export import export
    from bot.predict import predict_to
    for f,must in (export, ['runs/a']), (predict_to, ['runs/a', 'b.jpg']):
        switches = [k for k,o in opts_of(f).items() if o.anno is bool]
        assert switches
        for k in switches:
            o = f"--{k.replace('_', '-')}"
            assert words_for(f, 'x', [*must, o, 'true'])==words_for(f, 'x', [*must, o]) and words_for(f, 'x', [*must, o, 'true'])[k] is True
            assert k not in words_for(f, 'x', [*must, o, 'false']) and k not in words_for(f, 'x', [*must, f'{o}=no'])

def test_weights_and_switches_of_a_setting_stand_alone_in_every_command_that_has_them():
    "`bot-ablate photos --pretrained` was refused, though its help said 'alone or true'"
    from bot import cli
    from bot.ablation import ablate
    from bot.call import words_for
    for f in cli.train, cli.told(ablate):
        for o in ['photos','--pretrained'], ['--pretrained','photos'], ['--fp16=no','--pretrained','--','photos']:
            assert words_for(f, 'x', o)=={k:v for k,v in dict(src='photos', pretrained=True, fp16=False).items() if k!='fp16' or len(o)>2}
        assert words_for(f, 'x', ['photos','--pretrained','ra2_in1k','--fp16'])==dict(src='photos', pretrained='ra2_in1k', fp16=True)
