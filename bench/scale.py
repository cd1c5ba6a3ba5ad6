"""How much faster are two processes than one?

    python bench/scale.py [--rounds 3] [--epochs 5] [--size 96] [--widen 0.25] [--bs 256] [--out bench/results/scale.csv]

Images a second that a run writes down, the median of its epochs but the first, each process with one thread and no workers. One process, two that train together, and two that have nothing to do with each other take turns; the median of several rounds. The file keeps what it has of other batches.

- together: Two processes of `torchrun`, over one process.

- apart: Two runs of one process at the same time, over one alone. It is what the machine allows: its cores share a memory, so two of them do less than twice the work of one.

- together over apart: What is missing from 1 is what the processes spend on each other: mostly that each step waits for the slower one, which counts for less the longer a step takes.
"""
import argparse, csv, os, subprocess, sys, tempfile
from pathlib import Path
from statistics import median
from bot.core import csv_text

def command(o, out, n=1):
    launcher = f'-m torch.distributed.run --standalone --nproc-per-node {n} -m bot train'.split() if n>1 else ['-m', 'bot', 'train']
    words = f'digits --arch xresnet18d --widen {o.widen} --size {o.size} --bs {o.bs} --epochs {o.epochs} --device cpu --workers 0 --save-minutes 600 --out'.split()
    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    return subprocess.Popen([sys.executable, *launcher, *words, str(out)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

def speed(out):
    "Images a second of a run"
    with open(out/'metrics.csv') as f: return median([float(r['img_per_s']) for r in csv.DictReader(f)][1:])

def run(o, tmp, outs, n=1):
    ps = [command(o, tmp/k, n) for k in outs]
    if any(p.wait() for p in ps): raise SystemExit(f'{outs}: a run failed')
    return sum(speed(tmp/k) for k in outs)

def one_round(o):
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        res = [run(o, tmp, ['one']),run(o, tmp, ['two'], 2),run(o, tmp, ['a','b'])]
    print('  '.join(f'{v:.1f}' for v in res), flush=True)
    return res

def keep(file, rows):
    "Write rows beside those of other batches"
    was = list(csv.DictReader(file.open())) if file.exists() else []
    rows = sorted([r for r in was if r['bs']!=str(rows[0]['bs'])]+rows, key=lambda r: int(r['bs']))
    file.write_text(csv_text(rows))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k,v in dict(rounds=3, epochs=5, size=96, widen=.25, bs=256, out='bench/results/scale.csv').items(): p.add_argument(f'--{k}', type=type(v), default=v)
    o = p.parse_args()
    print('one, two together, two apart; images a second', flush=True)
    rounds = [one_round(o) for _ in range(o.rounds)]
    rows = [('one, images a second', median(a for a,_,_ in rounds)),('together / one', median(b/a for a,b,_ in rounds)),('apart / one', median(c/a for a,_,c in rounds)),
        ('together over apart', median(b/c for _,b,c in rounds))]
    keep(Path(o.out), [dict(bs=o.bs, what=k, value=f'{v:.3f}', size=o.size, widen=o.widen) for k,v in rows])
    for k,v in rows: print(f'{k}: {v:.3f}')

if __name__=='__main__': main()
