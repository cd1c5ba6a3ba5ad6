"""Is a run that was killed the run that was not?

    python bench/kills.py

Runs of 18 steps with augmentation, mixup, a teacher and 0 to 2 workers are killed about eight times each by SIGKILL and begun again with the same command: in a save, in validation, between two epochs,
at any moment, and again before the run has gone on. Each begins where it was saved, its rows of finished epochs stay as they are to the byte, and at its end weights, optimizer, rows and predictions
are those of a run that nobody stopped, to the bit; where one is not, nothing is written. The test of these (`tests/test_resume.py`) does it; here its kills are counted."""
import csv, os, subprocess, sys, tempfile
from collections import Counter
from pathlib import Path

root = Path(__file__).parents[1]
words = dict(save='in a save', valid='in validation', ended='between epochs', any='at any moment', again='before it had gone on')

if __name__=='__main__':
    with tempfile.TemporaryDirectory() as d:
        env = os.environ | dict(BOT_KILLS=f'{d}/kills')
        subprocess.run([sys.executable, '-m', 'pytest', '-q', '-m', 'slow', '-k', 'test_many_kills', '-n', '2', 'tests/test_resume.py'], cwd=root, env=env, check=True)
        runs = [o.split() for o in Path(env['BOT_KILLS']).read_text().splitlines()]
    n = Counter(o for r in runs for o in r[2:])
    rows = [dict(killed=w, times=n[k]) for k,w in words.items()]
    rows += [dict(killed='in all', times=sum(n.values())), dict(killed='runs, each the same to the bit', times=len(runs)), dict(killed='steps done again', times=sum(int(o[1]) for o in runs))]
    with (root/'bench/results/kills.csv').open('w', newline='') as f:
        w = csv.DictWriter(f, list(rows[0]), lineterminator='\n')
        w.writeheader(), w.writerows(rows)
    for o in rows: print(*o.values())
