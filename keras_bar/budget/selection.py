"""Selection of channels: sets that are within a budget and connected."""

import numpy as np

from keras_bar.analysis.evaluation import Evaluation
from keras_bar.costs import METRICS
from keras_bar.costs import is_object

# Minimum share of a budget that counts as well used.
WELL_USED = 0.95


def check_metric(metric):
    """Raises a ValueError for an unknown metric."""
    known = isinstance(metric, str) and metric in METRICS
    if not known and not is_object(metric):
        raise ValueError(
            "Unknown metric. Expected one of "
            f"{', '.join(map(repr, METRICS))}, or a `keras_bar.Latency`. "
            f"Received: metric={_shortened(metric)}"
        )


def check_budget_argument(budget, metric):
    """Raises a ValueError for a budget that is wrong for any model."""
    if isinstance(budget, dict):
        raise _invalid(budget, metric)
    check_metric(metric)
    if not is_number(budget) or not budget > 0:
        raise _invalid(budget, metric)


def _invalid(budget, metric):
    return ValueError(
        "Invalid budget. Expected a fraction of the full cost in (0, 1], or a "
        "number above 1 in units of the metric; only `BudgetRegularizer` takes "
        "a dict of several. "
        f"Received: budget={budget!r}, metric={_shortened(metric)}"
    )


def _shortened(metric):
    """A metric in a message; someone may have passed data instead."""
    is_array = hasattr(metric, "shape")
    return f"array of shape {metric.shape}" if is_array else repr(metric)


def check_known_size(cost_model, metric, name):
    """Raises a ValueError if a cost depends on an unknown size of inputs."""
    if not np.isfinite(cost_model.full[metric]):
        raise ValueError(
            "The cost of the model depends on the size of its input. "
            "Expected inputs of known size, or the metric 'params'. "
            f"Received: {name!r} and metric={metric!r}"
        )


def in_units(cost_model, metric, budget):
    """A budget in units of its metric, possible or not."""
    return budget * cost_model.full[metric] if budget <= 1 else budget


def is_number(x):
    """Whether something is a number, and not a boolean."""
    return isinstance(x, int | float | np.number) and not isinstance(x, bool)


def required_gates(cost_model, metric="flops"):
    """Gates that keep the network connected, and must not close entirely.

    The search closes whole gates, the costliest first, as long as a path from
    the input to every output remains.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`, the cost to save.

    Returns:
        Dict from gate to the number of its channels that must stay open. One
        per gate suffices to keep the network connected.
    """
    masks = {gate: _first(gate, 1) for gate in cost_model.gates}
    closed = {gate: _first(gate, 0) for gate in cost_model.gates}
    costs = cost_model.changed_costs(metric, masks, closed)
    connections = cost_model.analysis.connections()
    evaluation = Evaluation(connections, masks)
    required = set()
    for gate in sorted(masks, key=lambda gate: costs[gate]):
        changes = evaluation.changes({gate: closed[gate]})
        values = evaluation.values | changes
        if all(values[x] > 0.5 for x in connections):
            evaluation.values = values
        else:
            required.add(gate)
    return {gate: 1 for gate in cost_model.gates if gate in required}


def smallest(cost_model, metric):
    """The smallest connected network found.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`.

    Returns:
        Dict from gate to booleans `(channels,)`.
    """
    kept = required_gates(cost_model, metric)
    return {gate: _first(gate, gate in kept) for gate in cost_model.gates}


def smallest_cost(cost_model, metric):
    """Cost of the smallest connected network found, in units of the metric."""
    return cost_model.hard(smallest(cost_model, metric))[metric]


def strongest(cost_model, metric, target, scores):
    """The largest set of strongest channels that is within a budget.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`.
        target: The budget, in units of the metric; enough for the `smallest`
            network.
        scores: Dict from gate to floats `(channels,)`; the higher the
            stronger.

    Returns:
        Dict from gate to booleans `(channels,)`: all channels above some
        score; and if they leave much of the budget unused, those below it that
        still fit. The strongest channel of every required gate is included if
        the network would otherwise be disconnected.
    """
    ranks = rank(scores)
    masks = _largest(cost_model, metric, target, ranks)
    if not cost_model.analysis.is_connected(masks):
        for gate in required_gates(cost_model, metric):
            ranks[gate][np.argmax(ranks[gate])] = np.inf
        masks = _largest(cost_model, metric, target, ranks)
    cost = cost_model.hard(masks)[metric]
    if cost > target or not cost_model.analysis.is_connected(masks):
        # The strongest channels exceed the budget or are not connected.
        masks = smallest(cost_model, metric)
    return _fill(cost_model, metric, target, ranks, masks)


def connected(cost_model, masks):
    """A set of channels that keeps the network connected.

    Args:
        cost_model: `CostModel`.
        masks: Dict from gate to booleans `(channels,)`, the channels wanted.

    Returns:
        Dict like `masks`: these channels, and if they do not connect the
        network, also those of the `smallest` network.
    """
    if cost_model.analysis.is_connected(masks):
        return masks
    path = smallest(cost_model, "flops")
    return {gate: mask | path[gate] for gate, mask in masks.items()}


def completed(cost_model, metric, target, scores, masks):
    """A set of channels that is within a budget and uses it.

    Args:
        cost_model, metric, target, scores: See `strongest`.
        masks: Dict from gate to booleans `(channels,)`, the channels wanted.

    Returns:
        Dict like `masks`: if these channels are within the budget and
        connected, they and the strongest others that fit until the budget is
        well used; otherwise the `strongest`.
    """
    within = cost_model.hard(masks)[metric] <= target
    if within and cost_model.analysis.is_connected(masks):
        return _fill(cost_model, metric, target, rank(scores), masks)
    return strongest(cost_model, metric, target, scores)


def closed_last(scores, masks):
    """Scores in which channels of closed gates come after all others: one
    channel of a branch that is gone costs more than one of another branch.

    Args:
        scores: Dict from gate to floats `(channels,)`.
        masks: Dict from gate to booleans `(channels,)`.

    Returns:
        Dict like `scores`, of ranks.
    """
    ranks = rank(scores)
    channels = sum(map(len, ranks.values()))
    return {
        gate: x if masks[gate].any() else x - channels
        for gate, x in ranks.items()
    }


def rank(scores):
    """Dict from gate to the ranks of its channels among all channels. Equal
    scores get different ranks; NaN ranks lowest."""
    flat = np.concatenate([*scores.values()])
    flat = np.where(np.isnan(flat), -np.inf, flat)
    ranks = np.empty(len(flat))
    ranks[np.argsort(flat, kind="stable")] = np.arange(len(flat))
    ends = np.cumsum([len(x) for x in scores.values()])
    return dict(zip(scores, np.split(ranks, ends[:-1]), strict=True))


def _largest(cost_model, metric, target, scores):
    """Masks of the most channels of highest score within the budget, found by
    bisection, because the cost grows with the set."""
    ordered = np.sort(np.concatenate([*scores.values()]))[::-1]
    low, high = 0, len(ordered)  # Keeping `low` fits; `high + 1` never does.
    while low < high:
        middle = (low + high + 1) // 2
        cost = cost_model.hard(_above(scores, ordered[middle - 1]))[metric]
        low, high = (middle, high) if cost <= target else (low, middle - 1)
    return _above(scores, ordered[low - 1] if low else np.inf)


def _fill(cost_model, metric, target, scores, masks):
    """Opens channels that still fit, the strongest first, until the budget is
    well used. In a small network one channel can be a large part of it."""
    cost = cost_model.hard(masks)[metric]
    closed = [
        (score, gate, i)
        for gate, mask in masks.items()
        for i, score in enumerate(scores[gate])
        if not mask[i]
    ]
    for _, gate, i in sorted(closed, key=lambda x: -x[0]):
        if cost >= WELL_USED * target:
            break
        mask = masks[gate].copy()
        mask[i] = True
        new = cost_model.hard({**masks, gate: mask})[metric]
        if cost < new <= target:
            masks, cost = {**masks, gate: mask}, new
    return masks


def _above(scores, threshold):
    """Masks of the channels at or above a score. Channels of infinite score
    always stay."""
    return {
        gate: (x >= threshold) | np.isposinf(x) for gate, x in scores.items()
    }


def _first(gate, count):
    mask = np.zeros(gate.channels, bool)
    mask[:count] = True
    return mask
