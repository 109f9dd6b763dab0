"""How many channels each gate keeps under a budget."""

import numpy as np

from keras_bar.budget import alignment
from keras_bar.budget import selection
from keras_bar.pruning.branches import balanced

# Halvings of the interval in which the common factor of all shares is searched.
BISECTIONS = 40


def allocate(cost_model, metric, target, scores, align=1, skip=()):
    """Keeps the best channels of every gate, in balanced shares.

    Under a latency the gates of branches that do not pay are closed. Channels
    are whole, so that the largest shares within the budget leave a part of it.
    That is spent on single channels, first of the gates that rounding left with
    the smallest part of their share.

    Args:
        cost_model: `CostModel`.
        metric: The metric of the budget.
        target: The budget, in units of the metric; enough for the smallest
            connected network.
        scores: Dict from gate to floats `(channels,)`; within a gate, channels
            with higher scores are kept first.
        align: Integer; gates of at least as many channels keep a multiple of
            it, or all.
        skip: Names of layers that stay in any case.

    Returns:
        Dict from gate to booleans `(channels,)`: connected and within the
        budget.
    """
    blocks = {gate: alignment.block_of(gate, align) for gate in scores}
    ranks = {gate: _ranks(x) for gate, x in scores.items()}
    balance = balanced(cost_model, metric, target, list(scores), skip)
    shares = balance.shares

    def scaled(factor):
        counts = {
            gate: np.ceil(factor * share * gate.channels / blocks[gate])
            * blocks[gate]
            for gate, share in shares.items()
        }
        return {
            gate: rank < max(counts[gate], blocks[gate])
            if gate in shares
            else np.zeros(gate.channels, bool)
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


def _fill(masks, ranks, wanted, blocks, fits):
    """Adds blocks of channels while the budget allows, first of the gates that
    have the smallest part of what they want."""
    while True:
        growing = sorted(
            (gate for gate in wanted if not masks[gate].all()),
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
