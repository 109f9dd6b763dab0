"""Which channels stay: sets of gates that are within budget and connected."""

import numpy as np

from keras_bar.graph.algebra import evaluate


def is_connected(cost_model, masks):
    """Whether every output of the network depends on an input.

    Args:
        cost_model: `CostModel`.
        masks: Dict from gate to booleans `(channels,)`.
    """
    flow = cost_model.flow
    outputs = [flow.channels[x].alive for x in flow.graph.outputs]
    values = evaluate(outputs, masks)
    return all(values[x].max() > 0.5 for x in outputs)


def lifelines(cost_model):
    """Gates that must not close entirely, lest the network fall apart.

    Whole gates are closed one after the other, the costliest first, as long
    as a path from the input to every output is left.

    Args:
        cost_model: `CostModel`.

    Returns:
        Dict from gate to the number of its channels that shall stay open; one
        in each of them suffices to keep the network connected.
    """
    masks = {gate: _first(gate, 1) for gate in cost_model.gates}
    savings = {
        gate: cost_model.hard({**masks, gate: _first(gate, 0)})["flops"]
        for gate in masks
    }
    for gate in sorted(masks, key=savings.get):
        closed = {**masks, gate: _first(gate, 0)}
        if is_connected(cost_model, closed):
            masks = closed
    return {gate: 1 for gate, mask in masks.items() if mask.any()}


def smallest_cost(cost_model, metric):
    """Cost of the smallest connected network found.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`.

    Returns:
        Integer, in units of the metric.
    """
    kept = lifelines(cost_model)
    masks = {gate: _first(gate, gate in kept) for gate in cost_model.gates}
    return cost_model.hard(masks)[metric]


def strongest(cost_model, metric, target, scores):
    """The largest set of strongest channels that is within a budget.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`.
        target: The budget, in units of the metric.
        scores: Dict from gate to floats `(channels,)`; the higher the
            stronger.

    Returns:
        Dict from gate to booleans `(channels,)`: all channels above some
        score. The strongest channel of every lifeline is among them if the
        network would not be connected otherwise.
    """
    masks = _largest(cost_model, metric, target, scores)
    if is_connected(cost_model, masks):
        return masks
    raised = dict(scores)
    for gate in lifelines(cost_model):
        lifted = np.array(scores[gate], float)
        lifted[np.argmax(lifted)] = np.inf
        raised[gate] = lifted
    return _largest(cost_model, metric, target, raised)


def _largest(cost_model, metric, target, scores):
    """Bisects the number of channels kept: costs grow with the set."""
    ordered = np.sort(np.concatenate([*scores.values()]))[::-1]
    low, high = 0, len(ordered)  # Keeping `low` fits; `high + 1` never does.
    while low < high:
        middle = (low + high + 1) // 2
        cost = cost_model.hard(_above(scores, ordered[middle - 1]))[metric]
        low, high = (middle, high) if cost <= target else (low, middle - 1)
    return _above(scores, ordered[low - 1] if low else np.inf)


def _above(scores, threshold):
    """Masks of the channels at or above a score; infinite ones always stay."""
    return {
        gate: (x >= threshold) | np.isposinf(x) for gate, x in scores.items()
    }


def _first(gate, count):
    mask = np.zeros(gate.log_alpha.shape[0], bool)
    mask[:count] = True
    return mask
