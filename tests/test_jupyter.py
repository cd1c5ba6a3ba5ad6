"What Jupyter adds: an import that costs little more than fastai's, help that knows the docments, displays for dicts that stay dicts"
import ast, pickle, subprocess, sys
from pathlib import Path
import pytest
from IPython.core.formatters import DisplayFormatter
from IPython.core.oinspect import getdoc
from nbdev.showdoc import doc
import bot.all as b
from fastai.learner import Learner

root = Path(__file__).parents[1]

def test_import_adds_little_to_fastai():
    "What costs is what is imported: beyond fastai's, our modules and four small ones"
    code = "import sys, fastai.vision.all; had = set(sys.modules); import bot.all; print(*(set(sys.modules)-had))"
    extra = subprocess.run([sys.executable, '-c', code], cwd=root, check=True, capture_output=True, text=True).stdout.split()
    others = {o for o in extra if o.split('.')[0]!='bot' and not o.startswith('_cython')}
    assert 'bot.learner' in extra and others<={'torch.utils.flop_counter', 'torch.utils.module_tracker', 'simplejpeg', 'simplejpeg._jpeg'}, others

def test_fastai_is_imported_first():
    found = sorted((o.lineno, o.names[0].name) for o in ast.walk(ast.parse((root/'bot/all.py').read_text())) if isinstance(o, (ast.Import,ast.ImportFrom)))
    assert [o for _,o in found][:2]==['warnings', 'fastai.vision.all']

helped = dict(bag_learner=(b.bag_learner, ['Tricks to leave out', 'Peak learning rate']), recipe=(b.recipe, ['Name of a row', 'Label smoothing']),
    fit_rung=(Learner.fit_rung, ['Epochs; unset, those of the recipe']), fit_warmup_cos=(Learner.fit_warmup_cos, ['Full learning rate', 'Epochs of warmup']))

@pytest.mark.parametrize('k', helped)
def test_help_gives_docments(k):
    f,texts = helped[k]
    for o in f.__doc__, *texts: assert o in getdoc(f), o
    md = doc(f)._repr_markdown_()
    for o in texts: assert o in md, o

def test_fastais_own_are_left_alone(): assert not hasattr(Learner.fit_one_cycle, 'getdoc') and not hasattr(Learner.fit, 'getdoc')

@pytest.mark.parametrize('x', [b.ladder, b.recipe('mixup'), b.fit_to(b.recipe('smooth'), 500, 64)], ids=['ladder', 'recipe', 'fitted'])
def test_display(x):
    data,_ = DisplayFormatter().format(x)
    html = data['text/html']
    assert isinstance(x, dict) and pickle.loads(pickle.dumps(x))==x and list(x)==list(dict(x))
    assert len(html)<6000 and html.count('<tr>')==html.count('</tr>')==len(x)+1
    assert 'color' not in html and 'background' not in html and '->' not in html.replace('-&gt;', '')
    assert ast.literal_eval(data['text/plain'])==dict(x)
