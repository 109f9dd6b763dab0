"""Alignment: numbers of channels that are multiples of a block.

Many kernels compute channels in blocks of 4, 8 or 16, so the last channels of
an incomplete block cost as much as a whole one. Layers with fewer channels than
a block are left alone.
"""

import math
import warnings

import numpy as np

from keras_bar.budget import selection


def check_align(align):
    """Raises a ValueError unless `align` is a positive integer."""
    whole = isinstance(align, int | np.integer) and not isinstance(align, bool)
    if not whole or align < 1:
        raise ValueError(
            "Invalid alignment. Expected an integer of 1 or more, such as 8. "
            f"Received: align={align!r}"
        )


def check_possible(cost_model, limits, align):
    """Raises a ValueError if no aligned network meets some `Limits`."""
    if align == 1:
        return
    cost = _Alignment(cost_model, limits, align).least_costs()
    if cost[limits] > 1:
        least = ", ".join(f"{x}: {cost[x]}" for x, _ in limits.targets)
        budgets = ", ".join(f"{x}: {y:.0f}" for x, y in limits.targets)
        raise ValueError(
            "The budget is too small for aligned widths: each layer that must "
            f"stay keeps {align} channels. Expected at least {least}, or a "
            f"smaller `align`. Received: {budgets}, and align={align}"
        )


def align_within(cost_model, metric, target, scores, masks, align):
    """An aligned set of channels that is within a budget and uses it.

    Widths are rounded down to whole blocks. Then the blocks of highest mean
    score are opened as long as they fit.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"`, `"params"` or `Limits`.
        target: The budget, in units of the metric; see `check_possible`.
        scores: Dict from gate to floats `(channels,)`; the higher the
            stronger.
        masks: Dict from gate to booleans `(channels,)`, the channels wanted.
        align: Integer, the size of a block.

    Returns:
        Dict like `masks`.
    """
    if align == 1:
        return masks
    alignment = _Alignment(cost_model, metric, align)
    aligned = alignment.choose(target, selection.rank(scores), masks)
    if cost_model.analysis.is_connected(aligned):
        return aligned
    warnings.warn(
        "The widths could not be aligned: the channels that would be left do "
        "not connect the network. They are within the budget, but no "
        f"multiples of {align}.",
        stacklevel=2,
    )
    return masks


def round_down(scores, masks, align):
    """Closes the weakest channels, so that widths are whole blocks. Gates with
    fewer open channels than a block keep them.

    Args:
        scores, masks, align: See `align_within`.

    Returns:
        Dict like `masks`.
    """
    rounded = {}
    for gate, mask in masks.items():
        block = block_of(gate, align)
        count = mask.sum() - mask.sum() % block or mask.sum()
        rounded[gate] = _strongest(_order(mask, scores[gate]), count)
    return rounded


def block_of(gate, align):
    """How many factors of a gate have a multiple of `align` channels; 1 if all
    of its channels are fewer, so that they cannot be aligned."""
    block = align // math.gcd(align, gate.shared_by)
    return block if gate.channels >= block else 1


class _Alignment:
    """The widths of one network in blocks.

    Args:
        cost_model, metric, align: See `align_within`.

    Attributes:
        blocks: Dict from gate to the size of its blocks, 1 in a layer with
            fewer channels than `align`.
        least: Dict from gate to the number of channels that it must keep.
    """

    def __init__(self, cost_model, metric, align):
        self.cost_model = cost_model
        self.metric = metric
        self.blocks = {x: block_of(x, align) for x in cost_model.gates}
        required = selection.required_gates(cost_model, metric)
        self.least = {
            gate: block * (gate in required)
            for gate, block in self.blocks.items()
        }

    def least_costs(self):
        """Costs of the smallest aligned network."""
        orders = {gate: np.arange(gate.channels) for gate in self.blocks}
        return self.cost_model.hard(_masks(orders, self.least))

    def choose(self, target, ranks, masks):
        """See `align_within`."""
        orders = {x: _order(mask, ranks[x]) for x, mask in masks.items()}
        counts = {
            gate: max(
                int(mask.sum()) // self.blocks[gate] * self.blocks[gate],
                self.least[gate],
            )
            for gate, mask in masks.items()
        }
        # Required gates were rounded up, so others may have to lose a block.
        while self._cost(orders, counts) > target:
            open_ = [x for x in counts if counts[x] > self.least[x]]
            weakest = min(
                open_,
                key=lambda x: self._strength(
                    x, orders, ranks, counts[x] - self.blocks[x]
                ),
            )
            counts[weakest] -= self.blocks[weakest]
        counts = self._fill(target, orders, ranks, counts)
        return _masks(orders, counts)

    def _fill(self, target, orders, ranks, counts):
        """Opens the strongest blocks that still fit, until the budget is well
        used."""
        cost, full = self._cost(orders, counts), set()
        while cost < selection.WELL_USED * target:
            closed = [
                gate
                for gate, block in self.blocks.items()
                if gate not in full and counts[gate] + block <= gate.channels
            ]
            if not closed:
                break
            gate = max(
                closed,
                key=lambda x: self._strength(x, orders, ranks, counts[x]),
            )
            more = {**counts, gate: counts[gate] + self.blocks[gate]}
            new = self._cost(orders, more)
            if cost < new <= target:
                counts, cost = more, new
            else:
                full.add(gate)
        return counts

    def _strength(self, gate, orders, ranks, start):
        """Mean rank of the block that begins at a place of the order."""
        block = orders[gate][start : start + self.blocks[gate]]
        return ranks[gate][block].mean()

    def _cost(self, orders, counts):
        return self.cost_model.hard(_masks(orders, counts))[self.metric]


def _order(mask, scores):
    """Channels that are wanted first, each part with the strongest first."""
    return np.lexsort((-np.asarray(scores), ~mask))


def _strongest(order, count):
    """Mask of the first channels of an order."""
    mask = np.zeros(len(order), bool)
    mask[order[:count]] = True
    return mask


def _masks(orders, counts):
    return {x: _strongest(order, counts[x]) for x, order in orders.items()}
