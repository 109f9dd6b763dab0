"""The cost model of a network, and a network of residual blocks."""

import keras
from keras import layers

from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.costs import CostModel
from tests.helpers.pruning import conv_norm_relu


def cost_model(model):
    return CostModel(ChannelAnalysis(trace(model)))


def residual_net(size=6):
    """Stem and two residual blocks, the second behind a batch normalization
    that turns dead channels into other constants."""
    inputs = keras.Input((size, size, 3))
    x = conv_norm_relu(inputs, 5)
    x = layers.Add()([x, conv_norm_relu(x, 5)])
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(5, 3, padding="same", use_bias=False)(y)
    y = layers.Conv2D(5, 1)(layers.ReLU()(y))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(2)(x))
