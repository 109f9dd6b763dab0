"""Metrics that are objects, and costs in all metrics."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Limits:
    """Several budgets at once, as a metric: the largest share of a budget that
    is in use, so that a network of cost 1 or less meets all of them.

    Attributes:
        targets: Tuple of pairs of a metric and a budget in its units.
    """

    targets: tuple


class Costs(dict):
    """Dict from metric to cost, in which `Limits`, and metrics that are
    objects, are metrics, too.

    Args:
        costs: Dict from the name of a metric to its cost.
        measure: Function from a metric that is an object to its cost.
    """

    def __init__(self, costs, measure):
        super().__init__(costs)
        self._measure = measure

    def __missing__(self, metric):
        if isinstance(metric, Limits):
            return np.max([self[x] / most for x, most in metric.targets])
        if not is_object(metric):
            raise KeyError(metric)
        return self._measure(metric)


def is_object(metric):
    """Whether a metric is an object with a formula of its own: it has a method
    `formula(analysis)`, which returns one for a graph, like a
    `LatencyFormula`; the attribute `closed`, the part of the channels of a
    gate that `marginal_costs` closes, because of the steps of the formula; and
    `str` gives its name."""
    return hasattr(metric, "formula")
