"README.md from `nbs/index.ipynb`: its prose, the code that a reader sees, and what that code showed"
import re, sys
from pathlib import Path
from fastcore.nbio import read_nb

root = Path(__file__).parents[1]

def shown(c): return not re.search(r'^#\|\s*(hide|default_exp)', c.source, re.M)

def output(o):
    "The text of one output: Markdown as it is, plain text as code"
    data = o.get('data', {})
    md,txt = (''.join(data.get(k, '')) for k in ('text/markdown', 'text/plain'))
    return md if md else f"    {(txt or ''.join(o.get('text', ''))).rstrip()}".replace('\n', '\n    ')

def cell(c):
    if c.cell_type!='code': return re.sub(r'^#\|.*\n', '', c.source, flags=re.M)
    src = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip()
    code = [] if re.search(r'^#\|\s*echo:\s*false', c.source, re.M) else [f'```python\n{src}\n```']
    return '\n\n'.join(code + [output(o) for o in c.get('outputs', [])])

if __name__=='__main__':
    text = '\n\n'.join(cell(c).strip() for c in read_nb(root/'nbs/index.ipynb').cells if shown(c))
    Path(sys.argv[1] if sys.argv[1:] else root/'README.md').write_text('<!-- made from nbs/index.ipynb by docs/readme.py -->\n\n' + text + '\n')
