"""Whether a network can be pruned to a budget."""

import warnings

import keras
import numpy as np

from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.counting import listed
from keras_bar.analysis.trace import trace
from keras_bar.budget import selection
from keras_bar.budget.budget_check import BudgetCheck
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel

# Maximum number of layers that a warning names.
MOST_NAMED = 8


def target_cost(cost_model, metric, budget, name):
    """A budget in units of its metric.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"`, `"params"` or `"memory"`.
        budget: Float in (0, 1], a fraction of the full cost; or a number above
            1, in units of the metric.
        name: String, the name of the model in errors.

    Returns:
        Number.

    Raises:
        ValueError: If no connected network has this cost.
    """
    selection.check_known_size(cost_model, metric, name)
    full = cost_model.full[metric]
    target = selection.in_units(cost_model, metric, budget)
    if target > full:
        raise ValueError(
            f"The budget exceeds the full network's {metric}. "
            f"Expected at most {full:.0f}. Received: {target:.0f}"
        )
    least = selection.smallest_cost(cost_model, metric)
    if target < least:
        check = _budget_check(cost_model, metric, target)
        raise ValueError(
            "The budget is too small for any connected network. Expected "
            f"at least {least} ({least / full:.4g} of the full "
            f"{metric}). Received: {target:.1f} ({target / full:.4g}).\n"
            f"{check.floor()}"
        )
    return target


def check_together(cost_model, limits, name):
    """Raises a ValueError if no connected network meets all of some `Limits`,
    each of which one can meet."""
    cost = cost_model.hard(selection.smallest(cost_model, limits))
    if cost[limits] > 1:
        budgets = ", ".join(f"{x}: {y:.0f}" for x, y in limits.targets)
        raise ValueError(
            "No connected network meets all budgets together. Expected larger "
            f"ones. Received: {budgets}, where the smallest network of "
            f"{name!r} has {', '.join(f'{x}: {cost[x]}' for x in METRICS)}"
        )


def check_budget(
    model: keras.Model, budget: float, metric: str = "volume"
) -> BudgetCheck:
    """Checks whether a gated model can be pruned to a budget, before training.

    Args:
        model: `keras.Model` made by `keras_bar.gate`.
        budget: Float in (0, 1], a fraction of the full cost; or a number above
            1, in units of the metric.
        metric: `"volume"`, `"flops"`, `"params"` or `"memory"`.

    Returns:
        A `BudgetCheck`. Its `least` is the cost of the smallest connected
        network, which has one channel in every gate that must not close. If
        `possible` is False, `BudgetRegularizer` would refuse the budget.

    Raises:
        ValueError: If the model has no gates, the budget or the metric is
            wrong for any model, or the cost depends on an unknown size of the
            input.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> check = keras_bar.check_budget(keras_bar.gate(model), 1 / 4, "flops")
    >>> check.possible
    True
    >>> check.least
    652
    """
    selection.check_budget_argument(budget, metric)
    cost_model = CostModel(ChannelAnalysis(trace(model)))
    if not cost_model.gates:
        raise ValueError(
            "The model has no gates, so nothing in it can be pruned. "
            "Expected a model made by `keras_bar.gate`. "
            f"Received: {model.name!r}"
        )
    selection.check_known_size(cost_model, metric, model.name)
    target = selection.in_units(cost_model, metric, budget)
    return _budget_check(cost_model, metric, target)


def _budget_check(cost_model, metric, target):
    masks = selection.smallest(cost_model, metric)
    return BudgetCheck.make(cost_model, metric, target, masks)


def least_costs(cost_model):
    """Dict from metric to the cost of the smallest connected network found, for
    the metrics that do not depend on an unknown input size."""
    return {
        metric: selection.smallest_cost(cost_model, metric)
        for metric in METRICS
        if np.isfinite(cost_model.full[metric])
    }


def warn_uncounted(cost_model, metric, name):
    """Warns if a budget does not count the computation of some layers.

    Args:
        cost_model: `CostModel`.
        metric: The metric of the budget.
        name: String, the name of the model.
    """
    if metric == "flops" and cost_model.uncounted:
        warnings.warn(
            f"The budget on FLOPs leaves out layers of {name!r} that no rule "
            "knows; it holds for all others. Not counted: "
            f"{listed(cost_model.uncounted, MOST_NAMED)}.",
            stacklevel=2,
        )
