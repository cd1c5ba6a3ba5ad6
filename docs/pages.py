"Pages of the site that no notebook holds: the contents, the API by name, and the measured figures"
import ast, csv, importlib, re, warnings
from operator import attrgetter
from pathlib import Path
from nbdev.config import get_config
import cards
from tables import index_entries, md_table

warnings.filterwarnings('ignore', category=FutureWarning)   # fastai's own use of torch, at import

groups = {'The ladder':0, 'Data':2, 'Models':7, 'Training':11, 'Runs and commands':21, 'Reference':97}   # of pages, by the first number in each
found_by = dict(ladder='the ladder, rung, recipe, settings', block='data block, data loaders', sources='folder of images, csv, data set',
    runs='run folder, checkpoint, load a run', learner='learner, fine-tuning', cli='command line, exit codes, bot-train', api='api, names',
    figures='figures, benchmark, speed')   # what the search finds a page by

def toctree(caption, *entries): return '\n'.join(['```{toctree}', ':hidden:', f':caption: {caption}', '', *entries, '```'])

def group(number): return [k for k,v in groups.items() if v<=number][-1]

def numbers():
    "The number of each page's notebook"
    names = [o.stem.split('_', 1) for o in (Path(__file__).parents[1]/'nbs').glob('[0-9]*_*.ipynb')]
    return {k:int(v) for v,k in names}

def contents(nbs):
    "The side bar: tutorials, tricks, the notebooks by number in groups, then what is looked up"
    tutorials,number = [o for o in nbs if o.startswith('tutorials/')],numbers()
    more = [o for o in ('changelog', 'contributing') if Path(f'{o.upper()}.md').exists()]
    trees = {'Tutorials':tutorials, 'Tricks':[o.page for o in cards.cards]} | {k:[o for o in nbs if o in number and group(number[o])==k] for k in groups}
    trees['Reference'] = ['api', 'figures', *trees['Reference'], *more]
    return '\n\n'.join(toctree(k, *v) for k,v in trees.items() if v)

def first_line(o): return (getattr(o, '__doc__', None) or '').strip().split('\n')[0]

def promised(path):
    "Names that `from bot.all import *` brings, by module, in the order of `bot/all.py`"
    res = {}
    for o in ast.parse(Path(path).read_text()).body:
        if not isinstance(o, ast.ImportFrom) or o.level!=1: continue
        names = [n for a in o.names if not (n := a.asname or a.name).startswith('_')]
        res.setdefault(f'bot.{o.module}', []).extend(importlib.import_module(f'bot.{o.module}').__all__ if names==['*'] else names)
    return res

def is_error(o): return isinstance(o, type) and issubclass(o, BaseException)

def says(o):
    "What a name is, in a line: its docstring, or the value of a constant"
    if callable(o): return first_line(o)
    return f'`{o!r}`' if len(repr(o))<=60 else f'a {type(o).__name__} of {len(o)}'

def row(mod, name):
    "A line of a table: the name, linked to where it is documented, and what it is"
    known = importlib.import_module('bot._modidx').d['syms'].get(mod, {})
    where = f"{get_config().doc_url}{mod.split('.')[-1]}.html" + (f'#{name.lower()}' if f'{mod}.{name}' in known else '')
    return f'| [`{name}`]({where}) | {says(value(mod, name))} |'

def names_table(names):
    "A table of `(module, name)`, what can be called first"
    return '\n'.join(['| name | |', '|:--|:--|', *(row(*o) for o in sorted(names, key=lambda o: not callable(value(*o))))])

def methods(mod, syms):
    "Methods that a module adds to fastai's classes"
    short = [k.removeprefix(f'{mod}.') for k in syms]
    return [k for k in short if '.' in k and k.split('.')[0] not in short]

def value(mod, name): return attrgetter(name)(importlib.import_module(mod))

def rest_of(mods, before):
    "Tables of each module's public names that are not in `before`"
    for m in mods:
        rest = [(m,o) for o in importlib.import_module(m).__all__ if (m,o) not in before]
        if rest: yield from [f'### {m}', f'{first_line(importlib.import_module(m))}.', names_table(rest)]

def api(root):
    "Every public name with its first line: those of `bot.all`, what is added to fastai's classes, errors, then the rest of each module"
    syms,ours,number = importlib.import_module('bot._modidx').d['syms'],promised(Path(root)/'bot/all.py'),numbers()
    mods = sorted(syms, key=lambda o: number[o.split('.')[-1]])
    brought = [(m,o) for m in mods for o in ours.get(m, []) if not is_error(value(m, o))]
    errors = [(m,o) for m in mods for o in importlib.import_module(m).__all__ if is_error(value(m, o))]
    added = [(m,o) for m in mods for o in methods(m, syms[m])]
    parts = ['# API by name', index_entries(found_by['api'].split(', ')), ('{.lead}\nFirst what `from bot.all import *` brings, then what it adds to the '
        'classes of fastai. Each name leads to its signature, its source and what it was checked against.')]
    for k in groups:
        if mine := [o for o in brought if group(number[o[0].split('.')[-1]])==k]: parts += [f'## {k}', names_table(mine)]
    return '\n\n'.join([*parts, "## Added to fastai's classes", names_table(added),
        '## Errors', 'Each ends the command with its own exit code.', names_table(errors), '## More in each module',
        'Public, and imported from its module: `bot.all` does not bring it.', *rest_of(mods, brought+errors)])

def drop_same(rows):
    "Columns with one value throughout, apart from the others: `(same, rows)`"
    same = {k:v for k,v in rows[0].items() if len(rows)>1 and all(o[k]==v for o in rows)}
    return same,[{k:v for k,v in o.items() if k not in same} for o in rows]

def explained(doc):
    "The docstring of a bench: title, command, prose, and what it says of each group of its rows in a line that begins with the group's name and a colon"
    paragraphs = re.split(r'\n\s*\n', doc)
    first,rest = re.split(r'(?<=[.?])\s|$', paragraphs[0], maxsplit=1)[0],paragraphs[0]
    command = re.search(r'(\w+=\S+ )*python bench/[^\n`#]+', doc)[0].strip()
    prose = [re.sub(r'\s+', ' ', o).strip() for o in [rest[len(first):], *paragraphs[1:]] if o.strip() and not o.startswith('    ')]
    said = {m[1]:m[2] for o in prose if (m := re.match(r'- ([\w ]+): (.*)', o))}
    return first.strip('.'),command,[o for o in prose if not o.startswith('- ')],said

def measured(path):
    "One results file: what asked, what ran, where, and the rows"
    name,_,where = path.stem.partition('-')   # 'models-h100': the same bench on another machine
    script = path.parents[1]/f'{name}.py'
    title,command,prose,said = explained(ast.get_docstring(ast.parse(script.read_text())))
    if where: title = f'{title} On another machine: {where}'
    same,rows = drop_same(list(csv.DictReader(path.open())))
    url = f'{get_config().git_url}/blob/{get_config().branch}/bench'
    parts = [f'## {title}', f'```sh\n{command}\n```', *prose, f'[The script]({url}/{script.name}) and [its results]({url}/results/{path.name}).']
    if same: parts.append('In every row: ' + ', '.join(f'{k} **{v}**' for k,v in same.items()) + '.')
    first = next(iter(rows[0]))
    if first not in ('group', 'question'): return '\n\n'.join(parts + [md_table(rows)])
    groups = list(dict.fromkeys(o[first] for o in rows))
    if strangers := set(said)-set(groups): raise cards.Missing(f'{script}: explains {sorted(strangers)}, which {path.name} does not hold')
    for k in groups:
        alike,part = drop_same([{a:b for a,b in o.items() if a!=first} for o in rows if o[first]==k])
        parts += [f'### {k[0].upper()}{k[1:]}', said.get(k, ''), ', '.join(f'{a} **{b}**' for a,b in alike.items() if b), md_table(part)]
    return '\n\n'.join(o for o in parts if o)

def compared(data, rows):
    "One table of `bot-ablate`: the command, and the rows as people read them"
    first,(what,_,ladder) = next(iter(rows.values())),data.partition('-')
    alike = {k:first[k] for k in ('seeds','epochs','size','widen') if first.get(k) and len({o.get(k) for o in rows.values()})==1}
    command = ' '.join(['bot-ablate', what if what=='digits' else f'path/to/{what}', '--rungs', ','.join(rows), *(f'--{k} {v}' for k,v in alike.items())])
    url = f'{get_config().git_url}/blob/{get_config().branch}/bench/results/ablation-{data}.csv'
    return '\n\n'.join([f"## Which tricks help: {what}{ladder and f', the ladder of {ladder}'}", f'```sh\n{command}\n```', f'[All of its columns]({url}).', md_table([cards.found_row(o) for o in rows.values()])])

def figures(root):
    "Every measured figure there is, from the files that the benches wrote"
    intro = ('{.lead}\nWhat was measured, on which device, by which command. The tables are the files under `bench/results/`, '
        'as the commands wrote them; none is typed by hand.')
    found = [measured(o) for o in sorted((root/'bench/results').glob('*.csv')) if not o.stem.startswith('ablation-')]
    found += [compared(*o) for o in cards.ablations(root).items()]
    return '\n\n'.join(['# Measured figures', index_entries(found_by['figures'].split(', ')), intro, *found])

def beside(root, name):
    "A Markdown file of the repository as a page; its links to other files lead to the repository"
    url = f'{get_config().git_url}/blob/{get_config().branch}/'
    return re.sub(r'\]\((?!https?:|#|mailto:)([^)]+)\)', rf']({url}\1)', (root/name).read_text())

def made(root):
    "Pages by name"
    extra = {o: f'{o.upper()}.md' for o in ('changelog', 'contributing')}
    return cards.made(root) | dict(api=api(root), figures=figures(root)) | {k: beside(root, v) for k,v in extra.items() if (root/v).exists()}
