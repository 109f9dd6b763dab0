"""Random networks, of blocks that are drawn together with all their settings.

A seed gives the same network always, so a failure names the seed that repeats
it.
"""

import keras
import numpy as np
from keras import layers
from keras import ops

from tests.helpers.subclassed import Block

SIZE = 6
ACTIVATIONS = ("relu", "relu6", "silu", "gelu", "leaky_relu", "sigmoid", None)


class Network:
    """Draws a network from a seed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def draw(self):
        """A Functional model of a random stem, up to four random blocks, and a
        random head."""
        x = inputs = keras.Input((SIZE, SIZE, 3))
        x = self.norm_activation(self.conv(x, self.width()))
        for _ in range(self.rng.integers(1, 5)):
            block = self.one_of(BLOCKS)
            x = block(self, x)
        return keras.Model(inputs, self.head(x))

    def one_of(self, choices):
        return choices[self.rng.integers(len(choices))]

    def maybe(self, probability=0.5):
        return self.rng.random() < probability

    def width(self):
        return 2 * int(self.rng.integers(2, 6))

    def conv(self, x, filters, size=None, strides=1, groups=1):
        return layers.Conv2D(
            filters,
            size or self.one_of((1, 3)),
            strides,
            padding="same",
            groups=groups,
            use_bias=bool(self.maybe()),
        )(x)

    def norm_activation(self, x):
        if self.maybe(0.8):
            x = layers.BatchNormalization(scale=bool(self.maybe(0.9)))(x)
        return self.activation(x)

    def activation(self, x):
        name = self.one_of(ACTIVATIONS)
        return x if name is None else layers.Activation(name)(x)

    def plain(self, x):
        strides = 2 if x.shape[1] > 3 and self.maybe(0.3) else 1
        return self.norm_activation(self.conv(x, self.width(), strides=strides))

    def residual(self, x):
        width = x.shape[-1] if self.maybe() else self.width()
        y = self.conv(self.norm_activation(x), self.width())
        y = self.conv(self.norm_activation(y), width)
        if width != x.shape[-1]:
            x = self.conv(x, width, 1)
        return self.activation(layers.Add()([x, y]))

    def inverted(self, x):
        y = self.norm_activation(self.conv(x, 2 * x.shape[-1], 1))
        y = layers.DepthwiseConv2D(3, padding="same")(y)
        y = self.norm_activation(y)
        if self.maybe():
            z = layers.GlobalAveragePooling2D(keepdims=True)(y)
            z = layers.Conv2D(self.width(), 1, activation="relu")(z)
            z = layers.Conv2D(y.shape[-1], 1, activation="sigmoid")(z)
            y = layers.Multiply()([y, z])
        return layers.Add()([x, self.conv(y, x.shape[-1], 1)])

    def grouped(self, x):
        if x.shape[-1] % 2:
            x = self.conv(x, self.width())
        groups = self.one_of((2, x.shape[-1] // 2, x.shape[-1]))
        filters = groups * int(self.rng.integers(1, 4))
        return self.norm_activation(self.conv(x, filters, 3, groups=groups))

    def concatenated(self, x):
        y = self.conv(self.norm_activation(x), self.width())
        return layers.Concatenate()([x, y] if self.maybe() else [y, x])

    def divided(self, x):
        """Halves of the channels that go separate ways."""
        if x.shape[-1] % 2:
            x = self.conv(x, self.width())
        a, b = ops.split(x, 2, axis=-1)
        a = self.conv(a, a.shape[-1])
        if self.maybe():
            return layers.Concatenate()([a, b])
        return layers.Add()([a, b])

    def pooled(self, x):
        kind = self.one_of((layers.MaxPooling2D, layers.AveragePooling2D))
        y = kind(3, 1, padding="same")(x)
        return (
            y if self.maybe() else layers.Add()([x, self.conv(y, x.shape[-1])])
        )

    def subclassed(self, x):
        """A block of which only the call is known."""
        return Block(x.shape[-1])(x)

    def perceptron(self, x):
        """As in ConvNeXt."""
        y = layers.DepthwiseConv2D(3, padding="same")(x)
        y = layers.LayerNormalization()(y) if self.maybe() else y
        y = self.activation(layers.Dense(self.width())(y))
        return layers.Add()([x, layers.Dense(x.shape[-1])(y)])

    def attention(self, x):
        height, width, channels = x.shape[1:]
        y = layers.Reshape((height * width, channels))(x)
        y = layers.LayerNormalization()(y) if self.maybe() else y
        kind = self.one_of((self.multi_head, self.shared_keys, self.by_hand))
        y = kind(y)
        y = layers.Reshape((height, width, channels))(y)
        return layers.Add()([x, y])

    def multi_head(self, x):
        attention = layers.MultiHeadAttention(
            self.one_of((1, 3, 4)),
            2,
            dropout=self.one_of((0.0, 0.1)),
            use_bias=bool(self.maybe()),
        )
        return attention(x, x, use_causal_mask=bool(self.maybe(0.3)))

    def shared_keys(self, x):
        return layers.GroupQueryAttention(2, 4, self.one_of((1, 2)))(x, x)

    def by_hand(self, x):
        tokens, channels = x.shape[1:]
        heads, size = self.one_of((2, 3)), 2

        def project():
            y = layers.Dense(heads * size)(x)
            y = ops.reshape(y, (-1, tokens, heads, size))
            return ops.transpose(y, (0, 2, 1, 3))

        keys = ops.transpose(project(), (0, 1, 3, 2))
        scores = layers.Softmax()(ops.matmul(project(), keys))
        y = ops.transpose(ops.matmul(scores, project()), (0, 2, 1, 3))
        y = ops.reshape(y, (-1, tokens, heads * size))
        return layers.Dense(channels)(y)

    def head(self, x):
        if self.maybe():
            x = self.one_of(
                (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
            )()(x)
        else:
            x = layers.Flatten()(x)
        if self.maybe(0.3):
            x = self.activation(layers.Dense(self.width())(x))
        return layers.Dense(3)(x)


BLOCKS = (
    Network.plain,
    Network.residual,
    Network.inverted,
    Network.grouped,
    Network.concatenated,
    Network.divided,
    Network.pooled,
    Network.subclassed,
    Network.perceptron,
    Network.attention,
)
