"""The built site as a reader meets it: front page, side bar, search, a card, API, tutorial, dark mode, a phone's width

    python docs/build.py && python tests/browser/docs_site.py [FOLDER for screenshots]"""
import re, sys
from pathlib import Path
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from _chrome import chrome, keeps_to_itself, served, shot, until, width

root = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(root), str(root/'docs')]
from bot.ladder import ladder
from check import first

site,shots = root/'_docs',Path(sys.argv[1] if sys.argv[1:] else root/'_site/shots')

def all_of(d, css): return d.find_elements(By.CSS_SELECTOR, css)
def one(d, css):
    found = all_of(d, css)
    assert found, f'no {css} on {d.current_url}'
    return found[0]

def click(d, o):
    "Click what may be further down"
    d.execute_script("arguments[0].scrollIntoView({behavior:'instant', block:'center'})", o)
    o.click()

def light(d, css, prop):
    "How light a color is, 0 to 255"
    r,g,b = (int(o) for o in re.findall(r'\d+', one(d, css).value_of_css_property(prop))[:3])
    return .3*r + .59*g + .11*b

def front(d, url):
    d.get(f'{url}/index.html')
    assert len(all_of(d, 'article .cell_output img'))==1
    code = [o.text for o in all_of(d, 'article pre')]
    assert any('bag_dls(' in o and 'bag_learner(' in o and 'learn.fit_rung(' in o for o in code)
    rungs = all_of(d, '#the-ladder table tbody tr')
    assert len(rungs)==13 and all(o.find_elements(By.CSS_SELECTOR, 'td:first-child a[href]') and 'bot-train --rung' in o.text for o in rungs)
    assert all_of(d, 'button.copybtn')

def search(d, url):
    "What people look for stands first in what the search box finds"
    for words,page in first.items():
        d.get(f'{url}/index.html')
        one(d, 'input.sidebar-search').send_keys(words, Keys.ENTER)
        until(d, lambda: all_of(d, '#search-results ul.search li a'))
        link = one(d, '#search-results ul.search li a').get_attribute('href')
        assert link.startswith(f'{url}/{page}.html'), f'{words}: {link}'

def side_bar(d, url):
    "Groups with every trick in sight"
    d.get(f'{url}/index.html')
    groups = [o.text.lower() for o in all_of(d, '.sidebar-tree .caption')]
    assert groups==['tutorials', 'tricks', 'the ladder', 'data', 'models', 'training', 'runs and commands', 'reference'], groups
    names = ' '.join(o.text.lower() for o in all_of(d, '.sidebar-tree a'))
    assert all(o.title.lower() in names for o in ladder.values()), names

def card(d, url):
    "A card says all of it, and leads to its section"
    d.get(f'{url}/tricks/label-smoothing.html')
    until(d, lambda: all_of(d, 'mjx-container'))
    heads = [o.text for o in all_of(d, 'article h2')]
    assert len(heads)==7 and not all_of(d, 'mjx-merror'), heads
    click(d, d.find_element(By.CSS_SELECTOR, 'article p a[href$="losses.html#label-smoothing"]'))
    until(d, lambda: 'losses.html#label-smoothing' in d.current_url)
    assert all_of(d, 'section#label-smoothing p.source a[href$="tricks/label-smoothing.html"]')

def api(d, url):
    d.get(f'{url}/api.html')
    click(d, d.find_element(By.LINK_TEXT, 'smooth_labels'))
    until(d, lambda: 'losses.html#smooth' in d.current_url and all_of(d, 'mjx-container'))
    place = 'section:has(> [id="smooth_labels"])'   # nbdev's anchor
    section = one(d, place)
    assert all(o in section.text for o in ('eps', 'float', '§5.2'))
    assert section.find_elements(By.CSS_SELECTOR, 'table.docments') and not all_of(d, 'mjx-merror')
    details = one(d, f'{place} details.hide')
    assert details.get_attribute('open') is None
    click(d, details.find_element(By.CSS_SELECTOR, 'summary'))
    until(d, lambda: 'def smooth_labels' in details.text)

def tutorial(d, url):
    d.get(f'{url}/index.html')
    links = [o.get_attribute('href') for o in all_of(d, '.sidebar-tree a[href*="tutorials/"]')]
    assert len(links)==len(list((root/'nbs/tutorials').glob('*.ipynb'))), links
    if not links: return print('no tutorials yet')
    d.get(links[0])
    assert one(d, 'article h1').text and all_of(d, 'article pre')

def dark(d, url):
    d.get(f'{url}/losses.html')
    for _ in range(3):
        if d.execute_script('return document.body.dataset.theme')=='dark': break
        next(o for o in all_of(d, 'button.theme-toggle') if o.is_displayed()).click()
    assert light(d, 'body', 'background-color')<50 and light(d, 'article p', 'color')>150
    assert light(d, '.cell_output img:not(.clear)', 'background-color')>200, 'a picture without its light card'

def phone(d, url):
    "The staircase is seen whole, and the table of the ladder with what a rung sets"
    width(d, 390, 800)
    d.get(f'{url}/index.html')
    pic = one(d, 'article .cell_output img')
    assert 300<pic.size['width']<=390 and pic.location['x']+pic.size['width']<=390, (pic.size, pic.location)
    seen = [o.location['x']+o.size['width'] for o in all_of(d, '#the-ladder table tbody tr:nth-child(4) td')[:3]]
    assert max(seen)<=390, seen
    width(d, 1440)

if __name__=='__main__':
    with chrome() as d, served(site) as url:
        width(d, 1440)
        for f in front,side_bar,search,card,api,tutorial,dark,phone:
            f(d, url)
            keeps_to_itself(d, f.__name__)
            shot(d, shots, f.__name__)
        d.execute_script('localStorage.clear()')
        for w in 375,1024,1440:
            width(d, w, 800)
            for p in sorted(site.rglob('*.html')):
                if '_static' in p.parts: continue
                d.get(f'{url}/{p.relative_to(site)}')
                keeps_to_itself(d, f'{p.name} at {w} px')
                if w==375: shot(d, shots, f'phone-{p.stem}')
        print(f'site: front page, side bar, search, card, API, tutorial, dark mode, phone, {w} down to 375 px; screenshots in {shots}')
