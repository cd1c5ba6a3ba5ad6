"What the notebooks promise together: they are in step with the package, their numbers are their import order, and a wheel has all of it"
import ast, importlib, re, shutil, subprocess, sys, zipfile
from pathlib import Path
import pytest
from fastcore.nbio import read_nb

root = Path(__file__).parents[1]
src = {p.stem: p.read_text() for p in (root/'bot').glob('*.py')}
nbs = {k: m[1] for k,v in src.items() if (m := re.search(r'File to edit: .*?(\d\w*\.ipynb)', v))}
by_hand = {'__init__', '__main__', '_modidx', 'all'}
fixtures = 'test_utils'   # has the last number, for it is not part of the reading; checks of any page that comes after what it imports may use it

def imported(code):
    "Modules of ours that `code` imports, wherever it does"
    froms = [o for o in ast.walk(ast.parse(code)) if isinstance(o, ast.ImportFrom) and o.module]
    names = [a.name for o in froms if o.module=='bot' for a in o.names] + [a.name for o in ast.walk(ast.parse(code)) if isinstance(o, ast.Import) for a in o.names]
    return {m.removeprefix('bot.') for m in [o.module for o in froms]+names} & set(nbs)

def code_of(path):
    "All code of a notebook, exported or not"
    cells = [c.source for c in read_nb(path).cells if c.cell_type=='code' and not c.source.lstrip().startswith('%%')]
    return '\n'.join(re.sub(r'^\s*[%!].*$', '', o, flags=re.M) for o in cells)

def run(*cmd, cwd): return subprocess.run(cmd, cwd=cwd, check=True, capture_output=True, text=True)
def tool(name): return str(Path(sys.executable).with_name(name))

def copy(to):
    drop = shutil.ignore_patterns('.git', '.venv', '_docs', '_proc', '_site', 'runs', '*.egg-info', 'build', 'dist')
    return shutil.copytree(root, to, ignore=drop)

def test_every_module_has_a_notebook(): assert set(src)-by_hand==set(nbs)

@pytest.mark.parametrize('k', sorted(nbs, key=nbs.get))
def test_order(k):
    "In every cell, those of checks too"
    mods = imported(code_of(root/'nbs'/nbs[k]))
    if fixtures in mods: mods |= imported(src[fixtures])
    up = [nbs[o] for o in mods-{fixtures} if nbs[o]>=nbs[k]]
    assert not up, f'{nbs[k]} imports {up}'

def test_the_order_test_sees_imports():
    assert len(imported(src['cli']))>=3 and imported('def f():\n    from bot.cli import main\nimport bot.runs')=={'cli','runs'}
    assert 'bag_dls' in code_of(root/'nbs'/nbs['learner'])

# ---- the public face

public = {k: importlib.import_module(f'bot.{k}').__all__ for k in nbs}

def test_no_name_means_two_things():
    where = {}
    for k,names in public.items():
        for o in names: where.setdefault(o, []).append(k)
    assert not {k:v for k,v in where.items() if len(v)>1 and v!=[v[0], fixtures]}

def test_all_is_a_list_of_names():
    import bot.all as b
    tree = ast.parse((root/'bot/all.py').read_text())
    froms = [o for o in tree.body if isinstance(o, ast.ImportFrom) and o.level and not o.names[0].name.startswith('add_')]
    assert len(b.__all__)<=130 and set(b.__all__)=={a.name for o in froms for a in o.names}
    for o in froms: assert {a.name for a in o.names}<=set(public[o.module]), o.module
    assert [o.module for o in froms]==sorted([o.module for o in froms], key=nbs.get)

def test_all_hides_nothing_of_fastai():
    import bot.all as b, fastai.vision.all as theirs
    assert not [o for o in b.__all__ if hasattr(theirs, o) and getattr(theirs, o) is not getattr(b, o)]

def free_names(code):
    tree = ast.parse(code)
    made = {a.asname or a.name for o in ast.walk(tree) if isinstance(o, (ast.Import,ast.ImportFrom)) for a in o.names}
    made |= {o.id for o in ast.walk(tree) if isinstance(o, ast.Name) and not isinstance(o.ctx, ast.Load)}
    made |= {o.arg for o in ast.walk(tree) if isinstance(o, ast.arg)}
    made |= {o.name for o in ast.walk(tree) if isinstance(o, (ast.FunctionDef,ast.ClassDef))}
    return {o.id for o in ast.walk(tree) if isinstance(o, ast.Name)} - made

pages = [root/'nbs/index.ipynb', *sorted((root/'nbs/tutorials').glob('*.ipynb'))]

@pytest.mark.parametrize('page', pages, ids=lambda o: o.stem)
def test_pages_use_the_promise(page):
    "A name of ours on a page for users is in `bot.all`, or imported from its module on that page"
    import bot.all as b
    every = {o for names in public.values() for o in names}
    used = free_names(code_of(page)) & every
    assert used<=set(b.__all__), used-set(b.__all__)

def test_the_readme_uses_the_promise():
    import bot.all as b
    every = {o for names in public.values() for o in names}
    code = '\n'.join(re.findall(r'```python\n(.*?)```', (root/'README.md').read_text(), re.S))
    assert 'bag_dls' in free_names(code) and free_names(code) & every<=set(b.__all__)

# ---- what is imported, and what importing changes

def test_models_and_images_need_no_fastai():
    code = f"import sys; from bot import core, ladder, images, augment, init, resnet, weights, models, losses; print([o for o in sys.modules if o.split('.')[0]=='fastai'])"
    assert run(sys.executable, '-c', code, cwd=root).stdout.strip()=='[]'

def changed_in_fastai():
    "What of fastai's classes has code of ours, by name"
    importlib.import_module('bot.all')
    mods = [m for k,m in list(sys.modules.items()) if k.split('.')[0]=='fastai' and m]
    classes = {o for m in mods for o in vars(m).values() if isinstance(o, type) and o.__module__.split('.')[0]=='fastai'}
    def ours(f): return getattr(f, '__module__', None) and f.__module__.split('.')[0]=='bot'
    res = {f'{c.__name__}.{k}' for c in classes for k,f in vars(c).items() if ours(getattr(f, '__func__', getattr(f, 'fget', f)))}
    return res | {f'{m.__name__}.{k}' for m in mods for k,f in vars(m).items() if ours(f) and callable(f)}

def test_the_table_of_changes_is_what_is_changed():
    cell = next(c.source for c in read_nb(root/'nbs'/nbs['learner']).cells if c.source.startswith('## What importing `bot` changes in fastai'))
    rows = re.findall(r'^\| (`.*?) \| `bot\.(\w+)` \| (new|replaced)', cell, re.M)
    told = {o: (mod,how) for names,mod,how in rows for o in re.findall(r'`([\w.]+)`', names)}
    assert changed_in_fastai()==set(told)-{'model_meta'}
    from fastai.callback.schedule import LRFinder
    from fastai.learner import Learner
    from fastai.vision.learner import model_meta
    for k,(mod,how) in told.items():
        if '.' not in k: continue
        cls,name = k.split('.')
        f = getattr(dict(Learner=Learner, LRFinder=LRFinder)[cls], name)
        assert f.__module__==f'bot.{mod}' and hasattr(dict(Learner=Learner, LRFinder=LRFinder)[cls], f'_orig_{name}')==(how=='replaced'), k
    assert sum(getattr(k, '__module__', '')=='bot.models' for k in model_meta)==28

def test_a_reload_changes_nothing_more():
    "In a process of its own, for what is reloaded stays so"
    code = """
import importlib, bot.all
from fastai.learner import Learner
from fastai.callback.schedule import LRFinder
from bot.test_utils import learner
for k in 'loader optimizer precision learner'.split()*2: importlib.reload(importlib.import_module(f'bot.{k}'))
learn = learner()
with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False, num_it=3), learn.fit(1)
print(learn.opt is not None, LRFinder._orig_before_fit.__module__, Learner._orig_create_opt.__module__, Learner._orig_to_fp16.__module__)"""
    assert run(sys.executable, '-W', 'ignore', '-c', code, cwd=root).stdout.splitlines()[-1]=='True fastai.callback.schedule fastai.learner fastai.callback.fp16'

@pytest.mark.parametrize('words, code, said', [(['train', '--epohcs', '3'], 2, "did you mean '--epochs'"), (['tarin'], 2, "did you mean 'train'"), ([], 2, 'train')])
def test_python_m(words, code, said):
    out = subprocess.run([sys.executable, '-m', 'bot', *words], cwd=root, capture_output=True, text=True)
    assert out.returncode==code and said in out.stdout+out.stderr

def test_a_module_is_a_page_long(): assert not {k: n for k in nbs if (n := len(src[k].splitlines()))>330}

def test_bodies_are_short():
    def start(f): return f.body[isinstance(f.body[0], ast.Expr) and len(f.body)>1].lineno   # after the docstring
    def lines(f): return f.body[-1].end_lineno-start(f)+1
    long = {f'{k}.{f.name}': lines(f) for k in nbs for f in ast.walk(ast.parse(src[k])) if isinstance(f, ast.FunctionDef) and lines(f)>16}
    assert not long

# ---- the lessons

def is_exported(cell): return bool(re.match(r'#\|\s*exports?\b', cell))

def is_hidden(cell): return bool(re.match(r'#\|\s*hide\b', cell))

def is_check(node):
    "An `assert`, a `test_...` of fastcore's, or an `expect_fail`"
    if isinstance(node, ast.Call): return getattr(node.func, 'id', getattr(node.func, 'attr', '')).startswith(('test_','expect_fail'))
    return isinstance(node, ast.Assert)

def lessons(cells):
    "Of a page: definitions at the top of exported cells, checks in the other cells, the number of these, and how many of them are hidden"
    cells = [o for o in cells if not re.match(r'#\|\s*default_exp', o)]
    rest = [o for o in cells if not is_exported(o)]
    defs = sum(isinstance(o, (ast.FunctionDef,ast.ClassDef)) for c in cells if is_exported(c) for o in ast.parse(c).body)
    checks = sum(map(is_check, ast.walk(ast.parse('\n'.join(rest)))))
    return dict(definitions=defs, checks=checks, cells=len(rest), hidden=sum(map(is_hidden, rest)))

def code_cells(k): return [re.sub(r'^\s*[%!].*$', '', o.source, flags=re.M) for o in read_nb(root/'nbs'/nbs[k]).cells if o.cell_type=='code']

taught = sorted(set(nbs)-{fixtures}, key=nbs.get)

@pytest.mark.parametrize('k', taught)
def test_a_page_checks_what_it_defines(k):
    "At least one check a definition; of the cells that are not exported at least half can be seen"
    o = lessons(code_cells(k))
    assert o['checks']>=o['definitions'] and o['hidden']<=o['cells']/2, o

@pytest.mark.parametrize('k', sorted(set(taught)-{'learner','cli','call'}, key=nbs.get))
def test_a_page_begins_with_use(k):
    "Three lines that do it, before the first definition; `test_docs` looks at their names and keywords. The commands' pages begin with a function and with its help"
    cells = [o.source for o in read_nb(root/'nbs'/nbs[k]).cells]
    first = next(i for i,o in enumerate(cells) if re.match(r'#\|\s*exports', o))
    assert any(o.startswith('```python\n') and 'from bot.all import *' in o for o in cells[:first])

@pytest.mark.parametrize('k', sorted(nbs, key=nbs.get))
def test_a_page_names_what_it_exports(k):
    "Of a cell with `#| export` the site shows functions and classes only: a value for others must be named elsewhere on the page"
    said = '\n'.join(c.source for c in read_nb(root/'nbs'/nbs[k]).cells if not re.match(r'#\|\s*export\b', c.source))
    m = importlib.import_module(f'bot.{k}')
    assert not [o for o in m.__all__ if not callable(getattr(m, o)) and not re.search(rf'\b{o}\b', said)]

def test_lessons_are_counted():
    cells = ['#| default_exp x', '#| exports\n@patch\ndef f(self:A): pass\nclass B:\n    def g(self): assert self', '#| hide\nimport os', 'x = 1\ntest_eq(x, 1)\nwith expect_fail(A): assert x']
    assert lessons(cells)==dict(definitions=2, checks=3, cells=2, hidden=1)

# ---- in step

def test_the_table_of_mutants_is_in_step(monkeypatch):
    "A fault is put where its fragment stands; `python tests/mutants.py` takes minutes, this finds what has moved"
    monkeypatch.syspath_prepend(str(root/'tests'))
    lost = [o[0] for o in importlib.import_module('mutants').table if src[o[1]].count(o[2])!=1 or not (root/f"tests/test_{o[4].split()[0]}.py").exists()]
    assert not lost

def test_in_step(tmp_path):
    d = copy(tmp_path/'bot')
    for cmd in 'nbdev-clean','nbdev-export': run(tool(cmd), cwd=d)
    for p in [*root.glob('nbs/**/*.ipynb'), *root.glob('bot/**/*.py')]:
        if '.ipynb_checkpoints' not in p.parts: assert p.read_text()==(d/p.relative_to(root)).read_text(), p

def test_a_hand_edit_is_seen(tmp_path):
    d = copy(tmp_path/'bot')
    p = d/'bot/ladder.py'
    p.write_text(p.read_text().replace('bs=1024', 'bs=2048'))
    run(tool('nbdev-export'), cwd=d)
    assert p.read_text()==src['ladder']

def test_readme_is_the_index(tmp_path):
    out = run(sys.executable, 'docs/readme.py', str(tmp_path/'README.md'), cwd=root)
    assert (tmp_path/'README.md').read_text()==(root/'README.md').read_text(), out.stdout

def test_import_is_light():
    code = "import sys, bot, bot.ladder, bot.cli; print(sorted({'torch','fastai','matplotlib','pandas','numpy'} & set(sys.modules)))"
    assert run(sys.executable, '-c', code, cwd=root).stdout.strip()=='[]'

def test_wheel_from_sdist(tmp_path):
    d = copy(tmp_path/'bot')
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', str(tmp_path/'dist'), cwd=d)
    wheel = zipfile.ZipFile(next((tmp_path/'dist').glob('*.whl')))
    names = wheel.namelist()
    assert {f'bot/{k}.py' for k in src} <= set(names)
    meta = wheel.read(next(o for o in names if o.endswith('METADATA'))).decode()
    for o in 'fastai', 'torch', 'torchvision', 'safetensors', 'scipy': assert re.search(f'^Requires-Dist: {o}\\b', meta, re.M), o
    assert 'extra == "dev"' in meta and 'License-Expression: Apache-2.0' in meta
    assert 'bot-train = bot.cli:main' in wheel.read(next(o for o in names if o.endswith('entry_points.txt'))).decode()

def test_names_that_scripts_import_exist():
    "A name that moved to another module is missed by a script that no test runs"
    def gone(f):
        for o in ast.walk(ast.parse(f.read_text())):
            if not isinstance(o, ast.ImportFrom) or o.level or not (o.module or '').split('.')[0]=='bot': continue
            m = importlib.import_module(o.module)
            yield from (f'{f.name}: {o.module}.{a.name}' for a in o.names if a.name!='*' and not hasattr(m, a.name) and not importlib.util.find_spec(f'{o.module}.{a.name}'))
    assert not [o for k in ('bench','docs','tests','examples') for f in (root/k).rglob('*.py') for o in gone(f)]
