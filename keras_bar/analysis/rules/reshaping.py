"""Rules of layers that move the channel axis."""

import keras
import numpy as np

from keras_bar import keras_internals
from keras_bar.analysis import permuting
from keras_bar.analysis import trace
from keras_bar.analysis.rules.attended import is_attended
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import positions
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import reshaped
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.heads import MergeHeads
from keras_bar.analysis.rules.heads import SplitHeads
from keras_bar.analysis.rules.heads import splits_heads


class Flatten(Rule):
    """Flatten: every channel becomes one feature per position."""

    layers = "Flatten"
    flattens = True

    def refuse(self, node, analysis):
        if (
            analysis.removable(node.inputs[0])
            and None in node.inputs[0].shape[1:]
        ):
            return "the size of its input is unknown"
        return None

    def features(self, node, channels, stored):
        """Channel of every feature, and index of the feature in the full
        network, if only the channels `stored` are flattened."""
        places = np.arange(positions(node.inputs[0], channels.axis))
        first = channels.axis != len(node.inputs[0].shape) - 1
        moves = getattr(node.op, "data_format", None) == "channels_first"
        if first and not moves:
            resolved = stored[:, None] * len(places) + places
            return np.repeat(stored, len(places)), resolved.reshape(-1)
        resolved = places[:, None] * channels.size + stored
        return np.tile(stored, len(places)), resolved.reshape(-1)

    def propagate_alive(self, node, analysis):
        (channels,) = analysis.inputs(node)
        if channels.axis is None or None in node.inputs[0].shape[1:]:
            return [analysis.all_alive(node.output)]
        of, _ = self.features(node, channels, np.arange(channels.size))
        alive = analysis.algebra.take(channels.alive, of)
        nonzero = analysis.algebra.take(channels.nonzero, of)
        return [analysis.carries(node.output, 1, alive, nonzero)]

    def propagate_needed(self, node, analysis):
        # Dense layers read either all features or none.
        return [analysis.algebra.any(analysis.needed[node.output])]

    def output_order(self, node, analysis, order_of):
        value = node.inputs[0]
        return self.features(node, analysis.channels[value], order_of(value))[1]

    def constants(self, node, resolved):
        channels = resolved.analysis.channels[node.inputs[0]]
        of, _ = self.features(node, channels, np.arange(channels.size))
        return resolved.constants[node.inputs[0]][of]

    def rebuild(self, node, builder):
        value, kept = node.inputs[0], builder.order[node.output]
        tensors = {value: builder.tensors[value]}
        (output,) = trace.call(builder.clone(node), node, tensors)
        if kept is None:
            return [output]
        channels = builder.analysis.channels[value]
        _, made = self.features(node, channels, builder.order[value])
        return [builder.select(output, made, kept, axis=1)]

    def run(self, node, writer):
        value, output = node.inputs[0], node.output
        if not writer.knows(value) or not writer.knows(output):
            return super().run(node, writer)
        axis = writer.analysis.channels[value].axis
        stored = writer.count(value) * positions(value, axis)
        writer.select(node, writer.tensors[value], stored, output)


class Transpose(Channelwise):
    """keras.ops.transpose and the like: permutes the channel axis with the
    others."""

    layers = "Permute"
    operations = "Transpose Swapaxes Moveaxis"

    def refuse(self, node, analysis):
        channels = analysis.inputs(node)[0]
        if channels.axis is None or permutation(node)[0] == 0:
            return None
        # Queries, keys and values that one layer makes are often put in front
        # of the batch, and then taken apart.
        batch = permutation(node).index(0)
        if batch == 1 and all(map(_takes_first, node.output.consumers)):
            return None
        return "it moves the batch along another axis"

    def axis(self, node, analysis):
        channels = analysis.inputs(node)[0]
        if channels.axis is None:
            return None
        return permutation(node).index(channels.axis)

    def rebuild(self, node, builder):
        tensor = builder.read_for(node, 0)
        source = untransposed(tensor, permutation(node))
        if source is not None:
            return [source]
        return trace.call(builder.clone(node), node, {node.inputs[0]: tensor})


class ExpandDims(Channelwise):
    """keras.ops.expand_dims: new axes of size 1."""

    operations = "ExpandDims"

    def axis(self, node, analysis):
        axis, rank = analysis.inputs(node)[0].axis, len(node.output.shape)
        new = {int(x) % rank for x in np.atleast_1d(node.op.axis)}
        old = [x for x in range(rank) if x not in new]
        return None if axis is None else old[axis]


class Squeeze(Channelwise):
    """keras.ops.squeeze: takes away axes of size 1."""

    operations = "Squeeze"

    def _removed(self, node):
        shape, axes = node.inputs[0].shape, node.op.axis
        if axes is None:
            return [i for i, size in enumerate(shape) if size == 1]
        return sorted(int(x) % len(shape) for x in np.atleast_1d(axes))

    def refuse(self, node, analysis):
        if analysis.inputs(node)[0].axis in self._removed(node):
            return "it takes away the axis of the channels"
        return None

    def axis(self, node, analysis):
        axis = analysis.inputs(node)[0].axis
        if axis is None:
            return None
        return axis - sum(x < axis for x in self._removed(node))

    def config(self, node, builder):
        # A single channel that is left stays an axis.
        return {"axis": tuple(self._removed(node))}


class Reshape(Channelwise):
    """Reshape that leaves the channel axis alone, such as (C,) to (1, 1, C)."""

    layers = operations = "Reshape"

    def specialized(self, node, analysis):
        attended = is_attended(node.output)
        if attended is not None and SplitHeads.holds(node, analysis):
            return SplitHeads(attended and splits_heads(node))
        return MergeHeads() if MergeHeads.holds(node, analysis) else self

    def refuse(self, node, analysis):
        channels = analysis.inputs(node)[0]
        if channels.axis is not None and self.axis(node, analysis) is None:
            return "it moves values between channels"
        return None

    def axis(self, node, analysis):
        value, channels = node.inputs[0], analysis.inputs(node)[0]
        old, new = value.shape, node.output.shape
        if channels.axis is None:
            return None
        behind = old[channels.axis :]
        if None not in behind and new[-len(behind) :] == behind:
            return len(new) - len(behind)
        if channels.axis == 1 and new[1:2] == (channels.size,):
            return 1 if self._keeps_batch(node) else None
        return None

    def _keeps_batch(self, node):
        """Whether the batch is the same, if the axis behind it is."""
        if isinstance(node.op, keras.layers.Layer):
            return True  # A layer never reshapes the batch.
        old, new = node.inputs[0].shape, node.output.shape
        return product(old[2:]) == product(new[2:])  # NaN where unknown.

    def config(self, node, builder):
        axis = builder.analysis.channels[node.output].axis
        if axis is None:
            return {}
        # A -1 in the target becomes explicit, because the sizes change.
        layer = isinstance(node.op, keras.layers.Layer)
        target = node.op.target_shape if layer else node.op.newshape
        shape = list(node.output.shape)
        if None in shape[1:]:
            shape = [None, *target] if layer else list(target)
        shape[axis] = len(builder.order[node.output])
        return reshaped(node, shape)


def _takes_first(node):
    """Whether a node separates the entries of the first axis."""
    kind = type(node.op).__name__
    if kind == "GetItem":
        return isinstance(node.args[1], int)
    return kind == "Unstack" and node.op.axis == 0


def untransposed(tensor, axes):
    """The tensor that a transposition by `axes` would restore, if the inverse
    one made this tensor; otherwise None."""
    made = keras_internals.maker_of(tensor)
    if type(made).__name__ != "Transpose" or made.axes is None:
        return None
    if [made.axes[axis] for axis in axes] != list(range(len(axes))):
        return None
    return keras_internals.read_by_maker(tensor)[0]


def permutation(node):
    """Per axis of the output, the corresponding axis of the input."""
    return permuting.permutation(node.op, len(node.inputs[0].shape))
