"Run folders with any number of classes and images, without a training"
import numpy as np, yaml
from PIL import Image
from bot.core import csv_text

evil = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', '=cmd()']

def make_images(path, n, edge=200):
    "Noise, the largest that a JPEG can be"
    path.mkdir(parents=True, exist_ok=True)
    for i in range(n): Image.fromarray(np.random.default_rng(i).integers(0, 256, (edge,edge,3), dtype=np.uint8)).save(path/f'{i}.jpg')
    return path

def predictions(classes, n, files, seed=0, right=.7):
    "Rows of `predictions.csv`"
    rng,K = np.random.default_rng(seed),len(classes)
    y = np.random.default_rng(0).integers(K, size=n)
    first = np.where(rng.random(n)<right, y, rng.integers(K, size=n))
    p = rng.uniform(.35, .99, n)
    more = range(1, min(5, K))
    def row(i):
        rest = {f'{k}_{j+1}':v for j in more for k,v in (('class',classes[(first[i]+j)%K]), ('probability',round((1-p[i])/5, 6)))}
        loss = -np.log(p[i] if first[i]==y[i] else (1-p[i])/K)
        return dict(path=files[i%len(files)], label=classes[y[i]], predicted=classes[first[i]], probability=round(p[i], 6), loss=round(loss, 6)) | rest
    return [row(i) for i in range(n)]

def make_run(path, classes, n=60, files=('0.jpg',), images=None, epochs=3, seed=0, right=.7, **more):
    "A run folder as a training leaves it, but for weights and state"
    path.mkdir(parents=True)
    args = dict(rung='mixup', but=['distill'], reading='paper', settings=dict(arch='xresnet18d', size=64, bs=32, epochs=epochs), given=dict(size=64), changed=['bs: 1024 -> 32 (few images)'],
        normalized=dict(mean=[124.,117.,104.], std=[58.,57.,57.]), best=dict(by='accuracy', better='higher'), classes=list(classes), n_train=9*n, n_valid=n,
        images=str(images) if images else None, check=[f"class sizes: '{classes[0]}' has few"], command='bot-train photos', versions=dict(torch='2', python='3'))
    (path/'args.yaml').write_text(yaml.safe_dump(args | more, allow_unicode=True))
    rows = [dict(epoch=i, train_loss=3/(i+1), valid_loss=2/(i+1), accuracy=right*(i+1)/epochs, lr=.1/(i+1), img_per_s=500+i, time='00:10') for i in range(epochs)]
    (path/'metrics.csv').write_text(csv_text(rows))
    (path/'predictions.csv').write_text(csv_text(predictions(classes, n, list(files), seed, right)))
    return path
