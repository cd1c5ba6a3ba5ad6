"Folders of Hugging Face's `datasets`: the same bits as from the folder of images, and what is said of those that do not fit"
import csv, json, os, pickle, shutil, sys
from importlib.util import find_spec
from pathlib import Path
import pytest
from bot.block import bag_dls
from bot.check import check
from bot.cli import check_main, eval_main, main, predict_main, report_main
from bot.core import DataError
from bot.images import ImageError
from bot.links import size_of
from bot.runs import load_run
from bot.shards import path_bytes, path_stat
from bot.sources import find_source
from bot.writing import shard
from pictures import encode, lay_shades, shade
from same_bits import batches, check_batches, check_goes_on, check_weights, run, same, tiny

needs = pytest.mark.skipif(not find_spec('datasets'), reason='the extra [hf]')

@pytest.fixture(scope='session')
def images(tmp_path_factory): return lay_shades(tmp_path_factory.mktemp('images')/'photos')

def rows_of(items, **more):
    import datasets as d
    d.disable_progress_bars()
    cols = dict(image=[dict(bytes=Path(f).read_bytes(), path=Path(f).name) for f,_ in items], label=[c for _,c in items]) | more
    return d.Dataset.from_dict(cols, features=d.Features(image=d.Image(), label=d.ClassLabel(names=['light','dark']), **{k:d.Value('int64') for k in more}))

@pytest.fixture(scope='session')
def saved(images, tmp_path_factory):
    "Of the folder, in its order; the names of the classes in another"
    from datasets import DatasetDict
    src,path = find_source(images),tmp_path_factory.mktemp('saved')/'s'
    train,valid = rows_of(src.items[:src.n_train], number=list(range(src.n_train))),rows_of(src.items[src.n_train:])
    DatasetDict(validation=valid, train=train).save_to_disk(path, num_shards=dict(train=3, validation=1))
    return path

def made(path, cols, **features):
    import datasets as d
    d.disable_progress_bars()
    kinds = dict(image=d.Image(), classes=d.ClassLabel(names=['a','b']), floats=d.Value('float32'), text=d.Value('string'), whole=d.Value('int64'))
    d.Dataset.from_dict(cols, features=d.Features({k:kinds[v] for k,v in features.items()})).save_to_disk(path)
    return path

def pictures(n): return [dict(bytes=encode(shade(i%2, i)), path=None) for i in range(n)]

# ---- the same bits

@needs
def test_the_same_batches(images, saved): check_batches(images, saved)

@needs
def test_the_same_weights(images, saved, tmp_path): check_weights(images, saved, tmp_path)

@needs
def test_one_split_is_split_as_a_folder_is(images, tmp_path):
    rows_of(find_source(images/'train').train+find_source(images/'train').valid).save_to_disk(tmp_path/'d')
    items = find_source(tmp_path/'d')
    assert (items.n_train, items.n_valid, items.how)==(26, 6, find_source(images/'train').how)
    assert len({f for f,_ in items.items})==32 and same(batches(tmp_path/'d'), batches(tmp_path/'d', workers=2, method='spawn'))

@needs
def test_what_is_said_of_it(saved, capsys):
    src = find_source(saved)
    assert src.describe().splitlines()[0]==f'{saved}: 32 training and 12 validation images (split validation), 2 classes, about 40 px'
    assert src.classes==['dark','light'] and src.notes==['columns not used: number']
    path = src.items[20][0]
    assert path==f'{saved}/train/00000020.row' and path_stat(path).st_size==size_of(path)==len(path_bytes(path))
    assert len(pickle.dumps(bag_dls(saved, size=32, bs=8, num_workers=0, device='cpu').train_ds))<20_000

@needs
def test_a_stopped_run_goes_on(saved, tmp_path): check_goes_on(saved, saved, tmp_path)

# ---- everything that reads images

@pytest.fixture(scope='session')
def trained(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs')/'a'
    assert main([str(saved), '--out', str(out), *tiny])==0
    return out

@needs
def test_a_run_finds_its_images_again(trained, saved, images, tmp_path, capsys):
    "And refuses others of the same number"
    learn = load_run(trained, data=True)
    assert len(learn.dls.train_ds)==32 and learn.dls.valid_ds[0][1]==0
    shutil.copytree(trained, tmp_path/'r')
    args = (tmp_path/'r/args.yaml').read_text()
    other = lay_shades(tmp_path/'other')
    for f in (other/'train').rglob('*.jpg'): f.write_bytes(f.read_bytes()+b'\0')
    src = find_source(other)
    from datasets import DatasetDict
    DatasetDict(train=rows_of(src.items[:32], number=list(range(32))), validation=rows_of(src.items[32:])).save_to_disk(tmp_path/'s')
    (tmp_path/'r/args.yaml').write_text(args.replace(str(saved), str(tmp_path/'s')))
    rc,_,err = run(eval_main, capsys, tmp_path/'r', '--device', 'cpu')
    assert rc==3 and 'not those that the run began with' in err

@needs
def test_predict_eval_and_report(trained, images, saved, tmp_path, capsys):
    rows = []
    for o in [f for f,_ in find_source(images).items[32:]],[saved/'validation']:
        assert run(predict_main, capsys, trained, *o, '--out', tmp_path/'p.csv', '--device', 'cpu')[0]==0
        rows.append(list(csv.DictReader((tmp_path/'p.csv').open())))
    assert [(o['class'], o['probability']) for o in rows[0]]==[(o['class'], o['probability']) for o in rows[1]] and len(rows[0])==12
    assert len(list(csv.DictReader((tmp_path/'p.csv').open())))==12
    for src,n in ((saved, 12), (saved/'train', 32)):
        rc,out,err = run(eval_main, capsys, trained, src, '--device', 'cpu')
        assert rc==0 and f'{n} images' in out, err
    assert run(report_main, capsys, trained)[0]==0
    page = (trained/'report.html').read_text()
    assert page.count('data:image/jpeg')>=2 and 'cannot be shown' not in page

@needs
def test_check_exclude_and_shard(images, saved, tmp_path):
    a,b = (check(o, tmp_path/o.name, workers=0) for o in (images,saved))
    assert [(c.kind, len(c.images), c.said) for c in a.cases]==[(c.kind, len(c.images), c.said) for c in b.cases if c.kind!='unused']
    (tmp_path/'out.csv').write_text('image,reason\ntrain/00000003.row,dark\n')
    src = find_source(saved, exclude=tmp_path/'out.csv')
    assert src.n_train==31 and not any(f.endswith('train/00000003.row') for f,_ in src.items) and '1 excluded' in src.describe()
    out = shard(saved, tmp_path/'shards', workers=0)
    assert [(path_bytes(f), c) for f,c in find_source(out).items]==[(path_bytes(f), c) for f,c in find_source(saved).items]

# ---- what is wrong with images and columns

@needs
def test_rows_without_an_image(tmp_path, capsys):
    cols = dict(image=pictures(12), label=[i%2 for i in range(12)])
    cols['image'][5],cols['image'][8] = None,dict(bytes=b'torn', path=None)
    path = made(tmp_path/'d', cols, image='image', label='classes')
    rc,_,err = run(main, capsys, path, *tiny, '--out', tmp_path/'r', '--bs', 4, '--epochs', 2)
    assert rc==3 and ('00000005.row' in err or '00000008.row' in err) and len(err.splitlines())<=3
    rc,said,_ = run(main, capsys, path, *tiny, '--out', tmp_path/'r2', '--bad', 'skip', '--bs', 4, '--epochs', 2)
    assert rc==0 and f"cannot read '{path}/00000005.row': the row has no image" in said+(tmp_path/'r2/unreadable.csv').read_text().replace(',', "': ")
    rc,said,_ = run(check_main, capsys, path, '--out', tmp_path/'c', '--workers', 0)
    assert rc==3 and '00000005.row' in said
    with pytest.raises(ImageError, match='0000000[58].row'):
        for method in 'fork','spawn':
            for _ in bag_dls(path, size=32, bs=4, num_workers=2, start_method=method, device='cpu').train: pass

two = [0,1]*4
odd = [(dict(pic='text', label='classes'), dict(pic=['x']*8, label=two), 'no column of images, but pic, label'),
    (dict(a='image', b='image', label='classes'), dict(a=pictures(8), b=pictures(8), label=two), '2 columns of images, a, b'),
    (dict(image='image', score='floats'), dict(image=pictures(8), score=two), 'no column of classes, but image, score'),
    (dict(image='image', label='floats'), dict(image=pictures(8), label=two), 'Column label of * is float32'),
    (dict(image='image', fine='classes', coarse='classes'), dict(image=pictures(8), fine=two, coarse=two), '2 columns that may be the class, fine, coarse'),
    (dict(image='image', label='classes'), dict(image=pictures(8), label=[0,1,None,-1,0,1,0,1]), 'Row 2 of * has no class (2 such rows'),
    (dict(image='image', label='text'), dict(image=pictures(8), label=['a','b',' ']*2+['a','b']), 'Row 2 of * has no class (2 such rows'),
    (dict(image='image', label='classes'), dict(image=[], label=[]), 'is a data set without rows'),
    (dict(image='image', label='classes'), dict(image=pictures(8), label=[1]*8), "One class in * 'b'"),
    (dict(image='image', label='classes'), dict(image=[None]*8, label=two), "No readable image of class 'a'*the row has no image")]

@needs
@pytest.mark.parametrize('features, cols, says', odd, ids=[o[2][:24] for o in odd])
def test_columns_that_do_not_fit(tmp_path, capsys, features, cols, says):
    rc,_,err = run(main, capsys, made(tmp_path/'d', cols, **features), *tiny, '--out', tmp_path/'r')
    parts = says.split('*')
    assert rc==3 and all(o.strip() in err for o in parts) and len(err.splitlines())<=2, err

@needs
def test_words_and_numbers_are_classes(tmp_path):
    assert find_source(made(tmp_path/'a', dict(image=pictures(8), kind=['x','y ']*4), image='image', kind='text')).classes==['x','y']
    assert find_source(made(tmp_path/'b', dict(image=pictures(8), label=[3,10]*4, text=['t']*8), image='image', label='whole', text='text')).classes==['10','3']

def cut_short(out): os.truncate(out/'train/data-00001-of-00003.arrow', (out/'train/data-00001-of-00003.arrow').stat().st_size//2)
def no_end(out): os.truncate(out/'train/data-00000-of-00003.arrow', (out/'train/data-00000-of-00003.arrow').stat().st_size-8)
def gone(out): (out/'train/data-00002-of-00003.arrow').unlink()
def no_split(out): shutil.rmtree(out/'validation')
def no_state(out): (out/'train/state.json').unlink()
def torn(out): (out/'train/dataset_info.json').write_text('{"features": ')
def flipped(out):
    f = out/'train/data-00000-of-00003.arrow'
    f.write_bytes(b'\xff\xff\xff\xff'+b'\xff'*200+f.read_bytes()[204:])

@needs
@pytest.mark.parametrize('harm, words', [(cut_short, ['data-00001', 'cut short']), (no_end, ['data-00000', 'cut short']), (gone, ['data-00002', 'No such file']), (no_split, ['validation', 'dataset_info.json']),
    (no_state, ['state.json', 'No such file']), (torn, ['dataset_info.json', 'Cannot read']), (flipped, ['Cannot open', 'train'])], ids=lambda o: getattr(o, '__name__', ''))
def test_what_is_damaged(saved, tmp_path, capsys, harm, words):
    shutil.copytree(saved, tmp_path/'s')
    harm(tmp_path/'s')
    rc,_,err = run(main, capsys, tmp_path/'s', *tiny, '--out', tmp_path/'r')
    assert rc==3 and all(o in err for o in words) and 'again' in err and len(err.splitlines())==1, err

# ---- without the library

def test_without_the_library(tmp_path, monkeypatch, capsys):
    "What installs it is said; what the small files say is told first"
    for o in 'datasets','datasets.load': monkeypatch.setitem(sys.modules, o, None)
    info = dict(features=dict(image=dict(_type='Image'), label=dict(names=['a','b'], _type='ClassLabel')))
    (tmp_path/'dataset_info.json').write_text(json.dumps(info)), (tmp_path/'state.json').write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (tmp_path/'data.arrow').write_bytes(b'\xff\xff\xff\xff\0\0\0\0')
    rc,_,err = run(main, capsys, tmp_path, *tiny, '--out', tmp_path/'r')
    assert rc==2 and 'pip install -e ".[hf]"' in err and len(err.splitlines())==1
    (tmp_path/'dataset_info.json').write_text(json.dumps(dict(features=dict(label=info['features']['label']))))
    with pytest.raises(DataError, match='no column of images, but label'): find_source(tmp_path)
