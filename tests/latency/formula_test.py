"""The latency of a network over its numbers of channels."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import models
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.latency.units import find_units
from tests.helpers import latencies
from tests.helpers import tiny
from tests.helpers.costs import cost_model
from tests.helpers.costs import residual_net
from tests.helpers.gradients import gradient
from tests.helpers.pruning import conv_norm_relu

pytestmark = pytest.mark.core


def keys(model):
    return [x.key for x in find_units(ChannelAnalysis(trace(model)))]


def test_units_of_a_residual_network():
    """Batch normalization and activations belong to the layer before them."""
    model = tiny.network()
    conv = "Conv2D(kernel_size=3x3 padding=same)"
    expected = [
        f"{conv} + BatchNormalization() + ReLU() on 6x6x*",
        f"{conv} + BatchNormalization() on 6x6x*",
        "Add() + ReLU() on 6x6x*, 6x6x*",
        "GlobalAveragePooling2D() on 6x6x*",
        "Dense() on *",
    ]
    assert keys(model) == expected
    regular = keras_bar.gate(model, connectivity="regular")
    assert keys(regular) == keys(model)
    mixed = keys(keras_bar.gate(model))
    # Each side of the addition may have to be moved to its places.
    assert [x for x in mixed if x not in keys(model)] == ["pad to 6x6x*"] * 2


def test_paddings_belong_to_their_convolutions():
    inputs = keras.Input((9, 9, 2))
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.DepthwiseConv2D(3, strides=2)(x)
    x = layers.Activation("relu6")(layers.Dropout(0.1)(x))
    (key,) = keys(keras.Model(inputs, x))
    assert key.count(" + ") == 2 and key.endswith("on 9x9x*")


def test_third_branches_are_gathered():
    """The channels of late branches are in too many runs to be padded."""
    x = keras.Input((4, 4, 2))
    inputs, x = x, conv_norm_relu(x, 8)
    for _ in range(3):
        x = layers.Add()([x, layers.Conv2D(8, 1)(layers.ReLU()(x))])
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    found = keys(keras_bar.gate(keras.Model(inputs, x)))
    moves = [x.split()[0] for x in found if " to " in x]
    # Stem and branch; sum and two runs; sum and more runs than are padded.
    assert moves == ["pad"] * 2 + ["pad"] * 3 + ["pad", "gather"]


def test_prediction_is_the_sum_of_the_tables():
    model = tiny.chain(8, 16)
    latency = latencies.latency_of(model)
    cost = keras_bar.measure_cost(model, latency)
    first, second, pooling, dense = (
        latencies.time(2, 8, 0.36),
        latencies.time(8, 16, 0.36),
        latencies.time(1, 16, 0.01),
        latencies.time(16, 2, 0.01),
    )
    total = first + second + pooling + dense
    assert cost.latency == pytest.approx(total)
    assert {x.name: x.other for x in cost.layers}["conv1"] == pytest.approx(
        second
    )
    assert f"{total:,.1f}" in str(cost).splitlines()[-1]


def test_overhead_and_scale():
    model = tiny.chain(8)
    plain = latencies.latency_of(model)
    networks = {"other": {"overhead": 3.0, "scale": 1.5}}
    scaled = latencies.latency_of(model, networks=networks)
    expected = 3.0 + 1.5 * keras_bar.measure_cost(model, plain).latency
    found = keras_bar.measure_cost(model, scaled).latency
    assert found == pytest.approx(expected)


@pytest.fixture(scope="module")
def residual():
    """A gated network of residual blocks: cost model and latency."""
    gated = keras_bar.gate(residual_net())
    return cost_model(gated), latencies.latency_of(gated)


def test_gates_determine_the_widths():
    gated = keras_bar.gate(tiny.chain(8, 16))
    latency = latencies.latency_of(gated)
    gated.get_layer("conv0_gate").set_alive(np.arange(8) < 3)
    gated.get_layer("conv1_gate").set_alive(np.arange(16) < 9)
    found = {
        x.name: x.other for x in keras_bar.measure_cost(gated, latency).layers
    }
    assert found["conv1"] == pytest.approx(latencies.time(3, 9, 0.36))
    small = keras_bar.measure_cost(keras_bar.compact(gated), latency)
    whole = keras_bar.measure_cost(gated, latency)
    assert small.latency == pytest.approx(whole.latency)


@pytest.mark.parametrize("seed", range(3))
def test_soft_at_zero_and_one_is_hard(residual, seed):
    model, latency = residual
    rng = np.random.default_rng(seed)
    masks = {g: rng.random(g.channels) > 0.4 for g in model.gates}
    if seed == 2:
        masks[model.gates[1]][:] = False
    tensors = {
        gate: ops.convert_to_tensor(mask.astype("float32"))
        for gate, mask in masks.items()
    }
    soft = float(ops.convert_to_numpy(model.soft(latency, tensors)))
    assert soft == pytest.approx(model.hard(masks)[latency], rel=1e-4)


def test_a_branch_without_channels_takes_no_time(residual):
    model, latency = residual
    masks = {g: np.ones(g.channels, bool) for g in model.gates}
    before = model.hard(masks)[latency]
    masks[model.gates[1]][:] = False
    formula = model.formula(latency)
    times = formula.by_node(model.counts(formula.factors, masks))
    assert model.hard(masks)[latency] < before
    assert min(times.values()) == 0.0


def test_gradient_is_the_finite_difference(residual):
    model, latency = residual
    sizes = [gate.channels for gate in model.gates]
    p = np.random.default_rng(0).uniform(0.2, 0.8, sum(sizes))

    def soft(p):
        parts = ops.split(p, np.cumsum(sizes)[:-1].tolist())
        return model.soft(latency, dict(zip(model.gates, parts, strict=True)))

    slopes = gradient(soft, p)
    assert np.any(slopes != 0)
    step = 2e-3
    for i in range(0, len(p), 5):
        ends = []
        for sign in (-1, 1):
            q = p.copy()
            q[i] += sign * step
            tensor = ops.convert_to_tensor(q, "float32")
            ends.append(float(ops.convert_to_numpy(soft(tensor))))
        difference = (ends[1] - ends[0]) / (2 * step)
        assert slopes[i] == pytest.approx(
            difference, abs=0.03 * float(np.abs(slopes).max())
        )


def test_marginal_costs_do_not_see_single_steps():
    """A single channel of a block of 8 saves nothing, but a block does."""
    gated = keras_bar.gate(tiny.chain(32, 24))
    model, latency = cost_model(gated), latencies.latency_of(gated)
    savings = model.savings(latency)
    _, marginal = model.marginal_costs(latency, 0.8)
    first, second = model.gates
    # Half of the channels, of the layer that writes and the one that reads.
    saved = latencies.time(2, 32, 0.36) - latencies.time(2, 16, 0.36)
    saved += latencies.time(32, 24, 0.36) - latencies.time(16, 24, 0.36)
    assert savings[first] == pytest.approx(saved / 16)
    assert marginal[first] == pytest.approx(saved / 16, rel=0.5)
    assert marginal[second] == pytest.approx(savings[second], rel=0.5)


def joined(channels):
    """Two branches that are added, and concatenated."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(channels, 3, padding="same")(inputs)
    y = layers.Conv2D(channels, 3, padding="same")(layers.ReLU()(x))
    x = layers.Concatenate()([layers.Add()([x, y]), layers.ReLU()(y)])
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def test_a_single_channel_is_a_width_too():
    latency = latencies.latency_of(joined(8))
    assert "Add() on 8x8x*, 8x8x*" in latency.tables
    assert keras_bar.measure_cost(joined(1), latency).latency > 0


def attention(heads, size=8):
    inputs = keras.Input((16, 12))
    x = layers.Dense(32)(inputs)
    x = layers.MultiHeadAttention(heads, size, name="mha")(x, x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def test_fewer_heads_have_the_same_tables():
    latency = latencies.latency_of(keras_bar.gate(attention(4)))
    for model in (attention(2), attention(1)):
        assert keras_bar.measure_cost(model, latency).latency > 0
    gated = keras_bar.gate(attention(4))
    gated.get_layer("mha_value_gate").set_alive(np.arange(4) < 2)
    whole = keras_bar.measure_cost(gated, latency).latency
    small = keras_bar.compact(gated, allow_unfinished=True)
    found = keras_bar.measure_cost(small, latency).latency
    assert found == pytest.approx(whole)
    expected = keras_bar.measure_cost(attention(2), latency).latency
    assert found == pytest.approx(expected)


def test_features_of_heads_are_a_part_of_the_time():
    gated = keras_bar.gate(attention(4))
    model, latency = cost_model(gated), latencies.latency_of(gated)
    formula = model.formula(latency)
    masks = {x: np.ones(x.channels, bool) for x in model.gates}

    def times():
        counts = model.counts(formula.factors, masks)
        found = formula.times(counts)
        return [
            x
            for x, unit in zip(found, formula.units, strict=True)
            if unit.parts
        ]

    full = times()
    query = next(x for x in model.gates if "query_width" in x.name)
    masks[query] = np.arange(query.channels) < 2
    # Of values, queries and keys; attention has the products of both; output.
    parts = np.array([1, 0.25, 0.25, (2 + 8) / 16, 1])
    order = np.argsort([x / y for x, y in zip(times(), full, strict=True)])
    assert np.array(times())[order] == pytest.approx(
        np.array(full)[order] * np.sort(parts)
    )
    tensors = {
        gate: ops.convert_to_tensor(mask.astype("float32"))
        for gate, mask in masks.items()
    }
    soft = float(ops.convert_to_numpy(model.soft(latency, tensors)))
    assert soft == pytest.approx(model.hard(masks)[latency], rel=1e-4)


def test_what_was_not_measured_is_refused():
    latency = latencies.latency_of(tiny.chain(8))
    with pytest.raises(ValueError, match=r"unknown. Expected .* Received: no"):
        keras_bar.measure_cost(tiny.chain(9), latency)
    with pytest.raises(ValueError, match="kernel_size=5x5"):
        other = models.VGG((6, 6, 2), widths=(4,))
        inputs = keras.Input((6, 6, 2))
        other = keras.Model(inputs, layers.Conv2D(4, 5)(inputs))
        keras_bar.measure_cost(other, latency)


def test_layers_in_groups_have_units():
    x = inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(16, 3, name="front")(x)
    x = layers.ReLU()(layers.GroupNormalization(4)(x))
    x = layers.Conv2D(16, 3, groups=2, name="grouped")(x)
    gated = keras_bar.gate(keras.Model(inputs, layers.Conv2D(3, 1)(x)))
    units = find_units(ChannelAnalysis(trace(gated)))
    grouped = next(x for x in units if x.head.name == "grouped")
    assert grouped.parts[-1][1] == 8  # What each group reads.
