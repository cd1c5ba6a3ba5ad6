"A run asked about images, from the outside: what is written, in which order, without fastai; a run judged, against fastai and timm; and what is said of input that cannot be used"
import csv, io, json, os, shutil, signal, subprocess, sys
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch, yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from bot.augment import paper_cfg, view
from bot.core import csv_text, DataError, UsageError
from bot.evaluate import evaluate, labelled_images, metric_lines
from bot.files import run_file
from bot.images import Encoded
from bot.judge import read_predictions, wilson
from bot.models import xresnet18d
from bot.predict import image_files, open_model, predict, predict_to, Views
from bot.weights import timm_cfg
from pictures import lay_shades, shade

@pytest.fixture(scope='session')
def images(tmp_path_factory): return lay_shades(tmp_path_factory.mktemp('images'))

def trained(images, out, **kwargs):
    "A run of two epochs"
    from bot.block import bag_dls
    from bot.learner import bag_learner
    from bot.resume import recorded
    dls = bag_dls(images, size=32, bs=8, num_workers=0, device='cpu', **kwargs)
    learn = bag_learner(dls, 'baseline', arch='xresnet18d', widen=1/16, epochs=2)
    with learn.no_bar(), learn.no_logging(), recorded(learn, out): learn.fit_rung()
    return out

@pytest.fixture(scope='session')
def run(images, tmp_path_factory): return trained(images, tmp_path_factory.mktemp('runs')/'a')

def made(path, classes=('cat','dog'), **more):
    "A run folder written by hand, of an untrained network"
    path.mkdir(parents=True)
    args = dict(rung='baseline', settings=dict(arch='xresnet18d', widen=1/16, size=32), normalized={k:list(paper_cfg[k]) for k in ('mean','std')}, classes=list(classes))
    (path/'args.yaml').write_text(yaml.safe_dump(args | more))
    torch.manual_seed(0)
    save_file(xresnet18d(n_out=len(classes), widen=1/16).state_dict(), path/'best.safetensors', dict(bot=json.dumps(dict(arch='xresnet18d'))))
    return path

here = os.environ | dict(PYTHONPATH=str(Path(__file__).parents[1]))

def process(code, *words, **kw): return subprocess.run([sys.executable, '-c', code, *map(str, words)], capture_output=True, env=here, **kw)

ask = 'import sys; from bot.predict import predict_to; sys.exit(predict_to(sys.argv[1], sys.argv[2:], device="cpu"))'

def table(text): return list(csv.DictReader(io.StringIO(text)))

# ---- prediction

def test_answers_are_those_of_the_learner(run, images):
    "fastai's own prediction of the same run"
    from bot.runs import load_run
    learn,files = load_run(run, device='cpu'),image_files(images/'test')
    with learn.no_bar(): ref = learn.get_preds(dl=learn.dls.test_dl(files))[0]
    rows = list(predict(run, files, top=2, device='cpu'))
    assert [o['class'] for o in rows]==[learn.dls.vocab[i] for i in ref.argmax(1)]
    assert np.allclose([o['probability'] for o in rows], ref.max(1)[0], atol=2e-6)

@pytest.mark.parametrize('workers', [0, 2])
def test_order_is_kept_and_bad_images_are_rows(run, tmp_path, workers):
    files = []
    for i in range(150):
        files.append(tmp_path/f'{i*7%150:03d}.png')
        if i%11: shade(i%2, i).save(files[-1])
        elif i: files[-1].write_bytes(b'\x89PNG nothing' if i%2 else b'')
    rows = list(predict(run, files, workers=workers, device='cpu'))
    assert [o['path'] for o in rows]==[str(f) for f in files]
    assert [bool(o['error']) for o in rows]==[not i%11 for i in range(150)]
    assert rows[0]==dict(path=str(files[0]), error='No such file or directory')
    alone = [next(predict(run, files[i], device='cpu')) for i in (1, 70, 149)]
    for a,i in zip(alone, (1, 70, 149)): assert a | dict(probability=0)==rows[i] | dict(probability=0) and abs(a['probability']-rows[i]['probability'])<2e-6

def test_spawned_workers(run, tmp_path):
    for i in range(3): shade(1, i).save(tmp_path/f'{i}.png')
    script = tmp_path/'s.py'
    script.write_text(f"import multiprocessing\nfrom bot.predict import predict\nif __name__=='__main__':\n    multiprocessing.set_start_method('spawn')\n"
        f"    print([o['error'] for o in predict({str(run)!r}, {str(tmp_path)!r}, workers=2, device='cpu')])\n")
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=here)
    assert out.stdout.strip()=="['', '', '']", out.stderr

def test_a_process_needs_no_fastai(run, images):
    out = process(ask.replace('sys.exit(', 'code = (')+"; print(code, [o for o in sys.modules if o.split('.')[0] in ('fastai','pandas')])", run, images/'test/dark')
    assert out.stdout.decode().splitlines()[-1]=='0 []' and len(table(out.stdout.decode()))==7, out.stderr

@pytest.mark.parametrize('end', [b'\n', b'\r\n', b'\0'])
def test_a_list_on_standard_input(run, images, tmp_path, end):
    odd = tmp_path/('a b\n.jpg' if end==b'\0' else 'a, b.jpg')
    shade(0, 1).save(odd)
    out = process(ask, run, '-', input=end.join([os.fsencode(odd), b'none.jpg', b'']))
    assert [(o['path'],o['error']) for o in table(out.stdout.decode())]==[(str(odd),''), ('none.jpg','No such file or directory')]
    assert out.returncode==0 and b'1 of 2 images could not be read' in out.stderr and b'Traceback' not in out.stderr

def test_a_folder_is_read_as_a_source_is(run, tmp_path, capsys):
    for o in '.hidden/a.jpg', 'b/c.JPEG', 'b/a.jpg', '.a.jpg', 'x.txt': (tmp_path/o).parent.mkdir(exist_ok=True), (tmp_path/o).touch()
    shutil.copytree(run, tmp_path/'run')
    assert [os.path.relpath(o, tmp_path) for o in image_files([tmp_path])]==['b/a.jpg','b/c.JPEG']
    assert 'run folders' in capsys.readouterr().err

def test_exit_codes(run, images, tmp_path, capsys):
    (tmp_path/'empty').mkdir()
    bad = tmp_path/'bad.jpg'
    bad.write_bytes(b'')
    good = images/'test/dark/0.jpg'
    assert predict_to(run, [bad, good], out=tmp_path/'o.csv', device='cpu')==0
    assert predict_to(run, [bad, tmp_path/'empty'], out=tmp_path/'o.csv', device='cpu')==3
    assert [o['error'] for o in table((tmp_path/'o.csv').read_text())][1]=='a folder without images'
    with pytest.raises(UsageError, match='No images'): predict_to(run, [], device='cpu')

def test_nobody_reads_any_more(run, images):
    "As `head` does: no traceback"
    p = subprocess.Popen([sys.executable, '-c', 'import sys; from bot.core import HungUp\ntry: '+ask.replace('import sys; ', '').replace('; sys', '\nexcept ImportError: pass\ntry: sys')+'\nexcept HungUp as e: sys.exit(e.code)',
        str(run), str(images)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=here)
    p.stdout.close()
    err = p.stderr.read().decode()
    assert p.wait()==129 and 'Traceback' not in err and 'Exception ignored' not in err, err

def test_a_spreadsheet_runs_nothing(tmp_path):
    classes = ['=cmd()', '+1+1', '@SUM(A1)', '-2+3', '\tx', 'plain, "quoted"', '-7']
    r,f = made(tmp_path/'run', classes),tmp_path/'a.png'
    shade(1, 0).save(f)
    assert predict_to(r, [f], top=9, out=tmp_path/'o.csv', device='cpu')==0
    row, = table((tmp_path/'o.csv').read_text())
    cells = {row[k] for k in row if k.startswith('class')}
    assert cells=={"'=cmd()", "'+1+1", "'@SUM(A1)", "'-2+3", "'\tx", 'plain, "quoted"', '-7'}
    assert predict_to(r, [f], top=9, jsonl=True, out=tmp_path/'o.jsonl', device='cpu')==0
    assert {v for k,v in json.loads((tmp_path/'o.jsonl').read_text()).items() if k.startswith('class')}==set(classes)

def test_columns(run, images):
    rows = list(predict(run, images/'test', top=5, device='cpu'))
    assert list(rows[0])==['path','class','probability','class_2','probability_2','error'] and abs(rows[0]['probability']+rows[0]['probability_2']-1)<1e-5

# ---- one record

@pytest.mark.parametrize('cfg', [dict(crop_pct=.95), dict(crop_pct=.9, crop_mode='squash'), dict(crop_pct=1., input_size=(3,288,288))])
@pytest.mark.parametrize('shape', [(300,400), (517,333), (90,120)])
def test_views_of_timm(cfg, shape):
    "timm's own transform, byte for byte"
    timm = pytest.importorskip('timm')
    im = Image.fromarray(np.random.RandomState(0).randint(0, 256, (shape[0]//5,shape[1]//5,3)).astype(np.uint8)).resize(shape[::-1], Image.Resampling.BICUBIC)
    size = cfg.get('input_size', (3,224,224))[-1]
    theirs = timm.data.create_transform((3,size,size), interpolation='bicubic', crop_pct=cfg['crop_pct'], crop_mode=cfg.get('crop_mode', 'center'), mean=(0,)*3, std=(1,)*3)(im)
    f = io.BytesIO()
    im.save(f, 'PNG')
    assert torch.equal(view(Encoded(f.getvalue()), timm_cfg(cfg)), (theirs*255).round().byte())

@pytest.mark.parametrize('reading', ['paper', 'gluoncv'])
def test_a_run_of_before_the_record(images, tmp_path, reading):
    "Its folder says as little as it did: what is shown is what its validation saw"
    r = trained(images, tmp_path/'run', reading=reading)
    new,args = open_model(r, device='cpu')[1].data_cfg,yaml.safe_load((r/'args.yaml').read_text())
    assert args['data_cfg']['antialias']==(reading=='paper') and new['crop']==dict(paper='round', gluoncv='floor')[reading]
    args.pop('data_cfg')
    (r/'args.yaml').write_text(yaml.safe_dump(args))
    tensors,cfg = load_file(r/'best.safetensors'),{k:new[k] for k in ('mean','std','scale','size','crop_pct','interpolation')} | dict(weights=None)
    for o in (r/'status.json', r/'best.safetensors'): o.unlink()
    save_file(tensors, r/'best.safetensors', dict(bot=json.dumps(dict(arch='xresnet18d', data_cfg=json.dumps(cfg)))))
    assert open_model(r, device='cpu')[1].data_cfg | dict(weights=0)==new | dict(weights=0)

def test_the_record_decides(images, tmp_path):
    "Another record in the weight file: another view, in prediction and in a learner alike"
    from bot.runs import load_run
    r,cfg = made(tmp_path/'run'),paper_cfg | dict(size=48, crop_pct=1., interpolation='bicubic', edge='floor')
    save_file(load_file(r/'best.safetensors'), r/'best.safetensors', dict(bot=json.dumps(dict(arch='xresnet18d', data_cfg=json.dumps(cfg)))))
    f = image_files(images/'test')[0]
    x,why = Views([f], open_model(r, device='cpu')[1].data_cfg)[0]
    assert torch.equal(x, view(Encoded(f), cfg)) and not torch.equal(x, view(Encoded(f), cfg | dict(interpolation='bilinear')))
    learn = load_run(r, device='cpu')
    with learn.no_bar(): p = learn.get_preds(dl=learn.dls.test_dl([f]))[0].max().item()
    assert abs(next(predict(r, f, device='cpu'))['probability']-p)<2e-6

# ---- evaluation

@pytest.mark.parametrize('reading', ['paper', 'gluoncv'])
def test_a_run_judged_as_its_validation_was(images, tmp_path, reading):
    "fastai's `validate`, and the file that the run wrote"
    from bot.runs import load_run
    r = trained(images, tmp_path/'run', reading=reading)
    m = evaluate(r, device='cpu').metrics
    learn = load_run(r, data=True, device='cpu')
    with learn.no_bar(), learn.no_logging(): loss,acc = learn.validate()
    assert abs(m['loss']-loss)<1e-5 and m['accuracy']==pytest.approx(acc) and m['images']==12
    was = {o['path']:o['predicted'] for o in csv.DictReader(open(run_file(r, 'predictions')))}
    assert {o['path']:o['predicted'] for o in evaluate(r, device='cpu').rows}==was

def test_first_line_and_what_spoils_it(run, images):
    res = evaluate(run, device='cpu')
    k,n = res.metrics['right'],res.metrics['images']
    lo,hi = wilson(k, n)
    lines = str(res).splitlines()
    assert lines[0]==f'accuracy {k/n:.2%} (95% interval {lo:.2%} to {hi:.2%}: {k} of {n} images)'
    assert lines[1]=='caution: best of 2 epochs on these images: too good by a little'
    whole = evaluate(run, images, split='train', device='cpu')
    assert 'trained on these images' in str(whole).splitlines()[1] and whole.metrics['split']=='train'
    assert not evaluate(run, which='last', device='cpu').metrics['cautions']

def test_the_same_images_elsewhere_are_others(run, images, tmp_path):
    "Nothing is claimed of files that the run has not met; links to those that it has are known"
    shutil.copytree(images/'test', tmp_path/'copy'), (tmp_path/'links').symlink_to(images/'test')
    assert evaluate(run, tmp_path/'copy', device='cpu').metrics['cautions']==[]
    assert len(evaluate(run, tmp_path/'links', device='cpu').metrics['cautions'])==1

def test_best_and_last(run, images, tmp_path):
    "The other epoch's accuracy on the same pixels"
    r = shutil.copytree(run, tmp_path/'run')
    (r/'status.json').unlink()
    for role in 'best','last': shutil.copy(run_file(run, role), r/f'{role}.safetensors.new'), os.replace(r/f'{role}.safetensors.new', r/f'{role}.safetensors')
    rows = list(csv.DictReader((r/'metrics.csv').open()))
    for i,o in enumerate(rows): o['accuracy'] = 1-i
    (r/'metrics.csv').write_text(csv_text(rows))
    tensors = load_file(r/'last.safetensors')
    save_file(tensors | {'fc.weight': -tensors['fc.weight'], 'fc.bias': -tensors['fc.bias']}, r/'last.safetensors', dict(bot=json.dumps(dict(arch='xresnet18d'))))
    a,b = (evaluate(r, which=o, device='cpu').metrics for o in ('best','last'))
    assert (a['epoch'],a['epochs'],b['epoch'])==(1,2,2) and a['other']=='last'
    assert a['other_accuracy']==b['accuracy'] and b['other_accuracy']==a['accuracy'] and f"the last have {b['accuracy']:.2%}" in '\n'.join(metric_lines(a))

def test_tta_is_keyed(run):
    a,b = (evaluate(run, tta=3, device='cpu', workers=w) for w in (0, 2))
    assert (a.predictions.p==b.predictions.p).all() and a.metrics['tta']==3
    assert not np.allclose(a.predictions.p, evaluate(run, device='cpu').predictions.p)

def test_flip_is_the_mean_of_both(run, images):
    _,model = open_model(run, device='cpu')
    from bot.predict import logits
    f = image_files(images/'test')[:1]
    x = Views(f, model.data_cfg)[0][0][None]
    both = torch.stack([logits(model, o, model.data_cfg).softmax(1) for o in (x, x.flip(-1))]).mean(0)
    got = logits(model, Views(f, model.data_cfg, tta='flip')[0][0][None], model.data_cfg).exp()
    assert torch.allclose(both, got, atol=1e-6)

def test_flip_of_averaged_weights(images, tmp_path):
    "What is judged is the mean that the run kept, not the weights that it goes on with, and the report says so"
    from bot.block import bag_dls
    from bot.learner import bag_learner
    from bot.predict import logits
    from bot.resume import recorded
    learn = bag_learner(bag_dls(images, size=32, bs=8, num_workers=0, device='cpu'), 'baseline', arch='xresnet18d', widen=1/16, epochs=2, ema=3)
    with learn.no_bar(), learn.no_logging(), recorded(learn, tmp_path/'a'): learn.fit_rung()
    for which in 'best','last':
        o = evaluate(tmp_path/'a', which=which, tta='flip', device='cpu')
        assert f'weights: {which} of the averaged model' in str(o) and 'views flip' in str(o) and o.metrics['averaged']
    cfg,every = open_model(tmp_path/'a', device='cpu')[1].data_cfg,image_files(images/'test')
    files = [next(f for f in every if str(f).endswith(k)) for k in o.predictions.paths]
    def both(model):
        xs = [Views([f], cfg)[0][0][None] for f in files]
        return torch.cat([torch.stack([logits(model.eval(), v, cfg).softmax(1) for v in (x, x.flip(-1))]).mean(0) for x in xs]).max(1).values
    with torch.no_grad(), learn.bag_ema.averaged(): mean = both(learn.model)
    with torch.no_grad(): raw = both(learn.model)
    p = torch.as_tensor(o.predictions.p[:,0], dtype=mean.dtype)   # of the class it is surest of
    assert torch.allclose(mean, p, atol=1e-4) and not torch.allclose(raw, p, atol=1e-3), (mean, raw, p)

def test_a_plain_run_has_no_mean(run): assert 'averaged model' not in str(evaluate(run, tta='flip', device='cpu'))

def test_another_size(run, images):
    assert evaluate(run, size=48, device='cpu').metrics['size']==48
    with pytest.raises(UsageError, match='size=8'): evaluate(run, size=8, device='cpu')

def test_some_of_the_classes(run, images, tmp_path):
    shutil.copytree(images/'test/dark', tmp_path/'some/dark')
    m = evaluate(run, tmp_path/'some', device='cpu').metrics
    assert m['images']==6 and [o['images'] for o in m['classes']]==[6,0]

def test_parts_of_a_table(run, images, tmp_path):
    rows = [(o.relative_to(images), o.parent.name, 'holdout' if i%3==1 else 'testing' if i%3 else 'train') for i,o in enumerate(sorted((images/'test').glob('*/*.jpg')))]
    t = tmp_path/'t.csv'
    t.write_text('image,label,split\n'+'\n'.join(','.join(map(str, o)) for o in rows))
    for split,n in (None,4), ('valid',4), ('train',4): assert evaluate(run, t, split, root=images, device='cpu').metrics['images']==n
    assert evaluate(run, t, root=images, device='cpu').metrics['split']=='test'
    t.write_text('image,label\n'+'\n'.join(','.join(map(str, o[:2])) for o in rows))
    assert evaluate(run, t, root=images, device='cpu').metrics['images']==12

def test_only_a_test_folder(run, images, tmp_path):
    shutil.copytree(images/'test', tmp_path/'d/test')
    assert labelled_images(tmp_path/'d').pick()[0]=='test'
    shutil.copytree(images/'test', tmp_path/'d/val')
    assert [labelled_images(tmp_path/'d').pick(o)[0] for o in (None, 'valid')]==['test','valid']

# ---- bad input

def test_no_run(run, images, tmp_path):
    begun = made(tmp_path/'begun')
    (begun/'best.safetensors').unlink(), (begun/'status.json').write_text('{"state": "running", "epochs": 0}')
    for f in partial_predict, partial_eval:
        with pytest.raises(DataError, match='no run folder: it has no args.yaml'): f(tmp_path/'none', images, tmp_path/'out')
        with pytest.raises(DataError, match='its first epoch did not end'): f(begun, images, tmp_path/'out')
        other = made(tmp_path/f'other{f.__name__}')
        save_file(xresnet18d(n_out=3, widen=1/16).state_dict(), other/'best.safetensors', dict(bot=json.dumps(dict(arch='xresnet18d'))))
        with pytest.raises(DataError, match='has not the weights of this run'): f(other, images, tmp_path/'out')
        save_file({k:v for k,v in xresnet18d(n_out=2, widen=1/16).state_dict().items() if 'layer3' not in k}, other/'best.safetensors')
        with pytest.raises(UsageError, match='missing: layer3'): f(other, images, tmp_path/'out')
    assert not (tmp_path/'out').exists()

def partial_predict(r, images, out): return predict_to(r, [images/'test'], out=out, device='cpu')
def partial_eval(r, images, out): return evaluate(r, images, out=out, device='cpu')

def test_no_labels_no_classes(run, images, tmp_path):
    flat = tmp_path/'flat'
    shutil.copytree(images/'test/dark', flat)
    with pytest.raises(DataError, match='no class folders'): evaluate(run, flat, out=tmp_path/'out', device='cpu')
    (tmp_path/'t/test').mkdir(parents=True), shutil.copytree(images/'train', tmp_path/'t/train')
    shutil.copy(images/'test/dark/0.jpg', tmp_path/'t/test')
    with pytest.raises(DataError, match='have no class'): evaluate(run, tmp_path/'t', out=tmp_path/'out', device='cpu')
    (tmp_path/'t.csv').write_text('image\na.jpg\n')
    with pytest.raises(DataError, match="No column 'label'"): evaluate(run, tmp_path/'t.csv', out=tmp_path/'out', device='cpu')
    with pytest.raises(DataError, match='does not know: dark'): evaluate(made(tmp_path/'cats'), images, out=tmp_path/'out', device='cpu')
    with pytest.raises(DataError, match='No such folder'): evaluate(run, tmp_path/'nowhere', out=tmp_path/'out', device='cpu')
    assert not (tmp_path/'out').exists()

def test_nothing_can_be_read(run, tmp_path):
    (tmp_path/'d/dark').mkdir(parents=True), (tmp_path/'d/dark/a.jpg').write_bytes(b'')
    with pytest.raises(DataError, match='None of 1 image '): evaluate(run, tmp_path/'d', out=tmp_path/'out', device='cpu')
    assert not (tmp_path/'out').exists()

def test_the_images_have_changed(run, images, tmp_path):
    moved = shutil.copytree(images, tmp_path/'images')
    r = trained(moved, tmp_path/'run')
    (moved/'test/dark/0.jpg').unlink()
    with pytest.raises(DataError, match='validation images 12 -> 11'): evaluate(r, device='cpu')
    assert evaluate(r, moved, device='cpu').metrics['images']==11

def test_out_is_whole_or_not_there(run, images, tmp_path, monkeypatch):
    out = tmp_path/'judged'
    monkeypatch.setattr('bot.evaluate.json.dumps', lambda *a, **k: 1/0)
    with pytest.raises(ZeroDivisionError): evaluate(run, images, out=out, device='cpu')
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    evaluate(run, images, out=out, device='cpu')
    assert sorted(o.name for o in out.iterdir())==['metrics.json','predictions.csv']
    with pytest.raises(UsageError, match='not empty'): evaluate(run, images, out=out, device='cpu')

def test_a_long_strip_is_a_row(run, tmp_path):
    Image.fromarray(np.zeros((1,60000,3), np.uint8)).save(tmp_path/'strip.png')
    row = next(predict(run, tmp_path/'strip.png', size=2048, device='cpu'))
    assert 'too long' in row['error']

def test_an_output_file_is_asked_for_before_the_images_are(run, images, tmp_path, monkeypatch):
    "An hour's rows are not lost for the want of a folder"
    monkeypatch.setattr('bot.predict.image_files', lambda paths: pytest.fail('images are looked for first'))
    (tmp_path/'file').write_text('')
    for out in tmp_path, tmp_path/'file/a.csv':
        with pytest.raises(UsageError, match='--out'): predict_to(run, [images], out=out, device='cpu')
    monkeypatch.undo()
    assert predict_to(run, [images], out=tmp_path/'new/folder/a.csv', device='cpu')==0
    assert (tmp_path/'new/folder/a.csv').read_text().startswith('path,')

@pytest.mark.parametrize('sig,rc', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_ends_quietly(sig, rc, run, images, tmp_path):
    "As Ctrl-C and `timeout` send it, to workers too"
    one = image_files([images])[0]
    (tmp_path/'list').write_text(f'{one}\n'*20_000)
    with open(tmp_path/'list') as said:
        p = subprocess.Popen([sys.executable, '-m', 'bot', 'predict', str(run), '-', '--workers', '2'], stdin=said, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[1], start_new_session=True, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
    try:
        for _ in range(40): p.stdout.readline()
        os.killpg(p.pid, sig)
        _,err = p.communicate(timeout=60)
    finally: p.kill()
    assert (p.returncode, err)==(rc, '')

def test_names_that_are_formulas_stay_text_in_every_table(images, tmp_path):
    "The predictions of a run and of an evaluation, which are read again too"
    odd = tmp_path/'odd'
    for o in image_files([images]):
        to = odd/os.path.relpath(o, images)
        to = odd/Path(*[f'={p}()' if p in os.listdir(Path(images)/'train') else p for p in to.relative_to(odd).parts])
        to.parent.mkdir(parents=True, exist_ok=True), shutil.copy(o, to)
    made_run = trained(odd, tmp_path/'run')
    res = evaluate(made_run, str(odd), out=tmp_path/'judged', device='cpu')
    for file in tmp_path/'judged/predictions.csv', made_run/'predictions.csv':
        with open(file, newline='') as f: cells = [o for row in csv.reader(f) for o in row]
        assert not [o for o in cells if o[:1] in tuple('=+@')] and [o for o in cells if o.startswith("'=")]
        again = read_predictions(file, res.predictions.classes)
        assert again.classes[again.y[0]].startswith('=') and (odd/again.paths[0]).is_file()

def test_a_worker_is_silent_of_what_is_no_longer_taken():
    "The thread that hands images over says so by `sys.excepthook`; other errors are told"
    code = 'import sys; from bot.workers import leave_signals_to_main; leave_signals_to_main()\nfor e in (ConnectionResetError(),EOFError(),ValueError("said")): sys.excepthook(type(e), e, None)'
    p = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert p.stderr.strip()=='ValueError: said' and p.returncode==0
