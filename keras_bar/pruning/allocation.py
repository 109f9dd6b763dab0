"""How many channels each gate keeps under a budget."""

import numpy as np

from keras_bar.budget import selection

# Halvings of the interval in which the common share is searched.
BISECTIONS = 40


def even(cost_model, metric, target, scores):
    """Keeps the same share of the channels of every gate, the best of each.

    Channels are whole, so that the largest share within the budget leaves a
    part of it. That is spent on single channels, first of the gates which
    rounding left farthest below the share.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"`, `"params"` or `"memory"`.
        target: The budget, in units of the metric; enough for the smallest
            connected network.
        scores: Dict from gate to floats `(channels,)`; within a gate, channels
            with higher scores are kept first.

    Returns:
        Dict from gate to booleans `(channels,)`: connected and within the
        budget.
    """
    ranks = {gate: _ranks(x) for gate, x in scores.items()}

    def share_of(share):
        return {
            x: rank < max(share * len(rank), 1) for x, rank in ranks.items()
        }

    def fits(masks):
        return cost_model.hard(masks)[metric] <= target

    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(share_of(middle)) else (low, middle)
    masks = share_of(high if fits(share_of(high)) else low)
    if not fits(masks):  # One channel in every gate is too much already.
        masks = selection.smallest(cost_model, metric)
    return _fill(masks, ranks, low, fits)


def _fill(masks, ranks, share, fits):
    """Adds channels while the budget allows, at most one above the share."""
    while True:
        below = [
            (mask.sum() - share * mask.size, index, gate)
            for index, (gate, mask) in enumerate(masks.items())
            if not mask.all() and mask.sum() <= share * mask.size
        ]
        for _, _, gate in sorted(below, key=lambda x: x[:2]):
            grown = {**masks, gate: ranks[gate] <= masks[gate].sum()}
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
