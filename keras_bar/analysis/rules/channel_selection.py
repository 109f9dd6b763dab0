"""Rules of layers that move channels along their axis.

Compact models contain them, so that these can be gated and pruned again.
"""

import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.algebra import ABSENT
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import agree


class Mixed(Rule):
    """keras_bar.layers.MixedResidual: every input holds some channels of the
    output."""

    layers = "MixedResidual"
    moves_channels = True
    unites_channels = True

    def axis(self, node):
        return node.op.axis % len(node.output.shape)

    def refuse(self, node, analysis):
        if not all(agree(c, self.axis(node)) for c in analysis.inputs(node)):
            return "it works along another axis than the channels"
        return None

    def is_counted(self, node):
        rank = len(node.output.shape)
        return not any(node.op.is_product(x, rank) for x in node.op.indices)

    def order_ties(self, node, analysis):
        return [
            (node.output, places, value, np.arange(len(places)))
            for value, places in zip(
                node.inputs, self.places(node), strict=True
            )
            if analysis.channels[value].axis is not None
        ]

    def places(self, node):
        """Per input, the places of its channels in the output."""
        everything = np.arange(node.op.channels)
        return [
            everything if i is None else np.array(i) for i in node.op.indices
        ]

    def propagate_alive(self, node, analysis):
        inputs, algebra = analysis.inputs(node), analysis.algebra
        alive, nonzero = [], []
        if node.op.constant is not None:
            nonzero.append(algebra.full)
        for channels, places in zip(inputs, self.places(node), strict=True):
            index = _inverse(places, node.op.channels)
            alive.append(algebra.take(channels.alive, index))
            nonzero.append(algebra.take(channels.nonzero, index))
        unions = (algebra.disjunction(*x) for x in (alive, nonzero))
        return [analysis.carries(node.output, self.axis(node), *unions)]

    def propagate_needed(self, node, analysis):
        needed = analysis.needed[node.output]
        return [analysis.algebra.take(needed, x) for x in self.places(node)]

    def constants(self, node, resolved):
        total = np.zeros(node.op.channels)
        if node.op.constant is not None:
            total += node.op.constant
        for value, places in zip(node.inputs, self.places(node), strict=True):
            total[places] += resolved.constants[value]
        return total

    def rebuild(self, node, builder):
        ones = [1.0] * len(node.inputs)
        places = self.places(node)
        operands, constant = builder.operands(node, ones, places)
        if node.op.constant is not None:
            kept = builder.order[node.output]
            constant = constant + np.asarray(node.op.constant)[kept]
        return [builder.add(node, operands, constant)]

    def run(self, node, writer):
        writer.run_sum(node, self.places(node))


class OneInput(Rule):
    """Takes channels of one tensor, or puts them beside zeros."""

    moves_channels = True

    def run(self, node, writer):
        value = node.inputs[0]
        if not writer.knows(node.output):
            return super().run(node, writer)
        tensor, stored = writer.tensors[value], writer.count(value)
        writer.select(node, tensor, stored, node.output)


class ChannelPad(OneInput):
    """keras.ops.pad with channels of zeros. The compact model does not store
    them: an addition that reads the tensor places its channels itself."""

    def holds(self, node, analysis):
        """Whether a padding adds channels."""
        axis = analysis.inputs(node)[0].axis
        return axis is not None and bool(np.any(pad_widths(node)[axis]))

    def refuse(self, node, analysis):
        widths = pad_widths(node).copy()
        widths[analysis.inputs(node)[0].axis] = 0
        if np.any(widths):
            return "it pads along the channels and along another axis"
        return None if pads_zeros(node) else NO_ZEROS

    def places(self, node, channels):
        """The places of the input's channels in the output."""
        return pad_widths(node)[channels.axis, 0] + np.arange(channels.size)

    def order_ties(self, node, analysis):
        channels = analysis.inputs(node)[0]
        places, here = self.places(node, channels), np.arange(channels.size)
        return [(node.output, places, node.inputs[0], here)]

    def propagate_alive(self, node, analysis):
        (channels,), output = analysis.inputs(node), node.output
        places = self.places(node, channels)
        index = _inverse(places, output.shape[channels.axis])
        alive = analysis.algebra.take(channels.alive, index)
        nonzero = analysis.algebra.take(channels.nonzero, index)
        return [analysis.carries(output, channels.axis, alive, nonzero)]

    def propagate_needed(self, node, analysis):
        needed = analysis.needed[node.output]
        places = self.places(node, analysis.inputs(node)[0])
        return [analysis.algebra.take(needed, places)]

    def constants(self, node, resolved):
        channels = resolved.analysis.channels[node.inputs[0]]
        total = np.zeros(node.output.shape[channels.axis])
        total[self.places(node, channels)] = resolved.constants[node.inputs[0]]
        return total

    def rebuild(self, node, builder):
        value = node.inputs[0]
        channels = builder.analysis.channels[value]
        wanted = builder.order[node.output] - self.places(node, channels)[0]
        return [builder.read(value, wanted, channels.axis)]


class Selection(OneInput):
    """keras.ops.take and slices along the channels."""

    def refuse(self, node, analysis):
        if len(node.inputs) > 1:
            return "it selects by a tensor"
        axis = analysis.inputs(node)[0].axis
        if axis is None:
            return None
        chosen = self.chosen(node, axis)
        if chosen is None:
            return "it selects along another axis than the channels"
        # A channel that is 0 whatever the gates do may be taken repeatedly.
        channels = analysis.inputs(node)[0]
        zero = analysis.algebra.absent(channels.nonzero)
        chosen = chosen[~np.broadcast_to(zero, channels.size)[chosen]]
        if len(set(chosen.tolist())) < len(chosen):
            return "it selects a channel twice"
        return None

    def chosen(self, node, axis):
        """The channels that it takes, or None."""
        raise NotImplementedError

    def parts(self, node, analysis):
        axis = analysis.inputs(node)[0].axis
        if axis is None:
            return []
        return [(node.output, self.chosen(node, axis))]

    def order_ties(self, node, analysis):
        return [
            (value, np.arange(len(chosen)), node.inputs[0], chosen)
            for value, chosen in self.parts(node, analysis)
        ]

    def propagate_alive(self, node, analysis):
        (channels,) = analysis.inputs(node)
        if channels.axis is None:
            return [analysis.all_alive(node.output)]
        chosen = self.chosen(node, channels.axis)
        alive = analysis.algebra.take(channels.alive, chosen)
        nonzero = analysis.algebra.take(channels.nonzero, chosen)
        return [analysis.carries(node.output, channels.axis, alive, nonzero)]

    def propagate_needed(self, node, analysis):
        channels, needed = (
            analysis.inputs(node)[0],
            analysis.needed[node.output],
        )
        if channels.axis is None:
            return [needed]
        chosen = self.chosen(node, channels.axis)
        return [analysis.algebra.take(needed, _inverse(chosen, channels.size))]

    def constants(self, node, resolved):
        value = node.inputs[0]
        axis = resolved.analysis.channels[value].axis
        return resolved.constants[value][self.chosen(node, axis)]

    def rebuild(self, node, builder):
        value, kept = node.inputs[0], builder.order[node.output]
        if kept is None:
            tensors = {value: builder.tensors[value]}
            return trace.call(builder.clone(node), node, tensors)
        axis = builder.analysis.channels[value].axis
        return [builder.read(value, self.chosen(node, axis)[kept], axis)]


NO_ZEROS = "it pads with values other than zeros"


def pad_widths(node):
    """Array `(rank, 2)`: the numbers that keras.ops.pad adds on each side."""
    rank = len(node.inputs[0].shape)
    return np.broadcast_to(node.op.pad_width, (rank, 2))


def pads_zeros(node):
    """Whether keras.ops.pad adds zeros."""
    given = [*node.args, *node.kwargs.values()]
    return node.op.mode == "constant" and not any(given[1:])


def _inverse(places, size):
    """Per channel of a larger vector, its index in `places`."""
    index = np.full(size, ABSENT)
    index[places] = np.arange(len(places))
    return index
