"""How many channels each gate keeps under a budget."""

import numpy as np

from keras_bar.budget import alignment
from keras_bar.budget import selection

# A layer that keeps the share k adds a loss proportional to k ** -EXPONENT.
EXPONENT = 0.5
# Steps of `balanced_shares`. A step leaves two thirds of the distance, or less.
STEPS = 40
# Halvings of the interval in which the common factor of all shares is searched.
BISECTIONS = 40


def allocate(cost_model, metric, target, scores, align=1):
    """Keeps the best channels of every gate, in balanced shares.

    Channels are whole, so that the largest shares within the budget leave a
    part of it. That is spent on single channels, first of the gates that
    rounding left with the smallest part of their share.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"`, `"params"` or `"memory"`.
        target: The budget, in units of the metric; enough for the smallest
            connected network.
        scores: Dict from gate to floats `(channels,)`; within a gate, channels
            with higher scores are kept first.
        align: Integer; gates of at least as many channels keep a multiple of
            it, or all.

    Returns:
        Dict from gate to booleans `(channels,)`: connected and within the
        budget.
    """
    blocks = {gate: alignment.block_of(gate, align) for gate in scores}
    ranks = {gate: _ranks(x) for gate, x in scores.items()}
    shares = balanced_shares(cost_model, metric, target, list(scores))

    def scaled(factor):
        counts = {
            gate: np.ceil(factor * shares[gate] * gate.channels / block) * block
            for gate, block in blocks.items()
        }
        return {
            gate: rank < max(counts[gate], blocks[gate])
            for gate, rank in ranks.items()
        }

    def fits(masks):
        return cost_model.hard(masks)[metric] <= target

    low, high = 0.0, 1 / min(shares.values(), default=1)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(scaled(middle)) else (low, middle)
    masks = scaled(high if fits(scaled(high)) else low)
    if not fits(masks):  # The least of every gate is too much already.
        masks = alignment.align_within(
            cost_model,
            metric,
            target,
            scores,
            selection.smallest(cost_model, metric),
            align,
        )
    wanted = {x: share * x.channels for x, share in shares.items()}
    return _fill(masks, ranks, wanted, blocks, fits)


def balanced_shares(cost_model, metric, target, gates):
    """The shares of the channels that balance what layers lose and cost.

    A gate that keeps the share k of its channels is assumed to add w / sqrt(k)
    to the loss, where w are the FLOPs of the full network that its channels
    take part in: whoever designed the network gave FLOPs to the layers where
    they pay. The shares minimise the sum of this within the budget, so that

        w / sqrt(k)  is proportional to  k dC/dk

    for the gates that are neither whole nor down to a channel. The FLOPs of
    convolutions are products of two shares, and equal shares solve this. For
    volume the channels of large images, which cost most of it, have smaller
    shares than the others; for parameters they have larger ones. For memory,
    the moments above the budget are narrowed evenly.

    Args:
        cost_model: `CostModel`.
        metric: The metric of the cost C.
        target: The budget, in units of the metric.
        gates: List of gates. All others keep all channels.

    Returns:
        Dict from gate to a float in (0, 1].
    """
    if not gates:
        return {}
    if metric == "memory":  # A maximum over moments, which has no slopes.
        narrowed = cost_model.memory.narrowed(target)
        return {gate: narrowed[gate] for gate in gates}
    sizes = np.array([gate.channels for gate in gates])
    logs = np.zeros(len(gates))

    def costs(metric):
        """The cost of these shares, and its derivatives by their logarithms."""
        kept = np.exp(logs) * sizes
        # The first channel is certain, and all others are equally likely.
        others = np.clip((kept - 1) / np.maximum(sizes - 1, 1), 1e-6, 1.0)
        cost, marginal = cost_model.marginal_costs(
            metric, dict(zip(gates, others, strict=True))
        )
        return cost, kept * np.array([marginal[gate] for gate in gates])

    weights = costs("flops")[1]
    for _ in range(STEPS):
        cost, slopes = costs(metric)
        free = (logs < 0) & (np.exp(logs) * sizes > 1)
        if not free.any():
            free[:] = True
        steps = np.log(weights / slopes) - EXPONENT * logs
        steps /= 1 + EXPONENT
        # To the first order the cost stays, and then it becomes the target.
        steps -= np.average(steps[free], weights=slopes[free])
        steps += np.log(target / cost) * cost / slopes[free].sum()
        logs = np.clip(logs + steps, -np.log(sizes), 0.0)
    return dict(zip(gates, np.exp(logs), strict=True))


def _fill(masks, ranks, wanted, blocks, fits):
    """Adds blocks of channels while the budget allows, first of the gates that
    have the smallest part of what they want."""
    while True:
        growing = sorted(
            (gate for gate, mask in masks.items() if not mask.all()),
            key=lambda gate: masks[gate].sum() / wanted[gate],
        )
        for gate in growing:
            count = masks[gate].sum() + blocks[gate]
            grown = {**masks, gate: ranks[gate] < count}
            if fits(grown):
                masks = grown
                break
        else:
            return masks


def _ranks(scores):
    """Place of each channel, 0 for the highest score."""
    ranks = np.empty(len(scores), int)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return ranks
