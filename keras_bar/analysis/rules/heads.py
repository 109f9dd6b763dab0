"""Rules of reshapes that split features into the heads of attention, and join
them again: whole heads are the channels in between."""

import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules.attended import are_parts_taken
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import members
from keras_bar.analysis.rules.base import once
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import reshaped
from keras_bar.analysis.rules.widths import WHOLE


class SplitHeads(Rule):
    """A reshape of `heads * size` features to heads, or of `parts * heads *
    size` where one layer makes queries, keys and values. A head is alive as
    long as one of its features may be other than 0.

    Args:
        prunable: Whether it makes what the heads give, not how they weigh it.
    """

    groups_channels = True

    def __init__(self, prunable):
        self.prunable = prunable

    @staticmethod
    def holds(node, analysis):
        """Whether a reshape splits the channels and nothing else."""
        rank = len(node.inputs[0].shape)
        axis = analysis.inputs(node)[0].axis
        return axis in (None, rank - 1) and (
            splits_heads(node)
            or splits_heads(node, parts=2)
            and are_parts_taken(node, len(node.output.shape) - 3)
        )

    def _features(self, node, heads, widths=WHOLE):
        """The features of some heads: in the order in which they are stored,
        and by heads."""
        old, sizes = node.inputs[0].shape, node.output.shape[-2:]
        features = np.arange(old[-1]).reshape(-1, *sizes)[:, heads]
        features = features[..., widths]
        return features.reshape(-1), np.swapaxes(features, 0, 1).reshape(-1)

    def members_of_groups(self, node):
        """The features of each head, array `(heads, features)`."""
        heads = node.output.shape[-2]
        return self._features(node, np.arange(heads))[1].reshape(heads, -1)

    def propagate_alive(self, node, analysis):
        (channels,), algebra = analysis.inputs(node), analysis.algebra
        axis, heads = len(node.output.shape) - 2, node.output.shape[-2]
        if channels.axis is None:
            return [analysis.all_alive(node.output, axis)]
        _, by_heads = self._features(node, np.arange(heads))
        size = channels.size // heads
        alive = algebra.any_of(algebra.take(channels.nonzero, by_heads), size)
        return [analysis.carries(node.output, axis, alive, alive)]

    def propagate_needed(self, node, analysis):
        (heads, size), algebra = node.output.shape[-2:], analysis.algebra
        index = np.arange(node.inputs[0].shape[-1])
        need = algebra.take(analysis.live(node.output), index // size % heads)
        if width := analysis.widths.get(node.output):
            kept = algebra.take(width.alive, index % size)
            need = algebra.conjunction(need, kept)
        return [need]

    def constants(self, node, resolved):
        return np.zeros(node.output.shape[-2])

    def rebuild(self, node, builder):
        value, heads = node.inputs[0], builder.order[node.output]
        widths = builder.widths(node.output)
        features, _ = self._features(node, heads, widths)
        tensor = builder.read(value, features, len(value.shape) - 1)
        shape = (*node.output.shape[:-2], len(heads), len(widths))
        layer = builder.clone(node, **reshaped(node, shape))
        return trace.call(layer, node, {value: tensor})


class MergeHeads(Rule):
    """A reshape of heads to `heads * size` features, all of which are computed
    if one is needed."""

    moves_channels = True

    @staticmethod
    def holds(node, analysis):
        """Whether a reshape joins the channels with the axis behind them."""
        axis = analysis.inputs(node)[0].axis
        return axis == len(node.inputs[0].shape) - 2 and merges_heads(node)

    def _of_features(self, heads, node, analysis):
        """A vector over heads, for each of their features."""
        count, size = node.inputs[0].shape[-2:]
        index = np.repeat(np.arange(count), size)
        return analysis.algebra.take(heads, index)

    def propagate_alive(self, node, analysis):
        (channels,) = analysis.inputs(node)
        alive, nonzero = (
            self._of_features(x, node, analysis)
            for x in (channels.alive, channels.nonzero)
        )
        if width := analysis.widths.get(node.inputs[0]):
            index = np.arange(node.output.shape[-1]) % width.size
            kept = analysis.algebra.take(width.alive, index)
            alive = nonzero = analysis.algebra.conjunction(nonzero, kept)
        axis = len(node.output.shape) - 1
        return [analysis.carries(node.output, axis, alive, nonzero)]

    def round_up(self, node, need, analysis):
        heads = analysis.algebra.any_of(need, node.inputs[0].shape[-1])
        return self._of_features(heads, node, analysis)

    def propagate_needed(self, node, analysis):
        size = node.inputs[0].shape[-1]
        return [analysis.algebra.any_of(analysis.live(node.output), size)]

    def output_order(self, node, analysis, order_of):
        value = node.inputs[0]
        return members(order_of(value), value.shape[-1])

    def constants(self, node, resolved):
        value = node.inputs[0]
        return np.repeat(resolved.constants[value], value.shape[-1])

    def rebuild(self, node, builder):
        value, kept = node.inputs[0], builder.order[node.output]
        size, widths = value.shape[-1], builder.widths(value)
        heads = once(kept // size)
        tensor = builder.read(value, heads, len(value.shape) - 2)
        shape = (*node.output.shape[:-1], len(heads) * len(widths))
        layer = builder.clone(node, **reshaped(node, shape))
        (output,) = trace.call(layer, node, {value: tensor})
        made = members(heads, size).reshape(-1, size)[:, widths].reshape(-1)
        return [builder.select(output, made, kept, len(shape) - 1)]


def splits_heads(node, parts=1):
    """Whether a reshape splits the last axis into heads and their features, or
    into so many parts of such."""
    old, new = node.inputs[0].shape, node.output.shape
    made = parts + 1
    return (
        len(old) >= 2
        and len(new) > made
        and None not in (old[-1], *new[-made:])
        and product(new[-made:]) == old[-1]
        and _same_places(old[:-1], new[:-made])
    )


def merges_heads(node):
    """Whether a reshape joins the last two axes."""
    old, new = node.inputs[0].shape, node.output.shape
    return (
        len(old) >= 3
        and len(new) >= 2
        and None not in (new[-1], *old[-2:])
        and old[-2] * old[-1] == new[-1]
        and _same_places(old[:-2], new[:-1])
    )


def _same_places(old, new):
    """Whether two shapes without channels are the same, one size of which may
    be unknown, or have equally many places."""
    same = old == new or product(old[1:]) == product(new[1:])  # NaN if unknown.
    return same and old[0] == new[0]
