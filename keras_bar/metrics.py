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


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """The cost of one layer.

    Attributes:
        name, kind: Name and type of the layer.
        channels: Output channels computed, and those of the full network.
        volume: Activations per sample.
        flops: 2 x multiply-adds per sample.
        params: Number of weights.
        other: Cost in a metric that is an object, such as
            `keras_bar.Latency`, in its unit; 0 without one.
        memory: Bytes of all tensors that exist while the layer runs.
    """

    name: str
    kind: str
    channels: tuple
    volume: int = 0
    flops: int = 0
    params: int = 0
    memory: int = 0
    other: float = 0.0

    def cost(self, metric):
        """Its cost in a metric; `CostModel.layers` knows that of an object
        only if it was asked for it."""
        return self.other if is_object(metric) else getattr(self, metric)


class Costs(dict):
    """Dict from metric to cost, in which `Limits`, and metrics that are
    objects, are metrics, too.

    Args:
        costs: Dict from the name of a metric to its cost.
        measure: Function from another metric, `"memory"` or an object, to its
            cost. It is called when this metric is asked for.
    """

    def __init__(self, costs, measure):
        super().__init__(costs)
        self._measure = measure

    def __missing__(self, metric):
        if isinstance(metric, Limits):
            shares = [self[x] / most for x, most in metric.targets]
            return np.max(shares, axis=0)
        if metric != "memory" and not is_object(metric):
            raise KeyError(metric)
        self[metric] = self._measure(metric)
        return self[metric]


def is_object(metric):
    """Whether a metric is an object with a formula of its own: it has a method
    `formula(analysis)`, which returns one for a graph, like a
    `LatencyFormula`; the attribute `closed`, the part of the channels of a
    gate that `marginal_costs` closes, because of the steps of the formula; and
    `str` gives its name."""
    # A class is no metric, but it has the methods of its objects.
    return hasattr(metric, "formula") and not isinstance(metric, type)
