"""Decoders of text: causal masks for every sample, and attention of users that
takes more than Keras's."""

import keras
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize

pytestmark = pytest.mark.core
STEPS, SIZE = 6, 8


class Cached(layers.MultiHeadAttention):
    """Its `call` takes what the inherited description of its outputs does not
    know, as in keras-hub."""

    def call(
        self, query, value, attention_mask=None, cache=None, training=None
    ):
        if cache is not None:
            raise NotImplementedError
        return super().call(
            query, value, attention_mask=attention_mask, training=training
        )


class Decoder(layers.Layer):
    """A block that looks back, with a mask for every sample."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = Cached(2, 4, name="attention")
        self.up = layers.Dense(12, "relu", name="up")
        self.down = layers.Dense(SIZE, name="down")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.up.build(shape)
        self.down.build((*shape[:-1], 12))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x):
        batch, steps, _ = ops.shape(x)
        places = ops.arange(steps)
        mask = ops.expand_dims(places, 1) >= places
        mask = ops.broadcast_to(mask[None], (batch, steps, steps))
        x = x + self.attention(x, x, attention_mask=mask, cache=None)
        return x + self.down(self.up(x))


class Different(Decoder):
    """Every sample looks back by another number of steps."""

    def call(self, x):
        batch, steps, _ = ops.shape(x)
        mask = ops.reshape(ops.arange(batch * steps), (batch, steps, 1)) % 5 > 1
        mask = ops.broadcast_to(mask, (batch, steps, steps))
        return x + self.attention(x, x, attention_mask=mask)


@keras.saving.register_keras_serializable("tests")
class Centered(layers.Layer):
    """Describes no output: Keras calls it. It stays whole."""

    def build(self, shape):
        self.part = self.add_weight(
            shape=(), initializer="ones", regularizer="l2"
        )

    def call(self, x):
        return x - self.part * ops.mean(ops.square(x), axis=-1, keepdims=True)


def test_causal_masks_for_every_sample(tmp_path):
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(5, SIZE)(inputs)
    x = Decoder(name="second")(Decoder(name="first")(x))
    model = randomize(keras.Model(inputs, layers.Dense(5)(x)))
    gated = keras_bar.gate(model)
    told = keras_bar.explain(gated)
    assert {"first_attention_value", "second_up"} <= {*told.gated}
    words = inputs_for(model, batch=3)
    assert difference(open_gates(gated), model, words) < 1e-5
    path = tmp_path / "small.keras"
    _, small = assert_invariants(close_gates(gated), path=path)
    expected = ops.convert_to_numpy(small(words))
    words[:, 3:] = 1  # Nothing that follows changes what was in front of it.
    found = ops.convert_to_numpy(small(words))
    assert abs(found - expected)[:, :3].max() < 1e-5
    assert abs(found - expected)[:, 3:].max() > 1e-3


def test_masks_that_differ_between_samples_stay_inside():
    inputs = keras.Input((STEPS, SIZE))
    x = layers.Dense(12, "relu", name="first")(inputs)
    x = Different(name="odd")(layers.Dense(SIZE)(x))
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    gated = keras_bar.gate(model)
    assert keras_bar.explain(gated).gated == ["first"]
    assert difference(open_gates(gated), model, inputs_for(model)) < 1e-5


def test_a_product_with_a_constant_is_dense(tmp_path):
    """Keras takes it for sparse, as soon as it loads the file."""
    inputs = keras.Input((STEPS, SIZE))
    x = layers.Dense(12, "relu", name="first")(inputs)
    middle = keras.Model(inputs, layers.Dense(SIZE)(x) * ops.sqrt(8.0))
    outer = keras.Input((STEPS, SIZE))
    centered = Centered(name="centered")
    centered.compute_output_spec = lambda x: keras.KerasTensor(x.shape, x.dtype)
    model = keras.Model(outer, centered(middle(outer)))
    del centered.compute_output_spec
    gated = keras_bar.gate(randomize(model))
    assert difference(open_gates(gated), model, inputs_for(model)) < 1e-5
    assert_invariants(close_gates(gated), path=tmp_path / "small.keras")
