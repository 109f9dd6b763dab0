"""Layers that need all of their channels, and those nobody knows."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.layers import HardConcreteGate
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import behind
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import randomize


@keras.saving.register_keras_serializable("tests")
class Custom(layers.Layer):
    """A layer nobody knows: its channels see each other."""

    def call(self, x):
        return x + ops.cumsum(x, axis=-1)


BOUNDARIES = {
    "custom": lambda: Custom(name="odd"),
    "softmax": lambda: layers.Softmax(name="odd"),
    "pad_both": lambda: lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 0], [0, 2]]),
    "take_twice": lambda: lambda x: ops.take(x, [0, 1, 1, 2], axis=-1),
    "reshape": lambda: layers.Reshape((6, 3, 12), name="odd"),
    "other_axis_norm": lambda: layers.BatchNormalization(axis=1, name="odd"),
    "ops_softmax": lambda: ops.softmax,
}


REDUCTIONS = {
    "mean": lambda x: ops.mean(x, axis=-1, keepdims=True),
    "max": lambda x: ops.max(x, axis=(1, 3), keepdims=True),
    "sum": lambda x: ops.sum(x, axis=-1, keepdims=True),
    "samples": lambda x: ops.mean(x, axis=(0, 1, 2)),
    "everything": ops.mean,
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_over_channels(name):
    """Dead channels are restored in front; what writes them has a gate."""

    def layer(x):
        y = layers.Conv2D(6, 1, name="reduced")(x)
        y = layers.Conv2D(5, 1, name="behind")(y + REDUCTIONS[name](y))
        return layers.GlobalAveragePooling2D()(y)

    gated = keras_bar.gate(randomize(model_with(layer, zero=False)))
    explanation = keras_bar.explain(gated)
    assert {"reduced", "behind"} <= {*explanation.gated}
    assert any("reduces over" in x for x in explanation.boundaries.values())
    assert_invariants(close_gates(gated))


@pytest.mark.parametrize(
    ("name", "dead"),
    [(name, ()) for name in BOUNDARIES]
    + [(name, ("middle_gate",)) for name in ("custom", "reshape")],
)
def test_boundaries(name, dead):
    """Restored to full width in front, free again behind, and reported; also
    where everything in front is dead."""
    odd = BOUNDARIES[name]()

    def layer(x):
        y = layers.Conv2D(5, 1, name="middle")(x)
        y = layers.Conv2D(6, 1, name="ungated")(y)
        y = layers.Conv2D(4, 1, name="behind")(odd(y))
        return layers.Concatenate()(
            [
                layers.GlobalAveragePooling2D()(y),
                layers.GlobalAveragePooling2D()(x),
            ]
        )

    gated = keras_bar.gate(randomize(model_with(layer, zero=False)))
    why = keras_bar.explain(gated).ungated["ungated"]
    assert "needs all of its channels" in why
    close_gates(gated, dead=dead)
    hard, small = assert_invariants(gated)
    assert small.get_layer("behind").filters < 4


def test_a_reshape_into_the_batch_is_a_boundary():
    """It keeps the number of channels, and moves values of one sample into
    channels of several."""
    x = inputs = keras.Input((6, CHANNELS))
    x = layers.Dense(CHANNELS, "relu", name="first")(x)
    x = ops.reshape(layers.Permute((2, 1))(x), (-1, CHANNELS, 3))
    x = layers.Dense(4, "relu", name="behind")(layers.Permute((2, 1))(x))
    x = layers.Flatten()(ops.reshape(x, (-1, 6, 4)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    why = keras_bar.explain(model).ungated["first"]
    assert "it moves values between channels" in why
    prune(model)


def test_attention_is_a_boundary():
    def layer(x):
        x = layers.Reshape((36, CHANNELS))(x)
        return layers.Attention(name="attention")([x, x])

    gated = keras_bar.gate(randomize(model_with(layer, zero=True)))
    explanation = keras_bar.explain(gated)
    assert explanation.gated == ["last"]
    assert "rule knows how Attention" in explanation.ungated["first"]
    close_gates(gated)
    assert_invariants(gated)


def recurrent(x):
    x = layers.Embedding(9, CHANNELS, mask_zero=True, name="table")(x)
    return layers.LSTM(CHANNELS, return_sequences=True, name="recurrent")(x)


@keras.saving.register_keras_serializable("tests")
class Decoder(layers.Layer):
    """Attention and a dense layer that only its code knows of."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")
        self.dense = layers.Dense(CHANNELS, name="dense")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.dense.build(shape)

    def call(self, x):
        y = x + self.attention(x, x)
        return self.dense(y) if ops.max(y) > 0 else y

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_layers_that_no_gated_layer_feeds_are_reported():
    """With the reason why their weights stay, but not what has none."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Softmax(name="harmless")(recurrent(inputs))
    x = layers.Dense(6, "relu", name="first")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    for explained in (model, keras_bar.gate(model)):
        told = keras_bar.explain(explained)
        assert told.gated == ["first"] and not told.boundaries
        assert [*told.ungated] == ["table", "recurrent"]
        assert "no rule knows" in told.ungated["recurrent"]


def test_an_error_that_nothing_can_be_pruned_has_the_reasons():
    inputs = keras.Input((5, CHANNELS))
    x = Decoder(name="decoder")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    told = keras_bar.explain(model)
    assert [*told.ungated] == ["decoder", "decoder/dense"]
    why = told.ungated["decoder"]
    assert "Decoder" in why and "does not run on symbolic tensors" in why
    with pytest.raises(ValueError, match="can be pruned") as error:
        keras_bar.gate(model)
    assert f"decoder: {why}" in str(error.value)


def test_a_model_is_explained_as_its_gated_copy():
    def layer(x):
        return layers.Conv2D(4, 1)(layers.LayerNormalization(name="norm")(x))

    model = model_with(layer, zero=True)
    told = keras_bar.explain(model)
    assert told.boundaries == {"norm": "it normalizes over the channels"}
    assert told == keras_bar.explain(keras_bar.gate(model))


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no_norm"])
def test_a_gate_in_front_of_a_boundary_is_restored(norm):
    """By hand gates can be put anywhere."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(CHANNELS, 1)(inputs)
    x = HardConcreteGate(name="by_hand")(x)
    if norm:
        x = layers.BatchNormalization()(x)
    x = layers.Softmax(name="odd")(x)
    model = randomize(keras.Model(inputs, behind(x)))
    for dead in ((), ("by_hand",)):
        close_gates(model, dead=dead)
        if dead:
            with pytest.raises(ValueError, match="disconnected"):
                keras_bar.compact(model)
            continue
        hard, small = assert_invariants(model)
        assert "odd" in keras_bar.explain(small).boundaries
        assert keras_bar.explain(small).restored


def test_unknown_functions_are_not_taken_for_known_ones():
    """A function of the same name may do anything."""

    def relu(x):
        return x - ops.mean(x, axis=-1, keepdims=True)

    gated = keras_bar.gate(
        model_with(lambda x: layers.Activation(relu)(x), zero=True)
    )
    assert "first" in keras_bar.explain(gated).ungated


def test_division_by_channels_is_a_boundary():
    gated = keras_bar.gate(model_with(lambda x: 1.0 / x, zero=True))
    assert "finite" in keras_bar.explain(gated).ungated["first"]


def test_a_constant_tensor_is_a_boundary():
    factors = np.linspace(0.1, 0.6, CHANNELS, dtype="float32")
    gated, hard, small = prune(model_with(lambda x: x * factors, zero=True))
    assert "constant tensor" in keras_bar.explain(small).ungated["first"]
