"""Bag of tricks for image classification, with fastai

`bot` puts every trick of [*Bag of Tricks for Image Classification with Convolutional Neural Networks*](https://arxiv.org/abs/1812.01187)
onto fastai's `Learner`, each checked against an independent source. A folder of images and one command, or three lines of Python, give the
paper's procedure up to any of its steps, with any of them left out or changed.

Modules:

- `bot.alike`: Copies, and images that show the same under another encoding, among hundreds of thousands
- `bot.augment`: The paper's input pipeline (§2.1), in its words and in its authors' code
- `bot.block`: The paper's pipeline as fastai's blocks, and loaders in one call
- `bot.cases`: The kinds of things that the doctor finds, each described once, and the rules that find them
- `bot.check`: Looks at every image once before a training, and writes down what would spoil it
- `bot.cli`: `bot-train`: from a folder of images to a trained classifier
- `bot.core`: What every other module uses: errors with their exit codes, files that are whole or not there, tables for people
- `bot.distill`: A hook that adds a trained teacher's answers to the loss
- `bot.exclude`: A list of files that a training leaves out, as the doctor writes it
- `bot.folders`: Folders of images: digits, a data set by its name, or your own; what is in them, and which part of them validates
- `bot.formats`: What the bytes of an image file say, and the pixels that they stand for
- `bot.guards`: The order in which hooks act in a step, and two hooks that stop a run before it is wasted
- `bot.images`: An image that is not decoded yet: decoded as far as a crop needs, the right way up
- `bot.init`: How the weights of a network start: Xavier, MSRA and Kaiming, and residual blocks that start by passing on their input
- `bot.ladder`: Every trick of the paper as one row of a table, and the run that a row stands for
- `bot.learner`: One call puts a rung of the ladder onto fastai's `Learner`
- `bot.loader`: Items in an order that a seed decides
- `bot.look`: What can be known of an image file without its label: whether it decodes, its size and format, and three numbers to find it again by
- `bot.losses`: Label smoothing, cross entropy of soft targets and the distillation loss: pure functions, and one loss class that fastai takes as its own
- `bot.mixup`: A hook that trains on blends of two images and of their labels
- `bot.models`: Our models, timm's, and any other, by one function
- `bot.optimizer`: Nesterov momentum as torch computes it under fastai's schedules, weight decay for weights only, and the learning rate for a batch size
- `bot.page`: The frame of an HTML page in one file: style, escaping, sortable tables, thumbnails under a budget, figures
- `bot.precision`: Hooks that compute in 16 bits, and lay out images channels last
- `bot.resnet`: Four variants of ResNet at seven depths, all made by one class, and what they cost
- `bot.runs`: The folder in which a run keeps settings, metrics and weights: whole after a crash, and read without running anybody's code
- `bot.schedule`: Warmup, step and cosine decay as functions of the batch, for fastai's `ParamScheduler`
- `bot.sources`: Images and their classes, from wherever they are
- `bot.test_utils`: A small learner, and hooks that keep or interrupt what happens in it: what several notebooks test with
- `bot.watch`: Loss curves while a model trains, and the batch that it is given
- `bot.weights`: Weights of a model, from files and from timm, and back"""

__version__ = "0.0.1"
