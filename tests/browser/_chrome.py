"A headless Chromium, and what every page must keep to: no errors, nothing asked of another server, no scrolling sideways"
import shutil, tempfile, threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

flags = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'

@contextmanager
def chrome():
    "The browser that the system has"
    binary,driver = shutil.which('chromium') or shutil.which('chromium-browser'),shutil.which('chromedriver')
    assert binary and driver, 'needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)'
    with tempfile.TemporaryDirectory() as profile:
        opts = webdriver.ChromeOptions()
        for o in [*flags.split(), f'--user-data-dir={profile}']: opts.add_argument(o)
        opts.binary_location = binary
        opts.set_capability('goog:loggingPrefs', {'browser':'ALL'})
        d = webdriver.Chrome(options=opts, service=Service(driver))
        try: yield d
        finally: d.quit()

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@contextmanager
def served(folder):
    "The address of a folder, served"
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown()

def until(d, f, seconds=20): return WebDriverWait(d, seconds).until(lambda _: f())
def width(d, w, h=900): d.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=w, height=h, deviceScaleFactor=1, mobile=w<500))
def shot(d, folder, name):
    Path(folder).mkdir(parents=True, exist_ok=True)
    assert d.save_screenshot(str(Path(folder)/f'{name}.png'))

def keeps_to_itself(d, what):
    "Raise unless the page is quiet, complete and as wide as the window"
    errors = [o['message'] for o in d.get_log('browser') if o['level']=='SEVERE']
    assert not errors, f'{what}: {errors}'
    others = d.execute_script("return performance.getEntriesByType('resource').map(o => o.name).filter(o => !o.startsWith(location.origin))")
    assert not others, f'{what} asks {others}'
    lost = d.execute_script("return [...document.images].filter(o => o.complete && !o.naturalWidth).map(o => o.src)")
    assert not lost, f'{what} lacks {lost}'
    wide,has = d.execute_script('return [document.documentElement.scrollWidth, document.documentElement.clientWidth]')
    assert wide<=has, f'{what} is {wide} px wide in a window of {has}'
