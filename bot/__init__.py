"""Bag of tricks for image classification, with fastai

`bot` puts every trick of [*Bag of Tricks for Image Classification with Convolutional Neural Networks*](https://arxiv.org/abs/1812.01187)
onto fastai's `Learner`, each checked against an independent source. A folder of images and one command, or three lines of Python, give the
paper's procedure up to any of its steps, with any of them left out or changed.

Modules:

- `bot.ablation`: `ablate` trains rungs from several seeds on your images, and says which of them helped, which did not, and where it cannot tell
- `bot.about`: A run before it begins, after each epoch, and at its end, in lines for a terminal
- `bot.alike`: Copies, and images that show the same under another encoding, among hundreds of thousands
- `bot.args`: Settings, data and versions of a run in one text file, from which it can be made again
- `bot.arrow`: Rows of a data set that Hugging Face's library has saved, and the image of each
- `bot.augment`: The paper's input pipeline (§2.1), in its words and in its authors' code
- `bot.average`: A second model whose weights are a running mean of those in training
- `bot.balance`: A loss in which each class has the same say, however many images it has
- `bot.block`: The paper's pipeline as fastai's blocks, and loaders in one call
- `bot.call`: A function as a command: options from its signature, exit codes from its errors
- `bot.cases`: The kinds of things that the doctor finds, each described once, and the rules that find them
- `bot.chance`: How much better one training is than another over several seeds, on these images and for new ones, and how to read many such numbers without being fooled
- `bot.check`: Looks at every image once before a training, and writes down what would spoil it
- `bot.cli`: `bot-train`: from a folder of images to a trained classifier
- `bot.core`: What every other module uses: errors with their exit codes, files that are whole or not there, tables for people
- `bot.cutmix`: A hook that trains on images with a part of another one in them, alone or in turn with mixup
- `bot.datasets`: Data sets that a name is enough for: digits, which come along, and those of fastai
- `bot.distill`: A hook that adds a trained teacher's answers to the loss
- `bot.distributed`: Processes that a launcher starts, and what each has to hear from the others
- `bot.encoded`: A file that fastai takes for an image, and that is decoded no further than its crop needs
- `bot.evaluate`: How good a run is on labelled images: its own, or others, with intervals and with what spoils the number
- `bot.exclude`: A list of files that a training leaves out, as the doctor writes it
- `bot.export`: A trained model for other programs: plain PyTorch, ONNX, `torch.export` and timm, each form checked on real images
- `bot.exported`: A trained model as two files, read without fastai and without pickle
- `bot.files`: A folder whose files are of one moment, and that one process writes at a time
- `bot.folders`: Folders of images: what is in them, which folders are classes, and which part validates
- `bot.formats`: What the bytes of an image file say, and the pixels that they stand for
- `bot.forms`: A network as ONNX, as `torch.export` has it, and as a folder for timm
- `bot.freezing`: A hook that lets the head learn alone at first, and rates that fall from head to stem
- `bot.grid`: Which trainings are compared with which, what each of them is on these images and this device, and a file that fixes it before the first one starts
- `bot.guards`: The order in which hooks act in a step, and two hooks that stop a run before it is wasted
- `bot.images`: An image that is not decoded yet: decoded as far as a crop needs, the right way up
- `bot.init`: How the weights of a network start: Xavier, MSRA and Kaiming, and residual blocks that start by passing on their input
- `bot.judge`: How good a model is, by what it said of each image: accuracy, F1, calibration, each with the interval that the number of images allows
- `bot.keys`: A random number for every name
- `bot.ladder`: Every trick of the paper as one row of a table, and the run that a row stands for
- `bot.learner`: One call puts a rung of the ladder onto fastai's `Learner`
- `bot.links`: What a list of images says twice, or in two ways, and whether it is the list that it was
- `bot.loader`: Items in an order that a seed decides
- `bot.logs`: The numbers of a run in TensorBoard, wandb or trackio, beside its own `metrics.csv`
- `bot.look`: What can be known of an image file without its label: whether it decodes, its size and format, and three numbers to find it again by
- `bot.losses`: Label smoothing, cross entropy of soft targets and the distillation loss: pure functions, and one loss class that fastai takes as its own
- `bot.mixup`: A hook that trains on blends of two images and of their labels
- `bot.models`: Our models, timm's, and any other, by one function
- `bot.objects`: Images in an object store, listed once, read one by one and kept on the disk
- `bot.optimizer`: Nesterov momentum as torch computes it under fastai's schedules, weight decay for weights only, and the learning rate for a batch size
- `bot.outcome`: What a run left in its folder, read without any code of training, and its curves
- `bot.page`: The frame of an HTML page in one file: style, escaping, sortable tables, thumbnails under a budget, figures
- `bot.paired`: Several runs in one table, what differs between them, and how much better one is on the same images
- `bot.passes`: A step whose batch is larger than the device's memory, computed in several passes
- `bot.precision`: Hooks that compute in 16 bits, and lay out images channels last
- `bot.predict`: A trained model asked about images: files, folders or a list, in, a table out, without fastai
- `bot.predictions`: The likeliest classes of each image and the loss, as the rows of `predictions.csv`
- `bot.prefix`: The names of objects, read as folders
- `bot.prepared`: What loaders have settled of a run, and loaders that prepare images as weights want them
- `bot.probe`: A head fitted to published weights by logistic regression, in one pass over the images
- `bot.published`: Which model a tag or a file means, what its weights know already, and whose they are
- `bot.ranges`: Which values a setting takes, and what is said of others
- `bot.ranks`: A learner that trains as one of several processes, and gives the run of one
- `bot.report`: The page of a run: how good it is and how sure that is, what it mistakes for what, with the pictures, and how it came about
- `bot.reported`: Every run that is kept in a folder leaves its report there, and a learner shows it
- `bot.resnet`: Four variants of ResNet at seven depths, all made by one class, and what they cost
- `bot.resume`: The same command, or the same cell, goes on where a run stopped, and ends with the same bits
- `bot.runs`: What a run was asked for and what it reached, in a folder that is read without running anybody's code
- `bot.saved`: Which split of a data set trains, which validates, and which is kept aside
- `bot.schedule`: Warmup, step and cosine decay as functions of the batch, for fastai's `ParamScheduler`
- `bot.settle`: What data and device change in a recipe, each change with its reason
- `bot.shards`: Many images in few files: where each of them is, and how it is read
- `bot.sizes`: Small images at first, larger ones later: a shorter training for the same result
- `bot.sources`: Images and their classes, from wherever they are
- `bot.state`: The state of training as text and tensors, and what the model made of each validation image
- `bot.test_utils`: A small learner, and hooks that keep or interrupt what happens in it: what several notebooks test with
- `bot.trivial`: Three more ways to vary an image, as functions and as transforms for any data block
- `bot.tuned`: Which rung is meant where weights are asked for, and how long it runs on so many images
- `bot.turns`: Any number of processes, on any number of machines, train the cells of a plan; none is trained twice, and one that was killed goes on
- `bot.verdict`: What each trick did, on these images and for new ones, with intervals, and with "cannot tell" where the trainings cannot
- `bot.wait`: A timed step of each cell's model, the hours that follow from it, and what a given time allows
- `bot.watch`: Loss curves while a model trains, and the batch that it is given
- `bot.weights`: Weights of a model, from files and from timm, and back
- `bot.words`: What a learner is about to do, in words
- `bot.workers`: Processes that read images: how they begin and end, and where it is said that one was killed
- `bot.writing`: A source as plain tar files, written in parallel, again after a kill"""

__version__ = "0.0.1"
