"What the notebooks promise together: they are in step with the package, their numbers are their import order, and a wheel has all of it"
import ast, re, shutil, subprocess, sys, zipfile
from pathlib import Path
import pytest

root = Path(__file__).parents[1]
src = {p.stem: p.read_text() for p in (root/'bot').glob('*.py')}
nbs = {k: m[1] for k,v in src.items() if (m := re.search(r'File to edit: .*?(\d\w*\.ipynb)', v))}
by_hand = {'__init__', '_modidx', 'all'}

def imported(k):
    mods = [o.module for o in ast.walk(ast.parse(src[k])) if isinstance(o, ast.ImportFrom) and o.module]
    names = [a.name for o in ast.walk(ast.parse(src[k])) if isinstance(o, ast.ImportFrom) and o.module=='bot' for a in o.names]
    return {m.removeprefix('bot.') for m in mods+names} & set(nbs)

def run(*cmd, cwd): return subprocess.run(cmd, cwd=cwd, check=True, capture_output=True, text=True)
def tool(name): return str(Path(sys.executable).with_name(name))

def copy(to):
    drop = shutil.ignore_patterns('.git', '.venv', '_docs', '_proc', '_site', 'runs', '*.egg-info', 'build', 'dist')
    return shutil.copytree(root, to, ignore=drop)

def test_every_module_has_a_notebook(): assert set(src)-by_hand==set(nbs)

@pytest.mark.parametrize('k', sorted(nbs, key=nbs.get))
def test_order(k):
    up = [nbs[o] for o in imported(k) if nbs[o]>=nbs[k]]
    assert not up, f'{nbs[k]} imports {up}'

def test_the_order_test_sees_imports(): assert len(imported('cli'))>=3

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

def test_all_lists_every_module_in_order():
    mods = re.findall(r'^from \.(\w+) import \*', (root/'bot/all.py').read_text(), re.M)
    assert mods==sorted(set(nbs)-{'cli','test_utils'}, key=nbs.get)

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
