"""A tutorial in JupyterLab, as a reader runs it: every cell runs, the bar moves while training, and a plot of two losses stays

    python tests/browser/jupyter_lab.py [NOTEBOOK [FOLDER for screenshots]]"""
import json, os, signal, socket, subprocess, sys, tempfile
from base64 import b64decode
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
import numpy as np
from PIL import Image
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from urllib.request import urlopen
from _chrome import chrome, shot, until

root = Path(__file__).resolve().parents[2]
alt,blue,orange = 'Training and validation loss',(31,119,180),(255,127,14)   # of the plot, of its first and second curve
settings = {'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True),
    'notebook-extension/tracker': dict(windowingMode='none')}   # cells out of sight stay in the page

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def lab_env(d):
    "The environment of a Lab that has no other settings than ours"
    for k,v in settings.items():
        f = d/'settings/@jupyterlab'/f'{k}.jupyterlab-settings'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(json.dumps(v))
    dirs = dict(JUPYTER_CONFIG_DIR='config', JUPYTER_DATA_DIR='data', JUPYTER_RUNTIME_DIR='runtime', IPYTHONDIR='ipython',
        JUPYTERLAB_SETTINGS_DIR='settings', JUPYTERLAB_WORKSPACES_DIR='workspaces')
    return os.environ | {k:str(d/v) for k,v in dirs.items()} | dict(PYTHONPATH=os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')]))

def answers(proc, url):
    assert proc.poll() is None, f'JupyterLab ended with {proc.returncode}'
    try: return urlopen(f'{url}/api', timeout=5).status==200
    except OSError: return False

@contextmanager
def jupyter_lab(work, d, port):
    "JupyterLab on the folder `work`, ready; its log is printed if what follows fails"
    log,url = d/'lab.log',f'http://127.0.0.1:{port}'
    cmd = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0',
        f'--ServerApp.root_dir={work}', '--IdentityProvider.token=', '--ServerApp.password=', '--LabApp.expose_app_in_browser=True']
    with log.open('w') as f: proc = subprocess.Popen(cmd, cwd=work, env=lab_env(d), stdout=f, stderr=subprocess.STDOUT, start_new_session=True)
    try: yield url,proc
    except BaseException:
        print('--- JupyterLab', log.read_text()[-5000:], sep='\n', file=sys.stderr)
        raise
    finally:
        proc.terminate()   # with it go its kernels
        try: proc.wait(30)
        except subprocess.TimeoutExpired: os.killpg(proc.pid, signal.SIGKILL)

def choose(d, menu, command):
    "Choose a command from a menu"
    until(d, lambda: d.find_elements(By.XPATH, f"//*[contains(@class,'lm-MenuBar-itemLabel') and text()='{menu}']"), 60)[0].click()
    until(d, lambda: d.find_elements(By.CSS_SELECTOR, f".lm-Menu li[data-command='{command}']"), 60)[0].click()

def prompts(d): return d.execute_script("return [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(o => o.textContent.trim())")
def errors(d): return d.execute_script("return [...document.querySelectorAll('[data-mime-type=\"application/vnd.jupyter.error\"]')].map(o => o.textContent)")
def kernel(d):
    "Status of the notebook's kernel, once Lab is connected to it"
    return d.execute_script("""let w = window.jupyterapp?.shell.currentWidget, k = w?.sessionContext?.session?.kernel
        return w?.context?.isReady && w.sessionContext.isReady && k?.connectionStatus=='connected' ? k.status : null""")

def ready(d):
    "Is there an idle kernel? Where Lab asks for one, the one it offers will do"
    for o in d.find_elements(By.CSS_SELECTOR, '.jp-Dialog .jp-mod-accept'): o.click()
    return kernel(d)=='idle'

watch = """window.bars = []
new MutationObserver(() => document.querySelectorAll('.jp-Notebook progress').forEach(p => {
    let v = p.value/(p.max || 1)
    if (v>0 && !bars.includes(v)) bars.push(v)
})).observe(document.body, {subtree:true, childList:true, attributes:true})"""

def done(d, n):
    "Have all `n` cells of code run?"
    assert not errors(d), '\n'.join(errors(d))
    ran = [o for o in prompts(d) if o.strip('[]: ').isdigit()]
    return len(ran)==n

def saved(f, n):
    nb = json.loads(f.read_text())
    return nb if sum(bool(c.get('execution_count')) for c in nb['cells'])==n else None

def curves(nb):
    "Pixels of the two curves in that plot of losses of `nb` which has most of both, and the plot"
    pngs = [''.join(o['data']['image/png']) for c in nb['cells'] for o in c.get('outputs', []) if o.get('metadata', {}).get('image/png', {}).get('alt')==alt]
    assert pngs, 'no plot of the losses'
    pxs = [np.asarray(Image.open(BytesIO(b64decode(o))).convert('RGB')) for o in pngs]
    return max((([int((px==o).all(-1).sum()) for o in (blue,orange)],png) for px,png in zip(pxs, pngs)), key=lambda o: min(o[0]))

def check(d, url, f, shots):
    "Run the notebook `f`, and look"
    nb = json.loads(f.read_text())
    n = sum(c['cell_type']=='code' and bool(''.join(c['source']).strip()) for c in nb['cells'])
    d.set_window_size(1200, 1000)
    d.get(f'{url}/lab/tree/{f.name}')
    until(d, lambda: ready(d) and len(prompts(d))>=n, 120)
    d.execute_script(watch)
    choose(d, 'Run', 'runmenu:run-all')
    try: until(d, lambda: done(d, n), 480)
    except TimeoutException as e: raise AssertionError(f'the cells {prompts(d)} did not all run in 8 minutes; the kernel is {kernel(d)}') from e
    bars = d.execute_script('return bars')
    assert len(bars)>=2, f'the bar did not move: {bars}'
    choose(d, 'File', 'docmanager:save')
    nb = until(d, lambda: saved(f, n), 60)
    assert not [o for c in nb['cells'] for o in c.get('outputs', []) if o['output_type']=='error']
    ns,png = curves(nb)
    assert min(ns)>=30, f'pixels of the training and the validation curve: {ns}'
    img = d.execute_script("return [...document.querySelectorAll('.jp-Notebook img')].find(o => o.naturalWidth && o.src.includes(arguments[0]))", png.replace('\n', ''))
    assert img, 'the plot is not on the page'
    d.execute_script("arguments[0].scrollIntoView({block:'center'})", img)
    shot(d, shots, f'jupyter-{f.stem}')
    print(f'{f.name}: {n} cells ran, {len(bars)} positions of the bar, curves of {ns[0]} and {ns[1]} pixels')

if __name__=='__main__':
    nb = Path(sys.argv[1] if sys.argv[1:] else root/'nbs/tutorials/01_digits.ipynb')
    shots = Path(sys.argv[2] if sys.argv[2:] else root/'_site/shots').resolve()
    with tempfile.TemporaryDirectory() as tmp:
        work,d = Path(tmp)/'work',Path(tmp)/'lab'
        work.mkdir(), d.mkdir()
        cells = json.loads(nb.read_text())
        for c in cells['cells']:
            if c['cell_type']=='code': c['outputs'],c['execution_count'] = [],None   # what is seen is new
        (work/nb.name).write_text(json.dumps(cells))
        with jupyter_lab(work, d, free_port()) as (url,proc), chrome() as browser:
            until(browser, lambda: answers(proc, url), 120)
            try: check(browser, url, work/nb.name, shots)
            except BaseException:
                shot(browser, shots, f'jupyter-{nb.stem}-failed')
                raise
