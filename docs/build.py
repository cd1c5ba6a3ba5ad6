"""The site, in `_docs/`: what nbdev makes of the notebooks, rendered by Sphinx

    pip install -e ".[docs]" && python docs/build.py

Notebooks are not run: their stored outputs are shown. Only what `show_doc` needs (imports and exported cells) is executed, by nbdev."""
import ast, io, os, posixpath, re, shutil, sys, tokenize, yaml
from base64 import b64decode
from pathlib import Path

here = Path(__file__).resolve().parent
root = here.parent
out,staged = root/'_docs',root/'_site/src'
sys.path[:0] = [str(root), str(here)]
os.environ['PYTHONPATH'] = os.pathsep.join(o for o in (str(root), os.environ.get('PYTHONPATH')) if o)   # nbdev's workers describe this tree's package

from fastcore.nbio import mk_cell, read_nb, write_nb
from nbdev.config import get_config, nbpath2html
from nbdev.showdoc import showdoc_nm
from PIL import Image
import pages, readme
from tables import index_entries, slug


def text(c): return ''.join(''.join(o.get('data', {}).get('text/markdown') or '') for o in c.get('outputs', []))
def documented(c): return m[1] if c.cell_type=='code' and (m := re.search(r'^show_doc\(([\w.]+)', c.source, re.M)) else None
def plain(c): return re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip()

def defined(c):
    "Names that an exported cell defines, as `show_doc` knows them"
    if c.cell_type!='code' or '#| exports' not in c.source: return []
    names = [showdoc_nm(o) for o in ast.parse(plain(c)).body if isinstance(o, (ast.FunctionDef,ast.ClassDef))]
    return [n for o in names for n in ([o] if isinstance(o, str) else o)]

def only_defines(c):
    "Does a cell hold nothing but functions and classes? A value that it makes is to be seen"
    return all(isinstance(o, (ast.FunctionDef,ast.ClassDef)) for o in ast.parse(plain(c)).body)

def in_order(cells):
    "Cells with what documents an exported cell before it, in the order of its source; nbdev's is the reverse"
    docs = {documented(c): c for c in cells if documented(c)}
    claimed = {n for c in cells for n in defined(c)}
    for c in cells:
        if documented(c) in claimed: continue
        mine = [docs[n] for n in defined(c) if n in docs]
        c['folded'] = bool(mine) and only_defines(c)
        yield from [*mine, c]

def parameters(code):
    "Rows (name, type, default, text) of a signature as `show_doc` prints it"
    f = ast.parse(f'{code}\n    pass').body[0]
    a = f.args
    said = {o.start[0]: o.string.lstrip('# ') for o in tokenize.generate_tokens(io.StringIO(code).readline) if o.type==tokenize.COMMENT}
    src = lambda o: f'`{ast.get_source_segment(code, o)}`' if o else ''
    pos = a.posonlyargs+a.args
    args = [*zip(pos, [None]*(len(pos)-len(a.defaults))+a.defaults), (a.vararg,None), *zip(a.kwonlyargs, a.kw_defaults), (a.kwarg,None)]
    rows = [(f"{'*' if o is a.vararg else '**' if o is a.kwarg else ''}{o.arg}", src(o.annotation), src(d), said.get(o.lineno, '')) for o,d in args if o]
    return [(f'`{n}`', *r) for n,*r in rows] + ([('*returns*', src(f.returns), '', said.get(len(code.splitlines()), ''))] if f.returns else [])

def titled(md):
    "The Markdown of `show_doc` with its name first, the link to the source after it"
    md = re.sub(r'^---\n', '', md).strip()
    md = re.sub(r'<function ([\w.]+) at 0x\w+>', r'\1', md)
    return re.sub(r'^(\[source\]\([^)]*\))\{.*?\}\n+(#+ .*)$', r'\2\n\n{.source}\n\1', md, flags=re.M)

def table(md):
    "The Markdown of `show_doc`, with its signature as a table of parameters"
    m = re.search(r'```python\n(def .*?)\n```\n*', md, re.S)
    try: rows = parameters(m[1]) if m else []
    except SyntaxError: return md   # a default that only its repr can show
    said = [o for o in rows if o[1:]!=('`NoneType`', '`None`', '')]   # a hook may be given a function for each of fastai's events
    if rows and not said: return md[:m.start()]+md[m.end():]
    rows = said
    keep = [i for i,o in enumerate(zip(*rows)) if any(o)]
    if len(keep)<2: return md
    rows = [['', 'type', 'default', ''], [':--']*4, *rows]
    lines = [f"| {' | '.join(r[i].replace('|', chr(92)+'|') for i in keep)} |" for r in rows]
    return f'{md[:m.start()]}{md[m.end():]}\n\n' + '\n'.join(['{.docments}', *lines])

def joined(outputs):
    "Outputs with the pieces of a stream that were written one after the other in one"
    res = []
    for o in outputs:
        if res and 'name' in o and o['name']==res[-1].get('name'): res[-1]['text'] = ''.join(res[-1]['text']) + ''.join(o['text'])
        else: res.append(o)
    return res

def looks(c):
    "Classes of a cell's pictures: one that is too wide for a phone, one that has no background of its own"
    pngs = [Image.open(io.BytesIO(b64decode(''.join(o['data']['image/png'])))) for o in c.get('outputs', []) if 'image/png' in o.get('data', {})]
    clear = pngs and all(o.mode=='RGBA' and not o.getpixel((0,0))[3] for o in pngs)
    return ' '.join((['wide'] if any(o.width>2.4*o.height for o in pngs) else []) + (['clear'] if clear else []))

def shown(c):
    "A cell of a processed notebook as the site shows it"
    src,silent = plain(c),readme.directive(c, 'echo')=='false'
    if c.cell_type=='raw':
        fm = yaml.safe_load(src.strip('-\n'))
        return mk_cell(f"# {fm['title']}\n\n{{.lead}}\n{fm.get('description', '')}", 'markdown')
    if c.cell_type=='markdown': return mk_cell(src, 'markdown')
    if silent and text(c): return mk_cell(table(titled(text(c))), 'markdown')
    c.metadata = dict(tags=['remove-input'] if silent else ['hide-input'] if c.get('folded') else [],
        mystnb=dict(image=dict(alt=readme.directive(c, 'fig-alt'), classes=looks(c))))
    c.source,c.outputs = src,joined(c.get('outputs', []))
    return c

def links(s, known, folder=''):
    "Links to notebooks and to the site's own address, as links between its pages; an anchor that is not in `known`, (page, anchor), is left out"
    own = get_config().doc_url
    def page(m):
        name = str(nbpath2html(m[2] if m[1] else posixpath.normpath(posixpath.join(folder, m[2]))).with_suffix(''))
        return f"](/{name}.{'md' if (name, None) in known else 'ipynb'}{m[3] if m[3] and (name, m[3][1:]) in known else ''})"
    s = re.sub(rf'\[\[(`[^`]*`)\]\({re.escape(own)}[^)]*\)\]\(', r'[\1](', s)   # nbdev links names inside links too
    return re.sub(rf'\]\(({re.escape(own)})?(?!\w+:)([\w./-]+)\.(?:html|ipynb)(#[\w.-]+)?\)', page, s)

def from_notebook(nb):
    "Where a page comes from"
    path = Path(nb.path_).relative_to(root/'_proc')
    return f'\n\n{{.source}}\n[notebook]({get_config().git_url}/blob/{get_config().branch}/nbs/{path.as_posix()})'

def anchors(name, cells):
    "Places in a page that nbdev links to"
    return {(name, slug(h)) for c in cells if c.cell_type=='markdown' for h in re.findall(r'^#+ (.+)$', c.source, re.M)}

def to_cards(name, nb):
    "A link from each section that teaches a trick to its card"
    for place,card in ((o, c) for c in pages.cards.cards for o in c.parts):
        for c in nb.cells:
            head,_,rest = c.source.partition('\n')
            if c.cell_type!='markdown' or not head.startswith('## ') or place!=f"{name}#{slug(head.lstrip('# '))}": continue
            c.source = f"{head}\n\n{{.source}}\n[in short]({get_config().doc_url}{card.page}.html)\n{rest}"

def dress(name, nb, known):
    "A page with its source, the words it is found by, and links that work"
    nb.cells[0].source += from_notebook(nb)
    if name in pages.found_by: nb.cells[0].source += f"\n\n{index_entries(pages.found_by[name].split(', '))}"
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='ipython3')   # it knows `%%bash` too
    to_cards(name, nb)
    for c in nb.cells:
        if c.cell_type=='markdown': c.source = links(c.source, known, posixpath.dirname(name))

def stage(proc):
    "Sphinx's sources in `_site/src`, from the processed notebooks in `proc`; the notebooks, and the cards"
    shutil.rmtree(staged.parent, ignore_errors=True)
    nbs = {str(nbpath2html(p.relative_to(proc)).with_suffix('')): read_nb(p) for p in sorted(proc.rglob('*.ipynb'))}
    for nb in nbs.values(): nb.cells = [shown(c) for c in in_order(nb.cells)]
    made = pages.made(root)
    known = set().union(*(anchors(k, nb.cells) for k,nb in nbs.items()), {(k, None) for k in made})
    made = {k:links(md, known) for k,md in made.items()}
    nbs['index'].cells.append(mk_cell(pages.contents(nbs), 'markdown'))
    for name in [*nbs, *made]: (staged/name).parent.mkdir(parents=True, exist_ok=True)
    for name,nb in nbs.items():
        dress(name, nb, known)
        write_nb(nb, staged/f'{name}.ipynb')
    for name,md in made.items(): (staged/f'{name}.md').write_text(md)
    return nbs,{k:v for k,v in made.items() if k.startswith('tricks/')}

def plain_page(md, to):
    "Markdown without what is for Sphinx alone, as a page"
    md = re.sub(r'^(\{\.\w+\}\n|<!-- WARNING.*-->\n+|```\{index\}.*?^```\n+)', '', md, flags=re.M|re.S)
    to.write_text(re.sub(r'\]\(/([\w/-]+)\.(?:ipynb|md)', rf']({get_config().doc_url}\1.html', md))

def plain_pages(nbs, made):
    "Each page as Markdown too, at the address that docstrings and `llms.txt` name"
    for name,nb in nbs.items():
        plain_page('\n\n'.join(readme.cell(c).strip() for c in nb.cells).split('```{toctree}')[0], out/f'{name}.html.md')
    for name,md in made.items(): plain_page(md, out/f'{name}.html.md')
    shutil.copy(root/'nbs/llms.txt', out)

def main():
    from nbdev.doclinks import _build_modidx
    from nbdev.serve import proc_nbs
    from sphinx.cmd.build import build_main
    os.chdir(root)
    _build_modidx()
    shutil.rmtree(out, ignore_errors=True)   # what fails leaves no older site behind
    nbs,made = stage(proc_nbs())
    html = staged.parent/'html'
    if rc := build_main(['-W', '--keep-going', '-q', '-c', str(here), '-d', str(staged.parent/'doctrees'), str(staged), str(html)]): sys.exit(rc)
    html.rename(out)
    plain_pages(nbs, made)
    print(f'{len(list(out.rglob("*.html")))} pages in {out.name}/: open {out.name}/index.html')

if __name__=='__main__': main()
