"""The networks of the BAR paper, and one without residuals, as plain
`keras.Model`s."""

from keras_bar.models.resnet import ResNet50
from keras_bar.models.vgg import VGG
from keras_bar.models.wide_resnet import WideResNet

__all__ = ["VGG", "ResNet50", "WideResNet"]
