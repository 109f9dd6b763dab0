"""Layers that encoders of images in packages are made of: embeddings of
patches, pooling by attention, frames of videos, rotary positions, branches."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import trace
from tests.helpers.one_layer import prune

pytestmark = pytest.mark.core

SIZE = 8


class Embedding(layers.Layer):
    """Patches behind a class token, which is a vector, with positions looked up
    by the integers that a variable holds."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.patches = layers.Conv2D(SIZE, 2, 2, name="patches")
        self.places = layers.Embedding(10, SIZE, name="places")

    def build(self, shape):
        self.patches.build(shape)
        self.places.build((1, 10))
        self.token = self.add_weight((SIZE,), "random_normal", name="token")
        self.ids = self.add_weight(
            (1, 10), "zeros", dtype="int32", trainable=False, name="ids"
        )
        self.ids.assign(np.arange(10)[None])

    def call(self, x):
        batch = ops.shape(x)[0]
        x = ops.reshape(self.patches(x), (batch, -1, SIZE))
        token = ops.expand_dims(self.token, axis=(0, 1))
        token = ops.tile(token, (batch, 1, 1))
        return ops.concatenate([token, x], axis=1) + self.places(self.ids)


class Pooling(layers.Layer):
    """Attention by a single query that is learned."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")

    def build(self, shape):
        self.probe = self.add_weight(
            (1, 1, SIZE), "random_normal", name="probe"
        )
        self.attention.build((None, 1, SIZE), shape)

    def call(self, x):
        probe = ops.repeat(self.probe, ops.shape(x)[0], axis=0)
        return self.attention(probe, x, x)


class Positions(layers.Layer):
    """Adds a weight per position, and has no sublayers."""

    def build(self, shape):
        self.places = self.add_weight(
            (1, *shape[1:]), "random_normal", name="places"
        )

    def call(self, x):
        return x + self.places


class PerFrame(layers.Layer):
    """Makes places the samples, where it were the 3 frames of a video."""

    def call(self, x):
        x = ops.reshape(x, (-1, 3, 4, SIZE))
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, 3, SIZE))

    def compute_output_shape(self, shape):
        return (None, 3, SIZE)


@keras.saving.register_keras_serializable("tests")
class Angles(layers.Layer):
    """Constants for every position: they depend on nothing but sizes."""

    def call(self, x):
        angles = np.linspace(0.0, 1.0, 9 * 4).reshape(9, 4)
        return ops.cos(ops.convert_to_tensor(angles, x.dtype))

    def compute_output_spec(self, x):
        return keras.KerasTensor((9, 4), x.dtype)


class Rotary(layers.Layer):
    """Multiplies by factors per position, which have no batch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.values = layers.Dense(8, name="values")
        self.out = layers.Dense(SIZE, name="out")

    def build(self, shape):
        self.values.build(shape)
        self.out.build((None, 9, 8))

    def call(self, x, factors=None):
        x = ops.reshape(self.values(x), (-1, 9, 2, 4))
        x = x * ops.expand_dims(factors, (0, 2))
        return self.out(ops.reshape(x, (-1, 9, 8)))


class Modeless(layers.Layer):
    """Describes its output for no mode."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(SIZE, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=None):
        return self.dense(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], SIZE), x.dtype)


class Outer(layers.Layer):
    """Tells a sublayer the mode."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Modeless(name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x, training=None):
        return ops.relu(self.inner(x, training=training))


def model(inputs, x):
    x = layers.Dense(12, "relu", name="hidden")(x)
    axes = tuple(range(1, len(x.shape) - 1))
    return keras.Model(inputs, layers.Dense(3)(ops.mean(x, axis=axes)))


def class_token():
    inputs = keras.Input((6, 6, 3))
    return model(inputs, Embedding(name="embedding")(inputs))


def pooling():
    inputs = keras.Input((9, SIZE))
    x = layers.Dense(SIZE, name="first")(inputs)
    return model(inputs, Pooling(name="pooling")(x))


def positions():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(SIZE, 2, 2, name="patches")(inputs)
    return model(inputs, Positions(name="positions")(x))


def frames():
    """Places lose none of their channels, and the patches do."""
    inputs = keras.Input((3, 2, 2, 3))
    x = ops.reshape(inputs, (-1, 4, 3))
    x = Positions(name="positions")(layers.Dense(SIZE, name="patches")(x))
    return model(inputs, PerFrame(name="frames")(x))


def rotary():
    inputs = keras.Input((9, SIZE))
    factors = Angles(name="angles")(inputs)
    x = layers.Dense(SIZE, name="first")(inputs)
    return model(inputs, Rotary(name="rotary")(x, factors=factors))


def modeless():
    inputs = keras.Input((9, 3))
    return model(inputs, Outer(name="outer")(inputs))


# What has a gate, beside the hidden dense layer.
MODELS = {
    class_token: {"embedding_patches"},
    pooling: {
        *("first", "pooling_attention_value"),
        "pooling_attention_attention_output",
    },
    positions: {"patches"},
    frames: {"patches"},
    rotary: {"first", "rotary_out"},
    modeless: {"outer_inner_dense"},
}


@pytest.mark.parametrize("make", MODELS)
def test_models_are_pruned(make, tmp_path):
    keras.utils.set_random_seed(0)
    made = make()
    opaque = [x.name for x in trace.trace(made).nodes if x.opaque]
    assert opaque == (["angles"] if make is rotary else [])
    gated, *_ = prune(made, path=tmp_path / "small.keras")
    assert MODELS[make] | {"hidden"} <= {*keras_bar.explain(gated).gated}


def test_a_variable_that_counts_keeps_a_layer_whole():
    class Counting(layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(
                (), "zeros", dtype="int32", trainable=False, name="calls"
            )

        def call(self, x):
            self.calls.assign(self.calls + 1)
            return ops.relu(x)

    inputs = keras.Input((9, SIZE))
    made = model(inputs, Counting(name="counting")(inputs))
    assert trace.trace(made).nodes[0].opaque


class Padded(keras.layers.Layer):
    """Builds a branch for padded images, and calls it on others."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pad = layers.ZeroPadding2D(1)
        self.branches = [
            keras.Sequential(
                [
                    layers.Conv2D(8, size, strides=2, use_bias=False),
                    layers.BatchNormalization(),
                ]
            )
            for size in (1, 3)
        ]

    def build(self, input_shape):
        for branch in self.branches:
            branch.build(self.pad.compute_output_shape(input_shape))

    def call(self, x, training=None):
        small, large = self.branches
        x, y = (
            small(x, training=training),
            large(self.pad(x), training=training),
        )
        return ops.relu(x + y)


def test_a_sequential_that_was_built_for_another_size():
    inputs = keras.Input((8, 8, 3))
    x = Padded(name="stem")(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, name="last")(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    gated, hard, small = prune(model)
    assert len(keras_bar.explain(gated).gated) == 3
    assert not keras_bar.explain(gated).boundaries
    flops = {x.flops for x in keras_bar.measure_cost(model).layers}
    assert {2 * 16 * 3 * 8, 2 * 16 * 27 * 8} <= flops
