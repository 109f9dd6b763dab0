"""Which channels stay: sets of gates that are within budget and connected."""

import numpy as np

# The share of a budget from which on it counts as used.
WELL_USED = 0.95


def lifelines(cost_model, metric="flops"):
    """Gates that must not close entirely, lest the network fall apart.

    Whole gates are closed one after the other, the costliest first, as long
    as a path from the input to every output is left.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`: what is to be saved.

    Returns:
        Dict from gate to the number of its channels that shall stay open; one
        in each of them suffices to keep the network connected.
    """
    masks = {gate: _first(gate, 1) for gate in cost_model.gates}
    costs = {
        gate: cost_model.hard({**masks, gate: _first(gate, 0)})[metric]
        for gate in masks
    }
    for gate in sorted(masks, key=lambda gate: costs[gate]):
        closed = {**masks, gate: _first(gate, 0)}
        if cost_model.flow.is_connected(closed):
            masks = closed
    return {gate: 1 for gate, mask in masks.items() if mask.any()}


def smallest(cost_model, metric):
    """The smallest connected network found.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`.

    Returns:
        Dict from gate to booleans `(channels,)`.
    """
    kept = lifelines(cost_model, metric)
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
        score, and of those below it what still fits, if that leaves much of
        the budget unused. The strongest channel of every lifeline is among
        them if the network would not be connected otherwise.
    """
    ranks = _rank(scores)
    masks = _largest(cost_model, metric, target, ranks)
    if not cost_model.flow.is_connected(masks):
        for gate in lifelines(cost_model, metric):
            ranks[gate][np.argmax(ranks[gate])] = np.inf
        masks = _largest(cost_model, metric, target, ranks)
    cost = cost_model.hard(masks)[metric]
    if cost > target or not cost_model.flow.is_connected(masks):
        # The strongest channels do not go together; these do.
        masks = smallest(cost_model, metric)
    return _fill(cost_model, metric, target, ranks, masks)


def _rank(scores):
    """Dict from gate to the places of its channels in the order of all. Equal
    scores get different places; those that are no numbers come first."""
    flat = np.concatenate([*scores.values()])
    flat = np.where(np.isnan(flat), -np.inf, flat)
    places = np.empty(len(flat))
    places[np.argsort(flat, kind="stable")] = np.arange(len(flat))
    ends = np.cumsum([len(x) for x in scores.values()])
    return dict(zip(scores, np.split(places, ends[:-1]), strict=True))


def _largest(cost_model, metric, target, scores):
    """Bisects the number of channels kept: costs grow with the set."""
    ordered = np.sort(np.concatenate([*scores.values()]))[::-1]
    low, high = 0, len(ordered)  # Keeping `low` fits; `high + 1` never does.
    while low < high:
        middle = (low + high + 1) // 2
        cost = cost_model.hard(_above(scores, ordered[middle - 1]))[metric]
        low, high = (middle, high) if cost <= target else (low, middle - 1)
    return _above(scores, ordered[low - 1] if low else np.inf)


def _fill(cost_model, metric, target, scores, masks):
    """Opens channels that still fit, the strongest first, until the budget is
    used well: in a small network one channel may be a large part of it."""
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
    """Masks of the channels at or above a score; infinite ones always stay."""
    return {
        gate: (x >= threshold) | np.isposinf(x) for gate, x in scores.items()
    }


def _first(gate, count):
    mask = np.zeros(gate.log_alpha.shape[0], bool)
    mask[:count] = True
    return mask
