"Sources, and a loader whose numbers are keyed."
import random
import numpy as np, pytest, torch
from PIL import Image
from fastcore.test import test_eq as same_value
from bot.augment import bag_dls
from bot.data import digits, find_source
from bot.ladder import DataError, UsageError

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

def test_a_step_has_its_own_numbers(folder):
    steps = [draws() for _ in loaders(folder).train]
    same_value([draws() for _ in loaders(folder).train.at(0, 1)], steps[1:])
    same_value(len(set(steps)), len(steps))

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

def test_digits_are_written_once():
    path = digits()
    stamp = (path/'train').stat().st_mtime_ns
    same_value(digits().joinpath('train').stat().st_mtime_ns, stamp)
