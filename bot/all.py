"The names that `from bot.all import *` brings, in reading order: the promise to users. What is public beside them stands in its own module"
import warnings as _warnings
with _warnings.catch_warnings():
    _warnings.simplefilter('ignore')   # what fastai itself does at import with newer versions of torch and pandas
    import fastai.vision.all as _fastai   # first and whole: its libraries load a sixth slower in another order
from .core import BotError, DataError, UsageError
from .ladder import default_rung, ladder, Ladder, ladders, readings, recipe, Recipe, settings, Trick
from .settle import fit_to
from .images import Encoded, ImageError
from .datasets import digits
from .sources import find_source
from .writing import shard
from .keys import keyed
from .loader import KeyedDL
from .augment import paper_mean, paper_std, pca_noise, random_box, scale_hsv
from .encoded import EncodedImage
from .trivial import BagErase, BagTrivial
from .block import bag_block, bag_dls, BagCrop, BagImageBlock, BagNormalize, norm_stats
from .init import kaiming, msra, xavier, zero_gamma
from .resnet import depths, macs, n_params, summary, variants
from .weights import from_timm, input_cfg, load_weights, read_weights, to_timm
from .models import features, xresnet_split
from .models import xresnet18a, xresnet18b, xresnet18c, xresnet18d, xresnet26a, xresnet26b, xresnet26c, xresnet26d
from .models import xresnet34a, xresnet34b, xresnet34c, xresnet34d
from .models import xresnet50a, xresnet50b, xresnet50c, xresnet50d, xresnet101a, xresnet101b, xresnet101c, xresnet101d
from .models import xresnet152a, xresnet152b, xresnet152c, xresnet152d, xresnet200a, xresnet200b, xresnet200c, xresnet200d
from .losses import BagLoss, distill_loss, logit_gap, smooth_labels, soft_cross_entropy, teacher_loss
from .optimizer import decayed, nag, Nesterov, scale_lr
from .schedule import cosine_factor, lr_schedule, plot_sched, step_factor, warmup_factor
from .guards import Diverged, DivergenceGuard, hook_order, TargetCheck
from .mixup import BagMixup, draw_pairs, mix
from .cutmix import BagCutMix, BagMixOrCut
from .distill import as_teacher, CachedTeacher, Distillation, Teacher
from .precision import ChannelsLastBatch, HalfPrecision
from .average import BagEMA
from .freezing import FrozenStart
from .sizes import BagSizes
from .watch import LossPlot
from .learner import bag_learner
from .words import run_card
from .args import save_args
from .runs import load_run, save_weights
from .resume import recorded, RunFolder
from .logs import RunLog
from .check import check
from .exported import load_exported
from .judge import wilson
from .predict import predict, predict_to
from .evaluate import evaluate
from .report import report
from .reported import leave_report
from .export import export
from .ablation import ablate
from .core import add_help as _add_help

__all__ = ['BotError', 'DataError', 'UsageError', 'default_rung', 'fit_to', 'ladder', 'Ladder', 'ladders', 'readings', 'recipe', 'Recipe', 'settings',
    'Trick', 'Encoded', 'ImageError', 'digits', 'find_source', 'shard', 'keyed', 'KeyedDL', 'paper_mean', 'paper_std', 'pca_noise', 'random_box', 'scale_hsv', 'BagErase', 'BagTrivial',
    'bag_block', 'bag_dls', 'BagCrop', 'BagImageBlock', 'BagNormalize', 'EncodedImage', 'norm_stats', 'kaiming', 'msra', 'xavier',
    'zero_gamma', 'depths', 'macs', 'n_params', 'summary', 'variants', 'from_timm', 'input_cfg', 'load_weights', 'read_weights', 'to_timm', 'features',
    'xresnet_split', 'xresnet18a', 'xresnet18b', 'xresnet18c', 'xresnet18d', 'xresnet26a', 'xresnet26b', 'xresnet26c', 'xresnet26d', 'xresnet34a',
    'xresnet34b', 'xresnet34c', 'xresnet34d', 'xresnet50a', 'xresnet50b', 'xresnet50c', 'xresnet50d', 'xresnet101a', 'xresnet101b', 'xresnet101c',
    'xresnet101d', 'xresnet152a', 'xresnet152b', 'xresnet152c', 'xresnet152d', 'xresnet200a', 'xresnet200b', 'xresnet200c', 'xresnet200d', 'BagLoss',
    'distill_loss', 'logit_gap', 'smooth_labels', 'soft_cross_entropy', 'teacher_loss', 'decayed', 'nag', 'Nesterov', 'scale_lr', 'cosine_factor',
    'lr_schedule', 'plot_sched', 'step_factor', 'warmup_factor', 'Diverged', 'DivergenceGuard', 'hook_order', 'TargetCheck', 'BagMixup', 'draw_pairs', 'mix',
    'BagCutMix', 'BagMixOrCut', 'BagEMA', 'as_teacher', 'CachedTeacher', 'Distillation', 'Teacher', 'ChannelsLastBatch', 'HalfPrecision', 'BagSizes', 'FrozenStart',
    'LossPlot', 'bag_learner', 'run_card', 'save_args', 'load_run', 'save_weights', 'recorded', 'RunFolder', 'RunLog', 'check',
    'wilson', 'predict', 'predict_to', 'evaluate', 'report', 'leave_report', 'load_exported', 'export', 'ablate']
_add_help([*globals().values(), *vars(_fastai.Learner).values()], __package__)   # `?` shows what each parameter is
