"""Attention and perceptrons of random networks, as different authors write
them: on the tokens of an image, of its windows, and with a class token."""

import numpy as np
from keras import layers
from keras import ops

from tests.helpers.subclassed_tokens import ClassToken
from tests.helpers.subclassed_tokens import Encoder
from tests.helpers.subclassed_tokens import WindowAttention

ACTIVATIONS = ("relu", "relu6", "silu", "gelu", "leaky_relu", "sigmoid", None)
# Features of a head.
SIZE = 2


class Draws:
    """Random choices from a seed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def one_of(self, choices):
        return choices[self.rng.integers(len(choices))]

    def maybe(self, probability=0.5):
        return bool(self.rng.random() < probability)

    def width(self):
        return 2 * int(self.rng.integers(2, 6))

    def activation(self, x):
        name = self.one_of(ACTIVATIONS)
        return x if name is None else layers.Activation(name)(x)

    def normalization(self, x):
        """One over several channels, or none."""
        groups = [g for g in (2, 3, 4) if x.shape[-1] % g == 0] or [1]
        return self.one_of(
            (
                lambda x: x,
                layers.LayerNormalization(),
                layers.RMSNormalization(),
                layers.GroupNormalization(self.one_of(groups)),
            )
        )(x)


class Tokens(Draws):
    """Blocks that map tokens `(batch, tokens, channels)` to such."""

    def transformer(self, x):
        """A block of a transformer on the pixels of an image."""
        height, width, channels = x.shape[1:]
        x = layers.Reshape((height * width, channels))(x)
        token = self.maybe(0.3)
        if token:
            x = ClassToken()(x)
        if self.maybe(0.2):
            x = Encoder(2, SIZE)(x)
        else:
            y = self.one_of(ATTENTIONS)(self, self.normalization(x))
            x = layers.Add()([x, y])
        if self.maybe(0.3):
            x = layers.Add()([x, self.perceptron(self.normalization(x))])
        if token:
            x = x[:, 1:]
        return layers.Reshape((height, width, channels))(x)

    def perceptron(self, x):
        y = self.activation(layers.Dense(self.width())(x))
        if self.maybe(0.3):  # A gated linear unit.
            y = layers.Multiply()([y, layers.Dense(y.shape[-1])(x)])
        return layers.Dense(x.shape[-1])(y)

    def windows(self, x):
        """Attention in the windows of an image with an even height."""
        channels = x.shape[-1]
        if x.shape[1] % 2 or x.shape[2] % 2:
            x = layers.ZeroPadding2D(((0, x.shape[1] % 2),) * 2)(x)
        if self.maybe(0.3):
            return layers.Add()([x, WindowAttention(2, SIZE)(x)])
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        y = self.normalization(x)
        y = ops.reshape(y, (-1, rows, 2, columns, 2, channels))
        y = ops.transpose(y, (0, 1, 3, 2, 4, 5))
        y = ops.reshape(y, (-1, 4, channels))
        y = self.one_of((Tokens.by_hand, Tokens.in_one, Tokens.einsums))(
            self, y
        )
        y = ops.reshape(y, (-1, rows, columns, 2, 2, channels))
        y = ops.transpose(y, (0, 1, 3, 2, 4, 5))
        y = ops.reshape(y, (-1, 2 * rows, 2 * columns, channels))
        return layers.Add()([x, y])

    def multi_head(self, x):
        attention = layers.MultiHeadAttention(
            self.one_of((1, 3, 4)),
            SIZE,
            dropout=self.one_of((0.0, 0.1)),
            use_bias=self.maybe(),
        )
        return attention(x, x, use_causal_mask=self.maybe(0.3))

    def shared_keys(self, x):
        return layers.GroupQueryAttention(SIZE, 4, self.one_of((1, 2, 4)))(x, x)

    def by_hand(self, x):
        """Dense layers, reshapes and matrices."""
        heads, shared = self.one_of((2, 3)), self.maybe(0.3)

        def project():
            y = layers.Dense(heads * SIZE, use_bias=self.maybe())(x)
            y = ops.reshape(y, (-1, x.shape[1], heads, SIZE))
            return ops.transpose(y, (0, 2, 1, 3))

        query, key = project(), project()
        value = key if shared else project()
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        if self.maybe():
            scores = scores * SIZE**-0.5
        y = ops.matmul(self.softmax(scores), value)
        return self.join(ops.transpose(y, (0, 2, 1, 3)), x)

    def einsums(self, x):
        """Projections to heads, and products, by equations."""
        heads, channels = self.one_of((2, 3)), x.shape[-1]
        projections = [
            layers.EinsumDense(
                f"{front}c,cde->{front}de",
                (*sizes, heads, SIZE),
                bias_axes=self.one_of(("de", None)),
            )(x)
            for front, sizes in (("ab", [None]), ("ab", [None]), ("...", []))
        ]
        q, k, v = projections
        if self.maybe():
            scores = ops.einsum("bqhd,bkhd->bhqk", q, k)
        else:
            scores = ops.einsum("aecd,abcd->acbe", k, q / SIZE**0.5)
        y = ops.einsum("bhqk,bkhd->bqhd", self.softmax(scores), v)
        if self.maybe():
            return self.join(y, x)
        bias = self.one_of(("e", None))
        last = layers.EinsumDense(
            "abcd,cde->abe", (None, channels), bias_axes=bias
        )
        return last(y)

    def in_one(self, x):
        """One layer for queries, keys and values."""
        heads, tokens = self.one_of((2, 3)), x.shape[1]
        y = layers.Dense(3 * heads * SIZE, use_bias=self.maybe())(x)
        if self.maybe():
            q, k, v = (
                ops.reshape(part, (-1, tokens, heads, SIZE))
                for part in ops.split(y, 3, axis=-1)
            )
            return self.join(ops.dot_product_attention(q, k, v), x)
        y = ops.reshape(y, (-1, tokens, 3, heads, SIZE))
        y = ops.transpose(y, (2, 0, 3, 1, 4))
        q, k, v = ops.unstack(y) if self.maybe() else (y[0], y[1], y[2])
        scores = ops.matmul(q, ops.swapaxes(k, -1, -2))
        y = ops.matmul(self.softmax(scores), v)
        return self.join(ops.transpose(y, (0, 2, 1, 3)), x)

    def one_head(self, x):
        """Attention as non-local networks have it, without heads."""
        q, k, v = (layers.Dense(self.one_of((4, 4)))(x) for _ in range(3))
        if self.maybe():
            y = layers.Attention()([q, v, k])
        else:
            scores = ops.matmul(q, ops.transpose(k, (0, 2, 1)))
            y = ops.matmul(self.softmax(scores), v)
        return layers.Dense(x.shape[-1])(y)

    def softmax(self, scores):
        tokens = scores.shape[-1]
        if self.maybe(0.2) and tokens is not None:
            mask = np.triu(np.full((tokens, tokens), -1e4, "float32"), 1)
            scores = scores + mask
        if self.maybe():
            return ops.softmax(scores)
        return layers.Dropout(0.1)(layers.Softmax()(scores))

    def join(self, y, x):
        """The features of all heads, mixed, for the tokens x."""
        y = ops.reshape(y, (-1, x.shape[1], y.shape[-2] * y.shape[-1]))
        return layers.Dense(x.shape[-1])(y)


ATTENTIONS = (
    Tokens.multi_head,
    Tokens.shared_keys,
    Tokens.by_hand,
    Tokens.einsums,
    Tokens.in_one,
    Tokens.one_head,
)
