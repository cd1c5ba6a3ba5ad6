"""Bag of tricks for image classification, with fastai

`bot` puts every trick of [*Bag of Tricks for Image Classification with Convolutional Neural Networks*](https://arxiv.org/abs/1812.01187)
onto fastai's `Learner`, each checked against an independent source. A folder of images and one command, or three lines of Python, give the
paper's procedure up to any of its steps, with any of them left out or changed.

Modules:

- `bot.augment`: The paper's input pipeline (§2.1), in its words and in its authors' code
- `bot.callbacks`: Mixup, distillation, half precision and two guards: a function each, and the thin hook that calls it
- `bot.checkpoint`: What a run leaves behind, written so that a crash cannot spoil it, and read without running anybody's code
- `bot.cli`: `bot-train`: from a folder of images to a trained classifier
- `bot.data`: Images and their classes, from wherever they are, in an order that a seed decides
- `bot.ladder`: Every trick of the paper as one row of a table, and the run that a row stands for
- `bot.learner`: One call puts a rung of the ladder onto fastai's `Learner`
- `bot.losses`: Label smoothing, cross entropy of soft targets and the distillation loss: pure functions, and one loss class that fastai takes as its own
- `bot.models`: ResNet-A, B, C and D at seven depths, as rows of arguments over one class
- `bot.optimizer`: Nesterov momentum as torch computes it and fastai steers it, decay for weights only, and the learning rate of a batch size
- `bot.schedule`: Warmup, step and cosine as functions of the batch, joined into what fastai's `ParamScheduler` takes, and drawn as the paper's Fig. 3"""

__version__ = "0.0.1"
