"""Rules of layers that move the channel axis."""

import numpy as np

from keras_bar.graph import trace
from keras_bar.graph.rules.base import Rule
from keras_bar.graph.rules.base import product
from keras_bar.graph.rules.channelwise import Channelwise


class Flatten(Rule):
    """Flatten: every channel becomes one feature per position."""

    def refuse(self, node, flow):
        shape = node.inputs[0].shape
        if flow.removable(node.inputs[0]) and None in shape[1:]:
            return "the size of its input is unknown"
        return None

    def spread(self, node, vector, channels, tile, repeat):
        """The vector over features that a vector over channels becomes."""
        positions = _positions(node.inputs[0], channels.axis)
        first = channels.axis != len(node.inputs[0].shape) - 1
        moves = getattr(node.op, "data_format", None) == "channels_first"
        if first and not moves:
            return repeat(vector, positions)
        return tile(vector, positions)

    def forward(self, node, flow):
        (channels,) = flow.inputs(node)
        if channels.axis is None or None in node.inputs[0].shape[1:]:
            return [flow.all_alive(node.output)]
        algebra = flow.algebra
        alive = self.spread(
            node, channels.alive, channels, algebra.tile, algebra.repeat
        )
        return [flow.carries(node.output, 1, alive, channels.zero)]

    def backward(self, node, flow):
        # Dense layers read all features or none.
        return [flow.algebra.any(flow.needed[node.output])]

    def can_zero(self, node, flow):
        return flow.can_be_zeroed(node.inputs[0])

    def zero(self, node, dead, surgeon):
        channels = surgeon.flow.channels[node.inputs[0]]
        ids = np.arange(channels.size)
        spread = self.spread(node, ids, channels, np.tile, np.repeat)
        mask = np.zeros(channels.size, bool)
        mask[spread[dead]] = True
        surgeon.zero(node.inputs[0], mask)

    def constants(self, node, numbers):
        channels = numbers.flow.channels[node.inputs[0]]
        vector = numbers.constants[node.inputs[0]]
        if np.ndim(vector) == 0 or channels.axis is None:
            return vector
        return self.spread(node, vector, channels, np.tile, np.repeat)

    def rebuild(self, node, builder):
        value = node.inputs[0]
        channels = builder.flow.channels[value]
        (output,) = trace.call(
            builder.clone(node), node, {value: builder.tensors[value]}
        )
        if builder.order[value] is None:
            return [output]
        # Feature number of (position, channel), for the stored channels.
        numbering = np.arange(node.output.shape[-1])
        positions = _positions(value, channels.axis)
        ids = self.spread(
            node, np.arange(channels.size), channels, np.tile, np.repeat
        )
        by_channel = [numbering[ids == c] for c in builder.order[value]]
        tiled = ids[:2].tolist() != [0, 0] or positions == 1
        stacked = np.stack(by_channel, axis=1 if tiled else 0)
        kept = builder.order[node.output]
        return [builder.select(output, stacked.reshape(-1), kept, node.output)]


class Reshape(Channelwise):
    """Reshape that leaves the channel axis alone, such as (C,) to (1, 1, C)."""

    def refuse(self, node, flow):
        channels = flow.inputs(node)[0]
        if channels.axis is None:
            return None
        if self.axis(node, flow) is None:
            return "it moves values between channels"
        return None

    def axis(self, node, flow):
        value, channels = node.inputs[0], flow.inputs(node)[0]
        old, new = value.shape, node.output.shape
        if channels.axis == len(old) - 1 and new[-1] == channels.size:
            return len(new) - 1
        if channels.axis == 1 and new[1] == channels.size:
            return 1
        return None

    def config(self, node, builder):
        channels = builder.flow.channels[node.output]
        if channels.axis is None:
            return {}
        # A -1 in the target has to be spelled out: the sizes change.
        shape = list(node.output.shape[1:])
        if None in shape:
            shape = list(node.op.target_shape)
        shape[channels.axis - 1] = len(builder.order[node.output])
        return {"target_shape": shape}


def _positions(value, axis):
    return product(d for i, d in enumerate(value.shape) if i not in (0, axis))
