"""Costs as functions of probabilities, and their slopes."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.costs import METRICS
from keras_bar.costs import Limits
from tests.helpers import tiny
from tests.helpers.costs import cost_model
from tests.helpers.costs import residual_net
from tests.helpers.gradients import gradient
from tests.helpers.pruning import conv_norm_relu

pytestmark = pytest.mark.core


# The metrics that are sums of products; `peak_memory_test.py` has the other.
PRODUCTS = ("volume", "flops", "params")


@pytest.fixture(scope="module")
def residual():
    """The cost model of the gated network of residual blocks."""
    return cost_model(keras_bar.gate(residual_net()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", PRODUCTS)
def test_soft_at_zero_and_one_is_hard(residual, metric, seed):
    model = residual
    rng = np.random.default_rng(seed)
    masks = {g: rng.random(g.log_alpha.shape[0]) > 0.4 for g in model.gates}
    if seed == 2:
        masks[model.gates[1]][:] = False
    tensors = {
        gate: ops.convert_to_tensor(mask.astype("float32"))
        for gate, mask in masks.items()
    }
    soft = float(ops.convert_to_numpy(model.soft(metric, tensors)))
    assert soft == pytest.approx(model.hard(masks)[metric], rel=1e-5)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "metric", [*METRICS, Limits((("flops", 3000), ("memory", 2000)))], ids=str
)
def test_changed_costs_are_those_of_the_changed_masks(residual, metric, first):
    """Whether gates are all open before, or have one channel each."""
    everything = {
        gate: np.arange(gate.channels) < (1 if first else gate.channels)
        for gate in residual.gates
    }
    others = {gate: np.zeros_like(mask) for gate, mask in everything.items()}
    if not first:
        for mask in others.values():
            mask[1:] = True
    found = residual.changed_costs(metric, everything, others)
    assert found == {
        gate: residual.hard({**everything, gate: mask})[metric]
        for gate, mask in others.items()
    }
    assert set(found.values()) != {residual.hard(everything)[metric]}


def test_soft_volume_by_hand():
    """The sum over layers of A_l sum p_i (supplement, eq. 6), of what is left
    when a branch without channels drops out."""
    inputs = keras.Input((6, 6, 3))
    x = conv_norm_relu(inputs, 5)
    y = conv_norm_relu(conv_norm_relu(x, 4), 5)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    model = cost_model(keras_bar.gate(keras.Model(inputs, layers.Dense(2)(x))))
    rng = np.random.default_rng(0)
    p = [rng.uniform(0.0, 0.6, size).astype("float32") for size in (5, 4, 5)]
    tensors = {
        gate: ops.convert_to_tensor(x)
        for gate, x in zip(model.gates, p, strict=True)
    }
    some = [1 - np.prod(1 - x) for x in p]
    # No gate counts twice: what is in a gate needs not ask whether any is.
    volume = 36 * (
        p[0].sum()
        + p[1].sum() * some[0] * some[2]
        + p[2].sum() * some[1] * some[0]
    )
    soft = float(ops.convert_to_numpy(model.soft("volume", tensors)))
    assert soft == pytest.approx(volume, rel=1e-5)


@pytest.mark.parametrize("metric", PRODUCTS)
def test_gradient_is_the_finite_difference(residual, metric):
    model = residual
    sizes = [gate.log_alpha.shape[0] for gate in model.gates]
    p = np.random.default_rng(0).uniform(0.2, 0.8, sum(sizes))

    def soft(p):
        parts = ops.split(p, np.cumsum(sizes)[:-1].tolist())
        return model.soft(metric, dict(zip(model.gates, parts, strict=True)))

    slopes = gradient(soft, p)
    step = 0.05
    for i in range(0, len(p), 3):
        ends = []
        for sign in (1, -1):
            moved = p.astype("float32")
            moved[i] += sign * step
            ends.append(float(ops.convert_to_numpy(soft(moved))))
        expected = (ends[0] - ends[1]) / (2 * step)
        assert slopes[i] == pytest.approx(expected, rel=2e-2, abs=1e-2)


@pytest.mark.parametrize("metric", PRODUCTS)
def test_many_vectors_at_once(residual, metric):
    model = residual
    rng = np.random.default_rng(0)
    vectors = {
        g: ops.convert_to_tensor(rng.random((2, 3, g.channels)), "float32")
        for g in model.gates
    }
    found = ops.convert_to_numpy(model.soft(metric, vectors))
    assert found.shape == (2, 3)
    for place in np.ndindex(2, 3):
        one = model.soft(metric, {g: x[place] for g, x in vectors.items()})
        assert found[place] == pytest.approx(float(one), rel=1e-5)


@pytest.mark.parametrize("metric", PRODUCTS)
def test_marginal_costs_in_the_full_network_are_what_closing_saves(metric):
    model = cost_model(keras_bar.gate(tiny.network()))
    cost, marginal = model.marginal_costs(metric, 1.0)
    assert cost == model.full[metric]
    assert marginal == pytest.approx(model.savings(metric))


@pytest.mark.parametrize("metric", PRODUCTS)
def test_marginal_costs_are_the_slopes_of_the_cost(metric):
    model = cost_model(keras_bar.gate(tiny.network(width=6)))
    p = np.array([1.0] + 5 * [0.7], "float32")

    def soft(p):
        parts = dict(zip(model.gates, ops.split(p, 2), strict=True))
        return model.soft(metric, parts)

    together = np.tile(p, 2)
    cost, marginal = model.marginal_costs(metric, 0.7)
    assert cost == pytest.approx(float(soft(ops.convert_to_tensor(together))))
    slopes = np.reshape(gradient(soft, together), (2, 6))
    expected = np.mean(slopes[:, 1:], axis=1)  # But for what is certain.
    assert list(marginal.values()) == pytest.approx(expected, rel=1e-3)


def test_marginal_costs_by_hand():
    """In a chain a channel is read by what is open behind it."""
    x = inputs = keras.Input((6, 6, 2))
    for name, width in (("a", 8), ("b", 4), ("c", 2)):
        x = layers.Conv2D(width, 3, padding="same", name=name)(x)
        x = layers.ReLU()(x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = cost_model(keras_bar.gate(keras.Model(inputs, outputs)))
    q, taps = 0.25, 2 * 36 * 9
    a, b, c = 1 + 7 * q, 1 + 3 * q, 1 + q
    cost, marginal = model.marginal_costs("flops", q)
    assert cost == pytest.approx(taps * (2 * a + a * b + b * c) + 2 * 3 * c)
    expected = [taps * (2 + b), taps * (a + c), taps * b + 2 * 3]
    assert list(marginal.values()) == pytest.approx(expected, rel=1e-6)
    assert model.marginal_costs("volume", q)[1] == pytest.approx(
        dict.fromkeys(model.gates, 36.0)
    )


def test_a_gate_on_two_paths_counts_once():
    """The same gated channels reach an addition twice."""
    inputs = keras.Input((4, 4, 3))
    x = conv_norm_relu(inputs, 4, 1)
    y = layers.Add()([layers.MaxPooling2D(1)(x), layers.ReLU()(x)])
    outputs = layers.Conv2D(2, 1, use_bias=False)(y)
    model = cost_model(keras_bar.gate(keras.Model(inputs, outputs)))
    (gate,) = model.gates
    p = np.array([0.1, 0.5, 0.7, 0.2], "float32")
    soft = model.soft("flops", {gate: ops.convert_to_tensor(p)})
    some = 1 - np.prod(1 - p)
    # The last layer drops out with the last channel that it reads.
    by_hand = 2 * 16 * p.sum() * (3 + 2 * some)
    assert float(ops.convert_to_numpy(soft)) == pytest.approx(by_hand)


def test_a_metric_without_terms_is_zero():
    inputs = keras.Input((3,))
    x = keras_bar.layers.HardConcreteGate()(inputs)
    model = cost_model(keras.Model(inputs, layers.Dense(2)(x)))
    (gate,) = model.gates
    assert float(model.soft("volume", {gate: ops.ones((3,))})) == 0.0
    assert model.full["volume"] == 0
