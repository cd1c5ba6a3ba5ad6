"Sources, and a loader whose numbers are keyed."
import io, multiprocessing, os, random, shutil, subprocess, sys, tarfile, time, tracemalloc, zipfile
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.external import URLs
from fastai.data.transforms import RandomSplitter, get_image_files, parent_label
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.augment import RandomResizedCrop, aug_transforms
from fastai.vision.data import ImageBlock
from fastcore.test import test_eq as same_value
from fastcore.xtras import Config
from bot.block import bag_dls
from bot.core import write_once
from bot.images import ImageError
from bot.datasets import digits, split_classes, unpack
from bot.sources import find_source
from bot.loader import KeyedDL
from bot.core import DataError, UsageError

same_value.__test__ = False

@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    "A few images of three classes, in a folder each"
    path,rng = tmp_path_factory.mktemp('images'),np.random.default_rng(0)
    for c in 'abc':
        (path/c).mkdir()
        for i in range(10): Image.fromarray(rng.integers(0, 256, (40,48,3), dtype=np.uint8)).save(path/c/f'{i}.jpg')
    return path

def loaders(folder, **kwargs): return bag_dls(folder, **dict(size=24, bs=6, num_workers=0, device='cpu', seed=3) | kwargs)

def epoch_of(dl): return [(x.as_subclass(torch.Tensor).clone(),y.tolist()) for x,y in dl]

def equal(a, b): return len(a)==len(b) and all(torch.equal(x1, x2) and y1==y2 for (x1,y1),(x2,y2) in zip(a, b))

@pytest.fixture(scope='session')
def two_epochs(folder):
    dl = loaders(folder).train
    return epoch_of(dl),epoch_of(dl)

@pytest.mark.parametrize('workers', [1, 2, 4])
def test_workers_change_nothing(folder, two_epochs, workers):
    dls = loaders(folder, num_workers=workers)
    for o in two_epochs: assert equal(epoch_of(dls.train), o)
    assert equal(epoch_of(dls.valid), epoch_of(loaders(folder).valid))

def test_epochs_and_seeds_differ(folder, two_epochs):
    assert not equal(*two_epochs)
    assert not equal(epoch_of(loaders(folder, seed=4).train), two_epochs[0])

@pytest.mark.parametrize('workers', [0, 2])
def test_any_step_from_its_number(folder, two_epochs, workers):
    dl = loaders(folder, num_workers=workers).train
    assert equal(epoch_of(dl.at(1, 2)), two_epochs[1][2:])
    assert equal(epoch_of(dl.at(0)), two_epochs[0])
    assert equal(epoch_of(dl), two_epochs[1])

def test_looking_changes_nothing(folder, two_epochs):
    dls = loaders(folder)
    dls.one_batch(), dls.show_batch(max_n=2), epoch_of(dls.valid)
    with torch.no_grad(): epoch_of(dls.train)
    for o in two_epochs: assert equal(epoch_of(dls.train), o)

def draws(): return random.random(),np.random.rand(),torch.rand(1).item()

def seeded(s): random.seed(s), np.random.seed(s), torch.manual_seed(s)

def test_generators_are_left_as_found(folder):
    seeded(1)
    expected = draws()
    for f in (lambda d: d.show_batch(max_n=2), lambda d: epoch_of(d.train), lambda d: epoch_of(d.valid), lambda d: next(iter(d.train)), lambda d: None):
        seeded(1)
        f(loaders(folder))
        same_value(draws(), expected)

def test_predict_from_a_path(folder):
    dls = loaders(folder)
    file = folder/'a'/'0.jpg'
    x, = dls.test_dl([str(file), file]).one_batch()
    assert torch.equal(x[0], x[1])

@pytest.mark.parametrize('part,text', [('', 'No images'), ('one', 'One class'), ('none', "No readable image of class 'b'"), ('lost', "Validation class 'c'"), ('no', 'No such folder')])
def test_bad_folders(tmp_path, folder, part, text):
    def add(*names, n=3):
        for o in names:
            (tmp_path/o).mkdir(parents=True)
            for i in range(n): (tmp_path/o/f'{i}.jpg').write_bytes((folder/'a'/'0.jpg').read_bytes())
    if part=='one': add('a')
    if part=='none':
        add('a', 'b')
        for o in (tmp_path/'b').iterdir(): o.write_text('not an image')
    if part=='lost': add('train/a', 'train/b', 'valid/c')
    with pytest.raises(DataError, match=text): find_source(tmp_path/'missing' if part=='no' else tmp_path)

def test_batch_larger_than_the_data(folder):
    with pytest.raises(UsageError, match='bs=64'): loaders(folder, bs=64)

def test_hidden_folders_are_no_classes(tmp_path, folder):
    for o in ('train/a', 'train/b', 'train/.ipynb_checkpoints', 'val/a', 'test/a'):
        (tmp_path/o).mkdir(parents=True)
        (tmp_path/o/'0.jpg').write_bytes((folder/'a'/'0.jpg').read_bytes())
    src = find_source(tmp_path)
    same_value((src.classes, src.n_train, src.n_valid), (['a','b'], 2, 1))
    assert "'val'" in src.describe()

def test_a_random_split_takes_from_everywhere():
    labels = ['a']*200 + ['b']*50
    train,valid = split_classes(labels)
    assert sorted(train+valid)==list(range(250)) and [sum(labels[i]==c for i in valid) for c in 'ab']==[40,10]
    assert 50<np.mean(valid[:40])<150 and valid!=split_classes(labels, seed=1)[1]

def test_digits_are_written_once():
    path = digits()
    stamp = (path/'train').stat().st_mtime_ns
    same_value(digits().joinpath('train').stat().st_mtime_ns, stamp)

def worker_pids(dl): return [p.pid for p in dl.torch_dl._iterator._workers]

@pytest.mark.parametrize('method', ['fork','spawn'])
def test_start_methods(folder, two_epochs, method):
    dls = loaders(folder, num_workers=1, start_method=method)
    assert equal(epoch_of(dls.train), two_epochs[0])
    pids = worker_pids(dls.train)
    next(iter(dls.train))   # a restart of the workers is what would take seconds
    same_value(worker_pids(dls.train), pids)
    assert equal(epoch_of(dls.train.at(1)), two_epochs[1])

@pytest.mark.slow
def test_forkserver(folder, two_epochs):
    assert equal(epoch_of(loaders(folder, num_workers=2, start_method='forkserver').train), two_epochs[0])

def fastai_loaders(folder, **kwargs):
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=RandomSplitter(seed=0), dl_type=KeyedDL,
        item_tfms=RandomResizedCrop(24), batch_tfms=aug_transforms())
    return block.dataloaders(folder, bs=6, device='cpu', **kwargs)

def test_fastais_transforms_are_keyed_too(folder):
    a,b = fastai_loaders(folder, num_workers=0).train,fastai_loaders(folder, num_workers=2).train
    for _ in range(2): assert equal(epoch_of(a), epoch_of(b))
    assert equal(epoch_of(a.at(1, 1)), epoch_of(b.at(1, 1)))

def test_seeds_still_reach_a_model(folder):
    def weights(seed):
        set_seed(seed)
        loaders(folder).show_batch(max_n=2)
        return torch.nn.Linear(3, 3).weight
    assert not torch.equal(weights(1), weights(2)) and torch.equal(weights(1), weights(1))

def test_a_pass_inside_a_pass(folder, two_epochs):
    dl,seen = loaders(folder, num_workers=1).train,[]
    for x,y in dl:
        seen.append((x.as_subclass(torch.Tensor), y.tolist()))
        if len(seen)==2: dl.one_batch(), next(iter(dl))
    assert equal(seen, two_epochs[0])

def test_fit_counts_and_looking_does_not(folder):
    dls = loaders(folder)
    learn = Learner(dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3*24*24, 3)), metrics=accuracy, path=folder, model_dir='models')
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-4)
        same_value(dls.train.epoch, 2)
        learn.lr_find(show_plot=False), learn.validate(), learn.validate(dl=dls.train), learn.get_preds(ds_idx=0), learn.predict(folder/'a'/'0.jpg')
        same_value(dls.train.epoch, 2)
        a,b = (learn.tta(n=1)[0] for _ in range(2))
        learn.fit(1, 1e-4)
        same_value(dls.train.epoch, 3)
    shutil.rmtree(folder/'models')

def spoil(path, kind):
    "Put something in the place of an image"
    data = path.read_bytes()
    path.unlink()
    if kind=='truncated': path.write_bytes(data[:len(data)//2])
    if kind=='empty': path.touch()
    if kind=='text': path.write_text('not an image')
    if kind=='huge': Image.new('1', (10_000,10_000)).save(path, 'PNG')
    if kind=='fifo': os.mkfifo(path)
    if kind=='folder': path.mkdir()

spoiled = dict(truncated='truncated', empty='empty file', text='known format', huge='100', fifo='ordinary file', folder='ordinary file', removed='No such file')

@pytest.fixture
def spoiled_folder(tmp_path, folder, request):
    "A folder whose image `train/a/3.jpg` is no good"
    for part in ('train','valid'): shutil.copytree(folder, tmp_path/part)
    if request.param!='removed': spoil(tmp_path/'train'/'a'/'3.jpg', request.param)
    return tmp_path

@pytest.mark.parametrize('spoiled_folder,reason', spoiled.items(), indirect=['spoiled_folder'])
def test_bad_images_stop(spoiled_folder, reason):
    dls = loaders(spoiled_folder)
    if reason==spoiled['removed']: (spoiled_folder/'train'/'a'/'3.jpg').unlink()
    n = 0
    with pytest.raises(ImageError, match=f'3.jpg.*{reason}'):
        for n,_ in enumerate(dls.train, 1): pass
    assert n<5

@pytest.mark.parametrize('spoiled_folder', ['text'], indirect=True)
@pytest.mark.parametrize('workers', [0, 2])
def test_bad_images_are_skipped(spoiled_folder, workers):
    dls = loaders(spoiled_folder, bad='skip', num_workers=workers)
    for dl,sizes in ((dls.train,[6]*4+[5]),(dls.valid,[6]*5)): same_value(sorted(len(x) for x,_ in dl), sorted(sizes))
    same_value([(Path(k).name,v) for k,v in dls.train.dropped.items()], [('3.jpg','not an image of a known format')])
    same_value(dls.valid.dropped, {})

def test_skipping_is_the_same_for_any_workers(tmp_path, folder):
    for part in ('train','valid'): shutil.copytree(folder, tmp_path/part)
    for o in 'abc':
        for i in range(3): spoil(tmp_path/'train'/o/f'{i}.jpg', 'empty')
    runs = [loaders(tmp_path, bad='skip', bs=2, num_workers=o).train for o in (0, 2)]
    assert equal(*map(epoch_of, runs))
    same_value(*(o.lost for o in runs))
    same_value(len(runs[0].dropped), 9)

def test_predictions_leave_none_out(tmp_path, folder, capsys):
    path = shutil.copytree(folder, tmp_path/'images')
    src = find_source(path)
    Path(src.items[-1][0]).write_text('no image')
    dls = bag_dls(path, size=24, bs=6, num_workers=0, device='cpu', bad='skip')
    learn = Learner(dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3)), loss_func=torch.nn.CrossEntropyLoss(), metrics=accuracy)
    with learn.no_bar(): learn.validate()
    assert f"Left out: cannot read '{src.items[-1][0]}': not an image" in capsys.readouterr().out
    with learn.no_bar(), pytest.raises(ImageError, match='Cannot read'): learn.get_preds()
    with learn.no_bar(), pytest.raises(ImageError, match='Cannot read'): learn.predict(src.items[-1][0])
    Path(src.items[-1][0]).unlink()
    with learn.no_bar(): same_value(len(learn.get_preds(dl=dls.test_dl([o[0] for o in src.items[:4]]))[0]), 4)

def test_worker_errors_name_the_file(tmp_path, folder):
    shutil.copytree(folder, tmp_path/'x')
    spoil(tmp_path/'x'/'b'/'5.jpg', 'truncated')
    with pytest.raises(ImageError) as e:
        for part in loaders(tmp_path/'x', num_workers=1, valid_pct=.1).loaders: epoch_of(part)
    assert '5.jpg' in str(e.value) and len(str(e.value).splitlines())==1

def test_first_frame_of_many(tmp_path, capsys):
    for c in 'ab':
        (tmp_path/c).mkdir()
        for i in range(5): Image.new('RGB', (30,30), (i,0,0)).save(tmp_path/c/f'{i}.gif', save_all=True, append_images=[Image.new('RGB', (30,30), 'white')])
    dls = loaders(tmp_path, bs=4, num_workers=1)
    epoch_of(dls.train)
    same_value(capsys.readouterr().out.count('several frames: the first is used'), 1)
    assert len(dls.train.notes)>=4

def table(folder, **kwargs): return pd.DataFrame(dict(image=[f'{c}/{i}.jpg' for c in 'abc' for i in range(10)], label=[c for c in 'abc' for _ in range(10)], **kwargs))

def test_tables(tmp_path, folder):
    df = table(folder, split=(['train']*8+['valid']*2)*3)
    src = find_source(df, root=folder)
    same_value((src.n_train, src.n_valid, src.classes), (24, 6, ['a','b','c']))
    df.to_csv(folder/'table.csv', index=False)
    same_value(find_source(folder/'table.csv').items, src.items)
    (folder/'table.csv').unlink()
    same_value(find_source(table(folder), root=folder).n_valid, 6)
    assert loaders(df, root=folder).one_batch()[0].shape==(6,3,24,24)

@pytest.mark.parametrize('change,text', [(dict(image=None), "No column 'image'"), (dict(label=None), "No column 'label'"), (dict(split='tarin'), "'tarin'"),
    (dict(image='../x.jpg'), 'leaves its folder'), (dict(image='/etc/passwd'), 'leaves its folder'), (dict(image='a/../../x.jpg'), 'leaves its folder')])
def test_bad_tables(folder, change, text):
    df = table(folder)
    for k,v in change.items():
        if v is None: df = df.drop(columns=k)
        else: df[k] = v
    with pytest.raises(DataError, match=text): find_source(df, root=folder)

@pytest.mark.parametrize('rows,text', [('a.jpg,\n', 'Row 1 .* has no label'), (' ,cat\n', 'Row 1 .* has no image')])
def test_empty_fields(tmp_path, rows, text):
    (tmp_path/'t.csv').write_text('image,label\n'+rows)
    with pytest.raises(DataError, match=text): find_source(tmp_path/'t.csv')
    with pytest.raises(DataError, match='has no label'): find_source(pd.DataFrame(dict(image=['a.jpg'], label=[None])), root=tmp_path)

def test_spaces_and_test_rows_of_a_table(tmp_path, folder):
    files = sorted(p for p in folder.rglob('*.jpg'))
    splits = ['train']*(len(files)-4)+['valid']*2+['test']*2
    rows = ''.join(f'{os.path.relpath(p, folder)}, {p.parent.name},{o}\n' for p,o in zip(files, splits))
    (folder/'t.csv').write_text('image,label,split\n'+rows)
    src = find_source(folder/'t.csv')
    (folder/'t.csv').unlink()
    same_value((src.n_valid, ' ' in ''.join(src.classes), len(src.test), '2 test images are kept aside' in src.describe()), (2, False, 2, True))

def test_a_file_that_is_no_table(folder):
    with pytest.raises(DataError): find_source(folder/'a'/'0.jpg')

def test_near_names():
    with pytest.raises(DataError, match="did you mean 'imagewoof_160'"): find_source('imagewof_160')

def archive(path, evil=None):
    with tarfile.open(path, 'w:gz') as f:
        for part in ('train','valid'):
            for c in 'ab':
                b = io.BytesIO()
                Image.new('RGB', (9,9)).save(b, 'PNG')
                o = tarfile.TarInfo(f'whole/{part}/{c}/0.png')
                o.size = len(b.getvalue())
                f.addfile(o, io.BytesIO(b.getvalue()))
        if evil=='link':
            o = tarfile.TarInfo('whole/link')
            o.type,o.linkname = tarfile.SYMTYPE,'/etc'
            f.addfile(o)
        elif evil: f.addfile(tarfile.TarInfo(evil), io.BytesIO())

@pytest.mark.parametrize('evil', ['../out.txt', '/bot_out.txt', 'link'])
def test_archives_stay_inside(tmp_path, evil):
    archive(tmp_path/'a.tgz', evil)
    (tmp_path/'to').mkdir()
    with pytest.raises(DataError, match='member'): unpack(tmp_path/'a.tgz', tmp_path/'to')
    assert not list((tmp_path/'to').iterdir()) and not (tmp_path/'out.txt').exists()

def test_zip_archives_stay_inside(tmp_path):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as f: f.writestr('../out.txt', '')
    (tmp_path/'to').mkdir()
    with pytest.raises(DataError, match='member'): unpack(tmp_path/'a.zip', tmp_path/'to')

def test_fastais_datasets(tmp_path, monkeypatch):
    archive(tmp_path/'mnist_sample.tgz')
    monkeypatch.setattr(URLs, 'MNIST_SAMPLE', (tmp_path/'mnist_sample.tgz').as_uri())
    cfg = Config(tmp_path, 'config.ini', create=dict(data='data', archive='archive'))
    monkeypatch.setattr('bot.datasets.fastai_cfg', lambda: cfg)
    monkeypatch.setattr('fastdownload.core.download_and_check', lambda url, path, *args: shutil.copy(tmp_path/'mnist_sample.tgz', path))
    src = find_source('mnist_sample')
    same_value((src.n_train, src.n_valid, src.classes, src.path.name), (2, 2, ['a','b'], 'mnist_sample'))

@pytest.mark.slow
def test_listing_is_quick_and_small(tmp_path):
    for c in range(10):
        (tmp_path/f'{c}').mkdir()
        Image.new('RGB', (9,9)).save(tmp_path/f'{c}'/'0.png')
        for i in range(1, 10_000): os.link(tmp_path/f'{c}'/'0.png', tmp_path/f'{c}'/f'{i}.png')
    tracemalloc.start()
    start = time.perf_counter()
    src = find_source(tmp_path)
    took,used = time.perf_counter()-start,tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    same_value(src.n_train+src.n_valid, 100_000)
    assert took<5 and used<200e6

def fill(path): write_once(path, slowly)

def slowly(path):
    (path/'x').touch()
    time.sleep(.3)

def test_two_processes_write_once(tmp_path):
    ps = [multiprocessing.get_context('fork').Process(target=fill, args=(tmp_path/'to',)) for _ in range(2)]
    for o in ps: o.start()
    for o in ps: o.join()
    same_value([o.exitcode for o in ps], [0, 0])
    same_value([o.name for o in tmp_path.iterdir()], ['to'])

at_the_end = """
import atexit
from torch.utils.data import dataloader
def watched(f):
    def init(self, *args):
        f(self, *args)
        for w in self._workers: atexit.register(lambda: print('alive' if w.is_alive() else 'ended', flush=True))
    return init
dataloader._MultiProcessingDataLoaderIter.__init__ = watched(dataloader._MultiProcessingDataLoaderIter.__init__)
if __name__=='__main__':
    from bot.block import bag_dls
    dls = bag_dls('digits', bs=64, num_workers=2, device='cpu', start_method='fork')
    for dl in dls: next(iter(dl))
    for dl in dls: list(dl)
"""

def test_workers_end_before_pytorch_waits_for_them(tmp_path):
    "On a GPU some versions of PyTorch wait at the end, five seconds for each worker that was told nothing: with 16 of them a finished command took over a minute"
    (tmp_path/'end.py').write_text(at_the_end)
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH', '')]))
    o = subprocess.run([sys.executable, 'end.py'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert o.returncode==0 and set(o.stdout.split())=={'ended'}, o.stdout+o.stderr
