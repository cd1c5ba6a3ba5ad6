"""What must hold of the built site: every link inside it leads somewhere, every exported name has its page, each trick stands in
the side bar, and search finds the page about it first

    python docs/check.py

Links to other sites are only checked for their form."""
import importlib, inspect, json, re, sys, warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse
from nbdev.config import get_config

warnings.filterwarnings('ignore', category=FutureWarning)   # fastai's own use of torch, at import

class Page(HTMLParser):
    "Addresses that a page leads to, and the places in it"
    def __init__(self, path):
        super().__init__()
        self.out,self.ids,self.path = [],set(),path
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.out += [a[k] for k in ('href','src') if a.get(k)]
        self.ids |= {a[k] for k in ('id','name') if a.get(k)}

def well_formed(url):
    u = urlparse(url)
    return u.scheme=='mailto' or u.scheme in ('http','https') and re.fullmatch(r'[\w-]+(\.[\w-]+)+', u.netloc) and not re.search(r'\s', url)

def broken(site, url, page, pages):
    "Why `url` on `page` leads nowhere, or nothing"
    if url.startswith('data:'): return
    if urlparse(url).scheme: return None if well_formed(url) else 'not an address'
    file,anchor = urldefrag(unquote(url))
    path = (page.path.parent/file.split('?')[0]).resolve() if file else page.path.resolve()
    if path.is_dir(): path /= 'index.html'
    if site.resolve() not in path.parents: return 'leads out of the site'
    if not path.exists(): return 'no such file'
    if anchor and path in pages and anchor not in pages[path].ids: return 'no such place on that page'

def bad_links(site):
    pages = {p.resolve(): Page(p) for p in site.rglob('*.html') if '_static' not in p.parts}
    res = [(p,o,why) for p in pages.values() for o in dict.fromkeys(p.out) if (why := broken(site, o, p, pages))]
    return [f'{p.path.relative_to(site)}: {o}: {why}' for p,o,why in res]

def bad_own(site):
    "Addresses of the site in its Markdown pages, `llms.txt` and the package's docstrings, that do not exist"
    base = get_config().doc_url
    texts = {str(p.relative_to(site)): p.read_text() for p in [site/'llms.txt', *site.rglob('*.html.md')]}
    texts |= {p.name: p.read_text() for p in Path('bot').glob('*.py')}
    return [f'{k}: {u}' for k,t in texts.items() for u in set(re.findall(rf'{re.escape(base)}([\w./-]+\w)', t)) if not (site/u).exists()]

def takes(o):
    "Does a function or class take arguments, apart from a hook's events?"
    from fastai.callback.core import event
    try: return callable(o) and bool(set(inspect.signature(o).parameters)-set(vars(event)))
    except ValueError: return False

def undocumented(site):
    "Exported names that are not on the API page, or whose own page lacks their heading, their parameters, or them"
    api,res = (site/'api.html').read_text(),[]
    for mod,syms in importlib.import_module('bot._modidx').d['syms'].items():
        path,m = site/f"{mod.split('.')[-1]}.html",importlib.import_module(mod)
        html = path.read_text()
        text = re.sub(r'<[^>]+>', '', html)
        for o in m.__all__:
            if f'>{o}<' not in api: res.append(f'{mod}.{o}: not on the API page')
            if not re.search(rf'\b{o}\b', text): res.append(f'{mod}.{o}: not on {path.name}')
            if f'{mod}.{o}' not in syms: continue   # a value, shown as code
            at = html.find(f'<h3>{o}<')
            if at<0: res.append(f'{mod}.{o}: no heading on {path.name}')
            elif takes(getattr(m, o)) and not re.search('docments|highlight-python', html[at:html.find('<section', at)]): res.append(f'{mod}.{o}: parameters not on {path.name}')
    return res

first = {   # what people look for, and the page about it
    'label smoothing':'tricks/label-smoothing', 'mixup':'tricks/mixup', 'distillation':'tricks/distillation', 'zero gamma':'tricks/zero-gamma',
    'large batch':'tricks/large-batch-training', 'linear scaling':'tricks/large-batch-training', 'warmup':'tricks/large-batch-training',
    'learning rate warmup':'tricks/large-batch-training', 'cosine':'tricks/cosine-decay-and-one-cycle', 'one cycle':'tricks/cosine-decay-and-one-cycle',
    'half precision':'tricks/half-precision', 'mixed precision':'tricks/half-precision', 'no bias decay':'tricks/no-bias-decay',
    'weight decay':'tricks/no-bias-decay', 'resnet-d':'tricks/resnet-b-resnet-c-and-resnet-d', 'data augmentation':'tricks/training-procedure',
    'run folder':'runs', 'exit codes':'cli'}

stubs = """
var _ready = () => {}, _ = s => s, SPHINX_HIGHLIGHT_ENABLED = false, window = globalThis, document = {getElementById: () => null};
"""

def searcher(site):
    "The site's own search, run outside a browser: a function from words to pages, best first"
    from py_mini_racer import MiniRacer
    js = MiniRacer()
    js.eval(stubs + ''.join((site/o).read_text() for o in ('_static/language_data.js', '_static/searchtools.js', 'searchindex.js')))
    def find(words):
        found = js.eval(f'JSON.stringify(Search._performSearch(...Search._parseQuery({json.dumps(words)})).reverse().map(o => [o[0], o[2]]))')
        return [tuple(o) for o in json.loads(found)]
    return find

def unsearchable(site, first=first):
    "Words that lead to another page first than to the one about them"
    find = searcher(site)
    found = {k:find(k) for k in first}
    return [f"search for '{k}' finds {found[k][0][0] if found[k] else 'nothing'} first, not {v}" for k,v in first.items() if not found[k] or found[k][0][0]!=v]

def counted(site):
    "Places in our links that depend on counting, as id1 does: what is put before them would move them"
    pages = {p: Page(p) for p in site.rglob('*.html') if '_static' not in p.parts}
    return [f'{k.relative_to(site)}: {o} depends on counting' for k,p in pages.items() for o in dict.fromkeys(p.out)
        if re.fullmatch(r'(id|index-|section-)\d+', urldefrag(o)[1])]

def unlisted(site):
    "Tricks whose names the side bar does not show"
    from bot.ladder import ladder
    html = re.search(r'<div class="sidebar-tree">.*?</div>', (site/'index.html').read_text(), re.S)[0]
    text = re.sub(r'<[^>]+>', '', html).lower()
    return [f"'{o.title}' is not in the side bar" for o in ladder.values() if o.title.lower() not in text]

if __name__=='__main__':
    site = Path(sys.argv[1] if sys.argv[1:] else '_docs')
    sys.path.insert(0, '.')
    if not (site/'llms.txt').exists(): sys.exit(f'no site in {site}: run python docs/build.py')
    faults = bad_links(site) + bad_own(site) + undocumented(site) + unsearchable(site) + counted(site) + unlisted(site)
    sys.exit('\n'.join(faults) or print(f'{site}: links, names and search are sound'))
