"What the documentation prints can be typed: its commands exist, their options parse, its Python names what there is; and its links are looked at"
import ast, builtins, configparser, contextlib, csv, importlib, inspect, io, json, os, re, shlex, shutil, subprocess, sys
from pathlib import Path
import pytest
from fastcore.nbio import read_nb

root = Path(__file__).parents[1]
cfg = configparser.ConfigParser(delimiters=['='], interpolation=None)
cfg.read(root/'settings.ini')
scripts = dict(o.replace(' ', '').split('=') for o in cfg['DEFAULT']['console_scripts'].split('\n') if o)
extras = {k.removesuffix('_requirements') for k in cfg['DEFAULT'] if k.endswith('_requirements')}
ours = [*scripts, 'python', 'python3', 'pip', 'pytest', 'torchrun', 'chkstyle']
others = {'sbatch', 'squeue', 'scancel', 'docker', 'jupyter', 'ssh', 'scp', 'rsync', 'apt-get', 'quarto'}   # need not be on this machine
words_of_bash = {'do', 'then', 'else', 'if', 'while', '{', 'time', 'exec', 'srun', '!'}   # a command follows
to_be_written = {'bot-train --rung poly --but distill,mixup --poly 1.5'}   # the reader's own trick, which a tutorial adds

# What is printed
def prose():
    "Markdown of the repository by place: its own files, and the notebooks' cells; code cells are run as they are by `nbdev-test`"
    for p in root.glob('*.md'): yield p.name, p.read_text()
    for p in sorted((root/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in p.parts: continue
        for c in read_nb(p).cells:
            if c.cell_type=='markdown': yield f'{p.name}:{c.id}', c.source

def fences(text, langs): return [m[2] for m in re.finditer(r'^ *```(\w+)\n(.*?)^ *```', text, re.M|re.S) if m[1] in langs]

def simple_commands(script):
    "Lists of words: the commands of a script, without redirections and the words of bash around them"
    lex = shlex.shlex(re.sub(r'\\\n', ' ', script).replace('\n', '\n; '), posix=True, punctuation_chars=True)
    lex.wordchars += '$@:,%<>[]{}^'
    res = [[]]
    for o in lex:
        if set(o)<=set('();|&'): res.append([])
        else: res[-1].append(o)
    for words in res:
        while words and (words[0] in words_of_bash or re.match(r'\w+=', words[0])): words.pop(0)
        cut = next((i for i,o in enumerate(words) if re.fullmatch(r'\d?>+.*|<', o)), len(words))
        if words[:cut] and words[0] not in ('for', 'done', 'fi', 'case', 'esac', '}', '$'): yield words[:cut]

def command_lines(text):
    "Commands in fences, and those of ours in a line of prose"
    for block in fences(text, ('sh', 'bash', 'shell', 'console')):
        for words in simple_commands(re.sub(r'^\$ ', '', block, flags=re.M)): yield shlex.join(words)
    rest = re.sub(r'^ *```.*?^ *```', '', text, flags=re.M|re.S)
    for o in re.findall(rf"`((?:{'|'.join(ours)}|nbdev-[a-z]+|bot-[a-z]+)(?: [^`\n]*)?)`", rest):
        for words in simple_commands(o): yield shlex.join(words)

# What is right
def check_options(words, has, where):
    for o in words:
        if re.match(r'--?[A-Za-z]', o): assert has(o.split('=')[0]), f'{where} has no option {o}'

def run_help(name, words):
    "The help of one of our commands"
    mod,f = scripts[name].split(':')
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit), pytest.MonkeyPatch.context() as m:
        m.setattr(sys, 'argv', [name, '--help'])
        getattr(importlib.import_module(mod), f)()
    return out.getvalue()

def check_ours(name, words):
    if name=='bot-train' and not {'--help', '-h'} & set(words):
        from bot.cli import parse
        return parse(words)
    text = run_help(name, words)
    check_options(words, lambda o: re.search(rf'(?<![\w-]){re.escape(o)}(?![\w-])', text), name)

def options_of(path):
    "Options that a script takes: of argparse, and parameters of what `call_parse` calls"
    tree = ast.parse(path.read_text())
    written = {o.value for o in ast.walk(tree) if isinstance(o, ast.Constant) and isinstance(o.value, str) and re.fullmatch(r'--?[\w-]+', o.value)}
    called = [o for o in ast.walk(tree) if isinstance(o, ast.FunctionDef) and 'call_parse' in map(ast.unparse, o.decorator_list)]
    return written | {f'--{a.arg}' for f in called for a in f.args.args}

def check_python(words):
    if words[:1]==['-m']:
        assert importlib.util.find_spec(words[1]), f'no module {words[1]}'
        known = {v.split(':')[0]: k for k,v in scripts.items()}
        return check_ours(known[words[1]], words[2:]) if words[1] in known else None
    if words[:1]==['-c']: return compile(words[1], 'command', 'exec')
    if not words: return
    path = root/words[0]
    assert path.exists(), f'no file {words[0]}'
    known = options_of(path)
    passed = run_help('bot-ablate', []) if path.name=='ablate_array.py' else ''   # which hands on what it does not know
    check_options(words[1:], lambda o: o in known or f' {o} ' in passed, words[0])

def check_pip(words):
    for o in words:
        for e in re.findall(r'\[([\w,-]+)\]', o):
            assert o.startswith(('.', 'bot', 'git+')) is False or set(e.split(',')) <= extras, f'no extra {e}: there are {sorted(extras)}'

def check_pytest(words):
    for i,o in enumerate(words):
        if o.startswith('tests'): assert (root/o.split('::')[0]).exists(), f'no {o}'
        if i and words[i-1]=='-m': assert set(re.findall(r'\w+', o))-{'not', 'and', 'or'} <= {'slow', 'gpu', 'browser'}, f'no marker in {o}'

def check_torchrun(words):
    if not words: return   # its mere name
    at = words.index('-m') if '-m' in words else next(i for i,o in enumerate(words) if o.endswith('.py'))
    check_python(words[at:])

def check_command(line):
    "Raise unless the command `line` exists and takes what it is given"
    name,*rest = [re.sub(r'\$\{?\w+\}?', '1', o) for o in shlex.split(line.replace('...', ''))]
    if name in scripts: return check_ours(name, rest)
    if name in ('python', 'python3'): return check_python(rest)
    if name in ('pip', 'pytest', 'torchrun'): return dict(pip=check_pip, pytest=check_pytest, torchrun=check_torchrun)[name](rest)
    if name in others: return
    known = subprocess.run(['bash', '-c', f'type {shlex.quote(name)}'], capture_output=True, cwd=root, env=os.environ | dict(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"))
    assert known.returncode==0, f'no command {name}'

def names_in(code):
    "Names that `code` reads and does not make"
    tree = ast.parse(code)
    made = {a.asname or a.name for o in ast.walk(tree) if isinstance(o, (ast.Import,ast.ImportFrom)) for a in o.names}
    made |= {o.name for o in ast.walk(tree) if isinstance(o, ast.ExceptHandler) and o.name}
    made |= {o.id for o in ast.walk(tree) if isinstance(o, ast.Name) and not isinstance(o.ctx, ast.Load)}
    made |= {o.arg for o in ast.walk(tree) if isinstance(o, ast.arg)} | {o.name for o in ast.walk(tree) if isinstance(o, (ast.FunctionDef,ast.ClassDef))}
    return tree,{o.id for o in ast.walk(tree) if isinstance(o, ast.Name)} - made - set(vars(builtins))

def check_block(code, known=()):
    "Raise unless the imports of `code` work, its names exist, and its calls of functions by name take their keywords"
    tree,free = names_in(code)
    ns = {}
    exec('\n'.join(ast.unparse(o) for o in tree.body if isinstance(o, (ast.Import,ast.ImportFrom))), ns)
    assert not free-set(ns)-set(known), f'names that nothing brings: {free-set(ns)-set(known)}'
    for o in ast.walk(tree):
        if isinstance(o, ast.Call) and isinstance(o.func, ast.Name) and o.func.id in ns and not any(isinstance(a, ast.Starred) for a in o.args):
            try: sig = inspect.signature(ns[o.func.id])
            except ValueError: continue   # a builtin type
            sig.bind_partial(*o.args, **{k.arg: 0 for k in o.keywords if k.arg})

printed = [(where, o) for where,text in prose() for o in command_lines(text)]
blocks = [(where, o) for where,text in prose() for o in fences(text, ('python', 'py'))]

@pytest.mark.parametrize('line', dict.fromkeys(o for _,o in printed if o not in to_be_written))
def test_command(line): check_command(line)

@pytest.mark.parametrize('script, commands', [
    ('pip install -e ".[docs]" && python a.py   # why\npytest', ["pip install -e '.[docs]'", 'python a.py', 'pytest']),
    ('for w in 0 2; do A=1 bot-train --workers $w --out r$w \\\n  --seed 3 > log; done', ["bot-train --workers '$w' --out 'r$w' --seed 3"]),
    ('export X=1\nsrun bot-train "$DATA" | grep acc', ['export X=1', "bot-train '$DATA'", 'grep acc'])])
def test_a_script_is_taken_apart(script, commands): assert [shlex.join(o) for o in simple_commands(script)]==commands

def test_commands_are_found():
    assert {'bot-train', 'pytest', 'bot-train path/to/images', 'python docs/build.py', 'bot-train --rung linear'} <= {o for w,o in printed if w=='README.md'}

@pytest.mark.parametrize('line', ['bot-trian', 'bot-train --epoch 3', 'bot-train --rung mixpu', 'bot-train --bs many', 'python docs/none.py', 'python docs/build.py --fast',
    'python -m bot.none', 'pip install -e ".[nope]"', 'pytest tests/none.py', 'pytest -m quick', 'nbdev-tset', 'python bench/step.py FOLDER --seed 3', 'python examples/launch/ablate_array.py 2 photos --rungz a'])
def test_a_command_that_does_not_exist_is_seen(line):
    with pytest.raises(Exception): check_command(line)

@pytest.mark.parametrize('code', dict.fromkeys(o for w,o in blocks if 'import' in o))
def test_python_block(code): check_block(code)

@pytest.mark.parametrize('code', ['from bot.all import *\nbag_dsl("digits")', 'from bot.all import *\nbag_dls("digits", sise=3)', 'from bot.all import nothing', 'x = ('])
def test_python_that_does_not_work_is_seen(code):
    with pytest.raises(Exception): check_block(code)

@pytest.mark.slow
@pytest.mark.parametrize('code', [o for w,o in blocks if w=='README.md'])
def test_readme_python_runs(code, tmp_path, monkeypatch):
    "The README's Python, on twelve small images, a small network and one epoch"
    from PIL import Image
    for i in range(12):
        p = tmp_path/'path/to/images'/('train' if i<8 else 'valid')/'ab'[i%2]/f'{i}.png'
        p.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40,40), (20*i,)*3).save(p)
    monkeypatch.chdir(tmp_path)
    if 'import' not in code: code = re.sub(r'^learn\.fit.*$', '', next(o for w,o in blocks if w=='README.md' and 'bag_learner' in o), flags=re.M)+code   # of the learner that a block below makes
    small = code.replace('size=128, bs=64', 'size=32, bs=4').replace("but='distill')", "but='distill', arch='xresnet18d', widen=.25, warmup=0)")
    small = re.sub(r'(fit_\w+\()20', r'\g<1>1', small)
    assert small!=code
    exec(small, {})

# What the README and the site are made of
def test_readme_pictures(tmp_path):
    subprocess.run([sys.executable, 'docs/readme.py', str(tmp_path/'README.md')], cwd=root, check=True)
    pictures = re.findall(r'!\[[^\]]+\]\((docs/[^)]+)\)', (root/'README.md').read_text())
    assert len(pictures)==1
    for o in pictures: assert (root/o).read_bytes()==(tmp_path/o).read_bytes()
    assert {o.name for o in (root/'docs/images').iterdir()}=={Path(o).name for o in pictures}

def test_readme_links_exist():
    for o in re.findall(r'\]\((?!https?:)([^)#]+)', (root/'README.md').read_text()): assert (root/o).exists(), o

def test_readme_lists_the_tutorials():
    "After a new tutorial: nbdev-test --save nbs/index.ipynb, python docs/readme.py"
    text = (root/'README.md').read_text()
    for o in (root/'nbs/tutorials').glob('*.ipynb'): assert f'nbs/tutorials/{o.name}' in text, o.name

def site(folder, **pages):
    for k,v in pages.items(): (folder/f'{k}.html').write_text(v)
    return folder

@pytest.fixture
def module(monkeypatch):
    "A module of docs/ by name"
    monkeypatch.syspath_prepend(str(root/'docs'))
    return importlib.import_module

@pytest.fixture
def check(module): return module('check')

@pytest.fixture
def cards(module): return module('cards')

def test_a_good_site_passes(check, tmp_path):
    assert check.bad_links(site(tmp_path, a='<a href="b.html#x">', b='<p id="x"><a href="https://docs.fast.ai/learner.html"><img src="a.html">'))==[]

@pytest.mark.parametrize('link', ['<a href="none.html">', '<a href="b.html#none">', '<a href="#none">', '<img src="none.png">', '<a href="https://no host/">', '<a href="../x.html">'])
def test_a_broken_link_is_seen(check, tmp_path, link): assert len(check.bad_links(site(tmp_path, a=link, b='<p>')))==1

def test_signatures_become_tables(module):
    build = module('build')
    code = "def f(\n    x:list[int | str], # Some\n    *args, # Others\n    y:str='a, # b', # One | two\n    **kw\n)->dict: # All"
    assert build.parameters(code)==[('`x`','`list[int | str]`','','Some'), ('`*args`','','','Others'), ('`y`','`str`',"`'a, # b'`",'One | two'),
        ('`**kw`','','',''), ('*returns*','`dict`','','All')]
    assert build.table('### F\n\n```python\ndef F(\n    after_fit:NoneType=None, before_fit:NoneType=None\n):\n```\n\n*Doc*')=='### F\n\n*Doc*'   # the events of a hook
    assert r'`list[int \| str]`' in build.table(f'### f\n\n```python\n{code}\n```\n\n*Doc*')

# Cards: each trick's page, from notebooks, ladder and results
def test_each_trick_has_a_card(cards):
    pages = cards.made(root)
    assert [k for o in cards.cards for k in o.rows if o.where=='paper']==list(cards.ladders['paper'])
    assert {k for o in cards.cards for k in o.rows if o.where=='torchvision'}==set(cards.ladders['torchvision'])-set(cards.ladders['paper'])
    for o in cards.cards:
        text = pages[o.page]
        for head in 'Set it with', 'The readings differ in', *([f"What {'the paper' if o.where=='paper' else o.where} reports"] if o.rows else []), 'What it gained here', 'What it costs here', 'Composes with', 'Papers': assert f'## {head}\n' in text
        for k in o.rows: assert o.ladder[k].title.lower() in o.title.lower() and str(o.ladder[k].top1) in text and f"{o.ladder[k].page.replace('#', '.html#')})" in text

def test_cards_print_what_works(cards):
    for text in cards.made(root).values():
        for o in command_lines(text): check_command(o)
        for o in fences(text, ['python']): check_block(o, ['dls', 'model', 'n_epoch', 'teacher'])

def test_cards_on_any_learner_run(cards, tmp_path):
    "The Python of each card, on a few small images of fastai's own loaders and a small network"
    from fastai.vision.all import ImageDataLoaders, Resize
    from bot.all import bag_dls, xresnet18d
    from pictures import lay_colors
    src,kw = lay_colors(tmp_path/'photos', train=4, valid=2),dict(bs=4, num_workers=0, device='cpu')
    dls = ImageDataLoaders.from_folder(src, train='train', valid='valid', item_tfms=Resize(32), **kw)
    for o in cards.cards:
        own = bag_dls(src, size=192, **kw) if 'sizes' in (o.own or ()) else dls
        ns = dict(dls=own, model=xresnet18d(n_out=3, widen=.25), teacher=xresnet18d(n_out=3, widen=.25), n_epoch=1)
        exec(cards.alone(o).replace('xresnet50d(', 'xresnet18d(widen=.25, '), ns)
        with ns['learn'].no_bar(), ns['learn'].no_logging(): ns['learn'].fit(1, 1e-3)
        if o.rows==['repeat']: assert ns['learn'].dls.train.repeats==4 and ns['learn'].dls.train.one_batch()[0].shape==(4,3,32,32)

def test_cards_make_learners(cards, tmp_path):
    "Each of the three ways of a card makes the learner that its comment says, loaders included"
    from bot.prepared import dls_settings
    from pictures import lay_colors
    src = lay_colors(tmp_path/'photos', train=32, valid=2)
    for o in (o for o in cards.cards if o.rows):
        ways = cards.Ways(o)
        if ways.taught: continue   # a run that teaches is needed
        code = ways.python().replace('path/to/images', str(src)).replace('bs=1024', 'bs=16').replace('xresnet50', 'xresnet18')
        lines = [re.sub(r'\)( *)(?=   # )', ('' if 'arch=' in x else ", arch='xresnet18d'") + r', widen=.0625)\1', x) for x in code.splitlines()[1:-1]]
        own = [i for i,x in enumerate(lines) if '   # the' in x]
        for i in own:
            exec('\n'.join(x for j,x in enumerate(lines) if j not in own or j==i), ns := {})
            if not ways.data: continue
            learn,made,asked = ns['learn'],dls_settings(ns['learn'].dls),ns['r']
            assert not [k for k in ('trivial','erase','repeats','valid_size','valid_edge','jitter','pca') if asked.get(k) is not None and made[k]!=asked[k]], lines[i]
            assert not [k for k in ('trivial','erase','repeats','cutmix','ema','decay') if learn.recipe.get(k)!=asked.get(k)] and learn.recipe.reading=='torchvision'

def test_cards_of_no_row_are_had(cards, tmp_path):
    "What the loose ones print makes a learner with that setting"
    from pictures import lay_colors
    src = lay_colors(tmp_path/'photos', train=32, valid=2)
    for o in (o for o in cards.cards if not o.rows):
        code = '\n'.join(cards.loose_ways(o)[1].splitlines()[1:-1]).replace('path/to/images', str(src)).replace("'smooth'", "'smooth', arch='xresnet18d', widen=.0625")
        exec(code, ns := {})
        assert o.own and {k: ns['learn'].recipe[k] for k in o.own}==o.own

def ablation_file(folder, data, *rows):
    "A table of `bot-ablate`, with the columns that it writes, of rows that say what matters"
    from bot.core import csv_text
    from bot.verdict import Ablation, csv_rows
    from bot.chance import Estimate
    est = lambda o: o and Estimate(*o, .01)
    rest = dict(says='', by_class='', first=None, first_new=None, published=None, step=None)
    full = [rest | dict(row=k, run=k, seeds=n, acc=est(acc), vs=vs, these=est(these), new=est(these), verdict=verdict) for k,n,acc,vs,these,verdict in rows]
    cells = {o['run']:dict(settings=dict(arch='xresnet18d', widen=.25, size=32, bs=64, epochs=16)) for o in full}
    path = folder/f'bench/results/ablation-{data}.csv'
    path.write_text(csv_text(csv_rows(Ablation(path, dict(seeds=8, cells=cells), full))))

@pytest.fixture
def measured(tmp_path):
    "The pages and what was measured, without the tables of an ablation"
    for o in 'nbs', 'bench': shutil.copytree(root/o, tmp_path/o, ignore=shutil.ignore_patterns('tutorials', '*.png', 'ablation-*'))
    return tmp_path

def test_a_card_shows_what_was_measured(cards, measured):
    smooth = next(o for o in cards.cards if o.rows==['smooth'])
    assert 'Not measured here yet' in cards.gained(measured, smooth)
    ablation_file(measured, 'leaves', ('cosine', 8, (.9,.85,.95), None, None, ''), ('smooth', 8, (.1234,.1,.15), 'cosine', (-.02,-.03,-.01), 'worse'))
    ablation_file(measured, 'stones', ('smooth', 3, (.5,.4,.6), 'cosine', (.02,-.01,.05), 'cannot tell yet'))
    text = cards.gained(measured, smooth)
    assert '| leaves | `smooth` | xresnet18d, widen=0.25, 32 px, batch 64, 16 epochs | 8 | 12.3 (10.0 to 15.0) | `cosine` | -2.0 (-3.0 to -1.0) | -2.0 (-3.0 to -1.0) | worse |' in text
    assert '| stones |' in text and '3 of 8, provisional' in text and 'cannot tell yet' in text and text in cards.card_page(measured, smooth)

def test_what_no_ablation_tried_is_not_claimed(cards, measured):
    ablation_file(measured, 'leaves', ('baseline', 8, (.9,.85,.95), None, None, ''), ('linear', 8, (.9,.85,.95), 'baseline', None, "same run here as 'baseline': no test"))
    linear,fp16 = (next(o for o in cards.cards if k in o.rows) for k in ('linear','fp16'))
    assert "same run here as 'baseline': no test" in cards.gained(measured, linear) and cards.gained(measured, fp16).startswith('Not measured here yet')

def test_figures_have_each_ablation(module, cards, measured):
    ablation_file(measured, 'leaves', ('baseline', 8, (.9,.85,.95), None, None, ''), ('cosine', 8, (.9,.85,.95), 'baseline', (.02,-.01,.05), 'cannot tell'))
    text = module('pages').figures(measured)
    assert '## Which tricks help: leaves' in text and 'bot-ablate path/to/leaves --rungs baseline,cosine --seeds 8 --epochs 16 --size 32 --widen 0.25' in text and '| cannot tell |' in text

def test_a_second_ladder_has_a_table_of_its_own(module, cards, measured):
    ablation_file(measured, 'leaves', ('cosine', 8, (.9,.85,.95), None, None, ''), ('smooth', 8, (.9,.85,.95), 'cosine', (.02,-.01,.05), 'cannot tell'))
    ablation_file(measured, 'leaves-torchvision', ('trivial', 8, (.8,.75,.85), None, None, ''), ('torchvision.smooth', 8, (.7,.65,.75), 'trivial', (.02,-.01,.05), 'better'))
    text = module('pages').figures(measured)
    assert '## Which tricks help: leaves, the ladder of torchvision' in text and 'bot-ablate path/to/leaves --rungs trivial,torchvision.smooth --seeds 8' in text
    smooth,trivial = (cards.gained(measured, next(o for o in cards.cards if k in o.rows)) for k in ('smooth','trivial'))
    assert '| leaves | `smooth` |' in smooth and 'torchvision' not in smooth and '| leaves | `trivial` |' in trivial

@pytest.mark.parametrize('old, new, what', [('## Label smoothing', '## Softer labels', 'no heading'), ('Composes with', 'Goes with', '"Composes with"'),
    ('arxiv.org', 'example.org', 'no citation'), ('$$', '', 'no equation')])
def test_a_card_that_lacks_something_stops_the_build(cards, tmp_path, old, new, what):
    (tmp_path/'nbs').mkdir()
    shutil.copytree(root/'bench', tmp_path/'bench')
    (tmp_path/'nbs/11_losses.ipynb').write_text((root/'nbs/11_losses.ipynb').read_text().replace(old, new))
    with pytest.raises(cards.Missing, match=what): cards.card_page(tmp_path, next(o for o in cards.cards if o.rows==['smooth']))

def test_a_row_without_a_card_stops_the_build(cards, monkeypatch):
    monkeypatch.setattr(cards, 'cards', cards.cards[1:])
    with pytest.raises(cards.Missing, match='a card for each row'): cards.made(root)

def test_api_begins_with_what_all_brings(module, tmp_path):
    pages = module('pages')
    (tmp_path/'bot').mkdir()
    (tmp_path/'bot/all.py').write_text('from .losses import BagLoss, smooth_labels\nfrom .core import UsageError\n')
    text = pages.api(tmp_path)
    brought,rest = text.split("## Added to fastai's classes")
    assert all(f'[`{o}`]' in brought for o in ('BagLoss', 'smooth_labels')) and 'UsageError`]' not in brought
    assert all(f'[`{o}`]' in rest for o in ('UsageError', 'soft_cross_entropy', 'bag_dls')) and '[`BagLoss`]' not in rest

def test_figures_explain_their_tables(module):
    pages = module('pages')
    title,command,prose,said = pages.explained('How fast?\n\n    python bench/x.py\n\nOne thread.\n\n- a part: Of\nit.\n')
    assert (title, command, prose, said)==('How fast?', 'python bench/x.py', ['One thread.'], {'a part':'Of it.'})
    assert 'Huffman code: where a bit stands' in pages.figures(root)

def test_pipeline_is_accurate():
    "As `bench/pipeline.py` last measured: every crop within 38 dB of a full decode"
    rows = [(o['name'], float(o['value'])) for o in csv.DictReader((root/'bench/results/pipeline.csv').open()) if o['group']=='accuracy']
    assert min(v for k,v in rows if k.startswith('PSNR'))>=38 and max(v for k,v in rows if k.startswith('mean'))<=1.5

@pytest.mark.parametrize('link, ok', [('#zero-gamma', True), ('b.html#fig-3', True), ('#id1', False), ('b.html#index-0', False)])
def test_a_place_that_depends_on_counting_is_seen(check, tmp_path, link, ok): assert (check.counted(site(tmp_path, a=f'<a href="{link}">'))==[])==ok

def test_search_is_the_sites_own(check, tmp_path):
    "Sphinx's own program, over a small index"
    pytest.importorskip('py_mini_racer')
    static = Path(pytest.importorskip('sphinx').__file__).parent
    (tmp_path/'_static').mkdir()
    (tmp_path/'_static/searchtools.js').write_text((static/'themes/basic/static/searchtools.js').read_text())
    (tmp_path/'_static/language_data.js').write_text('var stopwords = new Set(), Stemmer = function() { this.stemWord = w => w };')
    index = dict(docnames=['a','b'], filenames=['a.md','b.md'], titles=['A','B'], alltitles={'A':[[0,None]], 'B':[[1,None]]}, objects={}, objnames={}, objtypes={},
        indexentries={'large batch':[[1,'found-by',True]]}, terms=dict(large=[0,1], batch=[0,1]), titleterms=dict(a=0, b=1))
    (tmp_path/'searchindex.js').write_text(f'Search.setIndex({json.dumps(index)})')
    assert check.unsearchable(tmp_path, {'large batch':'b'})==[]
    assert check.unsearchable(tmp_path, {'large batch':'a', 'nowhere':'a'})==["search for 'large batch' finds b first, not a", "search for 'nowhere' finds nothing first, not a"]

def test_what_the_readme_says_of_folds_was_measured():
    "On folds that chose no value, with the head as it starts now where that was measured, on the device that has most of them"
    reported = [o for o in csv.DictReader((root/'bench/results/folds.csv').open()) if (o['part'],o['size'])==('reported','128')]
    def most(row, over, n): return max((o for o in reported if (o['row'],o['over'],o['n'])==(row,over,n)), key=lambda o: (o['low']!='', o['head']=='zero', int(o['folds'])))
    best = [most('finetune', 'probe', n) for n in ('100','400','all')]
    acc,points = ([100*float(o['accuracy']) for o in best],[float(o['points']) for o in best])
    said = re.search(r'fine-tuning gets (\d+%) right after 100 training images, (\d+%) after 400 and (\d+%) after 2,727; the head alone gets (\d+%), (\d+%) and (\d+%)', (root/'README.md').read_text())
    assert [*said.groups()]==[f'{o:.0f}%' for o in [*acc, *(a-p for a,p in zip(acc, points))]]
    page = ' '.join(next(o.source for o in read_nb(root/'nbs/01_tuned.ipynb').cells if 'What came of all this' in o.source).split())
    theirs = [most('fastai20', 'finetune', n) for n in ('100','400')]
    behind = [f"{-float(o['points']):.1f} {more}on {o['n']} ({-float(o['high']):.1f} to {-float(o['low']):.1f}, {o['folds']} folds)" for o,more in zip(theirs, ('points behind ', ''))]
    assert "fastai's way is "+' and '.join(behind) in page
    for o,where in zip(best, ('on 100 (', 'on 400 (', 'on 2,727 photographs (95% interval ')):
        low,high = (f'{float(o[k]):.1f}' for k in ('low','high'))
        assert f"{where}{low} to {high}, {o['folds']} folds)" in page and re.search(rf"\b{float(o['points']):.1f}\b", page) and float(o['low'])>0

def test_what_the_page_says_of_a_taught_network_was_measured():
    o, = csv.DictReader((root/'bench/results/taught.csv').open())
    text = (root/'nbs/16_distill.ipynb').read_text()
    for k in 'alone','taught','teacher': assert f"{100*float(o['accuracy_'+k]):.1f}%" in text
    assert f"{float(o['points']):.1f} points more, 95% interval {float(o['low']):.1f} to {float(o['high']):.1f}" in text

def test_what_the_readme_says_of_short_runs_was_measured():
    runs = list(csv.DictReader((root/'bench/results/short.csv').open()))
    def percent(of, row): return next(f"{100*float(o['accuracy']):.0f}%" for o in runs if (o['set'],o['passes'],o['row'])==(of,'10',row))
    said = re.search(r"10 epochs at 64 pixels get (\d+%) right where the paper's own crops, colors and rate get (\d+%); of 5,000 images of CIFAR-10 it is (\d+%) and (\d+%)", (root/'README.md').read_text())
    assert [*said.groups()]==[percent(of, row) for of in ('clothing','cifar10_sample') for row in ('weak-rate4','paper')]

def test_what_the_readme_says_of_equal_time_was_measured():
    "Of fastai's usual way at the better of its rates"
    runs = list(csv.DictReader((root/'bench/results/minutes.csv').open()))
    best = {k:max((o for o in runs if (o['set'],o['minutes'])==(k,'3')), key=lambda o: float(o['accuracy_over'])) for k in ('clothing','cifar10_sample')}
    said = re.search(r"three minutes of one core bring (\d+%) of the clothes where fastai's usual way brings (\d+%), and of CIFAR-10's (\d+%) where it brings (\d+%)", (root/'README.md').read_text())
    assert [*said.groups()]==[f"{100*float(o[k]):.0f}%" for o in best.values() for k in ('accuracy_bot','accuracy_over')]
    ten,cifar = (next(o for o in runs if (o['set'],o['minutes'])==(k,'10')) for k in ('clothing','cifar10_sample'))
    said = re.search(r"ten minutes bring (\d+%) of the clothes where it brings (\d+%),\s+and of CIFAR-10's (\d+%) where it brings (\d+%)", (root/'README.md').read_text())
    assert [*said.groups()]==[f"{100*float(o[k]):.0f}%" for o in (ten, cifar) for k in ('accuracy_bot','accuracy_over')]
    text = read_nb(root/'nbs/01_settle.ipynb').cells
    page,points = next(o.source for o in text if 'Five other seeds' in o.source),[f'{float(ten[k]):.1f}' for k in ('points','low','high')]
    assert f"{100*float(ten['accuracy_bot']):.1f}%, by {points[0]} points ({points[1]} to {points[2]})" in page and ten['seeds']=='5' and f"at {ten['epochs_bot']} passes" in page
    assert all(float(o['low'])>0 and o['seeds']=='5' for o in [*best.values(), ten, cifar])

def test_what_pages_say_of_one_change_was_measured():
    "Beside ten epochs of fine-tuning, and beside a short run as it is settled"
    page = ' '.join(next(o.source for o in read_nb(root/'nbs/01_tuned.ipynb').cells if 'one thing was changed at a time' in o.source).split())
    rows = {o['row'].partition('+')[2]:[f'{float(o[k]):.1f}' for k in ('points','low','high')] for o in csv.DictReader((root/'bench/results/folds.csv').open()) if o['over']=='epochs0.25'}
    for k in 'lr4','min_scale0.08','layer_decay0.4','layer_decay1': assert '({}, {} to {})'.format(*rows[k]) in page, k
    assert '({} points, 95% interval {} to {})'.format(*rows['lr1']) in page and 'cost {} points ({} to {})'.format(*(rows['moving'][i].strip('-') for i in (0,2,1))) in page
    tried = {(o['set'],o['passes']):o for o in csv.DictReader((root/'bench/results/tried.csv').open()) if o['row']=='adam-0.003'}
    best = f"{float(tried['clothing','3']['points']):.1f} points"
    assert f'Adam at .003 is {best}' in (root/'nbs/01_settle.ipynb').read_text() and f'it got {best}' in (root/'nbs/12_optimizer.ipynb').read_text()
    assert [k for k,o in tried.items() if float(o['low'])>0]==[('clothing','3')]
