"""Layers that a model calls more than once have one gate for all calls."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize
from tests.helpers.pruning import recalibrate
from tests.helpers.shared_networks import NETWORKS
from tests.helpers.shared_networks import called
from tests.helpers.shared_networks import detector
from tests.helpers.shared_networks import tied

pytestmark = pytest.mark.core


@pytest.mark.parametrize("connectivity", BOTH)
@pytest.mark.parametrize("name", NETWORKS)
def test_invariants(name, connectivity, tmp_path):
    model = randomize(NETWORKS[name]())
    gated = keras_bar.gate(model, connectivity=connectivity, seed=0)
    assert difference(open_gates(gated), model, inputs_for(model)) < 1e-4
    for seed in range(3):
        recalibrate(close_gates(gated, seed, share=0.4))
        path = None if seed else tmp_path / "small.keras"
        _, small = assert_invariants(gated, BOTH, path=path)
    again = keras_bar.gate(small)
    assert difference(open_gates(again), small, inputs_for(small)) < 1e-4


def gated(model, **options):
    return keras_bar.gate(randomize(model), seed=0, **options)


def names(model):
    return [x.name.removesuffix("_gate") for x in gates_of(model)]


def test_one_gate_serves_all_calls():
    model = gated(detector("shared", 3))
    levels = ["level0", "level1", "level2"]
    assert sorted(names(model)) == ["head", *levels, "tower0", "tower1"]
    assert not model.ungated_reasons


def test_a_kernel_reads_what_any_call_brings():
    """Levels of the pyramid keep other channels; the tower does not."""
    model = open_gates(gated(detector("shared", 2)))
    masks = {"level0": [0, 1], "level1": [1, 4], "tower0": [2, 5, 7]}
    for name, kept in masks.items():
        gate = model.get_layer(f"{name}_gate")
        gate.set_alive(np.isin(np.arange(gate.channels), kept))
    _, small = assert_invariants(model, BOTH)
    assert small.get_layer("tower0").kernel.shape[2:] == (3, 3)
    assert small.get_layer("tower1").kernel.shape[2:] == (3, 8)
    assert small.get_layer("norm0").gamma.shape == (3,)


def test_a_tied_residual_block_keeps_the_channels_of_its_stream():
    model = gated(tied(residual=True), connectivity="regular")
    assert names(model) == ["stem", "conv1"]
    model.get_layer("stem_gate").set_alive(np.arange(6) < 2)
    _, small = assert_invariants(open_gates_but(model, "stem_gate"), BOTH)
    assert small.get_layer("conv1").kernel.shape[2:] == (2, 8)
    assert small.get_layer("conv2").kernel.shape[2:] == (8, 2)
    assert not any("pad" in x.name for x in small.operations)


def open_gates_but(model, name):
    for gate in gates_of(model):
        if gate.name != name:
            gate.set_alive(np.ones(gate.channels, bool))
    return model


def test_factors_are_folded_into_the_shared_weights():
    model = close_gates(gated(detector("shared", 3)), share=0.3)
    small = keras_bar.compact(model)
    assert not any("scale" in x.name for x in small.operations)


def test_a_call_may_be_closed_alone():
    model = gated(detector(None, 3))
    for gate in gates_of(model):
        gate.set_alive(np.arange(gate.channels) < 3)
    closed = model.get_layer("level2_gate")
    closed.set_alive(np.zeros(closed.channels, bool))
    assert_invariants(model, BOTH)


def test_a_layer_that_gives_an_output_in_one_call_keeps_all_channels():
    x = inputs = keras.Input((8, 8, 4))
    block = layers.Conv2D(4, 3, padding="same", name="block")
    x = layers.Conv2D(4, 1, name="front")(x)
    model = keras.Model(inputs, called(x, block, layers.ReLU(), block))
    found = keras_bar.explain(model)
    assert found.gated == ["front"]
    assert found.ungated == {
        "block": "it has the weights of 'block_1': its channels are the "
        "model's output",
        "block_1": "its channels are the model's output",
    }
    assert_invariants(close_gates(gated(model)), BOTH)


def test_calls_on_tensors_of_different_ranks_have_no_gate():
    a, b = keras.Input((4,)), keras.Input((5, 4))
    wide = layers.Dense(6, activation="relu", name="wide")
    x = layers.GlobalAveragePooling1D()(wide(b))
    x = layers.Dense(3)(layers.Add()([wide(a), x]))
    found = keras_bar.explain(keras.Model([a, b], x))
    why = "its calls make tensors of different ranks"
    assert found.ungated == {"wide": why, "wide_1": why}


def test_calls_that_differ_keep_all_channels():
    """A normalization of the model's input, whose channels are unknown, that
    normalizes hidden channels, too."""
    inputs = keras.Input((8, 8, 4))
    norm = layers.BatchNormalization(name="norm")
    x = called(
        inputs,
        norm,
        layers.Conv2D(4, 3, name="a"),
        layers.ReLU(),
        norm,
        layers.Conv2D(4, 3, name="b"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2),
    )
    model = gated(keras.Model(inputs, x))
    assert names(model) == ["b"]
    why = "the model calls it 2 times: along different axes"
    assert model.ungated_reasons == {
        "a": f"'norm_1' needs all of its channels: {why}",
        "norm": why,
        "norm_1": why,
    }
    assert_invariants(close_gates(model), BOTH)


@keras.saving.register_keras_serializable("shared_calls_test")
class OwnDense(layers.Dense):
    """A layer with a registered rule."""


def test_layers_with_registered_rules_keep_all_channels():
    keras_bar.register_rule(OwnDense, like="Dense")
    inputs = keras.Input((4,))
    own = OwnDense(6, name="own")
    x = called(inputs, layers.Dense(6, name="front"), own, layers.ReLU(), own)
    model = keras.Model(inputs, layers.Dense(2)(x))
    found = keras_bar.explain(model)
    assert "calls it 2 times by a registered rule" in found.ungated["own"]


def test_a_skipped_layer_has_no_gate_in_any_call():
    model = gated(detector("shared", 2), skip=["tower0"])
    assert "tower0" not in names(model) and "tower1" in names(model)
    assert set(model.ungated_reasons) >= {"tower0", "tower0_1"}


def test_a_gated_encoder_may_be_called_twice():
    x = keras.Input((8, 8, 3))
    y = called(
        x,
        layers.Conv2D(6, 3, padding="same", name="conv"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(5, 3, 2, name="last"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4),
    )
    encoder = close_gates(gated(keras.Model(x, y)), share=0.3)
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    product = layers.Multiply()([encoder(a), encoder(b)])
    model = keras.Model([a, b], layers.Dense(1)(product))
    _, small = assert_invariants(model, BOTH)
    inner = keras_bar.compact(encoder).get_layer("conv").kernel.shape
    found = [x.kernel.shape for x in small.layers if x.name.endswith("conv")]
    assert found == [inner]


def test_groups_of_a_shared_convolution_close_as_a_whole():
    x = inputs = keras.Input((8, 8, 3))
    stem = layers.Conv2D(8, 3, padding="same", name="stem")
    wide = layers.Conv2D(16, 3, groups=4, padding="same", name="wide")
    ends = [layers.ReLU(), layers.Conv2D(4, 1), layers.GlobalMaxPooling2D()]
    sizes = x, layers.AveragePooling2D(2)(x)
    y = [called(z, stem, layers.ReLU(), wide, *ends) for z in sizes]
    model = gated(keras.Model(inputs, layers.Dense(2)(layers.Add()(y))))
    gate = model.get_layer("wide_gate")
    assert gate.groups == 4 and gate.channels < 16
    for x in gates_of(model):
        x.set_alive(np.arange(x.channels) % 2 == 0)
    _, small = assert_invariants(model, BOTH)
    wide = small.get_layer("wide")
    assert wide.filters == 8 and ops.size(wide.kernel) < 3 * 3 * 2 * 16


def test_an_activation_that_several_layers_use_ties_no_gates():
    x = inputs = keras.Input((8, 8, 3))
    relu = layers.ReLU()
    for name in "ab":
        x = layers.Conv2D(6, 3, padding="same", name=name)(x)
        x = relu(layers.DepthwiseConv2D(3, padding="same")(x))
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(6, 1, activation="sigmoid", name=f"{name}2")(y)
        x = layers.Multiply()([x, y])
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = gated(keras.Model(inputs, x))
    assert {"a", "b"} <= set(names(model))
    assert_invariants(close_gates(model), BOTH)
