"""Branches that one cut under a latency does without."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.channel_counts import narrowed
from keras_bar.analysis.trace import trace
from keras_bar.costs import CostModel
from keras_bar.layers import MarkerGate
from keras_bar.pruning.branches import balanced
from keras_bar.pruning.shares import balanced_shares
from tests.helpers import branches
from tests.helpers import latencies
from tests.helpers import tiny


@pytest.fixture(scope="module")
def metric():
    return latencies.latency_of(keras_bar.gate(branches.network()))


@pytest.fixture(scope="module")
def cost_model():
    gated = keras_bar.gate(
        branches.network(), connectivity="regular", layer=MarkerGate
    )
    return CostModel(ChannelAnalysis(trace(gated)))


def cost(cost_model, metric, balance):
    vectors = narrowed(cost_model.gates, balance.keep_probabilities())
    return cost_model.hard(vectors)[metric]


@pytest.mark.parametrize("share", [0.25, 0.4, 0.6, 0.9])
def test_no_other_set_of_branches_is_better(cost_model, share):
    # Without steps, whose optimum is no smooth one.
    metric = latencies.latency_of(
        keras_bar.gate(branches.network()), {"block": 1, "fixed": 8.0}
    )
    gates, target = cost_model.gates, share * cost_model.full[metric]
    inner = [x for x in gates if x.name.startswith("inner")]
    found = balanced(cost_model, metric, target, gates)
    assert cost(cost_model, metric, found) <= target
    for count in range(len(inner) + 1):
        for closed in itertools.combinations(inner, count):
            other = balanced_shares(cost_model, metric, target, gates, closed)
            if cost(cost_model, metric, other) <= 1.01 * target:
                assert found.total() <= 1.05 * other.total()
    closed = [x for x in inner if x not in found.shares]
    assert closed if share < 0.3 else len(closed) < 3
    assert share < 0.9 or not closed


def test_other_metrics_keep_all_branches(cost_model):
    for metric in ("flops", "volume", "params"):
        target = 0.05 * cost_model.full[metric]
        found = balanced(cost_model, metric, target, cost_model.gates)
        assert {*found.shares} == {*cost_model.gates}


@pytest.mark.parametrize("connectivity", ["regular", "mixed"])
def test_a_cut_network_has_fewer_and_wider_branches(metric, connectivity):
    keras.utils.set_random_seed(0)
    model = branches.network()
    x, _ = tiny.data()
    small = keras_bar.prune(model, 0.25, metric, x, connectivity=connectivity)
    widths = {
        x.name: x.filters for x in small.layers if isinstance(x, layers.Conv2D)
    }
    inner = [y for x, y in widths.items() if x.startswith("inner")]
    assert 0 < len(inner) < 3 and min(inner) > 4, widths
    assert np.all(np.isfinite(small.predict(x, verbose=0)))


def test_no_branch_closes_for_the_steps_of_a_kernel(cost_model, metric):
    """Shares that times with steps leave above the budget are narrowed."""
    target = 0.9 * cost_model.full[metric]
    found = balanced(cost_model, metric, target, cost_model.gates)
    assert {*found.shares} == {*cost_model.gates}
    assert cost(cost_model, metric, found) <= target


def test_layers_to_skip_stay(metric):
    model = branches.network()
    x, _ = tiny.data()
    small = keras_bar.prune(model, 0.7, metric, x, skip=["outer0", "outer1"])
    names = {x.name: x for x in small.layers}
    assert "outer0" in names and "outer1" in names
    assert names["outer0"].filters == branches.WIDTH


@pytest.mark.parametrize("share", [0.6, 0.3])
def test_a_branch_that_is_built_before_its_shortcut(share):
    """Its last gate is that of the shortcut, too, which stays."""
    x = inputs = keras.Input((6, 6, 4))
    for i in range(2):
        y = layers.Conv2D(8, 3, padding="same", name=f"first{i}")(x)
        y = layers.Conv2D(8, 3, padding="same")(layers.ReLU()(y))
        short = layers.Conv2D(8, 1, name=f"short{i}")(x)
        x = layers.ReLU()(layers.Add()([y, short]))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    gated = keras_bar.gate(model)
    kernel = {"block": 1, "fixed": 8.0}
    metric = latencies.latency_of(gated, kernel)
    small = keras_bar.prune(model, share, metric)
    names = {x.name for x in small.layers}
    assert {"short0", "short1"} <= names
    assert share > 0.5 or not {"first0", "first1"} <= names


def test_a_single_channel_does_not_close_for_nothing():
    x = inputs = keras.Input((6, 6, 4))
    y = layers.Conv2D(16, 3, padding="same", name="conv")(x)
    z = layers.Conv2D(1, 3, padding="same", name="where")(y)
    y = layers.Multiply()([y, layers.Activation("sigmoid")(z)])
    y = layers.Conv2D(4, 1, name="last")(y)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(2)(x))
    metric = latencies.latency_of(keras_bar.gate(model), {"block": 1})
    small = keras_bar.prune(model, 0.9, metric)
    assert "where" in {x.name for x in small.layers}


def test_gates_of_one_branch_close_together():
    """Behind the closed one, the other one reads nothing."""
    x = inputs = keras.Input((6, 6, 4))
    y = layers.Conv2D(6, 3, padding="same", name="first")(x)
    y = layers.Conv2D(7, 3, padding="same", name="second")(layers.ReLU()(y))
    y = layers.Conv2D(4, 1, name="third")(layers.ReLU()(y))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(2)(x))
    metric = latencies.latency_of(keras_bar.gate(model))
    gated = keras_bar.gate(model, connectivity="regular", layer=MarkerGate)
    cost_model = CostModel(ChannelAnalysis(trace(gated)))
    target = 0.3 * cost_model.full[metric]
    found = balanced(cost_model, metric, target, cost_model.gates)
    assert not found.shares
    assert len(found.weights) >= 2
