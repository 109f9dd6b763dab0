"""Convolutions in groups lose whole groups."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import conv_norm_relu
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import randomize
from tests.helpers.pruning import set_gate

# The channels of the convolution in front, those of the grouped one (two for
# each of three groups), and the groups that are left.
CLOSED = {
    "written": ([1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 1], 2),
    "read": ([1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1], 2),
    "both": ([1, 0, 0, 0, 1, 1], [0, 1, 1, 1, 0, 0], 1),
    "none": ([1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0], 3),
}


@pytest.mark.parametrize("zero", (False, True))
@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "use_bias": False},
        {"padding": "valid", "activation": "relu"},
        {"padding": "valid", "use_bias": False, "strides": 2},
    ],
    ids=["padded", "biased", "strided"],
)
@pytest.mark.parametrize("name", CLOSED)
def test_groups(name, options, zero):
    first, second, groups = (np.array(x) for x in CLOSED[name])

    def layer(x):
        x = layers.Conv2D(6, 3, groups=3, name="grouped", **options)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    gated = keras_bar.gate(randomize(model_with(layer, zero)))
    assert keras_bar.explain(gated).gated == ["first", "grouped", "last"]
    factors = np.array([1.0, 0.1, 0.5, 2.0, 0.3, 0.7])
    for gate, alive in zip(gates_of(gated), (first, second), strict=False):
        set_gate(gate, np.where(alive, factors, -5.0))
    set_gate(gates_of(gated)[2], np.ones(3))
    hard, small = assert_invariants(gated, BOTH)
    assert not keras_bar.explain(small).adjustments
    grouped = small.get_layer("grouped")
    # Constants that end at the border of the image are computed.
    computes_constants = not zero and options["padding"] == "same"
    if name == "written" or not computes_constants:
        assert grouped.groups == groups
        assert grouped.filters == 2 * groups
    assert filters_of(small) <= first.sum()


def test_all_of_its_input_dead():
    """A group without input is a constant."""

    def layer(x):
        y = layers.Conv2D(6, 3, groups=3, name="grouped")(x)
        z = layers.Conv2D(6, 3, name="beside")(x)
        return layers.Add()([layers.ReLU()(y), z])

    gated = keras_bar.gate(randomize(model_with(layer, True)))
    for gate in gates_of(gated):
        size = gate.channels
        alive = np.arange(size) >= (2 if gate.name == "first_gate" else 0)
        set_gate(gate, np.where(alive, 1.0, -5.0))
    hard, small = assert_invariants(gated)
    assert small.get_layer("grouped").groups == 2


def test_resnext(tmp_path):
    x = inputs = keras.Input((12, 12, 3))
    x = conv_norm_relu(x, 16)
    for i in range(2):
        y = conv_norm_relu(x, 8, 1, name=f"in{i}")
        y = conv_norm_relu(y, 8, 3, groups=4, name=f"grouped{i}")
        y = layers.BatchNormalization()(layers.Conv2D(16, 1)(y))
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    gated, hard, small = prune(
        keras.Model(inputs, layers.Dense(3)(x)),
        recalibrated=True,
        connectivities=BOTH,
        path=tmp_path / "small.keras",
    )
    assert not keras_bar.explain(gated).ungated
    assert not keras_bar.explain(small).boundaries
