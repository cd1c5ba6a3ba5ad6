"What the tutorials tell a reader to do, done: the change to the package, and the commands"
import json, os, re, shlex, shutil, subprocess, sys
from pathlib import Path
import pytest
from bot.cli import parse

root = Path(__file__).parents[1]
cells = {p.stem: [(c['cell_type'], ''.join(c['source'])) for c in json.loads(p.read_text())['cells']] for p in sorted(root.glob('nbs/tutorials/*.ipynb'))}
modules = {p.name[:-6]: root/'bot'/f"{p.name[3:-6]}.py" for p in root.glob('nbs/[0-9]*.ipynb')}
blocks = [(k, m) for k,v in cells.items() for kind,s in v if kind=='markdown' for m in re.findall(r'```diff\n(.*?)```', s, re.S)]

def hunks(diff):
    "Module, text before and text after of each part of a diff"
    for part in re.split(r'^--- ', diff, flags=re.M)[1:]:
        head,body = part.split('\n', 1)
        for hunk in re.split(r'^@@\n', body, flags=re.M):
            lines = hunk.strip('\n').split('\n')
            yield head.split(':')[0],*('\n'.join(o[1:] for o in lines if o[0]!=drop) for drop in '+-')

def cell_with(name, text): return next(s for kind,s in cells[name] if kind=='code' and s.startswith(text))

def test_own_trick_inside_the_package(tmp_path):
    d = shutil.copytree(root/'bot', tmp_path/'bot')
    for mod,old,new in hunks(next(b for k,b in blocks if k=='05_own_trick')):
        f = d/modules[mod].name
        assert f.read_text().count(old)==1, old
        f.write_text(f.read_text().replace(old, new))
    for mod,text in ('losses', 'def poly_term('),('callbacks', 'class Poly('):
        (d/f'{mod}.py').write_text((d/f'{mod}.py').read_text() + '\n' + cell_with('05_own_trick', text) + '\n')
    f = d/'callbacks.py'
    f.write_text(f.read_text().replace('import check_targets,', 'import poly_term,check_targets,'))
    argv = ['--rung', 'poly', '--but', 'distill,mixup', '--poly', '1.5', '--epochs', '1', '--widen', '.125', '--device', 'cpu', '--out', 'run']
    run = subprocess.run([sys.executable, '-c', f'from bot.cli import main; raise SystemExit(main({argv}))'], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | dict(PYTHONPATH=str(tmp_path)))
    assert run.returncode==0 and '+ poly (paper)' in run.stdout, run.stderr
    assert 'poly: 1.5' in (tmp_path/'run/args.yaml').read_text()

def commands():
    "Every `bot-train` of the tutorials, as prose, in shell cells and in scripts"
    for k,v in cells.items():
        for kind,s in v:
            found = re.findall(r'(?:`|^)bot-train ([^`\n]+)', s, re.M) if kind=='markdown' else re.findall(r'^(?:.*; do )?(?:srun )?bot-train (.*)', s, re.M)
            for o in found: yield pytest.param(re.split(r' *(?:[|;>]|\|\|) ', o)[0], id=f'{k}: {o[:40]}')

@pytest.mark.parametrize('line', commands())
def test_options_exist(line):
    if '--help' in line or '--poly' in line: return
    parse(shlex.split(re.sub(r'\$\w+', '1', line)))
