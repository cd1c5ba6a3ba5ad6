"What a tutorial tells its reader to change in the package, changed: the new trick is an option of the command, and trains"
import os, re, shutil, subprocess, sys
from pathlib import Path
from fastcore.nbio import read_nb

root = Path(__file__).parents[1]
cells = read_nb(root/'nbs/tutorials/05_own_trick.ipynb').cells
diff = next(m[1] for c in cells if (m := re.search(r'```diff\n(.*?)```', c.source, re.S)))

def hunks():
    "Notebook, text before and text after of each part of the diff"
    for part in re.split(r'^--- ', diff, flags=re.M)[1:]:
        head,body = part.split('\n', 1)
        for hunk in re.split(r'^@@\n', body, flags=re.M):
            lines = hunk.strip('\n').split('\n')
            yield head.split(':')[0],*('\n'.join(o[1:] for o in lines if o[0]!=drop) for drop in '+-')

def source(start): return next(c.source for c in cells if c.cell_type=='code' and c.source.startswith(start))

def change(path, old, new):
    text = path.read_text()
    assert text.count(old)==1, f'{path.name} has it {text.count(old)} times: {old}'
    path.write_text(text.replace(old, new))

def changed(to):
    "A copy of the package with the trick of the tutorial in it"
    d = shutil.copytree(root/'bot', to/'bot')
    for nb,old,new in hunks(): change(d/f"{nb.split('_', 1)[1]}.py", *(o.replace('from bot.', 'from .') for o in (old,new)))
    for mod,start in ('losses', 'def poly_term('),('distill', 'class Poly('):
        path = d/f'{mod}.py'
        path.write_text(f'{path.read_text()}\n{source(start)}\n')
    change(d/'distill.py', 'from .losses import ', 'from .losses import poly_term,')

def test_own_trick_inside_the_package(tmp_path):
    changed(tmp_path)
    argv = '--rung poly --but distill,mixup --poly 1.5 --epochs 1 --widen .125 --device cpu --workers 0 --out run'.split()
    run = subprocess.run([sys.executable, '-c', f'from bot.cli import main; raise SystemExit(main({argv}))'], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | dict(PYTHONPATH=str(tmp_path)))
    assert run.returncode==0 and '+ poly (1.5)' in run.stdout, run.stdout+run.stderr
    code = "from bot.ladder import check_settings\nfor o in 'nan','-1':\n    try: check_settings(poly=o)\n    except Exception as e: print(e)"
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(tmp_path))).stdout
    assert out.splitlines()==['poly=nan is outside [0,inf): give a value inside', 'poly=-1 is outside [0,inf): give a value inside']
    assert 'poly: 1.5' in (tmp_path/'run/args.yaml').read_text()
