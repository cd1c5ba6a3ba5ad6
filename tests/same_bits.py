"What every kind of source has to hold: the bits of the folder of the same images, and of a run that was not stopped"
import subprocess, sys
import torch
from bot.block import bag_dls
from bot.cli import main

tiny = '--epochs 1 --arch xresnet18d --widen .0625 --size 32 --bs 8 --workers 0 --device cpu'.split()

def run(f, capsys, *args):
    "Exit code of a command, what it said, and its errors"
    capsys.readouterr()
    rc = f([str(o) for o in args])
    out = capsys.readouterr()
    return rc,out.out,out.err

def batches(src, method=None, workers=0, at=None):
    dls = bag_dls(src, size=32, bs=8, num_workers=workers, start_method=method, device='cpu')
    if at: dls.train.at(*at)
    return [(x.clone(), y.clone()) for _ in range(1 if at else 2) for x,y in dls.train]+[(x.clone(), y.clone()) for x,y in dls.valid]

def same(a, b): return len(a)==len(b) and all(torch.equal(x,u) and torch.equal(y,v) for (x,y),(u,v) in zip(a, b))

def check_batches(images, src):
    "With workers, forked and spawned; and from the middle of an epoch on"
    want = batches(images)
    for o in dict(), dict(workers=2, method='fork'), dict(workers=2, method='spawn'): assert same(batches(src, **o), want), o
    assert same(batches(src, at=(1, 2)), want[6:])

def last(path): return (path/'last.safetensors').read_bytes()

def check_weights(images, src, tmp_path):
    for k,o in dict(a=images, b=src).items(): assert main([str(o), '--rung', 'mixup', '--but', 'distill', '--out', str(tmp_path/k), *tiny, '--epochs', '2'])==0
    assert last(tmp_path/'a')==last(tmp_path/'b')

_stop = """
import os, signal, sys
from bot.cli import main
from fastai.learner import Learner
def step(self, old=Learner._do_one_batch):
    old(self)
    if self.training and self.epoch==1 and self.iter==3: os.kill(os.getpid(), signal.SIGUSR1)
Learner._do_one_batch = step
sys.exit(main(sys.argv[1:]))"""

def check_goes_on(whole, src, tmp_path, meanwhile=None):
    "A run on `src` that is stopped within an epoch ends with the weights of one on `whole`; `meanwhile` is called with the words of its command"
    words = [*tiny, '--epochs', '3', '--bs', '4']
    assert main([str(whole), *words, '--out', str(tmp_path/'whole')])==0
    args = [str(src), *words, '--out', str(tmp_path/'stopped')]
    assert subprocess.run([sys.executable, '-W', 'ignore', '-c', _stop, *args], capture_output=True).returncode==75
    if meanwhile: meanwhile(args)
    assert main(args)==0
    assert last(tmp_path/'whole')==last(tmp_path/'stopped')
