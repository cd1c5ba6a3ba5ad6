"""Do the tests notice? Small faults put into a copy of the package, one at a time.

    python tests/mutants.py [NAME ...]     # all, or those whose names contain one of these words

Each is a fragment of a module's source and what it becomes. A copy of the package with that change goes into a temporary folder, and the named tests run
against it up to the first that fails. A fault that no test fails on survives, and the script ends with status 1. First the same tests run on an unchanged
copy, since a test that fails anyway notices nothing. A fragment that is no longer in the module, or there twice, is an error: mend the table with the code.
"""
import os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path

root = Path(__file__).parents[1]

table = [   # name, module, old, new, file of tests and which of it (pytest's -k)
    ('order of an epoch without its number', 'loader', "manual_seed(key(self.seed, epoch, 'order'))", "manual_seed(key(self.seed, 'order'))", 'augment own'),
    ('draws of a batch without the epoch', 'loader', "seed_all(rank_key(key(self.seed, epoch, n, 'batch'), rank))", "seed_all(rank_key(key(self.seed, n, 'batch'), rank))", 'augment own'),
    ('draws of an item without the epoch', 'keys', "key(self.seed, self.epoch, self.index, self.repeat)", "key(self.seed, self.index, self.repeat)", 'augment own'),
    ('draws of a repeated item without its count', 'keys', "key(self.seed, self.epoch, self.index, self.repeat)", "key(self.seed, self.epoch, self.index)", 'augment own'),
    ('draws of a step without the epoch', 'loader', "key(self.seed, epoch, n, 'step')", "key(self.seed, n, 'step')", 'augment own'),
    ('crops from the top left half', 'augment', 'random.randint(0, h-bh),random.randint(0, w-bw)', 'random.randint(0, (h-bh)//2),random.randint(0, (w-bw)//2)', 'paper'),
    ('crops from the left half', 'augment', 'random.randint(0, w-bw)', 'random.randint(0, (w-bw)//2)', 'paper'),
    ('crops never swapped', 'augment', 'random.random()<.5: bw,bh', 'random.random()<0: bw,bh', 'paper'),
    ('fallback not enlarged', 'augment', 'bw = bh = min(h, w, size)', 'bw,bh = min(w, size),min(h, size)', 'paper'),
    ('middle rounds in both readings', 'augment', "(o-size)//2 if crop=='floor' else", '', 'paper'),
    ('validation without its reading', 'block', 'reading_cfg(self.reading)', 'reading_cfg()', 'paper'),
    ('saturation not clamped', 'augment', '.clamp_max_(v)', '', 'paper'),
    ('hue on one side', 'augment', 'far.copysign_((g-b).float())', 'far', 'paper'),
    ('bytes floored', 'augment', 'x.clamp_(0, 255).round_()', 'x.clamp_(0, 255).floor_()', 'paper'),
    ('bytes rounded half up', 'augment', 'x.clamp_(0, 255).round_()', 'x.clamp_(0, 255).add_(.5).floor_()', 'paper'),
    ('noise rounded', 'augment', 'x.clamp_(0, 255).floor_()', 'x.clamp_(0, 255).round_()', 'paper'),
    ('gray not whole', 'augment', '.add_(.5).floor_()', '', 'paper'),
    ('luma of Rec. 601', 'augment', '3735/2**15,19235/2**15,9798/2**15', '9798/2**15,19235/2**15,3735/2**15', 'paper'),
    ('contrast about each pixel', 'augment', 'g.mean(-1, keepdim=True) if k==2 else g)', 'g)', 'augment authors_program'),
    ('one order for all', 'augment', 'lambda n: torch.rand(n, 3)).argsort(1)', 'lambda n: torch.arange(3.).expand(n, 3)).argsort(1)', 'paper'),
    ('one coefficient for three axes', 'augment', 'lambda n: torch.randn(n, 3)', 'lambda n: torch.randn(n, 1).expand(n, 3)', 'paper'),
    ('draws of a name without the batch', 'keys', 'key(s.seed, s.epoch, s.batch, name)', 'key(s.seed, s.epoch, name)', 'augment place'),
    ('draws without their name', 'keys', 'key(s.seed, s.epoch, s.batch, name)', 'key(s.seed, s.epoch, s.batch)', 'augment place'),
    ('draws for what can be read', 'keys', 'len(s.items) if whole or len(s.rows)==n else n', 'n', 'augment place'),
    ('partners of those at hand', 'mixup', "torch.randperm, whole=True), step_rows(bs), step_places(bs))", "torch.randperm), list(range(bs)))", 'augment place'),
    ('never a flip', 'block', 'x.flip(-1) if flips(self.flip, self.turns) else x', 'x', 'paper'),
    ('ratios are not logarithmic', 'augment', "exp(random.uniform(*map(log, ratio))) if reading=='torchvision' else random.uniform(*ratio)", 'random.uniform(*ratio)', 'torchvision_ladder place_of_a_crop'),
    ('a mean from the first step on', 'average', 'if copy: avg.n_averaged.fill_(0)', 'pass', 'torchvision_ladder step_by_step'),
    ('a mean without buffers', 'average', 'use_buffers=True', 'use_buffers=False', 'torchvision_ladder step_by_step'),
    ('a mean that goes on as new', 'average', "self.avg.n_averaged.fill_(state['n'])", 'None', 'torchvision_ladder killed_at_any_moment'),
    ('best weights are the raw ones', 'resume', "files['weights'] if m is self.learn.model else", "files['weights'] if True else", 'torchvision_ladder run_is_the_mean'),
    ('norms decay too', 'optimizer', "return not self.state[p].get('norm', False)", 'return True', 'torchvision_ladder what_decays'),
    ('a rectangle of another area', 'cutmix', 'r = .5*(1-lam)**.5', 'r = .5*(1-lam)', 'torchvision_ladder pasting'),
    ('a share that is not corrected', 'cutmix', 'torch.tensor([kept_area(box, h, w)])', 'torch.tensor([lam])', 'torchvision_ladder pasting'),
    ('a rectangle with its sides swapped', 'cutmix', 'dy,dx = int(r*h),int(r*w)', 'dy,dx = int(r*w),int(r*h)', 'torchvision_ladder pasting'),
    ('the image after instead of before', 'mixup', 'torch.arange(bs).roll(1)', 'torch.arange(bs).roll(-1)', 'torchvision_ladder pasting'),
    ('a share for each image in all readings', 'mixup', '(n if pairs else 1,)', '(n,)', 'torchvision_ladder pasting'),
    ('repeats one epoch after the other', 'loader', '[o for o in order[:-(-len(order)//repeats)] for _ in range(repeats)]', '[o for _ in range(repeats) for o in order[:-(-len(order)//repeats)]]',
        'torchvision_ladder views_of'),
    ('views of an item side by side', 'loader', '[i for k in range(repeats) for i in range(k, n, repeats)]', '[*range(n)]', 'torchvision_ladder own_partner'),
    ('momentum of Nesterov in all rows', 'learner', "nesterov=r.get('nesterov', True)", 'nesterov=True', 'torchvision_ladder their_optimizer'),
    ('a mean as slow as for another length', 'settle', 'return update_every(n_epoch*n_iter) if fits else k', 'return k', 'torchvision_ladder another_length'),
    ('a flip that stays', 'trivial', "'side')+o.epoch+o.repeat)%2", "'side')+o.repeat)%2", 'torchvision_ladder flip_turns'),
    ('a repeated view that is not turned', 'trivial', "'side')+o.epoch+o.repeat)%2", "'side')+o.epoch)%2", 'torchvision_ladder flip_turns'),
    ('erased to one', 'trivial', 'left:left+w] = 0', 'left:left+w] = 1', 'torchvision_ladder last_step'),
    ('a rate for each batch in all readings', 'schedule', "every = n_iter if reading=='torchvision' else 1", 'every = 1', 'torchvision_ladder rates_are'),
    ('warmup an epoch longer', 'schedule', 'round(warmup) if every>1 else', 'round(warmup)+1 if every>1 else', 'torchvision_ladder rates_are'),
    ('a size that changes an epoch late', 'sizes', 'if epoch>=share*n_epoch-1e-9]', 'if epoch>share*n_epoch or not share]', 'torchvision_ladder size_of_an_epoch'),
    ('a size that stays after its epoch', 'sizes', '            crop.now = None\n', '', 'torchvision_ladder end_with_their'),
    ('no operation at all', 'block', 'TensorImage(trivial_augment(x)) if self.trivial else x', 'x', 'torchvision_ladder trivial_is'),
    ('validation without its edge', 'block', "(dict(crop_pct=cfg['size']/self.valid_edge) if self.valid_edge else {})", '{}', 'torchvision_ladder preset'),
    ('a teacher of small images', 'sizes', 'if free: t.size = self.sizes[-1][1]', 'pass', 'torchvision_ladder teacher_sees'),
    ('a copy that holds a folder', 'files', '    def __reduce__(self): return Claim,(self.path,)   # a copy holds nothing\n', '', 'torchvision_ladder kept_learner'),
    ('training images looked at in the first size', 'sizes', 'if not self.training: return self.learn.all_batches()', 'pass', 'torchvision_ladder views_of_training'),
    ('a finished run with the mean for weights', 'runs', "load_weights(learn.model, read_weights(run_file(path, 'weights'))[0], shown(str(path)))", 'pass', 'torchvision_ladder same_cell'),
    ("a source's size is that of training", 'learner', '**own_view(r, own)', '**own', 'torchvision_ladder own_size'),
    ('a mean with the hooks of what watches', 'average', 'if is_part(h, model)', 'if True', 'torchvision_ladder watches'),
    ('a mean of fewer constants', 'average', 'ema/max(1, n_epoch*n_updates(n_iter, every))', 'ema/max(1, n_epoch*n_iter)', 'torchvision_ladder leaves_out or any_batch'),
    ('exif turned the wrong way', 'formats', '6:(1,1,0)', '6:(1,0,1)', 'images orientation'),
    ('shrunk too far', 'images', 'h>=2.5*k*max(size[0], 64) and w>=2.5*k*max(size[1], 64)', 'h>=k*size[0] and w>=k*size[1]', 'images shrunk'),
    ('smoothing over all classes', 'losses', '(1-q)*eps/max(k-1, 1)', '(1-q)*eps/k', 'paper'),
    ('one-hot rows of whole numbers pass', 'losses', '    eps = check_eps(eps, k)\n    check_shape(y, k)\n', '    eps = check_eps(eps, k)\n', 'paper'),
    ('distillation without the square', 'losses', 'loss + T**2*teacher_loss', 'loss + T*teacher_loss', 'paper'),
    ('smoothing in validation', 'losses', 'if self.training and torch.is_grad_enabled() else (0.,None)', 'if True else (0.,None)', 'procedure valid_loss'),
    ('momentum without Nesterov', 'optimizer', 'nesterov=self.nesterov and mom>0', 'nesterov=False', 'paper'),
    ('biases decay', 'optimizer', "(p.ndim>1 and self.state[p].get('do_wd', True))", 'True', 'paper'),
    ('cosine counts warmup', 'schedule', 'cosine_factor(t-m, max(n-m, 1))', 'cosine_factor(t, n)', 'paper'),
    ('warmup from 1 in both readings', 'schedule', '(t + is_paper(reading))/m', '(t+1)/m', 'paper'),
    ('drops a batch late', 'schedule', 't>=o for o in drops', 't>o for o in drops', 'paper'),
    ('mixup off an epoch late', 'mixup', '>=self.n_epoch-self.off', '>=self.n_epoch-self.off+1', 'paper'),
    ('labels mixed the other way', 'mixup', "mix(code(x), *(pairs or self.pairs),", "mix(code(x), *(pairs or (self.pairs if x.ndim>2 else (1-self.pairs[0], self.pairs[1]))),", 'paper'),
    ('mixed targets stay for the metrics', 'mixup', 'self.learn.yb,self.plain = self.plain,None', 'self.plain = None', 'procedure plain_targets'),
    ('loss not scaled', 'precision', 'dict(enabled=self.dtype==torch.float16)))', 'dict(enabled=False)))', 'paper'),
    ('teacher trains along', 'distill', '.device).eval()', '.device)', 'ladder test_rung and distill'),
    ('a lost loss goes on', 'guards', 'if not torch.isfinite(self.loss).all()', 'if False', 'procedure lost_loss'),
    ('MSRA with slope 0', 'init', '2/(1+slope**2)', '2', 'paper'),
    ('zero gamma that sets nothing', 'init', '    nn.init.zeros_(m.weight)\n    return 1', '    return 1', 'paper'),
    ('B strides in its first convolution', 'resnet', 'b=dict(stem=(64,),      strided=1', 'b=dict(stem=(64,),      strided=0', 'paper'),
    ('a stem of other widths', 'resnet', 'd=dict(stem=(32,32,64)', 'd=dict(stem=(32,64,64)', 'paper'),
    ('stem of other channels not scaled', 'weights', '[:,:c_in] * (3/c_in)', '[:,:c_in]', 'models adapts or both_ways or inits'),
    ('an earlier split of the model', 'models', '(body[:4],body[4:6],head)', '(body[:3],body[3:6],head)', 'models groups'),
    ('the last epoch is the best', 'resume', 'if not is_best(rows): return files', 'if False: return files', 'paper'),
    ('status before the files', 'resume', "    if row: files = self.ended(rows, name, files)", "    self.commit(rows, batch, files)\n    if row: files = self.ended(rows, name, files)", 'resume each_step'),
    ('a batch is done twice', 'resume', 'Step.now.batch+1 if Step.now', 'Step.now.batch if Step.now', 'resume random_kills'),
    ('begins the epoch anew', 'resume', "s['loaders'][0]['epoch']-1, s['batch'])", "s['loaders'][0]['epoch']-1, 0)", 'resume random_kills'),
    ('smooth loss begins anew', 'state', "rec.smooth_loss.count,rec.smooth_loss.val = s['smooth']", 'pass', 'resume random_kills'),
    ('momentum begins anew', 'state', "    load_optimizer(learn.opt, state['opt'], state['frozen'])", '    pass', 'resume random_kills'),
    ('open gradients are lost', 'state', "torch.empty_like(p).copy_(grads[k]) if k in grads else p.grad", 'p.grad', 'resume parity'),
    ('a claim that nobody asks', 'files', "if o and self.lives(n, o): raise", "if False: raise", 'resume two_at_once'),
    ('workers heed the interrupt', 'workers', "signal.signal(s, signal.SIG_IGN)", "pass", 'compose leave_signals'),
    ('fingerprint without sizes', 'links', ' {size_of(path)}{etag_of(path)} ', ' ', 'resume same_command'),
    ('an answer beside its image', 'predict', "({} if reason else _classes(*next(best), model.classes))", "_classes(*next(best, ([], [])), model.classes)", 'predict order'),
    ('formulas in a table', 'core', """return "'"+v""", 'return v', 'predict spreadsheet'),
    ('the record without its middle', 'augment', "cfg['interpolation']), size, cfg['crop'])", "cfg['interpolation']), size)", 'paper'),
    ('old gluoncv runs as the paper', 'models', "reading_cfg(args['data'].get('reading', args['reading']))", 'reading_cfg()', 'predict before_the_record'),
    ('links are other images', 'evaluate', 'for f,_ in followed(items)}', 'for f,_ in items}', 'predict elsewhere'),
    ('a death is told in any line', 'workers', "if any(map(_fell, _waiting(walk_stack(frame), '_try_get_data'))): raise", "raise", 'compose killed_worker or heard'),
    ('a worker may not end by itself', 'workers', 'return bool(worker.exitcode)', 'return not worker.is_alive()', 'compose worker_may'),
    ('one loader of several is heard of', 'workers', "        except RuntimeError: pass\n    if any", "        except RuntimeError: break\n    if any", 'compose handler_of_before'),
    ('names of a wrapper are kept', 'resnet', "isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))", "False", 'compose wrapped_model'),
    ('a metric without numbers has no best', 'args', "(best_by(rows[-1]), 'valid_loss')", "(best_by(rows[-1]),)", 'compose without_numbers or earliest_number'),
    ('a file by hand is read in silence', 'files', "not os.path.samefile(found, plain) and not is_whole(plain, o)", "False", 'compose by_hand'),
    ('a look at files that does not end', 'cli', "keep,source.look = learn.run_folder,None", "keep = learn.run_folder", 'resume looked_at_once'),
    ('the equal of the best is better', 'args', 'o<vals[-1] for o in', 'o<=vals[-1] for o in', 'paper'),
    ('200 epochs warm up longer', 'settle', "r['warmup']/r.paper['epochs']*n_epoch", "r['warmup']/paper_epochs*n_epoch", 'paper'),
    ('paths leave their folder', 'core', "return res if res==root or res.startswith(os.path.join(root, '')) else None", 'return res', 'data bad_tables or tables'),
    ('random split by place', 'datasets', 'random.Random(f\'{seed} {o}\').sample(byclass[o], min', '(lambda l, n: l[:n])(byclass[o], min', 'data random_split')]

def copy(to, module=None, old=None, new=None):
    "The package with one change, its tests, and links to all else"
    for o in root.iterdir():
        if o.name in ('bot','tests'): shutil.copytree(o, to/o.name, ignore=shutil.ignore_patterns('__pycache__'))
        elif o.name!='.git': (to/o.name).symlink_to(o)
    if module is None: return
    path = to/'bot'/f'{module}.py'
    text = path.read_text()
    if text.count(old)!=1: sys.exit(f'{module}.py has {text.count(old)} times what is to be changed, not once: {old!r}')
    path.write_text(text.replace(old, new))

def outcome(tests, *change):
    "The first test that fails, or nothing"
    file,_,words = tests.partition(' ')
    with tempfile.TemporaryDirectory() as tmp:
        copy(Path(tmp), *change)
        cmd = [sys.executable, '-m', 'pytest', '-x', '-q', '-n', '0', '-p', 'no:cacheprovider', f'tests/test_{file}.py', '-k', words]
        res = subprocess.run(cmd, cwd=tmp, env=os.environ | dict(PYTHONPATH=tmp, PYTHONWARNINGS='ignore'), capture_output=True, text=True)
        if res.returncode==0: return ''
        failed = re.search(r'^(?:FAILED|ERROR) tests/(.*?)(?: - .*)?$', res.stdout, re.M)
        if not failed: sys.exit(f'No test failed ({tests}), but pytest ended with {res.returncode}:\n{res.stdout[-1000:]}{res.stderr[-1000:]}')
        return failed[1]

def main(words):
    chosen = [o for o in table if not words or any(w in o[0] for w in words)]
    if not chosen: sys.exit('No such name. Known: ' + '; '.join(o[0] for o in table))
    for file in sorted({o[4].split()[0] for o in chosen}):
        words = {o[4].partition(' ')[2] for o in chosen if o[4].split()[0]==file}
        if failed := outcome(f"{file} {'' if '' in words else ' or '.join(f'({o})' for o in sorted(words))}"): sys.exit(f'{failed} fails on the package as it is: nothing can be learnt from its file')
    alive = []
    for name,*change,tests in chosen:
        start = time.monotonic()
        killer = outcome(tests, *change)
        if not killer: alive.append(name)
        print(f"{name:46} {killer or 'SURVIVES'} ({time.monotonic()-start:.0f} s)", flush=True)
    print(f'{len(alive)} of {len(chosen)} survive' + ''.join(f'\n  {o}' for o in alive))
    return bool(alive)

if __name__=='__main__': sys.exit(main(sys.argv[1:]))
