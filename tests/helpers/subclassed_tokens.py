"""Layers of transformers written in Python, with weights of their own."""

import numpy as np
from keras import layers
from keras import ops


class ClassToken(layers.Layer):
    """Puts a class token in front of the others, and adds positions."""

    def build(self, shape):
        _, tokens, size = shape
        self.token = self.add_weight(
            (1, 1, size), "random_normal", name="token"
        )
        self.places = self.add_weight(
            (1, tokens + 1, size), "random_normal", name="places"
        )

    def call(self, x):
        token = ops.tile(self.token, (ops.shape(x)[0], 1, 1))
        return ops.concatenate([token, x], axis=1) + self.places


class Encoder(layers.Layer):
    """A block of a transformer, before whose parts it normalizes."""

    def __init__(self, heads, size, **kwargs):
        super().__init__(**kwargs)
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.attention = layers.MultiHeadAttention(heads, size)
        self.up = layers.Dense(8, "gelu", name="up")

    def build(self, shape):
        for norm in self.norms:
            norm.build(shape)
        self.attention.build(shape, shape)
        self.up.build(shape)
        self.down = layers.Dense(shape[-1], name="down")
        self.down.build((*shape[:-1], 8))

    def call(self, x):
        y = self.norms[0](x)
        x = x + self.attention(y, y)
        return x + self.down(self.up(self.norms[1](x)))


class WindowAttention(layers.Layer):
    """Attention in windows of 2x2 pixels, shifted, with a bias per head and
    pair of places, as in Swin."""

    def __init__(self, heads, size, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.size = heads, size
        self.qkv = layers.Dense(3 * heads * size, name="qkv")

    def build(self, shape):
        self.qkv.build(shape)
        self.out = layers.Dense(shape[-1], name="out")
        self.out.build((*shape[:-1], self.heads * self.size))
        self.bias = self.add_weight(
            (5, self.heads), "random_normal", name="bias"
        )

    def call(self, x):
        count, height, width, channels = ops.shape(x)
        rows, columns = height // 2, width // 2
        x = ops.roll(x, (-1, -1), axis=(1, 2))
        x = ops.reshape(x, (count, rows, 2, columns, 2, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = self.attend(ops.reshape(x, (-1, 4, channels)))
        x = ops.reshape(x, (-1, rows, columns, 2, 2, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (-1, height, width, channels))
        return ops.roll(x, (1, 1), axis=(1, 2))

    def attend(self, x):
        count = ops.shape(x)[0]
        x = ops.reshape(self.qkv(x), (count, 4, 3, self.heads, self.size))
        q, k, v = ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), axis=0)
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
        index = np.arange(4)[:, None] % 3 + np.arange(4) % 3
        bias = ops.take(self.bias, index, axis=0)
        scores = ops.softmax(scores + ops.transpose(bias, (2, 0, 1)), -1)
        x = ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3))
        return self.out(ops.reshape(x, (count, 4, self.heads * self.size)))
