"""Functions of TensorFlow and PyTorch, and layers that call them."""

import keras
from keras import layers
from keras import ops

from tests.helpers import pruning

BACKEND = keras.backend.backend()


def of_tensorflow():
    import tensorflow as tf

    def without_means(x):
        means = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
        return tf.subtract(x, tf.nn.relu(means))

    def by_shapes(x):
        shape = tf.shape(x)
        y = tf.reshape(x, [shape[0], shape[1] * shape[2], 4])
        y = tf.reshape(tf.nn.relu(y), tf.shape(x))
        return tf.image.resize(y, tf.shape(x)[1:3] * 2)

    def split(x):
        a, b = tf.split(x, [1, 3], axis=-1)
        return tf.concat([tf.nn.relu(b), a], axis=-1)

    widths = [[0, 0], [1, 1], [2, 0], [0, 0]]
    translated = {
        "relu": tf.nn.relu,
        "leaky": lambda x: tf.nn.leaky_relu(x, 0.1),
        "gelu": lambda x: tf.nn.gelu(x, approximate=True),
        "arithmetic": lambda x: tf.multiply(x, tf.nn.relu6(tf.add(x, 3.0))),
        "add": lambda x: tf.add(x, tf.tanh(x)),
        "concatenate": lambda x: tf.concat([x, tf.abs(x)], -1),
        "split": split,
        "zeros": lambda x: tf.pad(x, tf.constant(widths)),
        "transpose": lambda x: tf.transpose(
            tf.nn.relu(tf.transpose(x, [0, 3, 1, 2])), [0, 2, 3, 1]
        ),
        "means": without_means,
        "clip": lambda x: tf.clip_by_value(x, -0.5, 0.5),
    }
    observed = {
        "resize": lambda x: tf.image.resize(x, (9, 5), method="nearest"),
        "aligned": lambda x: tf.compat.v1.image.resize(
            x, size=(9, 9), method="bilinear", align_corners=True
        ),
        "shapes": by_shapes,
        "reflect": lambda x: tf.pad(x, tf.constant(widths), "REFLECT"),
        "pool": lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"),
        "flip": tf.image.flip_left_right,
        "erf": tf.math.erf,
        "dtypes": lambda x: tf.reverse(tf.cast(x, dtype=tf.float32), [1]),
    }

    def in_windows(x, layer):
        x = tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]])
        return tf.batch_to_space(layer(x), [2, 2], [[0, 0], [0, 0]])

    return {
        "translated": translated,
        "observed": observed,
        "windows": in_windows,
        "whole": lambda x: tf.nn.l2_normalize(x, axis=-1),
        "convolve": lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"),
        "random": tf.random.shuffle,
        "large": lambda x: tf.math.xlogy(x, tf.ones((6, 6, 4))),
        "function": lambda x: tf.image.resize(x, (3, 3), method=print),
        "pair": tf.math.xlogy,
    }


def of_torch():
    import torch
    from torch.nn import functional as F

    def channels_first(function):
        def call(x):
            y = function(torch.permute(x, (0, 3, 1, 2)))
            return torch.permute(y, (0, 2, 3, 1))

        return call

    def without_means(x):
        means = torch.mean(x, dim=(1, 2), keepdim=True)
        return torch.sub(x, torch.relu(means))

    def by_shapes(x):
        y = torch.relu(torch.reshape(x, (x.shape[0], -1, 4)))
        y = torch.reshape(y, tuple(x.shape))
        size = [2 * d for d in x.shape[1:3]]
        return channels_first(lambda z: F.interpolate(z, size))(y)

    def split(x):
        a, b = torch.split(x, [1, 3], dim=-1)
        return torch.cat((torch.relu(b), a), dim=-1)

    translated = {
        "relu": F.relu,
        "leaky": lambda x: F.leaky_relu(x, 0.1),
        "gelu": lambda x: F.gelu(x, approximate="tanh"),
        "arithmetic": lambda x: torch.mul(x, F.relu6(torch.add(x, 3.0))),
        "add": lambda x: torch.add(x, torch.tanh(x)),
        "concatenate": lambda x: torch.cat([x, torch.abs(x)], -1),
        "split": split,
        "zeros": channels_first(lambda x: F.pad(x, (2, 0, 1, 1))),
        "transpose": channels_first(torch.relu),
        "means": without_means,
        "clip": lambda x: torch.clamp(x, -0.5, 0.5),
    }
    observed = {
        "resize": channels_first(lambda x: F.interpolate(x, scale_factor=2)),
        "aligned": channels_first(
            lambda x: F.interpolate(
                x, size=(9, 9), mode="bilinear", align_corners=True
            )
        ),
        "shapes": by_shapes,
        "reflect": channels_first(
            lambda x: F.pad(x, (2, 0, 1, 1), mode="reflect")
        ),
        "pool": channels_first(lambda x: F.max_pool2d(x, 2)),
        "flip": lambda x: torch.flip(x, (2,)),
        "erf": torch.erf,
        "dtypes": lambda x: torch.roll(
            torch.mul(x, torch.tensor(2, dtype=torch.float32)), 1, 1
        ),
    }

    def in_windows(x, layer):
        x = layer(torch.cat(torch.chunk(x, 2, dim=1), 0))
        return torch.cat(torch.chunk(x, 2, dim=0), 1)

    return {
        "translated": translated,
        "observed": observed,
        "windows": in_windows,
        "whole": lambda x: F.normalize(x, dim=-1),
        "convolve": lambda x, kernel: torch.permute(
            F.conv2d(
                torch.permute(x, (0, 3, 1, 2)),
                torch.permute(kernel, (3, 2, 0, 1)),
                padding=1,
            ),
            (0, 2, 3, 1),
        ),
        "random": torch.bernoulli,
        "large": lambda x: torch.lerp(x, torch.ones((6, 6, 4)), 0.5),
        "function": lambda x: F.interpolate(x, size=(3, 3), mode=print),
        "pair": lambda x, bias: torch.lerp(x, x, bias.value),
    }


_MAKERS = {"tensorflow": of_tensorflow, "torch": of_torch}
# By kind; empty on a backend without dispatch for other types.
FUNCTIONS = _MAKERS.get(BACKEND, dict)()


class Between(layers.Layer):
    """Convolutions in front of a function and behind it."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.first = layers.Conv2D(4, 3, padding="same", name="first")
        self.norm = layers.BatchNormalization(name="norm")
        self.second = layers.Conv2D(4, 3, name="second")
        self.third = layers.Conv2D(3, 1, name="third")

    def call(self, x, training=None):
        x = self.norm(self.first(x), training=training)
        return self.third(ops.relu(self.second(self.function(x))))


def network(function, kind=Between):
    inputs = keras.Input((6, 6, 2))
    model = keras.Model(inputs, kind(function, name="between")(inputs))
    return pruning.randomize(model)
