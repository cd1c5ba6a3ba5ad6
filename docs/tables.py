"What pages are written with"
import re

def slug(title):
    "A heading's anchor as quarto makes it, which is what nbdev links to"
    return re.sub(r'[^\w.\s-]', '', title.strip().lower()).replace(' ', '-')

def index_entries(words):
    "What the search of the site finds a page by, before all other pages"
    return f"```{{index}} {', '.join(f'!{o}' for o in words)}\n:name: found-by\n```"

def md_table(rows):
    "A Markdown table of dicts, without columns that are empty throughout"
    rows = [{k:v for k,v in o.items() if any(r[k]!='' for r in rows)} for o in rows]
    cell = lambda s: ''.join(o if i%2 else o.replace('_', '\\_') for i,o in enumerate(re.split('(`[^`]*`)', str(s).replace('|', '\\|'))))
    line = lambda o: f"| {' | '.join(map(cell, o))} |"
    number = [all(re.fullmatch(r'[\d., +-]*', str(o[k])) for o in rows) for k in rows[0]]
    return '\n'.join([line(rows[0]), '|' + '|'.join('--:' if o else ':--' for o in number) + '|', *(line(o.values()) for o in rows)])
