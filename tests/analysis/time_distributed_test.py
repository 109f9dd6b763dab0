"""Layers that are applied to every time step."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from tests.helpers import pruning
from tests.helpers.subclassed import copy_of

pytestmark = pytest.mark.core

FRAMES = (3, 6, 6, 2)


def each(layer, x):
    return layers.TimeDistributed(layer, name=f"each_{layer.name}")(x)


def video():
    """A convolution and an encoder of frames, then a dense layer."""
    encoder = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(5, 3, activation="relu", name="second"),
            layers.GlobalAveragePooling2D(),
        ],
        name="encoder",
    )
    inputs = keras.Input(FRAMES)
    x = each(layers.Conv2D(4, 3, padding="same", name="first"), inputs)
    x = each(encoder, layers.ReLU()(x))
    x = each(layers.Dense(6, "relu", name="hidden"), x)
    x = layers.Flatten()(x)
    return pruning.randomize(keras.Model(inputs, layers.Dense(2)(x)))


def test_the_layer_inside_has_a_gate(tmp_path):
    gated = keras_bar.gate(video(), seed=0)
    names = {x.name for x in pruning.gates_of(gated)}
    assert names == {
        "each_first_first_gate",
        "each_encoder_encoder_second_gate",
        "each_hidden_hidden_gate",
    }
    pruning.assert_invariants(
        pruning.close_gates(gated),
        ("mixed", "regular"),
        path=tmp_path / "small.keras",
    )


def test_costs_are_those_of_all_frames():
    cost = keras_bar.measure_cost(video())
    first, second = 6 * 6 * 3 * 3 * 2 * 4, 4 * 4 * 3 * 3 * 4 * 5
    assert cost.flops == 2 * (3 * (first + second + 5 * 6) + 3 * 6 * 2)
    assert not cost.uncounted


def test_batch_normalization_has_other_statistics_for_each_step():
    """It stays whole: in training every time step is a batch of its own."""
    inputs = keras.Input(FRAMES)
    x = each(layers.BatchNormalization(name="norm"), inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert "each_norm" in {x.name for x in copy_of(model).layers}
    x = np.random.default_rng(0).normal(size=(2, *FRAMES)).astype("float32")
    assert pruning.difference(copy_of(model), model, x) < 1e-6
