"""Sequences with masks: blocks of layers that read them, and classifiers."""

import keras
from keras import layers
from keras import ops

from tests.helpers.pruning import randomize

STEPS, SIZE = 6, 8


def feed_forward(x):
    y = layers.Dense(12, "relu", name="up")(x)
    y = layers.Dense(SIZE, name="down")(y)
    return layers.LayerNormalization()(layers.Add()([x, y]))


def into(x):
    return layers.Dense(SIZE)(layers.Dense(12, "relu")(x))


@keras.saving.register_keras_serializable("tests")
class Encoder(layers.Layer):
    """It reads the mask of its input, and hands it on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.up = layers.Dense(12, "relu", name="up")
        self.down = layers.Dense(SIZE, name="down")
        self.supports_masking = True

    def build(self, shape):
        self.attention.build(shape, shape)
        self.up.build(shape)
        self.down.build((*shape[:-1], 12))

    def call(self, x, mask=None):
        given = None if mask is None else ops.cast(mask[:, None, :], "int32")
        x = x + self.attention(query=x, value=x, attention_mask=given)
        return x + self.down(self.up(x))


def classifier(block, table=None):
    """A classifier of sentences whose ends are empty."""
    inputs = keras.Input((STEPS,), dtype="int32")
    table = table or layers.Embedding(5, SIZE, mask_zero=True, name="table")
    x = layers.GlobalAveragePooling1D()(block(table(inputs)))
    return randomize(keras.Model(inputs, layers.Dense(3)(x)))


def ends(block, table=None):
    """A classifier by the largest features, which reads no mask itself."""
    inputs = keras.Input((STEPS,), dtype="int32")
    table = table or layers.Embedding(5, SIZE, mask_zero=True)
    x = feed_forward(block(table(inputs)))
    x = layers.Dense(9, "relu", name="last")(layers.GlobalMaxPooling1D()(x))
    return randomize(keras.Model(inputs, layers.Dense(3)(x)))
