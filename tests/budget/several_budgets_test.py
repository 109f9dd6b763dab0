"""Several budgets at once, all of which are met."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import reports
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.budget import feasibility
from keras_bar.budget import selection
from keras_bar.costs import CostModel
from keras_bar.costs import Limits
from tests.helpers import tiny
from tests.helpers.budgets import EPOCHS
from tests.helpers.budgets import BudgetRegularizer

pytestmark = pytest.mark.core


def pyramid():
    """Early layers have most of the FLOPs, late ones most of the weights."""
    x = inputs = keras.Input((6, 6, 2))
    for i, width in enumerate((16, 16, 48)):
        x = layers.Conv2D(width, 3, padding="same", name=f"conv{i}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        if i == 1:
            x = layers.AveragePooling2D(6)(x)
    outputs = layers.Dense(3)(layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def pruned(budget, *metric):
    """The logs of a training, and the shares of the compact network."""
    keras.utils.set_random_seed(0)
    model = tiny.prepare(keras_bar.gate(pyramid(), seed=0))
    regularizer = BudgetRegularizer(budget, *metric)
    logs = tiny.fit(model, regularizer, epochs=EPOCHS)
    small = keras_bar.compact(model)
    full, left = map(keras_bar.measure_cost, (pyramid(), small))
    names = ("volume", "flops", "params")
    return logs, {x: getattr(left, x) / getattr(full, x) for x in names}


def test_all_budgets_are_met_and_well_used():
    budgets = {"flops": 0.4, "params": 0.25}
    logs, shares = pruned(budgets)
    assert all(shares[x] <= budgets[x] for x in budgets)
    assert all(shares[x] >= 0.75 * budgets[x] for x in budgets)
    assert max(shares[x] / budgets[x] for x in budgets) >= 0.9
    assert logs["budget"][-1] == pytest.approx(0.4, abs=1e-3)
    assert logs["budget_params"][-1] == pytest.approx(0.25, abs=1e-3)
    assert logs["expected_params"][-1] == pytest.approx(shares["params"])
    assert logs["params"] == pytest.approx(
        logs["params"][:1] + sorted(logs["params"][1:], reverse=True), abs=0.05
    )
    _, alone = pruned(0.4, "flops")
    assert alone["params"] > 1.3 * budgets["params"]


def test_a_dict_of_one_budget_is_that_budget():
    first, second = pruned({"flops": 0.4}), pruned(0.4, "flops")
    assert first == second


def test_the_limits_are_saved_with_the_model(tmp_path):
    keras.utils.set_random_seed(0)
    model = tiny.prepare(keras_bar.gate(pyramid(), seed=0))
    budgets = {"flops": 0.5, "params": 1000}
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(model, BudgetRegularizer(budgets))
    model.save(tmp_path / "gated.keras")
    loaded = keras.models.load_model(tmp_path / "gated.keras")
    full = keras_bar.measure_cost(pyramid()).flops
    expected = {"flops": 0.5 * full, "params": 1000.0}
    assert loaded.get_layer("budget_state").limits == expected
    gate = loaded.get_layer("conv2_gate")
    gate.set_alive(np.ones(gate.channels, bool))
    with pytest.raises(ValueError, match=r"of the flops .*; .* of the params"):
        keras_bar.compact(loaded)


def two_paths():
    """A path of few weights and one of few multiply-adds."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(1, 1, name="cheap_weights")(inputs)
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    y = layers.GlobalAveragePooling2D()(inputs)
    y = layers.Concatenate()([y] * 16)
    y = layers.Dense(1, name="cheap_flops")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(2)(x))


def test_a_set_that_meets_all_budgets():
    model = CostModel(ChannelAnalysis(trace(keras_bar.gate(pyramid()))))
    scores = {
        gate: np.linspace(i, i + 1, gate.channels)
        for i, gate in enumerate(model.gates)
    }
    for flops, params in ((0.5, 0.3), (0.2, 0.9), (0.9, 0.1)):
        full = model.full
        targets = {"flops": flops * full["flops"]}
        targets["params"] = params * full["params"]
        limits = Limits(tuple(targets.items()))
        masks = selection.strongest(model, limits, 1.0, scores)
        cost = model.hard(masks)
        assert cost[limits] == max(cost[x] / y for x, y in targets.items())
        assert 0.9 <= cost[limits] <= 1.0


def test_budgets_that_exclude_each_other():
    gated = keras_bar.gate(two_paths())
    model = CostModel(ChannelAnalysis(trace(gated)))
    least = feasibility.least_costs(model)
    budgets = {x: float(least[x]) for x in ("flops", "params")}
    gated.compile("sgd", "mse")
    for metric, budget in budgets.items():
        assert keras_bar.check_budget(gated, budget, metric).possible
    x, y = np.zeros((8, 8, 8, 2)), np.zeros((8, 2))
    with pytest.raises(ValueError, match="all budgets together"):
        gated.fit(x, y, verbose=0, callbacks=[BudgetRegularizer(budgets)])


@pytest.mark.parametrize(
    "budget, options, message",
    [
        ({}, {}, "Several budgets"),
        ({"flops": 0.5}, {"metric": "params"}, "Several budgets"),
        ({"flops": 0.5, "speed": 0.5}, {}, "Unknown metric"),
        ({"flops": 0.5, "params": -1}, {}, "Invalid budget"),
        ({"flops": 0.5, "params": 0.5}, {"strength": 1e-5}, "one budget"),
    ],
)
def test_refused(budget, options, message):
    with pytest.raises(ValueError, match=message):
        BudgetRegularizer(budget, **options)


def test_regular_connectivity_above_a_budget():
    gated = keras_bar.gate(tiny.network())
    stem, branch = tiny.gates(gated)
    stem.set_alive(np.arange(16) < 8)
    branch.set_alive(np.arange(16) >= 8)
    full = keras_bar.measure_cost(tiny.network())
    budgets = {"volume": full.volume / 2, "params": full.params}
    gated.get_layer("budget_state").limits = budgets
    assert keras_bar.measure_cost(keras_bar.compact(gated)).volume == (
        full.volume / 2
    )
    with pytest.warns(UserWarning, match="exceeds the budget: 1 of the volume"):
        keras_bar.compact(gated, connectivity="regular")


@pytest.mark.parametrize(
    "metric, expected, excess", [("flops", 0.3, 0.0), ("params", 0.5, -0.1)]
)
def test_each_budget_has_logs_of_its_own(metric, expected, excess):
    history = {
        "flops": [1.0, 0.5, 0.3],
        "params": [1.0, 0.6, 0.4],
        "budget": [1.0, 0.5, 0.3],
        "budget_params": [1.1, 0.7, 0.5],
        "expected": [1.0, 0.5, 0.3],
        "expected_params": [1.0, 0.6, 0.5],
    }
    found = reports.summarize_pruning(history, metric)
    assert found["expected"] == expected
    assert found["worst_excess"] == pytest.approx(excess)
