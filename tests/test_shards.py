"Shards: what others read in them, the same bits as from the folder, and what is said of damaged ones"
import csv, io, json, os, pickle, signal, subprocess, sys, tarfile, time
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from bot.block import bag_dls
from bot.check import check
from bot.cli import check_main, eval_main, main, predict_main, report_main, shard_main
from bot.core import DataError
from bot.images import Encoded, ImageError
from bot.shards import columns, open_shards, path_bytes, shard_parts
from bot.sources import find_source
from bot.writing import shard
from pictures import lay_shades, photos
from same_bits import check_batches, check_goes_on, check_weights, run, tiny

code = 'import sys; from bot.cli import main_of; sys.exit(main_of(sys.argv[1:]))'

@pytest.fixture(scope='session')
def images(tmp_path_factory): return lay_shades(tmp_path_factory.mktemp('images')/'photos')

@pytest.fixture(scope='session')
def shards(images, tmp_path_factory): return shard(images, tmp_path_factory.mktemp('shards')/'s', workers=1)

def copied(shards, to):
    to.mkdir()
    for o in shards.iterdir(): (to/o.name).write_bytes(o.read_bytes())
    return to

def members(out): return {(o.name, m.name):f.extractfile(m).read() for o in sorted(Path(out).glob('*.tar')) for f in [tarfile.open(o)] for m in f}

# ---- what is written

def test_the_layout_is_webdatasets(images, shards):
    "As its reader groups them: what follows each other and has one name up to the first point"
    samples = {}
    for (tar,name),data in members(shards).items():
        k,_,end = name.partition('.')
        samples.setdefault((tar, k), {})[end] = data
    want = find_source(images).items
    assert [(o['jpg'], o['cls']) for o in samples.values()]==[(Path(f).read_bytes(), b'%d' % ['dark','light'].index(c)) for f,c in want]
    assert all(len(o)==2 for o in samples.values())

def test_webdataset_reads_them(shards):
    wds = pytest.importorskip('webdataset')
    want = [(path_bytes(f), c) for f,c in shard_parts(shards)['train']]
    got = [(o['jpg'], ['dark','light'][int(o['cls'])]) for o in wds.WebDataset(sorted(map(str, shards.glob('train-*.tar'))), shardshuffle=False)]
    assert got==want

def test_timm_reads_them(shards):
    pytest.importorskip('webdataset')
    from timm.data import create_dataset
    ds = create_dataset('wds/', root=str(shards), split='train', is_training=False, batch_size=4)
    assert len(ds)==32
    got = [(np.asarray(x), y) for x,y in ds]
    want = shard_parts(shards)['train']
    assert [y for _,y in got]==[['dark','light'].index(c) for _,c in want]
    assert all((x==np.asarray(Image.open(io.BytesIO(path_bytes(f))))).all() for (x,_),(f,_) in zip(got, want))

def test_any_number_of_writers(images, tmp_path, monkeypatch):
    "The same bytes in every file"
    monkeypatch.setattr('bot.writing.cut', lambda sizes, most: [range(i, min(i+3, len(sizes))) for i in range(0, len(sizes), 3)])
    outs = [shard(images, tmp_path/str(w), workers=w) for w in (0, 1, 3)]
    files = [{o.name:o.read_bytes() for o in out.iterdir()} for out in outs]
    assert len(list(outs[0].glob('*.tar')))==15 and files[0]==files[1]==files[2]
    assert not [o for o in files[0] if o.startswith('.')]

slow = '''
import sys, time, bot.writing
bot.writing.cut = lambda sizes, most: [range(i, min(i+2, len(sizes))) for i in range(0, len(sizes), 2)]
def content(*args, old=bot.writing.content, **kwargs):
    time.sleep(float(sys.argv[3]))
    return old(*args, **kwargs)
bot.writing.content = content
bot.writing.shard(sys.argv[1], sys.argv[2], workers=2)'''

def test_killed_and_again(images, tmp_path):
    "What was whole is not written again, and the end is the same"
    def command(out, secs): return [sys.executable, '-W', 'ignore', '-c', slow, str(images), str(tmp_path/out), secs]
    subprocess.run(command('whole', '0'), check=True, capture_output=True)
    p = subprocess.Popen(command('killed', '.2'), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    def rows(): return {o.name[1:-4] for o in (tmp_path/'killed').glob('.*.npy')}
    while len(rows())<4 and p.poll() is None: time.sleep(.02)
    os.killpg(p.pid, signal.SIGKILL), p.wait()
    kept = {o:(tmp_path/'killed'/o).stat().st_mtime_ns for o in rows()}
    with pytest.raises(DataError, match='not all written.*bot-shard'): find_source(tmp_path/'killed')
    subprocess.run(command('killed', '0'), check=True, capture_output=True)
    assert 4<=len(kept)<22 and kept=={o:(tmp_path/'killed'/o).stat().st_mtime_ns for o in kept}
    a,b = ({o.name:o.read_bytes() for o in (tmp_path/k).iterdir()} for k in ('whole','killed'))
    assert a==b

def test_a_table_keeps_its_order(images, tmp_path):
    "Of a source in any order, with a split of its own, and with names that have points in them"
    files = [f for f,_ in find_source(images).items][::-1]
    odd = images/'train/dark/a.b c.jpg'
    odd.write_bytes(Path(files[0]).read_bytes())
    try:
        rows = [(os.path.relpath(f, images), Path(f).parent.name, ['train','valid','test'][i%3]) for i,f in enumerate([str(odd), *files])]
        (tmp_path/'list.csv').write_text('image,label,split\n'+''.join(f'{",".join(o)}\n' for o in rows))
        out = shard(tmp_path/'list.csv', tmp_path/'s', root=images)
        src,new = find_source(tmp_path/'list.csv', root=images),find_source(out)
        assert [(path_bytes(f), c) for f,c in [*new.items, *new.test]]==[(path_bytes(f), c) for f,c in [*src.items, *src.test]]
        assert [o['was'] for o in csv.DictReader((out/'items.csv').open())]==[f for f,_ in [*src.items, *src.test]]
        assert len(new.test)==15 and "its column split" in new.describe()
    finally: odd.unlink()

def test_short_edge(tmp_path):
    "Larger images are made smaller and the right way up; others, and what cannot be read, are as they were"
    big,exif = Image.fromarray(photos[0]),Image.Exif()
    exif[0x0112] = 6
    for c in 'ab': (tmp_path/'p'/c).mkdir(parents=True)
    for i in range(6): big.save(tmp_path/f'p/{"ab"[i%2]}/{i}.jpg', quality=95, **(dict(exif=exif) if i==2 else {}))
    big.resize((64,48)).save(tmp_path/'p/a/small.png'), (tmp_path/'p/b/torn.jpg').write_bytes(b'\xff\xd8\xff torn')
    out = shard(tmp_path/'p', tmp_path/'s', short_edge=100, quality=95)
    was = {Path(o['was']).name:str(out/o['image']) for o in csv.DictReader((out/'items.csv').open())}
    assert Encoded(was['0.jpg']).size==(150,100) and Encoded(was['2.jpg']).size==(100,150)
    far = (Encoded(was['2.jpg']).decode().float()-Encoded(tmp_path/'p/a/2.jpg').decode(size=(150,100)).float()).abs().mean()
    assert far<3, far
    assert path_bytes(was['small.png'])==(tmp_path/'p/a/small.png').read_bytes() and path_bytes(was['torn.jpg'])==b'\xff\xd8\xff torn'
    assert 'short edge at most 100' in find_source(out).describe()

def test_it_says_what_is_kept(tmp_path, images, capsys):
    (images/'train/dark/torn.jpg').write_bytes(b'torn')
    try: rc,out,_ = run(shard_main, capsys, images, tmp_path/'s', '--short-edge', 20)
    finally: (images/'train/dark/torn.jpg').unlink()
    assert rc==0 and '1 image cannot be read and is kept unchanged' in out and 'torn.jpg' in out and '45 images in 2 shards' in out

# ---- the same bits

def test_the_same_batches(images, shards): check_batches(images, shards)

def test_the_same_weights(images, shards, tmp_path): check_weights(images, shards, tmp_path)

def test_a_stopped_run_goes_on(shards, tmp_path): check_goes_on(shards, shards, tmp_path)

def test_a_worker_is_handed_a_name(shards, tmp_path):
    "Not a list of a hundred thousand paths, nor a number for each"
    n,out = 100_000,copied(shards, tmp_path/'s')
    info = json.loads((out/'shards.json').read_text())
    tar = next(o for o in info['tars'] if o[0].startswith('train'))
    (out/'shards.json').write_text(json.dumps(info | dict(sums={}, n=dict(train=n, valid=12, test=0), tars=[[tar[0], n, tar[2]], *[o for o in info['tars'] if o is not tar]])))
    for k in columns:
        x = np.load(out/f'{k}.npy')
        np.save(out/f'{k}.npy', np.concatenate([np.resize(x[:32], n), x[32:]]))
    dls = bag_dls(out, size=32, bs=8, num_workers=0, device='cpu')
    assert len(dls.train_ds)==n and len(pickle.dumps(dls.train_ds))<20_000
    assert dls.train_ds[n-1][1]==dls.train_ds[(n-1)%32][1]

# ---- everything that reads images

@pytest.fixture(scope='session')
def trained(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs')/'a'
    assert main([str(shards), '--out', str(out), *tiny])==0
    return out

def test_predict(trained, images, shards, tmp_path, capsys):
    "The same answers as for the files; also for one image by its path"
    rows = []
    for o in [*(f for f,_ in find_source(images).items)],[shards]:
        assert run(predict_main, capsys, trained, *o, '--out', tmp_path/'p.csv', '--device', 'cpu')[0]==0
        rows.append(list(csv.DictReader((tmp_path/'p.csv').open())))
    assert [(o['class'], o['probability']) for o in rows[0]]==[(o['class'], o['probability']) for o in rows[1]] and len(rows[0])==44
    rc,out,_ = run(predict_main, capsys, trained, rows[1][40]['path'], '--device', 'cpu')
    assert rc==0 and rows[1][40]['probability'] in out

def test_eval_and_report(trained, shards, capsys):
    rc,out,err = run(eval_main, capsys, trained, shards, '--device', 'cpu')
    assert rc==0 and '12 images' in out, err
    assert run(report_main, capsys, trained)[0]==0
    page = (trained/'report.html').read_text()
    assert page.count('data:image/jpeg')>=2 and 'cannot be shown' not in page

def test_check_and_exclude(images, shards, tmp_path):
    "A check finds the same of shards, and its list leaves the images out"
    a,b = (check(o, tmp_path/o.name, workers=0) for o in (images,shards))
    assert [(c.kind, len(c.images), c.said) for c in a.cases]==[(c.kind, len(c.images), c.said) for c in b.cases]
    assert (tmp_path/'s/check.html').read_text().count('data:image/jpeg')==(tmp_path/'photos/check.html').read_text().count('data:image/jpeg')
    (tmp_path/'out.csv').write_text('image,reason\ntrain-00000.tar/00000003.jpg,dark\n')
    src = find_source(shards, exclude=tmp_path/'out.csv')
    assert src.n_train==31 and not any(f.endswith('00000003.jpg') for f,_ in src.items) and '1 excluded' in src.describe()

# ---- damaged ones

def flipped(out, i):
    "Shards with one bit of image `i` changed"
    s = open_shards(out)
    with open(out/s.tar(i), 'r+b') as f:
        f.seek(at := int(s.offset[i])+int(s.size[i])//2)
        o = f.read(1)
        f.seek(at), f.write(bytes([o[0]^1]))
    return s.name(i)

def test_a_flipped_bit_is_named(shards, tmp_path, capsys):
    out = copied(shards, tmp_path/'s')
    name = flipped(out, 20)
    assert name=='train-00000.tar/00000020.jpg'
    rc,_,err = run(main, capsys, out, *tiny, '--out', tmp_path/'r')
    assert rc==3 and name in err and 'damaged in the shard: the' in err and len(err.splitlines())<=3
    rc,said,_ = run(main, capsys, out, *tiny, '--out', tmp_path/'r2', '--bad', 'skip')
    assert rc==0 and f"Left out: cannot read '{out/name}'" in said
    rc,said,_ = run(check_main, capsys, out, '--out', tmp_path/'c', '--workers', 0)
    assert rc==3 and name in said

def test_a_worker_names_it_too(shards, tmp_path):
    out = copied(shards, tmp_path/'s')
    name = flipped(out, 3)
    for method in 'fork','spawn':
        with pytest.raises(ImageError, match=name):
            for _ in bag_dls(out, size=32, bs=8, num_workers=2, start_method=method, device='cpu').train: pass

def cut_short(out): os.truncate(out/'train-00000.tar', (out/'train-00000.tar').stat().st_size-1)
def gone(out): (out/'valid-00000.tar').unlink()
def version(out): edit(out, version=7)
def no_index(out): (out/'shards.json').write_text('[]')
def classes(out): edit(out, classes=['dark'])
def column(out): np.save(out/'crc32.npy', np.zeros(5, columns['crc32']))
def torn(out): os.truncate(out/'offset.npy', 140)
def edit(out, **kw): (out/'shards.json').write_text(json.dumps(json.loads((out/'shards.json').read_text()) | kw))

@pytest.mark.parametrize('harm, words', [(cut_short, ['train-00000.tar', 'cut short', 'bytes']), (gone, ['No shard', '.tar']), (version, ['of version 7', 'version 1']), (no_index, ['shards.json', 'cannot be read']),
    (classes, ['other shards or classes']), (column, ['crc32.npy', 'other shards']), (torn, ['offset.npy', 'Cannot read'])], ids=lambda o: getattr(o, '__name__', ''))
def test_what_does_not_fit_is_refused(shards, tmp_path, capsys, harm, words):
    out = copied(shards, tmp_path/'s')
    harm(out)
    rc,_,err = run(main, capsys, out, *tiny, '--out', tmp_path/'r')
    assert rc==3 and all(o in err for o in words) and 'bot-shard' in err and len(err.splitlines())==1, err

def test_other_images_do_not_go_on(images, shards, tmp_path, capsys):
    "A folder of shards takes no others, and a run no other shards"
    other = lay_shades(tmp_path/'other')
    (other/'train/dark').rename(other/'train/gray'), (other/'test/dark').rename(other/'test/gray')
    rc,_,err = run(shard_main, capsys, other, shards)
    assert rc==3 and 'with other images and classes' in err
    out = shard(other, tmp_path/'s')
    assert main([str(shards), *tiny, '--out', str(tmp_path/'r')])==0
    rc,_,err = run(eval_main, capsys, tmp_path/'r', out, '--device', 'cpu')
    assert rc==3 and 'gray' in err

def test_a_label_that_was_changed_is_told(shards, tmp_path, capsys):
    "Columns of another writing, as after half a copy"
    out = copied(shards, tmp_path/'s')
    np.save(out/'label.npy', np.roll(np.load(out/'label.npy'), 1))
    assert main([str(out), '--out', str(tmp_path/'r'), *tiny])==3 and "label.npy' is not what was written with this index" in capsys.readouterr().err

def test_a_source_that_changed_since_is_told(tmp_path, capsys):
    top = lay_shades(tmp_path/'photos')
    assert run(shard_main, capsys, top, tmp_path/'s')[0]==0
    f = next((top/'train/dark').iterdir())
    f.write_bytes(f.read_bytes()[:-1]+b'x')
    os.utime(f, (2**31, 2**31))
    rc,_,err = run(shard_main, capsys, top, tmp_path/'s')
    assert rc==3 and '1 image has changed since' in err and f.name in err

def test_an_image_that_is_not_there_can_be_left_out(tmp_path, capsys):
    "The folder that was begun without it is no hindrance"
    top = lay_shades(tmp_path/'photos')
    gone = top/'train/dark/gone.png'
    gone.symlink_to(tmp_path/'none.png')
    rc,_,err = run(shard_main, capsys, top, tmp_path/'s')
    assert rc==3 and 'gone.png' in err and '--exclude' in err
    gone.unlink()
    assert run(shard_main, capsys, top, tmp_path/'s')[0]==0

@pytest.mark.parametrize('words, rc, said', [(['{images}', '{images}/s'], 2, 'or inside of it'), (['{images}', '{tmp}/full'], 2, 'not empty'), (['{images}', '{tmp}/a', '--short-edge', '0'], 2, 'short_edge=0'),
    (['{images}', '{tmp}/a', '--quality', 'best'], 2, 'quality'), (['{tmp}/none', '{tmp}/a'], 3, 'No such folder'), (['{images}'], 2, 'out')])
def test_what_cannot_be_written(images, tmp_path, capsys, words, rc, said):
    (tmp_path/'full').mkdir(), (tmp_path/'full/a').touch()
    got,_,err = run(shard_main, capsys, *(o.format(images=images, tmp=tmp_path) for o in words))
    assert got==rc and said in err and not (tmp_path/'a').exists(), err

def test_the_command(images, tmp_path):
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, 'shard', str(images), 's', '--workers', '2'], cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode==0 and p.stdout=='s: 44 images in 2 shards, 0.1 MB\n' and p.stderr=='', p
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, 'shard', str(images), 's'], cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode==0 and 'nothing to do' in p.stdout
