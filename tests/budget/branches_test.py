"""Whole branches, which cost more than their channels."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.budget import selection
from keras_bar.budget.controls import ThresholdControl
from keras_bar.budget.marginal_costs import MarginalCosts
from keras_bar.budget.moving_budget import MovingBudget
from keras_bar.costs import CostModel
from tests.helpers import branches
from tests.helpers import latencies
from tests.helpers import tiny
from tests.helpers.budgets import EPOCHS
from tests.helpers.budgets import BudgetRegularizer

pytestmark = pytest.mark.core


def made(metric, connectivity="mixed"):
    gated = keras_bar.gate(branches.network(), connectivity=connectivity)
    model = CostModel(ChannelAnalysis(trace(gated)))
    required = selection.required_gates(model, metric)
    return MarginalCosts(model, metric, required)


def fixed(costs, share):
    """Dict from the name of a gate to the fixed cost of its branch."""
    found = costs.fixed(ops.convert_to_tensor(share, "float32"))
    full = costs.cost_model.full[costs.metric]
    return {
        gate.name.removesuffix("_gate"): full * float(ops.convert_to_numpy(x))
        for gate, x in found.items()
    }


def test_volume_by_hand():
    """A convolution of a branch goes with the other one."""
    costs = made("volume")
    found = fixed(costs, 1.0)
    for i in range(3):
        assert found[f"inner{i}"] == pytest.approx(
            branches.WIDTH * tiny.POSITIONS
        )
        assert found[f"outer{i}"] == pytest.approx(
            branches.INSIDE * tiny.POSITIONS
        )
    assert "stem" not in found
    share = costs.cost_model.marginal_costs("volume", 0.1)[0]
    share /= costs.cost_model.full["volume"]
    found = fixed(costs, share)
    expected = (1 + 0.1 * (branches.WIDTH - 1)) * tiny.POSITIONS
    assert found["inner1"] == pytest.approx(expected, rel=0.02)


def test_flops_are_proportional_to_channels():
    assert not fixed(made("flops", "regular"), 0.5)


def test_memory_is_no_sum_over_branches():
    assert not fixed(made("memory"), 0.5)


@pytest.mark.parametrize("metric", ["volume", "params", "latency"])
def test_a_branch_costs_what_its_absence_saves(metric):
    if metric == "latency":
        kernel = {"block": 1, "fixed": 8.0}
        gated = keras_bar.gate(branches.network())
        metric = latencies.latency_of(gated, kernel)
    costs = made(metric, "regular")
    model = costs.cost_model
    cost, marginal = model.marginal_costs(metric, 1.0)
    masks = {x: np.ones(x.channels, bool) for x in model.gates}
    found = fixed(costs, 1.0)
    for gate in model.gates:
        if gate.name.startswith("inner"):
            saved = cost - model.hard(masks | {gate: ~masks[gate]})[metric]
            own = marginal[gate] * gate.channels
            beyond = found.get(gate.name.removesuffix("_gate"), 0.0)
            assert beyond > 0 or metric == "params"
            assert own + beyond == pytest.approx(saved, rel=0.02)


def test_a_closed_branch_takes_no_time():
    """The addition at its end is gone, too, and moves no channels."""
    kernel = {"block": 1, "fixed": 8.0}
    gated = keras_bar.gate(branches.network(), connectivity="regular", seed=0)
    metric = latencies.latency_of(gated, kernel)
    model = CostModel(ChannelAnalysis(trace(gated)))
    masks = {
        x: np.full(x.channels, x.name != "inner1_gate") for x in model.gates
    }
    assert not all(map(np.all, masks.values()))
    for x, mask in masks.items():
        x.set_alive(mask)
    small = keras_bar.compact(gated)
    without = latencies.latency_of(small, kernel)
    expected = keras_bar.measure_cost(small, without).latency
    assert model.hard(masks)[metric] == pytest.approx(expected, rel=1e-6)


def of_branches(benefits, marginal, fixed_cost, exponent):
    """Scores of a branch's channels, by trying all numbers of channels."""
    own = 0.5 * np.log(benefits / marginal**exponent)
    best = max(
        np.mean(np.sort(benefits)[-k:])
        / (marginal + fixed_cost / k) ** exponent
        for k in range(1, len(benefits) + 1)
    )
    return np.minimum(own, 0.5 * np.log(best))


def test_no_channel_ranks_higher_than_its_branch():
    costs = made(
        latencies.latency_of(keras_bar.gate(branches.network())), "regular"
    )
    model, metric = costs.cost_model, costs.metric
    full = model.full[metric]
    budget = MovingBudget(model, metric, full / 4, 10, 10.0)
    required = selection.required_gates(model, metric)
    control = ThresholdControl([budget], 3.0, (0.12, 0.02), 1.5, required)
    assert all(np.all(gate.alive()) for gate in model.gates)
    step = ops.convert_to_tensor(10)
    log_costs = control._log_costs(step)
    rng = np.random.default_rng(0)
    benefits = {g: rng.uniform(0.1, 9, g.channels) for g in log_costs}
    limit = float(ops.convert_to_numpy(budget.moving(step))) / full
    costs = costs.fixed(ops.convert_to_tensor(limit))
    assert len(costs) == 3
    given, expected = {}, {}
    for gate, log_cost in log_costs.items():
        marginal = np.exp(ops.convert_to_numpy(log_cost))
        own = 0.5 * np.log(benefits[gate] / marginal**1.5)
        given[gate] = ops.convert_to_tensor(own, "float32")
        expected[gate] = own
        if gate in costs:
            cost = float(ops.convert_to_numpy(costs[gate])) / limit
            expected[gate] = of_branches(benefits[gate], marginal, cost, 1.5)
            assert np.any(expected[gate] < own)
    found = control._of_branches(given, log_costs, step)
    for gate in given:
        assert ops.convert_to_numpy(found[gate]) == pytest.approx(
            expected[gate], abs=1e-4
        )


@pytest.fixture(scope="module")
def pruned():
    """Pruned to a latency at which narrow branches do not pay."""
    metric = latencies.latency_of(keras_bar.gate(branches.network()))
    keras.utils.set_random_seed(0)
    model = keras_bar.gate(branches.network(), connectivity="regular", seed=0)
    tiny.prepare(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The training was too short")
        tiny.fit(model, BudgetRegularizer(0.4, metric), epochs=EPOCHS)
    return model, metric


def test_a_branch_that_does_not_pay_closes_as_a_whole(pruned):
    """In blocks of 8, one channel takes as long as eight."""
    model, metric = pruned
    counts = {
        x.name: int(x.alive().sum())
        for x in model.layers
        if x.name.startswith("inner") and x.name.endswith("_gate")
    }
    assert min(counts.values()) == 0
    assert all(x > 4 for x in counts.values() if x), counts
    full = keras_bar.measure_cost(branches.network(), metric).latency
    cost = keras_bar.measure_cost(model, metric).latency
    assert 0.8 * full * 0.4 < cost <= full * 0.4


def test_the_compact_network_has_no_trace_of_it(pruned):
    model, _ = pruned
    small = keras_bar.compact(model)
    convolutions = [x for x in small.layers if isinstance(x, layers.Conv2D)]
    assert len(convolutions) < 7
    hard = keras_bar.hard_prune(model)
    x, _ = tiny.data()
    assert small.predict(x, verbose=0) == pytest.approx(
        hard.predict(x, verbose=0), abs=1e-4
    )


def test_closed_branches_open_last():
    """In the order of their scores, and behind all others."""
    scores = {"a": np.array([5.0, 4.0]), "b": np.array([1.0, 0.0])}
    scores["c"] = np.array([-2.0, -1.0])
    masks = {x: np.array([False, x == "b"]) for x in scores}
    found = selection.closed_last(scores, masks)
    order = sorted(
        ((x, i) for x in found for i in range(2)),
        key=lambda at: -found[at[0]][at[1]],
    )
    assert order == [
        *[("b", 0), ("b", 1), ("a", 0), ("a", 1)],
        ("c", 1),
        ("c", 0),
    ]
