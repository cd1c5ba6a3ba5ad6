"""Reports of runs as a reader meets them: desktop, phone, dark, print; with names that are meant to do harm, and with a thousand classes

    python tests/browser/report.py [FOLDER for screenshots] [RUN ...]"""
import sys, tempfile
from pathlib import Path
from selenium.webdriver.common.by import By
from _chrome import chrome, keeps_to_itself, shot, width

root = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(root), str(root/'tests')]
from bot.report import report
from made_runs import evil, make_images, make_run

shots = Path(sys.argv[1] if sys.argv[1:] else root/'_site/shots')
looks = dict(desktop=(1200,900,'','light'), phone=(390,844,'','light'), dark=(1200,900,'','dark'), print=(800,1100,'print','light'))

def pages(tmp):
    "Name -> file"
    images = make_images(tmp/'images', 100)
    files = [f'{i}.jpg' for i in range(100)]
    runs = dict(three=make_run(tmp/'three', evil, 300, [*files, f'{evil[1]}.jpg'], images), forty=make_run(tmp/'forty', [f'a class of number {i}' for i in range(40)], 4000, files, images),
        thousand=make_run(tmp/'thousand', [f'n{i:08} name' for i in range(1000)], 50_000, files, images))
    runs |= {Path(o).name:Path(o) for o in sys.argv[2:]}
    other = make_run(tmp/'another', evil, 300, [*files, f'{evil[1]}.jpg'], images, seed=1, right=.8, settings=dict(arch='xresnet34d', lr=.1))
    return {k:report(o, out=tmp/f'{k}.html').path for k,o in runs.items()} | dict(both=report(runs['three'], other, out=tmp/'both.html').path)

def set_look(d, w, h, media, scheme):
    d.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(media=media, features=[dict(name='prefers-color-scheme', value=scheme)]))
    width(d, w, h)

def is_seen(d, name):
    "Every section has a size, something in it, and a link that leads to it"
    parts = d.find_elements(By.TAG_NAME, 'section')
    assert len(parts)>=4 and all(o.size['height']>30 and o.text.strip() for o in parts), name
    links = [o.get_attribute('href').split('#')[1] for o in d.find_elements(By.CSS_SELECTOR, 'nav a')]
    assert links==[o.get_attribute('id') for o in parts], name

def is_sorted(d, name):
    "A click on the second title puts the largest numbers first"
    head = d.find_element(By.CSS_SELECTOR, 'table.sort th:nth-child(2)')
    d.execute_script("arguments[0].scrollIntoView({block:'center'})", head)
    head.click()
    vals = d.execute_script("return [...arguments[0].closest('table').tBodies[0].rows].map(o => +o.cells[1].dataset.v)", head)
    assert vals==sorted(vals, reverse=True) and len(vals)>1, f"{name}: {vals}"

with chrome() as d, tempfile.TemporaryDirectory() as tmp:
    for name,file in pages(Path(tmp)).items():
        for look,o in looks.items():
            set_look(d, *o)
            d.get(file.as_uri())
            keeps_to_itself(d, f'{name} {look}')
            asked = d.execute_script("return performance.getEntriesByType('resource').map(o => o.name).filter(o => !o.startsWith('data:'))")
            assert not asked, f'{name} asks {asked}'
            assert d.find_elements(By.CSS_SELECTOR, 'script')[1:]==[] and not d.find_elements(By.CSS_SELECTOR, '[onerror]')
            if look!='print': is_seen(d, name)
            width(d, o[0], min(12_000, d.execute_script('return document.documentElement.scrollHeight')))
            shot(d, shots, f'report-{name}-{look}')
        set_look(d, *looks['desktop'])
        is_sorted(d, name)
        print(name, f'{file.stat().st_size/1e6:.2f} MB', 'quiet, whole, as wide as the window')
