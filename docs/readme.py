"README.md from `nbs/index.ipynb`: its prose, the code that a reader sees, and what that code showed"
import base64, re, sys
from pathlib import Path
from fastcore.nbio import read_nb

root = Path(__file__).resolve().parents[1]

def directive(c, name): return m[1].strip().strip('"') if (m := re.search(rf'^#\|\s*{name}:\s*(.*)$', c.source, re.M)) else ''
def shown(c): return not re.search(r'^#\|\s*(hide|default_exp)\b', c.source, re.M)
def joined(o): return ''.join(o)

def output(o, image=None):
    "The text of one output: Markdown as it is, a picture as what `image` makes of it, plain text as code"
    data = o.get('data', {})
    if 'text/markdown' in data: return joined(data['text/markdown'])
    if 'image/png' in data and image: return image(data['image/png'])
    return f"    {joined(data.get('text/plain', o.get('text', ''))).rstrip()}".replace('\n', '\n    ')

def cell(c, image=None):
    "One cell as Markdown"
    if c.cell_type!='code': return re.sub(r'^#\|.*\n', '', c.source, flags=re.M)
    src = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip()
    silent = directive(c, 'echo')=='false' or 'remove-input' in c.get('metadata', {}).get('tags', [])
    return '\n\n'.join(([] if silent else [f'```python\n{src}\n```']) + [output(o, image) for o in c.get('outputs', [])])

def saved(folder, c, alt):
    "A picture of the cell `c`, written beside the README, as Markdown"
    def _write(png):
        path = folder/f'docs/images/{c.id}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(joined(png)))
        return f'![{alt}](docs/images/{path.name})'
    return _write

def readme(folder):
    "The README's text, its pictures written under `folder`; links to notebooks start at the repository's root"
    cells = [c for c in read_nb(root/'nbs/index.ipynb').cells if shown(c)]
    text = [cell(c, saved(folder, c, directive(c, 'fig-alt'))).strip() for c in cells]
    return re.sub(r'\]\(((?:tutorials/)?\w+\.ipynb)', r'](nbs/\1', '\n\n'.join(o for o in text if o))

if __name__=='__main__':
    path = Path(sys.argv[1] if sys.argv[1:] else root/'README.md')
    path.write_text(f'<!-- made from nbs/index.ipynb by docs/readme.py -->\n\n{readme(path.parent)}\n')
