"""Bag of tricks for image classification, with fastai

`bot` puts every trick of [*Bag of Tricks for Image Classification with Convolutional Neural Networks*](https://arxiv.org/abs/1812.01187)
onto fastai's `Learner`, each checked against an independent source. A folder of images and one command, or three lines of Python, give the
paper's procedure up to any of its steps, with any of them left out or changed."""

__version__ = "0.0.1"
