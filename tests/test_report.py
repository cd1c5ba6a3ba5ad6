"The page of a run: whole, small, quick, harmless whatever names there are, and there at the end of every run"
import json, re, shutil, subprocess, sys, time
from html.parser import HTMLParser
from pathlib import Path
import pytest
from bot.all import bag_dls, bag_learner, report
from bot.core import DataError, UsageError
from bot.files import read_status
from bot.outcome import read_outcome, step_curves
from made_runs import evil, make_images, make_run

root = Path(__file__).parents[1]
sections = ['Curves', 'Classes', 'Confusion matrix', 'Worst mistakes', 'Most confident mistakes', 'Least sure hits', 'How sure it is', 'Changed from the paper', 'Doctor', 'Speed',
    'Environment', 'The same again']

class Page(HTMLParser):
    "Tags, headings and text of a page"
    def __init__(self, text):
        super().__init__()
        self.tags,self.heads,self.text = [],[],''
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag=='h2': self.heads.append('')
    def handle_data(self, data):
        self.text += data
        if self.tags and self.tags[-1][0]=='h2' and self.heads and not self.heads[-1]: self.heads[-1] = data
    def count(self, tag): return sum(k==tag for k,_ in self.tags)

@pytest.fixture(scope='module')
def images(tmp_path_factory): return make_images(tmp_path_factory.mktemp('images'), 100)

def names(n): return [f'{i}.jpg' for i in range(n)]
def page(*runs, **kw): return Page(report(*runs, **kw).path.read_text())

def test_all_parts(images, tmp_path):
    o = page(make_run(tmp_path/'run', ['a','b','c'], files=names(100), images=images))
    assert o.heads==sections and 'cannot be shown' not in o.text and o.count('script')==1
    assert all(v.startswith(('#','data:')) for _,at in o.tags for k,v in at.items() if k in ('href','src','xlink:href'))

@pytest.mark.slow
def test_a_thousand_classes(images, tmp_path):
    "In a process of its own: under 3 MB, 20 s and 1 GB, and at most 72 images are read"
    run = make_run(tmp_path/'run', [f'n{i:08} a name of a class' for i in range(1000)], 50_000, names(100), images)
    code = f"""import re, bot.page
from bot.report import report
read,f = [],bot.page.thumbnail
bot.page.thumbnail = lambda *a: read.append(a) or f(*a)
print(report({str(run)!r}))
print(len(read), int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])/1024)"""
    start = time.monotonic()
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=root, capture_output=True, text=True, check=True).stdout
    spent,(n,mb) = time.monotonic()-start,map(float, out.splitlines()[-1].split())
    size = (run/'report.html').stat().st_size
    print(f'{spent:.1f} s, {mb:.0f} MB of memory, {n:.0f} images, {size/1e6:.2f} MB')
    assert spent<20 and mb<1024 and n<=72 and size<3e6
    o = Page((run/'report.html').read_text())
    assert o.heads==sections and o.count('tr')>1050 and 'cannot be shown' not in o.text
    assert sum(len(at['src']) for k,at in o.tags if k=='img' and 'jpeg' in at['src'])<=2**20

def test_names_stay_text(images, tmp_path):
    run = make_run(tmp_path/'<b>run', evil, files=[f'{i}.jpg' for i in range(20)] + ['<img src=x onerror=alert(1)>.jpg'], images=images, command=f'bot-train {evil[0]}', changed=[f'bs: 1 -> 2 ({evil[1]})'])
    for o in (page(run), page(run, shutil.copytree(run, tmp_path/evil[2]), out=tmp_path/'both.html')):
        assert o.count('script')==1 and o.count('b')==0 and all(at['src'].startswith('data:') for k,at in o.tags if k=='img')
        assert not [at for _,at in o.tags if any(k.startswith('on') for k in at)]
    assert page(run).text.count('=cmd()')>10

def test_without_fastai():
    subprocess.run([sys.executable, '-W', 'ignore', '-c', "import sys, bot.report; assert not {'fastai','pandas','sklearn'} & set(sys.modules)"], cwd=root, check=True)

# ---- what a folder may lack

def test_no_run(tmp_path):
    with pytest.raises(DataError, match='is no run folder'): report(tmp_path)
    with pytest.raises(DataError, match='is no run folder'): report(tmp_path/'none')
    run = make_run(tmp_path/'run', ['a','b'])
    (run/'metrics.csv').unlink()
    with pytest.raises(DataError, match='first epoch of the run in .* has not ended'): report(run)
    (run/'args.yaml').write_text('[')
    with pytest.raises(DataError, match='holds no settings'): report(run)
    assert not list(tmp_path.rglob('*.html'))

def test_an_old_run(images, tmp_path):
    "Without predictions, or with damaged ones, the other parts are there and it is said"
    run = make_run(tmp_path/'run', ['a','b','c'], images=images)
    (run/'status.json').write_text(json.dumps(dict(state='interrupted', epochs=2, files=dict(predictions=dict(name='predictions-0002-0000.csv', size=3, crc32=1)))))
    o = page(run)
    assert o.heads==[k for k in sections if k in ('Curves','Changed from the paper','Doctor','Speed','Environment','The same again')]
    assert 'missing or damaged' in o.text and 'has not come to its end: interrupted' in o.text and 'accuracy 0.4667' in o.text
    (run/'status.json').unlink(), (run/'predictions.csv').unlink()
    assert 'predictions.csv' in page(run).text

def test_moved_images(images, tmp_path):
    run = make_run(tmp_path/'run', ['a','b','c'], files=names(100), images=tmp_path/'gone')
    o = page(run)
    n = len(o.heads) and o.text.count('cannot be shown')
    assert o.heads==sections and n and f"{n} of {n} pictures are not under '{tmp_path}/gone'" in o.text
    assert 'cannot be shown' not in page(run, src=images).text

# ---- several runs

def test_two_runs(images, tmp_path):
    a,b = (make_run(tmp_path/k, ['a','b','c'], 400, names(400), images, seed=i, right=r, settings=dict(arch='xresnet18d', lr=r)) for i,(k,r) in enumerate((('weak', .6), ('good', .8))))
    out = report(a, b, out=tmp_path)
    assert out.path==tmp_path/'comparison.html' and len(out.lines)==4 and 'good is better on images like these' in out.lines[2]
    o = Page(out.path.read_text())
    assert o.heads==['Accuracy', 'On the same images', 'What differs', 'Curves'] and 'lr' in o.text and 'exact McNemar' in o.text and o.count('svg')>=4
    x,y = read_outcome(a).seen,read_outcome(b).seen
    assert f"{100*(y.right.mean()-x.right.mean()):+.2f} points" in out.lines[2]

def test_other_images_are_refused(images, tmp_path):
    a,b,c = make_run(tmp_path/'a', ['a','b'], 50, names(50), images),make_run(tmp_path/'b', ['a','b'], 40, names(50), images),make_run(tmp_path/'c', ['x','y'], 50, names(50), images)
    text = page(a, b, c, out=tmp_path/'all.html').text
    for o,k in (a,'0'),(d := make_run(tmp_path/'d', ['a','b'], 50, names(50), images),'1'):
        with open(o/'args.yaml', 'a') as f: f.write(f'\nvalid_hash: "{k*32}"\n')
    assert 'images of the same names are other files' in page(a, d, out=tmp_path/'same.html').text
    assert '40 paths are in both, of 50 and 40' in text and 'the same paths have other labels' in text and 'points (95%' not in text
    with pytest.raises(UsageError, match='named twice'): report(a, tmp_path/'c/../a', out=tmp_path/'twice.html')
    assert not (tmp_path/'twice.html').exists()

def test_the_same_in_another_order(images, tmp_path):
    a,b = make_run(tmp_path/'a', ['a','b'], 50, names(50), images),make_run(tmp_path/'b', ['b','a'], 50, names(50), images)
    head,*rows = (a/'predictions.csv').read_text().splitlines()
    (b/'predictions.csv').write_text('\n'.join([head, *rows[::-1]])+'\n')
    assert '+0.00 points' in page(a, b, out=tmp_path/'both.html').text

# ---- at the end of a run

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    learn = bag_learner(bag_dls('digits', size=32, bs=64), 'smooth', widen=1/16, epochs=2)
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(resume=tmp_path_factory.mktemp('runs')/'run')
    return learn

def test_every_run_leaves_one(trained):
    path = trained.run_folder.path
    o,s = Page((path/'report.html').read_text()),read_status(path)
    assert o.heads==sections and 'cannot be shown' not in o.text and 0<s['waited']<1 and f"{s['waited']:.0%} of the time" in o.text
    assert re.search(r'accuracy \d+\.\d\d% \(95% interval', o.text) and trained.report().path==path/'report.html'
    assert abs(read_outcome(path).judged['accuracy']-float(s['accuracy']))<.2

def test_curves_of_batches(trained):
    "As the learner has them, read without it"
    s,rec = step_curves(trained.run_folder.path),trained.recorder
    assert len(s['lr'])==len(rec.lrs) and abs(s['lr']-rec.lrs).max()<1e-12 and abs(s['loss']-[float(o) for o in rec.losses]).max()<1e-6 and s['x'][-1]==2

def test_a_full_disk_ends_no_run(tmp_path, capfd, monkeypatch):
    def full(*args): raise OSError('no room')
    monkeypatch.setattr('bot.report.write_atomic', full)
    learn = bag_learner(bag_dls('digits', size=32, bs=64), 'smooth', widen=1/16, epochs=1)
    with learn.no_bar(), learn.no_logging(): learn.fit_rung(resume=tmp_path/'run')
    assert read_status(tmp_path/'run')['state']=='finished' and 'could not be written (no room)' in capfd.readouterr().err

def test_written_again_over_a_first(images, tmp_path):
    "Whole or as it was"
    run = make_run(tmp_path/'run', ['a','b'], images=images)
    first = report(run).path.read_text()
    (run/'predictions.csv').write_text('path,label\n')
    assert 'has no predictions' in page(run).text and 'has no predictions' not in first
    assert [o.name for o in run.iterdir() if o.name.startswith('.')]==[]
