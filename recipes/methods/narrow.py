"""The same network, uniformly narrower, from scratch."""

import math

import keras_bar

TITLE = "narrowed"
# How far the cost may be from the budget, relative to it.
TOLERANCE = 0.02


def run(experiment, teacher):
    plan = experiment.phases("gates")
    small = narrowed(experiment)
    experiment.distill("train", teacher, small, plan.total, plan.low)
    return small, {}


def narrowed(experiment):
    """The network whose widths are divided such that it costs what the factor
    leaves, as nearly as whole channels allow."""
    metric, factor = experiment.key.metric, experiment.key.factor

    def error(model):
        cost = getattr(keras_bar.measure_cost(model), metric)
        return math.log(cost * factor / full)

    full = getattr(keras_bar.measure_cost(experiment.build()), metric)
    # The volume grows with the widths, FLOPs and params with their square.
    narrow = factor if metric == "volume" else math.sqrt(factor)
    best, low, high = experiment.build(narrow), 1.0, 2.0 * factor
    for _ in range(12):
        if abs(error(best)) <= TOLERANCE:
            break
        narrow = math.sqrt(low * high)
        model = experiment.build(narrow)
        low, high = (narrow, high) if error(model) > 0 else (low, narrow)
        best = min(best, model, key=lambda x: abs(error(x)))
    return best
