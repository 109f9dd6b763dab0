"""Small networks with the common kinds of blocks."""

import keras
from keras import layers

import keras_bar
from tests.helpers.pruning import conv_norm_relu


def wide_resnet():
    return keras_bar.models.WideResNet(10, 1, (16, 16, 3))


def bottlenecks():
    """Post-activation bottleneck blocks, with and without a shortcut."""
    x = inputs = keras.Input((16, 16, 3))
    x = conv_norm_relu(x, 8)
    for shortcut in (True, False):
        y = conv_norm_relu(conv_norm_relu(x, 4, 1), 4)
        y = layers.BatchNormalization()(layers.Conv2D(12, 1)(y))
        if shortcut:
            x = layers.BatchNormalization()(layers.Conv2D(12, 1)(x))
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def dense_blocks():
    """Pre-activation convolutions on a growing concatenation."""
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, padding="same")(x)
    for _ in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
        x = layers.Concatenate()([x, y])
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def inverted_residuals():
    """Expansion, depthwise convolution, squeeze-and-excitation, projection."""
    x = inputs = keras.Input((12, 12, 3))
    x = conv_norm_relu(x, 6)
    for _ in range(2):
        y = conv_norm_relu(x, 12, 1)
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = layers.Activation("silu")(layers.BatchNormalization()(y))
        s = layers.GlobalAveragePooling2D(keepdims=True)(y)
        s = layers.Conv2D(4, 1, activation="relu")(s)
        y = y * layers.Conv2D(12, 1, activation="sigmoid")(s)
        y = layers.BatchNormalization()(layers.Conv2D(6, 1)(y))
        x = layers.Add()([x, y])
    x = layers.Flatten()(layers.AveragePooling2D(4)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def two_in_two_out():
    a, b = keras.Input((8, 8, 2), name="a"), keras.Input((8, 8, 3), name="b")
    x = layers.Concatenate()([conv_norm_relu(a, 4), conv_norm_relu(b, 5)])
    x = conv_norm_relu(x, 6)
    first = layers.GlobalAveragePooling2D()(x)
    second = conv_norm_relu(conv_norm_relu(x, 5), 2, 1)
    return keras.Model({"a": a, "b": b}, {"first": first, "second": second})


def nested():
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(5, 3), layers.ReLU()],
        name="inner",
    )
    base = bottlenecks()
    x = inputs = keras.Input((16, 16, 3))
    x = base(x, training=False)
    y = inner(layers.MaxPooling2D()(conv_norm_relu(inputs, 4)))
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(inputs, layers.Concatenate()([x, y]))


def sequential():
    return keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.Dropout(0.5),
            layers.SeparableConv2D(8, 3, padding="same"),
            layers.PReLU(shared_axes=[1, 2]),
            layers.Conv2DTranspose(5, 2, strides=2),
            layers.ZeroPadding2D(1),
            layers.Conv2D(4, 3),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def long_stream(post, blocks=4):
    """A stream with many writers, whose channels form many runs."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(24, 3, padding="same")(x)
    for _ in range(blocks):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(24, 3, padding="same")(conv_norm_relu(y, 5))
        x = layers.Add()([x, layers.BatchNormalization()(y) if post else y])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3)(x))


NETWORKS = (
    wide_resnet,
    bottlenecks,
    dense_blocks,
    inverted_residuals,
    two_in_two_out,
    nested,
    sequential,
)
