"""Gates of depthwise blocks whose channels are scaled."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import models
from tests.helpers.plain import head
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import conv_norm_relu
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import randomize

pytestmark = pytest.mark.core


def test_a_scaled_depthwise_convolution_loses_its_channels():
    """Closed in front of it, they would be constants behind its normalization,
    and vary again once squeeze-and-excitation scales them."""
    model = randomize(models.MobileNet((8, 8, 3), 10, ((24, 64, 1),)))
    gated = keras_bar.gate(model, seed=0)
    named = {x.name: x for x in gates_of(gated)}
    for name, part in (("expand_conv", 64), ("relu", 16)):
        named[f"block1_{name}_gate"].set_alive(np.arange(part) % 2 == 0)
    for gate in gates_of(gated):
        if not gate.is_fixed:
            gate.set_alive(np.ones(gate.channels, bool))
    narrow = models.MobileNet((8, 8, 3), 10, ((24, 32, 1),))
    expected, found = map(keras_bar.measure_cost, (narrow, gated))
    for metric in ("volume", "flops", "params"):
        assert getattr(found, metric) == getattr(expected, metric)
    assert_invariants(gated)
    again = keras_bar.gate(gated)
    assert [x.name for x in gates_of(again)] == [*named]
    assert keras_bar.explain(gated).gated == keras_bar.explain(model).gated


def test_a_depthwise_convolution_that_multiplies_channels_is_not_passed():
    """The gates of what is in front of it have as many factors as channels."""
    inputs = keras.Input((6, 6, 3))
    x = conv_norm_relu(inputs, 4, name="front")
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    scale = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = x * layers.Conv2D(8, 1, activation="sigmoid")(scale)
    model = randomize(keras.Model(inputs, head(layers.Conv2D(5, 1)(x))))
    gated = keras_bar.gate(model)
    named = {x.name: x.channels for x in gates_of(gated)}
    assert named["front_gate"] == 4
    assert_invariants(close_gates(gated))
    small = keras_bar.prune(model, 0.6, "flops", connectivity="mixed")
    assert small.get_layer("front").filters < 4
