"""Two agents of torchrun in network namespaces of their own, of which one is lost. `python tests/machines_job.py 10` does it so many times; it takes root, and Linux.

Where the guest is lost its link goes down before its processes are killed, so that nothing tells the other. The holder of the rendezvous is killed alone: where its link goes down too, the other waits longer than the
minute that is asked for, for the store that is there no more. Host name and process numbers are shared, so the run folder's claim is seen to be dead at
once; between hosts its holder has to be silent for five minutes."""
import json, os, signal, subprocess, sys, time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

tag = f'bot{os.getpid()}'
spaces = [f'{tag}-{k}' for k in 'ab']
words = 'digits --arch xresnet18d --widen 0.0625 --size 32 --bs 64 --epochs 200 --device cpu --workers 0 --out'.split()

def ip(*args):
    p = subprocess.run(['ip', *args], capture_output=True, text=True)
    if p.returncode: raise OSError(f"ip {' '.join(args)}: {p.stderr.strip()}")
    return p.stdout

def lose(space, silent):
    "Kill its processes; silently, the link goes down first, so that no last word gets out"
    if silent: ip('netns', 'exec', space, 'ip', 'link', 'set', 'eth0', 'down')
    for o in ip('netns', 'pids', space).split(): os.kill(int(o), signal.SIGKILL)

@contextmanager
def machines():
    "Two namespaces with a cable between them, 10.77.0.1 and 10.77.0.2"
    try:
        for o in spaces: ip('netns', 'add', o)
        ip('link', 'add', 'eth0', 'netns', spaces[0], 'type', 'veth', 'peer', 'name', 'eth0', 'netns', spaces[1])
        for i,o in enumerate(spaces, 1):
            for args in ('addr', 'add', f'10.77.0.{i}/24', 'dev', 'eth0'),('link', 'set', 'lo', 'up'),('link', 'set', 'eth0', 'up'): ip('-n', o, *args)
        yield
    finally:
        for o in spaces:
            if o in ip('netns', 'list'):
                for pid in ip('netns', 'pids', o).split(): os.kill(int(pid), signal.SIGKILL)
                ip('netns', 'del', o)

def agent(i, tmp, nnodes='1:2'):
    cmd = [sys.executable, '-m', 'torch.distributed.run', '--nnodes', nnodes, '--nproc-per-node', '1', '--max-restarts', '3', '--rdzv-backend', 'c10d', '--rdzv-endpoint', '10.77.0.1:29500',
        '--rdzv-id', 'run', '--rdzv-conf', f'last_call_timeout=5,is_host={int(i==0)}', '--local-addr', f'10.77.0.{i+1}', '--signals-to-handle', 'SIGTERM,SIGINT,SIGHUP,SIGUSR1', '-m', 'bot', 'train', *words, str(tmp/'run')]
    env = os.environ | dict(GLOO_SOCKET_IFNAME='eth0', BOT_RANK_TIMEOUT='20', OMP_NUM_THREADS='1')
    return subprocess.Popen(['ip', 'netns', 'exec', spaces[i], *cmd], env=env, cwd=tmp, stdout=open(tmp/f'{i}.txt', 'a'), stderr=subprocess.STDOUT)

def status(tmp):
    try: return json.loads((tmp/'run/status.json').read_text())
    except OSError: return {}

def until(f, limit, tmp):
    "Seconds until `f` holds"
    begun = time.monotonic()
    while not f():
        if time.monotonic()-begun>limit: raise AssertionError(f'not within {limit} s: {status(tmp)}\n'+'\n'.join(f'--- {o.name}\n{o.read_text()}' for o in sorted(tmp.glob('?.txt'))))
        time.sleep(.2)
    return time.monotonic()-begun

def epochs(tmp): return status(tmp).get('epochs', 0)

@contextmanager
def two_agents(tmp):
    "A job of two agents that has finished two epochs"
    with machines():
        ps = [agent(i, tmp) for i in (0,1)]
        until(lambda: epochs(tmp)>=2, 240, tmp)
        yield ps

def save(p, tmp):
    "Ask a job to save and stop"
    p.send_signal(signal.SIGUSR1)
    p.wait(30)
    assert status(tmp)['state']=='saved', status(tmp)

def lose_guest(tmp):
    "The one that does not hold the rendezvous is lost: the job goes on, and no finished epoch is lost"
    with two_agents(tmp) as ps:
        lose(spaces[1], True)
        had = epochs(tmp)
        secs = until(lambda: epochs(tmp)>=had+2, 90, tmp)
        said = (tmp/'0.txt').read_text()
        again = [int(o.split()[3]) for o in said.splitlines() if o.startswith('goes on after')]
        assert again and again[-1]>=had, said
        save(ps[0], tmp)
    return secs

def lose_holder(tmp):
    "The one that holds it is lost: the other ends in words, and the same command goes on"
    with two_agents(tmp) as ps:
        lose(spaces[0], False)
        had = epochs(tmp)
        secs = until(lambda: ps[1].poll() is not None, 60, tmp)
        assert ps[1].returncode and 'Another process of the run was lost' in (tmp/'1.txt').read_text(), (tmp/'1.txt').read_text()
        p = agent(0, tmp, '1')
        until(lambda: epochs(tmp)>had, 120, tmp)
        save(p, tmp)
    return secs

def main(times):
    for f in lose_guest,lose_holder:
        secs = []
        for i in range(times):
            with TemporaryDirectory() as tmp: secs.append(f(Path(tmp)))
            print(f.__name__, f'{i+1} of {times}: {secs[-1]:.0f} s', flush=True)
        print(f'{f.__name__}: {len(secs)} of {times}, at most {max(secs):.0f} s')

if __name__=='__main__': main(int(sys.argv[1]))
