"Pages of the site that no notebook holds: the contents, the API by name, and the measured figures"
import ast, csv, importlib, re, warnings
from operator import attrgetter
from pathlib import Path
from nbdev.config import get_config

warnings.filterwarnings('ignore', category=FutureWarning)   # fastai's own use of torch, at import

def slug(title):
    "A heading's anchor as quarto makes it, which is what nbdev links to"
    return re.sub(r'[^\w.\s-]', '', title.strip().lower()).replace(' ', '-')

def toctree(caption, *entries): return '\n'.join(['```{toctree}', ':hidden:', f':caption: {caption}', '', *entries, '```'])

def contents(nbs):
    "The site's order: tutorials, then the notebooks by number, then what is looked up"
    tutorials = [o for o in nbs if o.startswith('tutorials/')]
    chapters = [o for o in nbs if o not in ('index', *tutorials)]
    more = [o for o in ('changelog', 'contributing') if Path(f'{o.upper()}.md').exists()]
    trees = [toctree('Tutorials', *tutorials)] if tutorials else []
    return '\n\n'.join(trees + [toctree('How it works, in order', *chapters), toctree('Reference', 'api', 'figures', *more)])

def first_line(o): return (getattr(o, '__doc__', None) or '').strip().split('\n')[0]

def api():
    "Every exported name with its first line, linked to where it is documented"
    idx = importlib.import_module('bot._modidx').d['syms']
    by_number = sorted(idx, key=lambda m: re.search(r'nbs/([\w/]+)\.ipynb', Path(importlib.import_module(m).__file__).read_text())[1])
    parts = ['# API by name\n\n{.lead}\nEverything that `from bot.all import *` brings, and what the command is made of. Each name leads to its signature, its source and what it was checked against.']
    for mod in by_number:
        m = importlib.import_module(mod)
        page = mod.split('.')[-1]
        parts.append(f'## {mod}\n\n{first_line(m)}. The notebook: [{page}]({get_config().doc_url}{page}.html)\n\n| name | |\n|:--|:--|\n' + '\n'.join(rows(m, idx[mod], page)))
    return '\n\n'.join(parts)

def says(o):
    "What a name is, in a line: its docstring, or the value of a constant"
    if callable(o): return first_line(o)
    return f'`{o!r}`' if len(repr(o))<=60 else f'a {type(o).__name__} of {len(o)}'

def rows(m, syms, page):
    "A line a name: of `__all__`, and of the methods that are added to fastai's classes"
    short = [k.removeprefix(f'{m.__name__}.') for k in syms]
    added = [k for k in short if '.' in k and k.split('.')[0] not in short]
    for name in sorted([*m.__all__, *added], key=lambda o: not callable(attrgetter(o)(m))):   # what can be called first
        where = f'{get_config().doc_url}{page}.html' + (f'#{name.lower()}' if name in short else '')
        yield f"| [`{name}`]({where}) | {says(attrgetter(name)(m))} |"

def drop_same(rows):
    "Columns with one value throughout, apart from the others: `(same, rows)`"
    same = {k:v for k,v in rows[0].items() if len(rows)>1 and all(o[k]==v for o in rows)}
    return same,[{k:v for k,v in o.items() if k not in same} for o in rows]

def md_table(rows):
    "A Markdown table of dicts"
    cell = lambda s: str(s).replace('|', '\\|').replace('_', '\\_')
    line = lambda o: f"| {' | '.join(map(cell, o))} |"
    number = [all(re.fullmatch(r'[\d., +-]*', str(o[k])) for o in rows) for k in rows[0]]
    return '\n'.join([line(rows[0]), '|' + '|'.join('--:' if o else ':--' for o in number) + '|', *(line(o.values()) for o in rows)])

def measured(path):
    "One results file: what asked, what ran, where, and the rows"
    script = path.parents[1]/f'{path.stem}.py'
    doc = ast.get_docstring(ast.parse(script.read_text()))
    rows = list(csv.DictReader(path.open()))
    same,rows = drop_same(rows)
    url = f'{get_config().git_url}/blob/{get_config().branch}/bench'
    title,command = re.split(r'(?<=[.?])\s|\n\n|$', doc)[0],re.search(r'(\w+=\S+ )*python bench/[^\n`#]+', doc)[0].strip()
    parts = [f'## {title.strip(".")}', f'```sh\n{command}\n```', f'[The script]({url}/{script.name}) and [its results]({url}/results/{path.name}).']
    if same: parts.append('In every row: ' + ', '.join(f'{k} **{v}**' for k,v in same.items()) + '.')
    first = next(iter(rows[0]))
    if first not in ('group', 'question'): return '\n\n'.join(parts + [md_table(rows)])
    for k in dict.fromkeys(o[first] for o in rows):
        alike,part = drop_same([{a:b for a,b in o.items() if a!=first} for o in rows if o[first]==k])
        parts += [f'### {k[0].upper()}{k[1:]}', ', '.join(f'{a} **{b}**' for a,b in alike.items() if b), md_table(part)]
    return '\n\n'.join(o for o in parts if o)

def figures(root):
    "Every measured figure there is, from the files that the benches wrote"
    intro = ('# Measured figures\n\n{.lead}\nWhat was measured, on which device, by which command. The tables are the files under `bench/results/`, '
        'as the commands wrote them; none is typed by hand.')
    return '\n\n'.join([intro] + [measured(o) for o in sorted((root/'bench/results').glob('*.csv'))])

def beside(root, name):
    "A Markdown file of the repository as a page; its links to other files lead to the repository"
    url = f'{get_config().git_url}/blob/{get_config().branch}/'
    return re.sub(r'\]\((?!https?:|#|mailto:)([^)]+)\)', rf']({url}\1)', (root/name).read_text())

def made(root):
    "Pages by name"
    extra = {o: f'{o.upper()}.md' for o in ('changelog', 'contributing')}
    return dict(api=api(), figures=figures(root)) | {k: beside(root, v) for k,v in extra.items() if (root/v).exists()}
