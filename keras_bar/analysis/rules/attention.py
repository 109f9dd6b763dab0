"""Rules of attention: the heads are the channels.

`MultiHeadAttention` and `GroupQueryAttention` are unrolled into the layers and
operations of which they consist: projections from features to heads
(`projections`), the attention of every head, and a projection back. The gate
stands behind the projection to values, and multiplies whole heads: whatever is
attended to, a head without values gives 0, and its queries and keys are not
needed.
"""

import keras
import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules.attended import is_place_of_gate
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.selecting import Beside
from keras_bar.analysis.rules.unfused_attention import scale_of
from keras_bar.analysis.rules.unfused_attention import unfused
from keras_bar.analysis.rules.widths import any_alive
from keras_bar.analysis.rules.widths import factors as factors_of_widths

# The axis of the heads in the operation `dot_product_attention`.
HEADS = 2


class DotProductAttention(Rule):
    """keras.ops.dot_product_attention: every head by itself."""

    operations = "DotProductAttention"
    ties_channels = True

    def specialized(self, node, analysis):
        self.prunable = self.starts_channels = is_place_of_gate(node)
        return self

    def only_scales(self, value, node):
        return value is not node.inputs[2]

    def operand(self, node, index, writer):
        value = node.inputs[index]
        if self._axis(node, index) is None or writer.knows(value):
            return super().operand(node, index, writer)
        return writer.taken(node, value)

    def products(self, node):
        query, key = node.inputs[:2]
        heads = query.shape[HEADS] * query.rows
        return heads * product([query.shape[1], key.shape[1]])

    def refuse(self, node, analysis):
        known = analysis.inputs(node)[:3]
        if known[2].axis is None:
            return "it does not know its heads"
        if any(c.axis not in (None, HEADS) for c in known):
            return "it works along another axis than the channels"
        if len({x.shape[HEADS] for x in node.inputs[:3]}) > 1:
            return "several heads share their keys and values"
        given = keras.tree.flatten((node.args, node.kwargs))
        if any(_has_heads(x, node) for x in given if not _is_value(x)):
            return "it adds a constant to each head"
        return None

    def _axis(self, node, index):
        """The axis of the heads in an input, or None."""
        if index < 3:
            return HEADS
        return 1 if _has_heads(node.inputs[index], node) else None

    def restored_inputs(self, node, analysis):
        return [
            i
            for i, value in enumerate(node.inputs)
            if self._axis(node, i) is None and analysis.removable(value)
        ]

    def propagate_alive(self, node, analysis):
        nonzero = analysis.channels[node.inputs[2]].nonzero
        return [analysis.carries(node.output, HEADS, nonzero, nonzero)]

    def propagate_needed(self, node, analysis):
        live, algebra = analysis.live(node.output), analysis.algebra
        return [
            algebra.conjunction(
                algebra.any(live) if self._axis(node, i) is None else live,
                any_alive(value, analysis),
            )
            for i, value in enumerate(node.inputs)
        ]

    def terms(self, node, analysis):
        query, key, value = node.inputs[:3]
        places = product((query.shape[1], key.shape[1]))
        factor = (analysis.live(node.output), value.shape[HEADS])
        terms = []
        for summed in (key, value):
            size, widths = factors_of_widths(summed, analysis)
            coefficient = 2 * places * size
            terms.append(Term("flops", coefficient, (factor, *widths)))
        return terms

    def order_ties(self, node, analysis):
        everything = np.arange(analysis.channels[node.output].size)
        return [
            (node.output, everything, value, everything)
            for value in node.inputs[:3]
            if analysis.channels[value].axis is not None
        ]

    def constants(self, node, resolved):
        return np.zeros(resolved.analysis.channels[node.output].size)

    def rebuild(self, node, builder):
        wanted, tensors = builder.order[node.output], {}
        summed, given = (len(builder.widths(x)) for x in node.inputs[1:3])
        for i, value in enumerate(node.inputs):
            axis = self._axis(node, i)
            if i < 2 and not summed:
                continue
            if axis is None:
                tensors[value] = builder.restored(value)
            else:
                tensors[value] = builder.read(value, wanted, axis)
        # Without a scale of its own, the operation divides by the root of the
        # number of features that it gets.
        full = summed == node.inputs[1].shape[-1]
        if summed == given and (full or scale_of(node) is not None):
            return trace.call(builder.clone(node), node, tensors)
        return [unfused(node, tensors, builder)]


class Repeat(Rule):
    """keras.ops.repeat: of every key and value, for the queries that share
    it."""

    operations = "Repeat"
    moves_channels = True

    def specialized(self, node, analysis):
        axis = analysis.inputs(node)[0].axis
        beside = node.op.axis is not None and axis is not None
        if beside and self._along(node) not in (0, axis):
            return Beside(axis)
        return self

    def refuse(self, node, analysis):
        axis, repeats = analysis.inputs(node)[0].axis, node.op.repeats
        if axis is None or node.op.axis is None or self._along(node) != axis:
            return "it does not repeat whole channels"
        if not isinstance(repeats, int):
            return "it repeats channels in different numbers"
        return None

    def _along(self, node):
        return node.op.axis % len(node.output.shape)

    def _sources(self, node, analysis):
        """The input channel of every output channel."""
        size = analysis.channels[node.inputs[0]].size
        return np.repeat(np.arange(size), node.op.repeats)

    def propagate_alive(self, node, analysis):
        (channels,), algebra = analysis.inputs(node), analysis.algebra
        sources = self._sources(node, analysis)
        alive = algebra.take(channels.alive, sources)
        nonzero = algebra.take(channels.nonzero, sources)
        return [analysis.carries(node.output, channels.axis, alive, nonzero)]

    def propagate_needed(self, node, analysis):
        need = analysis.live(node.output)
        return [analysis.algebra.any_of(need, node.op.repeats)]

    def order_ties(self, node, analysis):
        heads = np.arange(analysis.channels[node.inputs[0]].size)
        first = heads * node.op.repeats
        return [(node.output, first, node.inputs[0], heads)]

    def constants(self, node, resolved):
        sources = self._sources(node, resolved.analysis)
        return resolved.constants[node.inputs[0]][sources]

    def rebuild(self, node, builder):
        value, repeats = node.inputs[0], node.op.repeats
        wanted = self._sources(node, builder.analysis)[
            builder.order[node.output]
        ]
        axis = builder.analysis.channels[value].axis
        once = wanted[::repeats]
        if np.array_equal(np.repeat(once, repeats), wanted):
            tensors = {value: builder.read(value, once, axis)}
            return trace.call(builder.clone(node), node, tensors)
        return [builder.read(value, wanted, axis)]


class Softmax(Channelwise):
    """A softmax over other axes than the channels, such as the positions that
    a head attends to. A dead channel's zeros become equal weights, so every
    channel that is read is computed."""

    layers = "Softmax"
    operations = "Softmax LogSoftmax"

    def refuse(self, node, analysis):
        axis, rank = analysis.inputs(node)[0].axis, len(node.output.shape)
        if axis in {x % rank for x in np.atleast_1d(node.op.axis)}:
            return "it looks at several channels at once"
        given = keras.tree.flatten((node.args, node.kwargs))
        shapes = [getattr(x, "shape", ()) for x in given if not _is_value(x)]
        if axis is not None and any(
            len(x) == rank and x[axis] > 1 for x in shapes
        ):
            return "it masks channels by a constant"
        return None

    def propagate_alive(self, node, analysis):
        axis = self.axis(node, analysis)
        return [analysis.all_alive(node.output, axis)]

    def propagate_needed(self, node, analysis):
        need, algebra = analysis.needed[node.output], analysis.algebra
        masks = [algebra.any(need)] * (len(node.inputs) - 1)
        return [need, *masks]

    def restored_inputs(self, node, analysis):
        masks = enumerate(node.inputs[1:], 1)
        return [i for i, x in masks if analysis.removable(x)]

    def rebuild(self, node, builder):
        scores, *masks = node.inputs
        axis, wanted = self.axis(node, builder.analysis), None
        if axis is not None:
            wanted = builder.order[node.output]
        tensors = {scores: builder.read_for(node, 0)}
        for mask in masks:
            whole = wanted is None or mask.shape[axis] == 1
            tensors[mask] = (
                builder.restored(mask)
                if whole
                else builder.read(mask, wanted, axis)
            )
        return trace.call(builder.clone(node), node, tensors)


def _is_value(x):
    return isinstance(x, trace.Value)


def _has_heads(x, node):
    """Whether a bias or a mask differs between heads."""
    shape = tuple(getattr(x, "shape", ()))
    heads = node.inputs[2].shape[HEADS]
    return len(shape) == 4 and shape[1] == heads > 1
