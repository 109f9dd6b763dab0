"""The networks of the BAR paper, and others for small images, as plain
`keras.Model`s."""

from keras_bar.models.conv_next import ConvNeXt
from keras_bar.models.dense_net import DenseNet
from keras_bar.models.mobile_net import MobileNet
from keras_bar.models.resnet import ResNet50
from keras_bar.models.vgg import VGG
from keras_bar.models.vision_transformer import ViT
from keras_bar.models.wide_resnet import WideResNet

__all__ = [
    "VGG",
    "ConvNeXt",
    "DenseNet",
    "MobileNet",
    "ResNet50",
    "ViT",
    "WideResNet",
]
