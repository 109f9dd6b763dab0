"""Convolutions in groups lose whole groups, or some channels of each."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.layers import HardConcreteGate
from tests.helpers import one_layer
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import conv_norm_relu
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize
from tests.helpers.pruning import set_gate

# The channels of the convolution in front, those of the grouped one (two for
# each of three groups), the groups that are left, and how many places of each
# group are read and written.
CLOSED = {
    "written": ([1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 1], 2, (2, 2)),
    "read": ([1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1], 2, (2, 2)),
    "both": ([1, 0, 0, 0, 1, 1], [0, 1, 1, 1, 0, 0], 1, (1, 1)),
    "places": ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0], 3, (1, 1)),
    "none": ([1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0], 3, (2, 2)),
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
def test_groups(name, options, zero, monkeypatch):
    first, second, groups, _ = map(np.array, CLOSED[name])

    def layer(x):
        x = layers.Conv2D(6, 3, groups=3, name="grouped", **options)(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(HardConcreteGate()(x))

    def conv(x, zero, rank):
        """Every channel has a factor of its own, as a user may want it."""
        x = HardConcreteGate()(layers.Conv2D(6, 1, name="first")(x))
        return x if zero else layers.BatchNormalization()(layers.ReLU()(x))

    monkeypatch.setattr(one_layer, "before", conv)
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
        read, written = CLOSED[name][3]
        assert grouped.groups == groups
        # Constants are read.
        read = read if zero else 2
        assert grouped.kernel.shape[-2:] == (read, written * groups)
    assert filters_of(small) <= first.sum()


def in_groups(groups, filters):
    """A model with a grouped convolution, whose gates are open."""

    def layer(x):
        conv = layers.Conv2D(filters, 3, groups=groups, name="grouped")
        return layers.ReLU()(layers.BatchNormalization()(conv(x)))

    model = model_with(layer, True)
    return open_gates(keras_bar.gate(randomize(model)))


def test_a_factor_per_group():
    """Three groups of two channels: groups leave more choice."""
    gated = in_groups(3, 12)
    explanation = keras_bar.explain(gated)
    assert explanation.gated == ["grouped", "last"]
    assert "those of 'grouped', in groups" in explanation.ungated["first"]
    gate = gated.get_layer("grouped_gate")
    gate.set_alive(np.array([True, False, True]))
    cost = keras_bar.measure_cost(gated)
    hard, small = assert_invariants(gated, BOTH)
    grouped = small.get_layer("grouped")
    assert (grouped.groups, grouped.filters, filters_of(small)) == (2, 8, 4)
    flops = {x.name: x.flops for x in cost.layers}
    assert flops["grouped"] == 2 * 16 * 9 * 2 * 8
    assert flops["first"] == 2 * 36 * 3 * 4


def test_a_factor_per_place():
    """Two groups of three channels: places leave more choice."""
    gated = in_groups(2, 8)
    assert keras_bar.explain(gated).gated == ["first", "grouped", "last"]
    first, grouped = gates_of(gated)[:2]
    assert (first.channels, grouped.channels) == (3, 4)
    first.set_alive(np.array([True, False, True]))
    grouped.set_alive(np.array([False, True, True, True]))
    cost = keras_bar.measure_cost(gated)
    hard, small = assert_invariants(gated, BOTH)
    layer = small.get_layer("grouped")
    assert layer.groups == 2
    assert layer.kernel.shape == (3, 3, 2, 6)
    assert filters_of(small) == 4
    flops = {x.name: x.flops for x in cost.layers}
    assert flops["grouped"] == 2 * 16 * 9 * 2 * 6


@pytest.mark.parametrize("metric", keras_bar.costs.METRICS)
@pytest.mark.parametrize(("groups", "filters"), [(3, 12), (2, 8)])
def test_prune(metric, groups, filters):
    model = keras_bar.compact(in_groups(groups, filters))
    small = keras_bar.prune(model, 2 / 3, metric)
    full, left = map(keras_bar.measure_cost, (model, small))
    assert getattr(left, metric) <= getattr(full, metric) * 2 / 3
    layer = small.get_layer("grouped")
    assert layer.kernel.shape[-2] * layer.groups == layer.input.shape[-1]


def test_criteria_see_the_filters_of_all_that_share_a_factor():
    gated = in_groups(2, 8)
    model = keras_bar.compact(gated)
    seen = {}

    def criterion(group):
        seen[group.name] = group.filters[0]
        return np.arange(group.size)

    keras_bar.baselines.prune(model, criterion, 1 / 2)
    kernel = ops.convert_to_numpy(model.get_layer("grouped").kernel)
    first = np.concatenate([kernel[..., i].ravel() for i in (1, 5)])
    assert sorted(seen["grouped"][:, 1]) == pytest.approx(sorted(first))
    assert seen["first"].shape == (6, 3)


def test_a_convolution_that_keeps_its_groups():
    """The gate in front of it closes the same channels of each group."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(12, 1, name="front")(inputs)
    outputs = layers.Conv2D(12, 3, groups=6, name="grouped")(layers.ReLU()(x))
    for model, skip in (
        (keras.Model(inputs, outputs), ()),
        (keras.Model(inputs, layers.Flatten()(outputs)), ["grouped"]),
    ):
        gated = keras_bar.gate(randomize(model), skip=skip)
        (gate,) = gates_of(gated)
        assert (gate.name, gate.channels) == ("front_gate", 2)
        gate.set_alive(np.array([False, True]))
        hard, small = assert_invariants(gated, BOTH)
        assert filters_of(small, "front") == 6
        assert small.get_layer("grouped").kernel.shape[-2] == 1


def test_a_stream_that_the_input_writes_keeps_its_groups():
    """Under regular connectivity; the gate moves to the front."""
    inputs = keras.Input((6, 6, 8))
    x = layers.ReLU()(layers.Conv2D(8, 1, name="front")(inputs))
    x = layers.Conv2D(8, 3, groups=4, padding="same", name="grouped")(x)
    x = layers.ReLU()(layers.Add()([x, inputs]))
    model = keras.Model(inputs, layers.Conv2D(3, 1)(x))
    gated = keras_bar.gate(randomize(model), connectivity="regular")
    assert keras_bar.explain(gated).gated == ["front"]
    gated.get_layer("front_gate").set_alive(np.array([True, False]))
    assert_invariants(gated, BOTH)


@pytest.mark.parametrize("groups", (2, 3))
def test_vector_quantization(groups):
    """Filters that share a factor do not stand in for others."""
    model = keras_bar.compact(in_groups(groups, 24))
    criterion = keras_bar.baselines.VectorQuantization()
    small = keras_bar.baselines.prune(model, criterion, 1 / 2, "flops")
    full, left = map(keras_bar.measure_cost, (model, small))
    assert left.flops <= full.flops / 2


def test_aligned():
    """Channels are aligned, not the factors that they share."""
    gated = in_groups(2, 24)
    gate = gated.get_layer("grouped_gate")
    gate.set_alive(np.arange(gate.channels) < gate.channels * 3 // 4)
    small = keras_bar.compact(gated, align=8, allow_unfinished=True)
    assert small.get_layer("grouped").filters == 16
    ((before, after),) = keras_bar.explain(small).aligned.values()
    assert (before, after) == (18, 16)


def test_memory_of_what_reads_the_input_of_the_model():
    inputs = keras.Input((9, 9, 4))
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(inputs)
    outputs = layers.Conv2D(3, 1)(layers.ReLU()(x))
    gated = open_gates(keras_bar.gate(keras.Model(inputs, outputs)))
    gate = gates_of(gated)[0]
    gate.set_alive(np.arange(gate.channels) < gate.channels // 2)
    predicted = keras_bar.measure_cost(gated)
    small = keras_bar.compact(gated, allow_unfinished=True)
    assert keras_bar.measure_cost(small).memory == predicted.memory


def test_all_of_its_input_dead():
    """A group without input is a constant."""

    def layer(x):
        x = HardConcreteGate(name="first_gate")(x)
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
    assert [*keras_bar.explain(gated).ungated] == ["in0", "in1"]
    assert not keras_bar.explain(small).boundaries
