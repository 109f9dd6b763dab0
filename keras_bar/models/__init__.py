"""The networks of the BAR paper, as plain `keras.Model`s."""

from keras_bar.models.resnet import ResNet50
from keras_bar.models.wide_resnet import WideResNet

__all__ = ["ResNet50", "WideResNet"]
