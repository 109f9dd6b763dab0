"""Networks of a few convolutions."""

import keras
from keras import layers

from tests.helpers.pruning import conv_norm_relu


def head(x):
    return layers.Dense(2)(layers.GlobalAveragePooling2D()(x))


def residual_net(channels=4):
    inputs = keras.Input((6, 6, 3))
    x = conv_norm_relu(inputs, channels, name="stem")
    y = conv_norm_relu(x, 5, name="inner")
    y = layers.Conv2D(channels, 1, name="outer")(y)
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    return keras.Model(inputs, head(layers.ReLU()(x)))
