"Images in a bucket: moto's S3 server in a process, the same bits as from the folder, a changed object, and what is said of what cannot be read"
import csv, socket, subprocess, sys, time, urllib.request
from importlib.util import find_spec
from pathlib import Path
import pytest
from bot import objects
from bot.block import bag_dls
from bot.check import check
from bot.cli import eval_main, main, predict_main, report_main
from bot.images import Encoded, ImageError
from bot.runs import load_run
from bot.shards import path_bytes, path_stat
from bot.sources import find_source
from bot.writing import shard
from pictures import lay_shades
from same_bits import check_batches, check_goes_on, check_weights, run, tiny

needs = pytest.mark.skipif(not all(map(find_spec, ('litdata','moto','flask'))), reason='the extra [cloud], and moto[server]')

@pytest.fixture(scope='session')
def images(tmp_path_factory): return lay_shades(tmp_path_factory.mktemp('images')/'photos')

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

@pytest.fixture(scope='session')
def server():
    "Address of an S3 server in a process of its own"
    port = free_port()
    p = subprocess.Popen([sys.executable, '-W', 'ignore', '-m', 'moto.server', '-H', '127.0.0.1', '-p', str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/moto-api/data.json', timeout=5).close()
            except OSError: time.sleep(.1)
            else: break
        yield f'http://127.0.0.1:{port}'
    finally: p.kill(), p.wait()

@pytest.fixture
def store(server, tmp_path, monkeypatch):
    "A client of the server, which the environment names; what is read is kept in a folder of the test"
    import boto3
    env = dict(AWS_ENDPOINT_URL=server, AWS_ACCESS_KEY_ID='key', AWS_SECRET_ACCESS_KEY='secret', AWS_DEFAULT_REGION='us-east-1', BOT_CACHE=str(tmp_path/'kept'))
    for k,v in env.items(): monkeypatch.setenv(k, v)
    monkeypatch.delenv('BOT_CACHE_GB', raising=False), objects._open.clear()
    yield boto3.client('s3')
    objects._open.clear()

def fill(s3, folder, bucket):
    "The files of a folder, below the name photos"
    s3.create_bucket(Bucket=bucket)
    for f in sorted(o for o in folder.rglob('*') if o.is_file()): s3.put_object(Bucket=bucket, Key=f'photos/{f.relative_to(folder)}', Body=f.read_bytes())
    return f's3://{bucket}/photos'

@pytest.fixture
def address(store, images, request): return fill(store, images, 'b'+str(len(store.list_buckets()['Buckets'])).zfill(6))

def names(s3, address): return [o['Key'] for o in s3.list_objects_v2(Bucket=address.split('/')[2])['Contents']]
def key_of(address, name): return dict(Bucket=address.split('/')[2], Key=f'photos/{name}')

# ---- the same bits

@needs
@pytest.mark.parametrize('gb', ['20', '0', '.00001'])
def test_the_same_batches(images, address, monkeypatch, tmp_path, gb, store):
    "With workers, forked and spawned; whatever is kept; and nothing is written into the bucket"
    monkeypatch.setenv('BOT_CACHE_GB', gb)
    check_batches(images, address)
    assert len(names(store, address))==44
    time.sleep(1)   # kept by a thread, after the bytes have been handed on
    kept = [o.stat().st_size for o in (tmp_path/'kept').rglob('*.jpg')]
    assert sum(kept)<=float(gb)*1e9 and len(kept)==dict(zip(('20','0'), (44,0))).get(gb, len(kept)) and (gb!='.00001' or 0<len(kept)<44)

@needs
def test_the_same_weights(images, address, tmp_path): check_weights(images, address, tmp_path)

@needs
def test_what_is_kept_is_not_read_again(address, store, tmp_path):
    src = find_source(address)
    data = [path_bytes(f) for f,_ in src.items]
    time.sleep(1)
    for f,_ in src.items: store.delete_object(**key_of(address, f.removeprefix(address+'/')))
    assert [path_bytes(f) for f,_ in src.items]==data

@needs
def test_what_is_said_of_it(address, tmp_path):
    src = find_source(address)
    lines = src.describe().splitlines()
    assert lines[0]==f"{address}: 32 training and 12 validation images (folder 'test'), 2 classes, about 40 px"
    assert f"they are kept in '{tmp_path}/kept' as they are read (BOT_CACHE, BOT_CACHE_GB)" in lines[1]
    assert src.items[0][0].startswith(f'{address}/train/dark/') and path_stat(src.items[0][0]).st_size==len(path_bytes(src.items[0][0]))

# ---- a run

@needs
def test_a_run_goes_on_with_its_objects_alone(address, store, images, tmp_path, capsys):
    def changed_and_back(args):
        one = key_of(address, 'train/dark/3.jpg')
        was = store.get_object(**one)['Body'].read()
        store.put_object(**one, Body=was[:-1]+b'x')
        rc,_,err = run(main, capsys, *args)
        assert rc==3 and 'not those that the run began with' in err, err
        store.put_object(**one, Body=was)
    check_goes_on(images, address, tmp_path, changed_and_back)

@needs
def test_everything_that_reads_images(address, images, tmp_path, capsys, store):
    out = tmp_path/'r'
    assert main([address, '--out', str(out), *tiny])==0
    learn = load_run(out, data=True)
    assert len(learn.dls.train_ds)==32
    rows = []
    for o in [images/'test'],[f'{address}/test']:
        assert run(predict_main, capsys, out, *o, '--out', tmp_path/'p.csv', '--device', 'cpu')[0]==0
        rows.append([(o['class'], o['probability']) for o in csv.DictReader((tmp_path/'p.csv').open())])
    assert rows[0]==rows[1] and len(rows[0])==12
    for args in (), (address,):
        rc,said,err = run(eval_main, capsys, out, *args, '--device', 'cpu')
        assert rc==0 and '12 images' in said, err
    assert run(report_main, capsys, out)[0]==0
    page = (out/'report.html').read_text()
    assert page.count('data:image/jpeg')>=2 and 'cannot be shown' not in page
    a,b = (check(o, tmp_path/k, workers=0) for k,o in dict(a=images, b=address).items())
    assert [(c.kind, len(c.images)) for c in a.cases]==[(c.kind, len(c.images)) for c in b.cases if c.kind!='unused']
    (tmp_path/'out.csv').write_text('image,reason\ntrain/dark/3.jpg,dark\n')
    assert find_source(address, exclude=tmp_path/'out.csv').n_train==31
    s = shard(address, tmp_path/'shards', workers=0)
    assert [(path_bytes(f), c) for f,c in find_source(s).items]==[(Path(f).read_bytes(), c) for f,c in find_source(images).items]
    assert len(names(store, address))==44

# ---- what cannot be read

@needs
def test_an_object_that_went(address, store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('BOT_CACHE_GB', '0')
    src = find_source(address)
    store.delete_object(**key_of(address, 'train/dark/3.jpg')), store.put_object(**key_of(address, 'train/dark/5.jpg'), Body=b'short')
    for o in '3','5':
        with pytest.raises(ImageError, match=f"'{address}/train/dark/{o}.jpg'"): Encoded(f'{address}/train/dark/{o}.jpg').decode()
    with pytest.raises(ImageError, match=f'{address}/train/dark/[35].jpg'):
        for _ in bag_dls(src, size=32, bs=8, num_workers=2, start_method='spawn', device='cpu').train: pass
    objects._open.clear()
    store.put_object(**key_of(address, 'train/dark/4.jpg'), Body=b'torn')
    rc,_,err = run(main, capsys, address, *tiny, '--out', tmp_path/'r', '--bs', 4)
    assert rc==3 and f'{address}/train/dark/' in err and len(err.splitlines())<=3

def says(capsys, *words, src, rc=3, tmp_path=None):
    got,_,err = run(main, capsys, src, *tiny, '--out', tmp_path/'r')
    assert got==rc and all(o in err for o in (*words, src)) and len(err.splitlines())==1, err

@needs
def test_what_is_wrong_with_a_bucket(address, store, tmp_path, capsys, monkeypatch):
    say = lambda *words, **kw: says(capsys, *words, tmp_path=tmp_path, **kw)
    say('No bucket', 'AWS_ENDPOINT_URL', src='s3://nowhere-at-all/photos')
    say('No objects under', 'check the name', src=f'{address}/none')
    say('No objects under', src=address[:-1])
    say('names no bucket', src='s3://')
    say('Cannot read', 'Invalid bucket name', src='s3://a b/photos')
    store.put_object(**key_of(address, 'a/../../../x.jpg'), Body=b'x')
    say("'..'", 'rename', src=address)
    monkeypatch.setenv('AWS_ENDPOINT_URL', f'http://127.0.0.1:{free_port()}')
    say('Cannot reach', 'network', src=address)
    for k in 'AWS_ACCESS_KEY_ID','AWS_SECRET_ACCESS_KEY': monkeypatch.delenv(k)
    for k,v in dict(AWS_EC2_METADATA_DISABLED='true', AWS_SHARED_CREDENTIALS_FILE=str(tmp_path/'none'), AWS_CONFIG_FILE=str(tmp_path/'none')).items(): monkeypatch.setenv(k, v)
    say('No credentials', 'AWS_PROFILE', src=address)
    monkeypatch.setenv('AWS_PROFILE', 'nobody')
    say('No credentials', 'AWS_PROFILE', src=address)

@needs
def test_a_place_that_cannot_be_written(address, tmp_path, capsys, monkeypatch):
    (tmp_path/'file').touch()
    monkeypatch.setenv('BOT_CACHE', str(tmp_path/'file/x'))
    says(capsys, 'BOT_CACHE', src=address, tmp_path=tmp_path)

# ---- without the library

def test_without_the_library(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'boto3', None)
    says(capsys, 'pip install -e ".[cloud]"', 'litdata==', src='s3://bucket/photos', rc=2, tmp_path=tmp_path)
    cfg = (Path(__file__).parents[1]/'settings.ini').read_text()
    assert f'litdata=={objects.litdata_version}\n' in cfg
