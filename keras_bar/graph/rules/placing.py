"""Rules of layers that move channels along their axis: what compact models
are made of, so that they can be gated, and pruned, anew."""

import numpy as np

from keras_bar.graph import trace
from keras_bar.graph.algebra import ABSENT
from keras_bar.graph.rules.base import Rule
from keras_bar.graph.rules.base import agree


class Mixed(Rule):
    """This package's `MixedResidual`: every input holds some channels of the
    output. With it compact models can be gated, and pruned, anew."""

    def axis(self, node):
        return node.op.axis % len(node.output.shape)

    def refuse(self, node, flow):
        if not all(agree(c, self.axis(node)) for c in flow.inputs(node)):
            return "it works along another axis than the channels"
        return None

    def places(self, node):
        """Per input, its channels' places in the output."""
        everything = np.arange(node.op.channels)
        return [
            everything if i is None else np.array(i) for i in node.op.indices
        ]

    def forward(self, node, flow):
        inputs, algebra = flow.inputs(node), flow.algebra
        alive, nonzero = [], []
        if node.op.constant is not None:
            nonzero.append(algebra.full)
        for channels, places in zip(inputs, self.places(node), strict=True):
            index = _inverse(places, node.op.channels)
            alive.append(algebra.take(channels.alive, index))
            nonzero.append(algebra.take(channels.nonzero, index))
        unions = (algebra.disjunction(*x) for x in (alive, nonzero))
        return [flow.carries(node.output, self.axis(node), *unions)]

    def backward(self, node, flow):
        needed = flow.needed[node.output]
        return [flow.algebra.take(needed, x) for x in self.places(node)]

    def constants(self, node, numbers):
        total = np.zeros(node.op.channels)
        if node.op.constant is not None:
            total += node.op.constant
        for value, places in zip(node.inputs, self.places(node), strict=True):
            total[places] += numbers.constants[value]
        return total

    def rebuild(self, node, builder):
        ones = [1.0] * len(node.inputs)
        places = self.places(node)
        operands, constant = builder.operands(node, ones, places)
        if node.op.constant is not None:
            kept = builder.order[node.output]
            constant = constant + np.asarray(node.op.constant)[kept]
        return [builder.add(node, operands, constant)]


class ChannelPad(Rule):
    """keras.ops.pad with channels of zeros. In the compact model they are not
    stored: who adds the tensor to another places its channels anew."""

    def holds(self, node, flow):
        """Whether a padding adds channels."""
        axis = flow.inputs(node)[0].axis
        return axis is not None and bool(np.any(pad_widths(node)[axis]))

    def refuse(self, node, flow):
        widths = pad_widths(node).copy()
        widths[flow.inputs(node)[0].axis] = 0
        if np.any(widths):
            return "it pads along the channels and along another axis"
        return None if pads_zeros(node) else NO_ZEROS

    def places(self, node, channels):
        """The places of the input's channels in the output."""
        return pad_widths(node)[channels.axis, 0] + np.arange(channels.size)

    def forward(self, node, flow):
        (channels,), output = flow.inputs(node), node.output
        places = self.places(node, channels)
        index = _inverse(places, output.shape[channels.axis])
        alive = flow.algebra.take(channels.alive, index)
        nonzero = flow.algebra.take(channels.nonzero, index)
        return [flow.carries(output, channels.axis, alive, nonzero)]

    def backward(self, node, flow):
        needed = flow.needed[node.output]
        places = self.places(node, flow.inputs(node)[0])
        return [flow.algebra.take(needed, places)]

    def constants(self, node, numbers):
        channels = numbers.flow.channels[node.inputs[0]]
        total = np.zeros(node.output.shape[channels.axis])
        total[self.places(node, channels)] = numbers.constants[node.inputs[0]]
        return total

    def rebuild(self, node, builder):
        value = node.inputs[0]
        channels = builder.flow.channels[value]
        wanted = builder.order[node.output] - self.places(node, channels)[0]
        return [builder.read(value, wanted, channels.axis)]


class Selection(Rule):
    """keras.ops.take and slices along the channels, which mixed connectivity
    leaves in a compact model."""

    def refuse(self, node, flow):
        axis = flow.inputs(node)[0].axis
        if axis is None:
            return None
        chosen = self.chosen(node, axis)
        if chosen is None:
            return "it selects along another axis than the channels"
        # Those that are 0 whatever the gates do may stand in many places.
        channels = flow.inputs(node)[0]
        zero = flow.algebra.absent(channels.nonzero)
        chosen = chosen[~np.broadcast_to(zero, channels.size)[chosen]]
        if len(set(chosen.tolist())) < len(chosen):
            return "it selects a channel twice"
        return None

    def chosen(self, node, axis):
        """The channels that it takes, or None."""
        raise NotImplementedError

    def forward(self, node, flow):
        (channels,) = flow.inputs(node)
        if channels.axis is None:
            return [flow.all_alive(node.output)]
        chosen = self.chosen(node, channels.axis)
        alive = flow.algebra.take(channels.alive, chosen)
        nonzero = flow.algebra.take(channels.nonzero, chosen)
        return [flow.carries(node.output, channels.axis, alive, nonzero)]

    def backward(self, node, flow):
        channels, needed = flow.inputs(node)[0], flow.needed[node.output]
        if channels.axis is None:
            return [needed]
        chosen = self.chosen(node, channels.axis)
        return [flow.algebra.take(needed, _inverse(chosen, channels.size))]

    def constants(self, node, numbers):
        value = node.inputs[0]
        axis = numbers.flow.channels[value].axis
        return numbers.constants[value][self.chosen(node, axis)]

    def rebuild(self, node, builder):
        value, kept = node.inputs[0], builder.order[node.output]
        if kept is None:
            tensors = {value: builder.tensors[value]}
            return trace.call(builder.clone(node), node, tensors)
        axis = builder.flow.channels[value].axis
        return [builder.read(value, self.chosen(node, axis)[kept], axis)]


class Take(Selection):
    """keras.ops.take."""

    def chosen(self, node, axis):
        args = [*node.args, *node.kwargs.values()]
        value, rank = node.inputs[0], len(node.inputs[0].shape)
        along = node.op.axis is not None and node.op.axis % rank == axis
        if not along or len(args) != 2 or len(node.inputs) != 1:
            return None
        chosen = np.asarray(args[1])
        flat = chosen.ndim == 1 and np.issubdtype(chosen.dtype, np.integer)
        return chosen % value.shape[axis] if flat else None


class Slice(Selection):
    """Slicing with brackets, `x[..., 3:8]`."""

    def chosen(self, node, axis):
        key, value = node.args[1], node.inputs[0]
        rank = len(value.shape)
        # Loaded from a file it is a list.
        key = tuple(key) if isinstance(key, list | tuple) else (key,)
        if not all(isinstance(x, slice) or x is Ellipsis for x in key):
            return None
        if Ellipsis not in key:
            key = (*key, Ellipsis)
        before = key.index(Ellipsis)
        missing = rank - (len(key) - 1)
        key = key[:before] + (slice(None),) * missing + key[before + 1 :]
        others = [x for i, x in enumerate(key) if i != axis]
        if any(x != slice(None) for x in others):
            return None
        return np.arange(value.shape[axis])[key[axis]]


NO_ZEROS = "it pads with something else than zeros"


def pad_widths(node):
    """Array `(rank, 2)`: what keras.ops.pad adds before and after."""
    rank = len(node.inputs[0].shape)
    return np.broadcast_to(node.op.pad_width, (rank, 2))


def pads_zeros(node):
    """Whether keras.ops.pad adds zeros."""
    given = [*node.args, *node.kwargs.values()]
    return node.op.mode == "constant" and not any(given[1:])


def _inverse(places, size):
    """Per channel of a larger vector, where in `places` it is."""
    index = np.full(size, ABSENT)
    index[places] = np.arange(len(places))
    return index
