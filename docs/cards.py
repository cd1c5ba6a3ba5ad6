"""A card for each trick, drawn from what stands elsewhere: what it is and what it composes with (the notebook's section), how it is set (the ladder), where the
readings differ (docments), what was measured (`bench/results`). What cannot be found stops the build"""
import csv, re
from functools import cached_property
from pathlib import Path
from fastcore.basics import store_attr
from fastcore.docments import docments
from fastcore.nbio import read_nb
from nbdev.config import get_config
from bot.ladder import in_ladder, ladders, recipe, settings
from tables import index_entries, md_table, slug

class Missing(Exception): "What a card needs stands nowhere"

class Card:
    "One trick, or a few that are known as one"
    def __init__(self,
        title, # Holds the title of each row
        rows, # Of the ladder; none, if no published row has it
        parts, # Sections that teach it: 'module#heading-slug'
        alone, # Python that has it on any fastai learner; settings of the rows in braces
        costs=(), # Of `costs` below
        names=(), # More words that people search for
        where='paper', # Ladder that the rows are of
        own=None # Settings of a trick that is in no row
    ):
        store_attr()
        self.ladder = ladders[where]   # the whole of it

    @property
    def page(self): return f'tricks/{slug(self.title.split(":")[0].replace(",", ""))}'

cards = [
    Card('Training procedure', ['baseline'],
        ['augment#augmentation', 'block#the-data-block', 'init#xavier', 'optimizer#nesterovs-accelerated-gradient', 'schedule#step-decay'],
        'learn = Learner(dls, xavier(model), opt_func=nag)   # `dls` of a DataBlock with BagImageBlock, or of bag_dls\n'
        'learn.fit_warmup_step(n_epoch, lr=scale_lr(dls.bs), warmup=0)',
        ['pipeline'], ['data augmentation', 'color jitter', 'xavier', 'nesterov momentum', 'step decay', 'baseline']),
    Card('Large-batch training: linear scaling and warmup', ['linear', 'warmup'], ['optimizer#linear-scaling', 'schedule#warmup'],
        "learn = Learner(dls, model)\nlearn.fit_warmup_step(n_epoch, lr=scale_lr(dls.bs))   # warms up for the paper's share of the run", ['step'],
        ['large batch', 'large batch training', 'learning rate warmup', 'lr warmup', 'batch size']),
    Card('Zero gamma', ['zero_gamma'], ['init#zero-gamma'], 'zero_gamma(model)\nlearn = Learner(dls, model)', ['step'], ['last gamma', 'zero init residual']),
    Card('No bias decay', ['no_decay'], ['optimizer#no-bias-decay'],
        'learn = Learner(dls, model, opt_func=partial(nag, decay_bias={decay_bias}))', ['step'], ['weight decay']),
    Card('Half precision', ['fp16'], ['precision#16-bits-where-they-are-enough'],
        'learn = Learner(dls, model).to_fp16()', ['half'], ['mixed precision', 'fp16', 'float16']),
    Card('ResNet-B, ResNet-C and ResNet-D', ['resnet_b', 'resnet_c', 'resnet_d'], ['resnet#resnet-b-c-and-d'],
        'learn = Learner(dls, {arch}(n_out=dls.c))', ['models'], ['xresnet', 'resnet variants']),
    Card('Cosine decay and one cycle', ['cosine'], ['schedule#cosine-decay'],
        'learn = Learner(dls, model)\nlearn.fit_warmup_cos(n_epoch, lr=scale_lr(dls.bs))\nlearn.fit_one_cycle(n_epoch, 1e-2)   # one cycle instead', ['step'],
        ['cosine', 'cosine annealing', 'one cycle', 'learning rate schedule']),
    Card('Label smoothing', ['smooth'], ['losses#label-smoothing'], 'learn = Learner(dls, model, loss_func=BagLoss(eps={eps}))', ['step']),
    Card('Distillation', ['distill'], ['losses#distillation', 'distill#a-teacher-for-any-student'],
        'learn = Learner(dls, model, loss_func=BagLoss()).distill(teacher, T={T})', (), ['knowledge distillation', 'teacher']),
    Card('Mixup', ['mixup'], ['mixup#pairs-shares-and-blends'], 'learn = Learner(dls, model, loss_func=BagLoss(), cbs=BagMixup({alpha}))', ['step']),
    Card('Larger batches and longer runs: a larger batch, a cosine, a longer run', ['rates', 'long'], ['optimizer#linear-scaling', 'schedule#warmup', 'schedule#cosine-decay'],
        'learn = Learner(dls, model)\nlearn.fit_warmup_cos(n_epoch, lr={lr}*dls.bs/{bs})', names=['longer training'], where='torchvision'),
    Card('TrivialAugment', ['trivial'], ['trivial#trivialaugment'],
        'from bot.trivial import BagTrivial\nitem_tfms = [Resize(224), BagTrivial()]   # of the DataBlock that makes `dls`\nlearn = Learner(dls, model)',
        ['TrivialAugment'], ['trivial augment', 'automatic augmentation'], 'torchvision'),
    Card('Random erasing', ['erase'], ['trivial#random-erasing'],
        'from bot.trivial import BagErase\nbatch_tfms = [Normalize.from_stats(*imagenet_stats), BagErase({erase})]   # of the DataBlock that makes `dls`\nlearn = Learner(dls, model)',
        names=['cutout'], where='torchvision'),
    Card('CutMix', ['cutmix'], ['cutmix#the-rectangle', 'cutmix#the-hooks'], 'learn = Learner(dls, model, loss_func=BagLoss(), cbs=BagCutMix({cutmix}))', ['cutmix'], where='torchvision'),
    Card('No decay of norms', ['decay'], ['optimizer#no-bias-decay'], 'learn = Learner(dls, model, opt_func=partial(nag, wd={wd}, decay={decay}, nesterov=False))',
        names=['norm weight decay', 'weight decay tuning'], where='torchvision'),
    Card('FixRes: a smaller size in training, a tighter view', ['fixres', 'resize'], ['block#a-larger-view-in-validation'],
        'block = BagImageBlock({size}, valid_size={valid_size}, valid_edge={valid_edge}, jitter=0, pca=0)   # in place of ImageBlock, in the DataBlock that makes `dls`\nlearn = Learner(dls, model)',
        names=['train test resolution', 'fix res'], where='torchvision'),
    Card('Averaged weights', ['ema'], ['average#how-slow-the-mean-is', 'average#the-hook'], 'learn = Learner(dls, model, cbs=BagEMA({ema}))', ['averaged weights'],
        ['ema', 'exponential moving average', 'weight averaging', 'swa'], 'torchvision'),
    Card('Repeated augmentation', ['repeat'], ['loader#an-item-several-times'],
        'train = dls.train.new(cls=KeyedDL, repeats={repeats})\nlearn = Learner(DataLoaders(train, dls.valid), model)', names=['augment your batch', 'ra sampler'], where='torchvision'),
    Card('A flip that turns', [], ['trivial#a-flip-that-turns'], 'block = BagImageBlock(224, turns=True)   # in place of ImageBlock, in the DataBlock that makes `dls`\nlearn = Learner(dls, model)',
        names=['alternating flip', 'derandomized flip'], own=dict(turns=True)),
    Card('A size that grows', [], ['sizes#a-function-of-the-epoch'], "from bot.sizes import BagSizes\nlearn = Learner(dls, model, cbs=BagSizes('128:0,160:.5,192:.8'))   # `dls` with BagImageBlock(192), or of bag_dls",
        names=['progressive resizing', 'progressive size', 'progressive learning'], own=dict(sizes='128:0,160:.5,192:.8'))]

# What the notebooks say
def level(line): return len(m[1]) if (m := re.match(r'(#+) ', line)) else 0

class Section:
    "What stands under one heading of a notebook, up to the next of its level"
    def __init__(self, root, place):
        self.place,(self.module,self.anchor) = place,place.split('#')
        cells = read_nb(next(iter((Path(root)/'nbs').glob(f'[0-9]*_{self.module}.ipynb')), None) or self.lacks('notebook')).cells
        heads = [(i,o.source.split('\n')[0]) for i,o in enumerate(cells) if o.cell_type=='markdown' and level(o.source)]
        start,self.title = next(((i,o.lstrip('# ')) for i,o in heads if slug(o.lstrip('# '))==self.anchor), (None,None))
        if start is None: self.lacks('heading')
        end = next((i for i,o in heads if i>start and level(o)<=level(cells[start].source)), None)
        self.cells = cells[start:end]

    def lacks(self, what): raise Missing(f'{self.place}: no {what} in nbs/*_{self.module}.ipynb')
    def link(self, text=None): return f"[{text or self.title}]({self.module}.html#{self.anchor})"

    @cached_property
    def paragraphs(self):
        md = [re.sub(r'^(#\|.*|#+ .*|> .*)$', '', o.source, flags=re.M) for o in self.cells if o.cell_type=='markdown']
        return [o.strip() for o in '\n\n'.join(md).split('\n\n') if o.strip()]

    @property
    def idea(self):
        "The first two sentences"
        first = next((o for o in self.paragraphs if not re.match(r'\$\$|\||None$', o)), None) or self.lacks('sentence')
        found = re.match(r'(.+?[.:](?=\s[A-Z$`]|\s*$)){1,2}', re.sub(r'\s+', ' ', first.split('$$')[0]))
        return found[0].removesuffix(':') if found else self.lacks('sentence')

    @property
    def equation(self):
        "The first one, or a table in its place"
        found = next((o for o in self.paragraphs if re.search(r'\$\$.+?\$\$', o, re.S) or o.startswith('|')), '')
        return found if found.startswith('|') else (m[0] if (m := re.search(r'\$\$.+?\$\$', found, re.S)) else '')

    @property
    def composes(self):
        "What it composes with, as a sentence"
        found = [m[0] for o in self.paragraphs if (m := re.search(r'Composes with .+?\.(?=\s[A-Z]|$)', re.sub(r'\s+', ' ', o)))]
        return found[0] if found else ''

    @property
    def papers(self):
        "Links to papers"
        return re.findall(r'\[[^\]]+\]\(https://(?:arxiv\.org/abs|proceedings\.mlr\.press)/[^)]+\)', '\n'.join(self.paragraphs))

    @property
    def readings(self):
        "What the docments of its parameters called `reading` say about both"
        code = '\n'.join(o.source for o in self.cells if o.cell_type=='code')
        said = re.findall(r"^ +reading:str='paper',? # (.+)$", code, re.M)
        return [o for o in dict.fromkeys(said) if re.match(r"'paper'(:| \().*'gluoncv'(:| \()", o)]

# What the ladder says
def said(v): return '' if v is None else f'`{v}`'

def setting_rows(card):
    "A row a setting: its value, the value before, what it is for"
    names,docs = list(card.ladder),docments(settings)
    if card.own: return [{'setting':f'`{k}`', 'value':said(v), 'what it is':docs[k]} for k,v in card.own.items()]
    before = lambda k: {} if k==names[0] else recipe(names[names.index(k)-1], ladder=card.where)
    return [{'setting':f'`{k}`', 'value':said(v), 'before':said(before(row).get(k)), 'what it is':docs[k]} for row in card.rows for k,v in card.ladder[row].items()]

def flag(k, v): return f"--{k.replace('_', '-')} {'RUN' if k=='teacher' else str(v).lower() if isinstance(v, bool) else v}"

def loose_ways(card):
    "How a trick is had that is in no row"
    from bot.prepared import data_names
    def given(on): return ''.join(f', {k}={v!r}' for k,v in card.own.items() if (k in data_names)==on)
    size = ', size=192' if 'sizes' in card.own else ''
    asked = ' '.join(flag(*o) for o in card.own.items())
    return [f'```sh\nbot-train path/to/images {asked}\n```', '\n'.join(['```python', 'from bot.all import *', f"dls = bag_dls('path/to/images'{size}{given(True)})",
        f"learn = bag_learner(dls, 'smooth'{given(False)})", '```'])]

class Ways:
    "How a card's trick is had: as a rung, without the others, and the others without it"
    def __init__(self, card):
        self.first,self.row,self.last = (in_ladder(o, card.where) for o in (next(iter(card.ladder)), card.rows[-1], list(card.ladder)[-1]))
        self.own = {} if self.row==self.first else {k:v for o in card.rows for k,v in card.ladder[o].items()}
        self.data = card.where!='paper'
        self.taught,self.but = self.row=='distill',','.join(dict.fromkeys([*card.rows, *(['distill'] if card.where=='paper' else [])]))
        self.spare = bool(recipe(self.row)['teacher']) and not self.taught   # a teacher that is another trick's

    def lines(self, rung, alone, others):
        "Each with what it is, side by side"
        rows = [(rung, 'the rung: the trick and all before it')]
        if self.own: rows += [(alone, 'the trick without the others'), (others, 'the others without it')]
        n = max(len(o) for o,_ in rows)
        return '\n'.join(f'{a:{n}}   # {b}' for a,b in rows)

    def command(self):
        train,more = 'bot-train path/to/images --rung',' --teacher RUN' if self.taught else ' --but distill' if self.spare else ''
        return '```sh\n' + self.lines(f'{train} {self.row}{more}', f"{train} {self.first} {' '.join(flag(*o) for o in self.own.items())}",
            f'{train} {self.last} --but {self.but}') + '\n```'

    def python(self):
        "Of a ladder with pieces in its data, loaders are made for each way"
        from bot.prepared import data_names
        def said(on): return ''.join(f", {k}={'path/to/run' if k=='teacher' else v!r}" for k,v in self.own.items() if on(k))
        more = ", teacher='path/to/run'" if self.taught else ", but='distill'" if self.spare else ''
        begin = 'recipe(' if self.data else 'bag_learner(dls, '
        ways = [f"{begin}'{self.row}'{more})", f"{begin}'{self.first}'{said(lambda k: self.data or k not in data_names)})", f"{begin}'{self.last}', but='{self.but}')"]
        if not self.data: return '\n'.join(['```python', 'from bot.all import *', f"dls = bag_dls('path/to/images'{said(lambda k: k in data_names)})", self.lines(*(f'learn = {o}' for o in ways)), '```'])
        dls = "dls = bag_dls('path/to/images', reading=r.reading, **data_settings(r) | dict(bs=64))"
        return '\n'.join(['```python', 'from bot.all import *', 'from bot.prepared import data_settings', self.lines(*(f'r = {o}' for o in ways)), dls, 'learn = bag_learner(dls, r)', '```'])

def alone(card):
    "Python for any fastai learner, with the settings of the rows filled in"
    values = recipe(card.rows[-1], ladder=card.where) if card.rows else card.own
    code = card.alone.format(**{k:repr(v) if k!='arch' else v for k,v in values.items()})
    return '\n'.join([*(['from functools import partial'] if 'partial(' in code else []), 'from fastai.vision.all import *', 'from bot.all import *', code])

def paper_rows(card):
    "What is published for each row, beside the row before"
    names = list(card.ladder)
    for k in card.rows:
        o,i = card.ladder[k],names.index(k)
        last = card.ladder[names[i-1]].top1 if i else None
        row = {'rung':f'`{k}`', 'top-1 (%)':o.top1, 'the rung before':last or '', 'difference':f'{o.top1-last:+.2f}' if last else ''}
        alone = {'rung':f'`{k}` without `{names[i-1]}`', 'top-1 (%)':o.alone, 'the rung before':'', 'difference':''}
        yield from ({**r, 'in':o.table.replace(' ', '&nbsp;')} for r in [row, *([alone] if o.alone else [])])

# What was measured here
def results(root, name):
    path = Path(root)/f'bench/results/{name}.csv'
    if not path.exists(): raise Missing(f'{path}: run bench/{name}.py')
    return list(csv.DictReader(path.open()))

def ablations(root):
    "The tables of `bot-ablate` that are kept: data, or data and ladder as in 'digits-torchvision' -> row -> what was found"
    found = {o.stem.removeprefix('ablation-'): list(csv.DictReader(o.open())) for o in sorted((Path(root)/'bench/results').glob('ablation-*.csv'))}
    return {k:{o['row']:o for o in rows} for k,rows in found.items()}

def trained(o):
    "What a row trained, as far as its table says: 'xresnet18d, widen=.25, 32 px, batch 64, 16 epochs'"
    form = dict(arch='{}', widen='widen={}', size='{} px', bs='batch {}', epochs='{} epochs')
    return ', '.join(f.format(o[k]) for k,f in form.items() if o.get(k))

def percent(o, name, sign=''):
    "A share of the images with its interval, in percent; empty if the table has none"
    if not o.get(name): return ''
    mid,low,high = (f'{100*float(o[k]):{sign}.1f}' for k in (name, f'{name}_low', f'{name}_high'))
    return f'{mid} ({low} to {high})'

def found_row(o):
    "A row of such a table as people read it"
    seeds = o['seeds'] if o['seeds']==o['of'] else f"{o['seeds']} of {o['of']}, provisional"
    return {'rung':f"`{o['row']}`", 'trained':trained(o), 'seeds':seeds, 'accuracy (%)':percent(o, 'accuracy'), 'beside':o['vs'] and f"`{o['vs']}`",
        'gain on these images':percent(o, 'gain_these', '+'), 'for new images':percent(o, 'gain_new', '+'), 'verdict':o['verdict'], 'what else it changes':o['says']}

def gained(root, card):
    "What the rows of a card brought on small images"
    rows = [{'data':data.partition('-')[0]} | found_row(found[k]) for data,found in ablations(root).items() for k in card.rows if k in found]
    if not rows: return 'Not measured here yet: no table of `bot-ablate` in `bench/results/` has it.'
    return f"Each rung beside the one before it, from the same seeds; gains in points, with 95% intervals. What it takes for a verdict stands in [Verdicts]({get_config().doc_url}verdict.html).\n\n{md_table(rows)}"

def by_step(root, half):
    rows = [o for o in results(root, 'step') if (o['half']=='True')==half]
    return [{'network':f"{o['arch']}, {o['size']} px, batch {o['bs']}", 'by hand with':'fused SGD' if o['bare_fused']=='True' else "torch's default SGD",
        'device':o['device'],
        'time of a step, as a multiple':f"{float(o['cpu_ratio']):.2f} ({float(o['cpu_ratio_low']):.2f} to {float(o['cpu_ratio_high']):.2f})"} for o in rows]

def by_models(root):
    rows = [o for o in results(root, 'models') if o['question']=='cost of the variants']
    return [{'network':o['model'], 'job':o['job'].replace('_', ' and '), 'ms':o['ms'], f"speed beside {o['beside']}":o['speed'],
        'device':o['device']} for o in rows]

def by_pipeline(root):
    rows = [o for o in results(root, 'pipeline') if o['group']=='full chain']
    return [{'pipeline':o['name'], 'images/s':o['per_s'], f"beside {o['ratio_to']}":o['ratio'], 'device':f"{o['cpu']}, {o['threads']} thread"} for o in rows]

def by_second(piece):
    "Rows of one piece of the second ladder"
    return lambda root: [{'what':o['piece'], 'ms':o['ms'], 'beside, ms':o['of'], 'share of that':f"{100*float(o['share']):.3g}%", 'what it is beside':o['note'],
        'with':f"{o['arch']}, {o['size']} px, batch {o['bs']}"} for o in results(root, 'second') if o['piece']==piece]

costs = {o: (f'The time of {o}:', by_second(o)) for o in ('averaged weights', 'cutmix', 'TrivialAugment')} | dict(step=('A step with all tricks but the teacher, beside a loop by hand without any:', lambda root: by_step(root, False)),
    half=('A step with all tricks but the teacher in half precision, beside a loop by hand in half precision:', lambda root: by_step(root, True)),
    models=('Time of a batch:', by_models), pipeline=('From a JPEG to normalized floats, beside other libraries:', by_pipeline))

def cost(root, card):
    res = [f'{words}\n\n{md_table(rows)}' for words,f in (costs[o] for o in card.costs) if (rows := f(root))]
    return '\n\n'.join(res) or 'Its cost was not measured here yet.'

# A card
def what_it_is(sections):
    "Sentence and equation of each part"
    if len(sections)==1: return '{.lead}\n' + '\n\n'.join(o for o in (sections[0].idea, sections[0].equation) if o)
    return '\n\n'.join('\n\n'.join(o for o in (f'**{s.link()}** {s.idea}', s.equation) if o) for s in sections)

def needed(card, what, values):
    "What was found, or an error that names the card"
    res = [o for o in dict.fromkeys(values) if o]
    if not res: raise Missing(f"Card '{card.title}': no {what} in {', '.join(card.parts)}")
    return res

def search_words(card):
    "What the search of the site finds this page by"
    return dict.fromkeys(o.lower().replace(',', '') for o in [card.title.split(':')[0], *(card.ladder[k].title for k in card.rows), *card.names])

def standing(card):
    "Where the rows stand, and who says so"
    if not card.rows: return 'A setting of any recipe, which no row of a ladder has',''
    if card.where=='paper': return ', '.join(f'§{o}' for o in dict.fromkeys(card.ladder[k].section for k in card.rows)) + ' of the paper','the paper'
    rows,o = ' and '.join(card.ladder[k].table.removeprefix('row ') for k in card.rows),card.ladder[card.rows[0]]
    return f"Row{'s'[:len(card.rows)>1]} {rows} of [torchvision's recipe]({o.source}), by plain SGD with a ResNet-50",card.where

def card_page(root, card):
    "The Markdown of one card"
    parts = [Section(root, o) for o in card.parts]
    ways = [Ways(card).command(), Ways(card).python()] if card.rows else loose_ways(card)
    taught = [Section(root, o) for o in dict.fromkeys(card.ladder[k].page for k in card.rows)]
    where,whose = standing(card)
    links = ', '.join(dict.fromkeys(o.link() for o in [*taught, *parts]))
    if card.rows and card.where=='paper': needed(card, 'equation', [o.equation for o in parts])
    differ = list({o.replace('`', ''):f'- {o}' for s in parts for o in s.readings}.values()) or ['The two readings agree here.']
    return '\n\n'.join([f'# {card.title}', index_entries(search_words(card)), what_it_is(parts),
        f'{where}. Explained and checked in {links}.',
        '## Set it with', md_table(setting_rows(card)), *ways,
        'On any fastai learner, here with `dls`, `model` and a number of epochs of your own:', f'```python\n{alone(card)}\n```',
        '## The readings differ in', '\n'.join(differ), *([f'## What {whose} reports', md_table(list(paper_rows(card)))] if card.rows else []),
        '## What it gained here', gained(root, card), '## What it costs here', cost(root, card),
        f"All of it: [measured figures]({get_config().doc_url}figures.html).",
        '## Composes with', ' '.join(needed(card, '"Composes with"', [o.composes for o in parts])),
        '## Papers', '\n'.join(f'- {o}' for o in needed(card, 'citation', [p for o in parts for p in o.papers]))])

def made(root):
    "Pages by name; a row of the ladder without a card is an error"
    rows,needs = [k for o in cards for k in o.rows],dict.fromkeys(k for o in ('paper','torchvision') for k in ladders[o])
    if sorted(rows)!=sorted(needs): raise Missing(f'docs/cards.py: a card for each row of the ladders, once; now they hold {rows}')
    return {o.page: card_page(root, o) for o in cards}
