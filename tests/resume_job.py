"What the tests of runs that go on start in a process of its own: the command, watched, and perhaps killed at a chosen call."
import multiprocessing, os, signal, sys, time

def _die(): os.kill(os.getpid(), signal.SIGKILL)

def count_calls(k, names=('fsync','replace','link')):
    "Kill this process before its `k`-th call of one of these, which are the steps of a save"
    n = [0]
    def wrap(f):
        def g(*args, **kwargs):
            n[0] += 1
            if n[0]==k: _die()
            return f(*args, **kwargs)
        return g
    for o in names: setattr(os, o, wrap(getattr(os, o)))
    return n

def watch(path, slow=0.):
    "Write a line for each batch that is done, and for what is begun"
    from bot.resume import RunFolder
    def note(*words):
        with open(path, 'a') as f: f.write(' '.join(map(str, words))+'\n')
    after_batch,save,after_epoch = RunFolder.after_batch,RunFolder.save,RunFolder.after_epoch
    def batch(self):
        note('train' if self.training else 'valid', self.epoch, self.iter, os.getpid())
        time.sleep(slow)
        return after_batch(self)
    def saving(self, *args, **kwargs):
        note('save', self.epoch, os.getpid())
        time.sleep(slow)
        res = save(self, *args, **kwargs)
        note('saved', self.epoch, os.getpid())
        return res
    def ended(self):
        res = after_epoch(self)
        note('ended', self.epoch, os.getpid())
        time.sleep(slow)
        return res
    RunFolder.after_batch,RunFolder.save,RunFolder.after_epoch = batch,saving,ended

def command(argv, log, kill_at=None, slow=0., ignore=(), group=False, threads=1, before=None, method='fork'):
    "`bot-train argv`, with its output and the lines of `watch` in files beside `log`"
    import torch
    torch.set_num_threads(threads)
    multiprocessing.set_start_method(method, force=True)
    if group: os.setsid()
    for s in ignore: signal.signal(s, signal.SIG_IGN)
    fd = os.open(f'{log}.out', os.O_WRONLY|os.O_CREAT|os.O_APPEND)
    os.dup2(fd, 1), os.dup2(fd, 2)
    sys.stdout,sys.stderr = (open(i, 'w', buffering=1, closefd=False) for i in (1,2))
    watch(log, slow)
    if kill_at: count_calls(kill_at)
    if before: before()
    from bot.cli import main
    code = main(argv)
    sys.stdout.flush()
    sys.exit(code)
