"Sphinx's settings for what `docs/build.py` has staged"
import shutil
from importlib.util import find_spec
from pathlib import Path
from docutils import nodes
from nbdev.config import get_config
from tables import slug

cfg = get_config()
project,author,copyright = cfg.title,cfg.author,cfg.author
html_title = cfg.title
extensions = ['myst_nb', 'sphinx_copybutton']

html_theme = 'furo'
html_static_path = ['theme']
html_css_files,html_js_files = ['bot.css'],['bot.js']
html_logo = html_favicon = 'theme/bot.svg'
html_copy_source = html_show_sourcelink = html_show_copyright = html_show_sphinx = False
html_use_index = False
green = {'color-brand-primary':'#0f766e', 'color-brand-content':'#0f766e', 'color-brand-visited':'#0f766e'}
html_theme_options = dict(top_of_page_buttons=[], light_css_variables=green, dark_css_variables={k:'#2dd4bf' for k in green},
    footer_icons=[dict(name='GitHub', url=cfg.git_url, html='GitHub', **{'class':''})])
pygments_style,pygments_dark_style = 'friendly','native'

nb_execution_mode = 'off'
nb_code_prompt_show = nb_code_prompt_hide = 'Source'
myst_enable_extensions = ['dollarmath', 'amsmath', 'attrs_inline', 'attrs_block']
myst_dmath_double_inline = True   # '$$' within a paragraph, as Jupyter reads it
myst_heading_anchors = 6

myst_heading_slug_func = 'tables.slug'

def quarto_ids(app, doctree):
    "Sections answer to nbdev's anchors (`#learner.fit_rung`) alone; the second of a title takes its parent's before it, so that none depends on counting"
    slugs,taken = app.env.metadata[app.env.docname].get('myst_slugs', {}),set()
    for s in doctree.findall(nodes.section):
        i,old = slug(s[0].astext()),s['ids']
        if i in taken: i = f"{s.parent['ids'][0]}-{i}"
        taken.add(i)
        s['ids'],doctree.ids[i] = [i],s
        for k,(line,o,title) in list(slugs.items()):
            if o in old: slugs[k] = line,i,title

mathjax_path = 'mathjax/tex-chtml.js'   # MathJax and its fonts come along: the site asks no other server for anything
def bring_mathjax(app, exc):
    if exc: return
    src,dst = Path(find_spec('sphinx-mathjax-offline').origin).parent/'static/mathjax',Path(app.outdir)/'_static/mathjax'
    for o in mathjax_path.split('/')[1],'output/chtml/fonts/woff-v2':
        (dst/o).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (src/o).is_dir() else shutil.copy)(src/o, dst/o)

def setup(app):
    app.connect('doctree-read', quarto_ids, priority=1)
    app.connect('build-finished', bring_mathjax)
