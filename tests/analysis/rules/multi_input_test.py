"""Additions, products and concatenations, and squeeze-and-excitation."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.layers import MixedResidual
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import behind
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import randomize


def branches(x):
    """Two convolutions of the same input, with gates of their own; one of them
    with constants where it is dead."""
    a = layers.Conv2D(CHANNELS, 1, name="a")(x)
    b = layers.Conv2D(CHANNELS, 3, padding="same", name="b")(x)
    return a, layers.BatchNormalization()(layers.ReLU()(b))


MERGING = {
    "add": lambda: layers.Add(),
    "subtract": lambda: layers.Subtract(),
    "multiply": lambda: layers.Multiply(),
    "average": lambda: layers.Average(),
    "maximum": lambda: layers.Maximum(),
    "minimum": lambda: layers.Minimum(),
    "concatenate": lambda: layers.Concatenate(),
    "ops_add": lambda: lambda x: x[0] + x[1],
    "ops_subtract": lambda: lambda x: ops.subtract(x[1], x[0]),
    "ops_multiply": lambda: lambda x: x[0] * x[1],
    "ops_maximum": lambda: lambda x: ops.maximum(*x),
    "ops_minimum": lambda: lambda x: ops.minimum(*x),
    "ops_concatenate": lambda: lambda x: ops.concatenate(x, axis=-1),
    "mixed_residual": lambda: MixedResidual(
        [[5, 0, 2, 3, 1, 7], [1, 2, 3, 4, 5, 6]],
        channels=8,
        constant=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    ),
}


@pytest.mark.parametrize(
    ("name", "dead"),
    [
        (name, dead)
        for name in MERGING
        for dead in ((), ("a_gate",), ("b_gate",))
        if not dead or not name.startswith("ops_")
    ],
)
def test_merging(name, dead):
    """Also where one side is dead throughout."""
    inputs = keras.Input((6, 6, 3))
    merged = MERGING[name]()([*branches(inputs)])
    model = keras.Model(inputs, behind(merged))
    gated = keras_bar.gate(randomize(model))
    assert {x.name for x in gates_of(gated)} >= {"a_gate", "b_gate"}
    close_gates(gated, dead=dead)
    if name.endswith("multiply") and dead == ("a_gate",):
        with pytest.raises(ValueError, match="disconnected"):
            keras_bar.compact(gated)
        return
    # An operation has the rule of its layer.
    plain = dead or name.startswith("ops_")
    hard, small = assert_invariants(gated, ("mixed",) if plain else BOTH)
    assert not keras_bar.explain(small).adjustments
    kept = {x.name for x in small.layers} & {"a", "b"}
    assert len(kept) == 2 - len(dead)


@pytest.mark.parametrize("reduce", ["layer", "kept", "ops"])
@pytest.mark.parametrize("dead", [(), ("squeeze_gate",)])
def test_squeeze_and_excitation(dead, reduce):
    """The factors follow the channels they scale; a dead squeeze leaves a
    constant factor."""

    def layer(x):
        if reduce == "ops":
            factors = ops.mean(x, axis=(1, 2), keepdims=True)
        else:
            keep = reduce == "kept"
            factors = layers.GlobalAveragePooling2D(keepdims=keep)(x)
            if not keep:
                factors = layers.Reshape((1, 1, CHANNELS))(factors)
        factors = layers.Conv2D(4, 1, activation="relu", name="squeeze")(
            factors
        )
        factors = layers.Conv2D(
            CHANNELS, 1, activation="sigmoid", name="excite"
        )(factors)
        by_layer = reduce == "layer"
        return layers.Multiply()([x, factors]) if by_layer else x * factors

    gated = keras_bar.gate(randomize(model_with(layer, zero=True)))
    assert {x.name for x in gates_of(gated)} == {
        "first_gate",
        "squeeze_gate",
        "last_gate",
    }
    assert "follow" in keras_bar.explain(gated).ungated["excite"]
    close_gates(gated, dead=dead)
    hard, small = assert_invariants(gated)
    alive = int(gated.get_layer("first_gate").alive().sum())
    assert filters_of(small) == alive
    names = {x.name for x in small.layers}
    if dead:
        assert not {"squeeze", "excite"} & names
    else:
        assert filters_of(small, "excite") == alive


@pytest.mark.parametrize("own", [True, False])
def test_channels_scaled_by_what_is_made_of_them(own):
    """Without a layer between; factors of another layer's channels follow."""

    def layer(x):
        y = x if own else layers.Conv2D(CHANNELS, 1, name="other")(x)
        factors = ops.sigmoid(ops.mean(y, axis=(1, 2), keepdims=True))
        return x * factors

    gated, _, small = prune(model_with(layer, zero=True))
    assert filters_of(small) == gates_of(gated)[0].alive().sum()
    if not own:
        assert "follow" in keras_bar.explain(gated).ungated["other"]


def test_spatial_attention():
    """One channel that scales all others."""

    def layer(x):
        mask = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)
        return layers.Multiply()([x, mask])

    prune(model_with(layer, zero=True))


@pytest.mark.parametrize("other", ["zero", "number", "branch"])
def test_where(other):
    """Chosen by a mask with one channel: 0 only where both branches are."""
    inputs = keras.Input((6, 6, 3))
    a = layers.Conv2D(CHANNELS, 1, name="a")(inputs)
    b = layers.Conv2D(CHANNELS, 3, padding="same", name="b")(inputs)
    mask = ops.cast(inputs[..., :1], "bool")
    branch = {"zero": 0.0, "number": 0.5, "branch": b}[other]
    model = keras.Model(inputs, behind(ops.where(mask, a, branch)))
    gated = keras_bar.gate(randomize(model))
    open_channels = {"a": [0, 1, 2], "b": [1, 2, 3]}
    for name, channels in open_channels.items():
        if other == "branch" or name == "a":
            mask = np.isin(np.arange(CHANNELS), channels)
            gated.get_layer(f"{name}_gate").set_alive(mask)
    gated.get_layer("last_gate").set_alive(np.ones(3, bool))
    _, small = assert_invariants(gated, ("mixed",))
    (kernel, *_) = small.get_layer("last").get_weights()
    # Channels 0 to 2 alone; all of them; the union of both.
    assert kernel.shape[-2] == {"zero": 3, "number": 6, "branch": 4}[other]
    assert not keras_bar.explain(small).boundaries


def test_where_with_a_condition_of_the_same_channels():
    """A leaky activation by hand."""
    _, _, small = prune(
        model_with(lambda x: ops.where(x > 0.0, x, 0.1 * x), zero=True)
    )
    assert filters_of(small) < CHANNELS


def test_a_sum_with_a_tensor_of_fewer_dimensions():
    """Without a batch: the last dimensions fit."""
    inputs = keras.Input((6, 6, 3))
    a = layers.Conv2D(CHANNELS, 1, name="a")(inputs)
    b = ops.max(layers.Conv2D(CHANNELS, 1, name="b")(inputs), axis=0)
    gated = keras_bar.gate(randomize(keras.Model(inputs, behind(a + b))))
    assert "a_gate" in {x.name for x in gates_of(gated)}
    close_gates(gated)
    assert_invariants(gated, ("mixed",))


@pytest.mark.parametrize("size", [1, CHANNELS])
def test_a_sum_with_a_constant(size):
    """One that differs between channels needs all of them."""
    constant = np.random.default_rng(0).normal(size=(6, 6, size))
    model = model_with(lambda x: x + constant.astype("float32"), zero=True)
    if size > 1:
        told = keras_bar.explain(model)
        assert "with a constant tensor" in told.ungated["first"]
        return
    _, _, small = prune(model)
    assert not keras_bar.explain(small).boundaries


def test_a_condition_made_of_gated_channels():
    """Booleans are not restored from constants."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(CHANNELS, 3, padding="same", name="a")(inputs)
    condition = ops.cast(layers.Activation("sigmoid")(x) - 0.4, "bool")
    b, c = (layers.Conv2D(CHANNELS, 1)(inputs) for _ in range(2))
    model = keras.Model(inputs, behind(ops.where(condition, b, c)))
    gated = close_gates(keras_bar.gate(randomize(model)))
    assert_invariants(gated)


def test_a_mask_is_no_second_input_of_a_kernel():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.Dense(6, name="masked")(x)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(2)(layers.Dense(8, name="later")(x))
    model = keras.Model(inputs, x)
    close_gates(gated := keras_bar.gate(model))
    assert keras_bar.explain(gated).gated == ["masked", "later"]
    tokens = np.arange(10).reshape(2, 5)
    np.testing.assert_allclose(
        keras_bar.compact(gated).predict(tokens, verbose=0),
        keras_bar.hard_prune(gated).predict(tokens, verbose=0),
        rtol=1e-4,
        atol=1e-6,
    )
