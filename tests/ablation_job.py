"A worker of an ablation in a process of its own, as on a machine of its own, which writes down what it does"
import os

def worker(path, log, place=None, beat=20., silence=300.):
    "Work on the ablation in `path`; `place` is the machine that others take this for"
    from bot import files, turns
    from bot.resume import RunFolder
    fd = os.open(f'{log}.out', os.O_WRONLY|os.O_CREAT|os.O_APPEND)
    os.dup2(fd, 1), os.dup2(fd, 2)
    files.Claim.beat,files.Claim.silence = beat,silence
    if place: files.this_place = lambda: place
    def note(*words):
        with open(log, 'a') as f: f.write(' '.join(map(str, words))+'\n')
    train,batch,evaluate,late = turns.train_cell,RunFolder.after_batch,turns.evaluate,[]
    def train_cell(path, plan, name, seed, *args):
        late[:] = [True] if turns.is_done(path, name, seed) else []   # done by another just before: then nothing is to be trained or judged
        note('begin', name, seed, os.getpid())
        train(path, plan, name, seed, *args)
        note('done', name, seed, os.getpid())
    def after_batch(self):
        note('again' if late else 'batch', self.path.name, self.training, os.getpid())
        return batch(self)
    def judge(run, *args, **kwargs):
        note('again' if late else 'judge', run.name, os.getpid())
        return evaluate(run, *args, **kwargs)
    turns.train_cell,RunFolder.after_batch,turns.evaluate = train_cell,after_batch,judge
    turns.work(path, 'cpu', 0, 1)
