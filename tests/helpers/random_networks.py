"""Random networks, of blocks that are drawn together with all their settings.

A seed gives the same network always, so a failure names the seed that repeats
it.
"""

import keras
from keras import layers
from keras import ops

from tests.helpers.random_tokens import Tokens
from tests.helpers.subclassed import Block

SIZE = 6


class Network(Tokens):
    """Draws a network from a seed."""

    def draw(self):
        """A Functional model of a random stem, up to four random blocks, and a
        random head."""
        x = inputs = keras.Input((SIZE, SIZE, 3))
        x = self.norm_activation(self.conv(x, self.width()))
        for _ in range(self.rng.integers(1, 5)):
            block = self.one_of(BLOCKS)
            x = block(self, x)
        return keras.Model(inputs, self.head(x))

    def conv(self, x, filters, size=None, strides=1, groups=1):
        return layers.Conv2D(
            filters,
            size or self.one_of((1, 3)),
            strides,
            padding="same",
            groups=groups,
            use_bias=self.maybe(),
        )(x)

    def norm_activation(self, x):
        if self.maybe(0.7):
            x = layers.BatchNormalization(scale=self.maybe(0.9))(x)
        else:
            x = self.normalization(x)
        return self.activation(x)

    def even(self, x):
        """A tensor with an even number of channels."""
        return self.conv(x, self.width()) if x.shape[-1] % 2 else x

    def plain(self, x):
        kind = self.one_of(("conv", "padded", "separable", "transposed"))
        if kind == "separable":
            y = layers.SeparableConv2D(self.width(), 3, padding="same")(x)
        elif kind == "transposed" and x.shape[1] <= 6:
            y = layers.Conv2DTranspose(self.width(), 2, 2)(x)
            y = layers.AveragePooling2D(2)(y)
        elif kind == "padded":
            y = layers.Conv2D(self.width(), 3)(layers.ZeroPadding2D(1)(x))
        else:
            strides = 2 if x.shape[1] > 3 and self.maybe() else 1
            y = self.conv(x, self.width(), strides=strides)
        return self.norm_activation(y)

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
        x = self.even(x)
        groups = self.one_of((2, x.shape[-1] // 2, x.shape[-1]))
        filters = groups * int(self.rng.integers(1, 4))
        y = self.norm_activation(self.conv(x, filters, 3, groups=groups))
        if self.maybe():
            return y
        return layers.Add()([x, self.conv(y, x.shape[-1], 1)])

    def concatenated(self, x):
        y = self.conv(self.norm_activation(x), self.width())
        return layers.Concatenate()([x, y] if self.maybe() else [y, x])

    def divided(self, x):
        """Parts of the channels that go separate ways."""
        x = self.even(x)
        half = x.shape[-1] // 2
        kind = self.one_of(("split", "slices", "uneven", "shuffled"))
        if kind == "split":
            a, b = ops.split(x, 2, axis=-1)
        elif kind == "slices":
            a, b = x[..., :half], x[..., half:]
        elif kind == "uneven":
            a, b = ops.split(x, [1], axis=-1)
            return layers.Concatenate()([self.conv(a, half), b])
        else:
            y = layers.Reshape((*x.shape[1:3], 2, half))(x)
            y = ops.transpose(y, (0, 1, 2, 4, 3))
            return layers.Reshape(x.shape[1:])(y)
        a = self.conv(a, half)
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

    def convolved_perceptron(self, x):
        """As in ConvNeXt."""
        y = layers.DepthwiseConv2D(3, padding="same")(x)
        y = self.perceptron(self.normalization(y))
        return layers.Add()([x, y])

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
    Network.convolved_perceptron,
    Network.windows,
    Network.transformer,
    Network.transformer,
)
