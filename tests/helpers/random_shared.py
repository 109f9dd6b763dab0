"""Random networks that call blocks more than once: in a row, on several
tensors, and on images of several sizes."""

import keras
from keras import layers

from tests.helpers.random_networks import BLOCKS
from tests.helpers.random_networks import SIZE
from tests.helpers.random_networks import Network


class SharedNetwork(Network):
    """Draws a network from a seed. Its seeds are its own: a seed gives another
    network than that of `Network`."""

    def draw(self):
        x = inputs = keras.Input((SIZE, SIZE, 3))
        if self.maybe(0.8):
            x = self.norm_activation(self.conv(x, self.width()))
        for _ in range(self.rng.integers(1, 3)):
            if self.maybe(0.3):
                x = self.one_of(BLOCKS)(self, x)
            x = self.one_of(SHARED)(self, x)
        return keras.Model(inputs, self.head(x))

    def nested(self, x):
        """A model of one or two random blocks for tensors like x."""
        y = inputs = keras.Input(x.shape[1:])
        for _ in range(self.rng.integers(1, 3)):
            y = self.one_of(BLOCKS)(self, y)
        return keras.Model(inputs, y)

    def siamese(self, x):
        """A block of two tensors of one size."""
        block, others = self.nested(x), [x]
        for _ in range(self.rng.integers(1, 3)):
            y = self.conv(x, x.shape[-1])
            others.append(self.norm_activation(y) if self.maybe() else y)
        return self.merge([block(y) for y in others])

    def repeated(self, x):
        """A block that changes no shape, several times in a row."""
        y = inputs = keras.Input(x.shape[1:])
        for _ in range(self.rng.integers(1, 3)):
            if self.maybe(0.3):
                y = self.norm_activation(y)
            y = self.conv(y, self.width())
            if self.maybe(0.3):
                y = layers.DepthwiseConv2D(3, padding="same")(y)
            y = self.norm_activation(y)
        y = self.conv(y, x.shape[-1])
        block, residual = keras.Model(inputs, y), self.maybe()
        for _ in range(self.rng.integers(2, 4)):
            y = block(x)
            x = layers.Add()([x, y]) if residual else self.activation(y)
        return x

    def tower(self, x):
        """Layers that images of two or three sizes share, or only some of
        them."""
        sizes = [x, layers.AveragePooling2D(2, padding="same")(x)]
        if self.maybe():
            y = self.conv(x, x.shape[-1], 3, strides=2)
            sizes.append(self.norm_activation(y))
        for _ in range(self.rng.integers(1, 4)):
            sizes = self.level(sizes)
        return self.merge([layers.Resizing(4, 4)(y) for y in sizes])

    def level(self, sizes):
        width, channels = self.width(), sizes[0].shape[-1]
        kind = self.one_of(("conv", "conv", "separable", "depthwise", "groups"))
        padding, bias = self.one_of(("same", "valid")), self.maybe()
        size = 1 if padding == "valid" else self.one_of((1, 3))
        if kind == "separable":
            made = [layers.SeparableConv2D(width, 3, padding="same")]
        elif kind == "depthwise":
            made = [layers.DepthwiseConv2D(3, padding="same", use_bias=bias)]
        else:
            groups = 2 if kind == "groups" and channels % 2 == 0 else 1
            made = [
                layers.Conv2D(
                    width, size, padding=padding, groups=groups, use_bias=bias
                )
            ]
        sizes = self.called(made, sizes)
        norm = self.one_of(("shared", "own", "groups", "rms", None))
        if norm == "own":
            sizes = [layers.BatchNormalization()(y) for y in sizes]
        elif norm is not None:
            kinds = {
                "shared": layers.BatchNormalization,
                "groups": lambda: layers.GroupNormalization(1),
                "rms": layers.RMSNormalization,
            }
            sizes = self.called([kinds[norm]()], sizes)
        activation = self.one_of(("relu", "silu", "sigmoid", None, "prelu"))
        if activation == "prelu":
            return self.called([layers.PReLU(shared_axes=(1, 2))], sizes)
        if activation is None:
            return sizes
        return [layers.Activation(activation)(y) for y in sizes]

    def called(self, made, sizes):
        for layer in made:
            sizes = [layer(y) for y in sizes]
        return sizes

    def merge(self, tensors):
        kind = self.one_of((layers.Add, layers.Concatenate, layers.Average))
        return kind()(tensors)


SHARED = (SharedNetwork.siamese, SharedNetwork.repeated, SharedNetwork.tower)
