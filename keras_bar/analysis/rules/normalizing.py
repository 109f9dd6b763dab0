"""Rules of normalization over several channels of a sample."""

import keras
import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.grouping import Grouping
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import agree
from keras_bar.analysis.rules.base import along
from keras_bar.analysis.rules.base import members
from keras_bar.analysis.rules.base import once
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.observed import Unknown
from keras_bar.analysis.rules.restoring import Restoring
from keras_bar.analysis.rules.weighted import Weighted

# Fewer groups are no unit of pruning.
LEAST_GROUPS = 4


class LayerNormalization(Restoring):
    """LayerNormalization: the mean shifts dead channels, as it shifts others.
    They are restored in front of it, and its output has all channels."""

    layers = "LayerNormalization"
    reason = "it normalizes over the channels"

    def specialized(self, node, analysis):
        axis = analysis.inputs(node)[0].axis
        over = _axes(node)
        # One that normalizes each channel by itself.
        return self if axis is None or axis in over else _apart(node, analysis)


class RMSNormalization(Weighted):
    """RMSNormalization over the channels: a channel that is 0 stays 0 and adds
    nothing to the mean square m. Over k of C channels m is C/k times as large,
    which the compact layer's `epsilon` and `scale` compensate:

        x / sqrt(k/C m + e) s = x / sqrt(m + C/k e) sqrt(C/k) s.
    """

    layers = "RMSNormalization"
    passes_channels = False

    def specialized(self, node, analysis):
        axis, over = analysis.inputs(node)[0].axis, _axes(node)
        if axis is None or over == [axis]:
            return self
        return WholeRMS() if axis in over else _apart(node, analysis)

    def propagate_alive(self, node, analysis):
        channels = analysis.inputs(node)[0]
        if channels.axis is None:
            return [analysis.all_alive(node.output)]
        nonzero = channels.nonzero
        return [analysis.carries(node.output, channels.axis, nonzero, nonzero)]

    def round_up(self, node, need, analysis):
        return analysis.algebra.any(need)  # Each depends on all of them.

    def constants(self, node, resolved):
        return np.zeros(resolved.analysis.channels[node.output].size)

    def _share(self, node, builder):
        """The part of the channels that is kept."""
        channels = builder.analysis.channels[node.output]
        if channels.axis is None:
            return 1.0
        return len(builder.order[node.output]) / channels.size

    def config(self, node, builder):
        return {"epsilon": node.op.epsilon / self._share(node, builder)}

    def assign(self, node, layer, builder):
        super().assign(node, layer, builder)
        factor = self._share(node, builder) ** -0.5
        layer.scale.assign(to_numpy(layer.scale) * factor)


class WholeRMS(Restoring):
    """RMSNormalization over the channels and other axes."""

    reason = LayerNormalization.reason


class GroupNormalization(Rule):
    """GroupNormalization: a group is computed as long as one of its channels is
    alive, and its dead channels are restored. A dead group holds constants."""

    layers = "GroupNormalization"
    shares_factors = True

    def grouping(self, node):
        """Whole groups, where these leave some choice: a group that has lost
        some of its channels is still computed."""
        several = node.op.groups >= LEAST_GROUPS and self._each(node) > 1
        return Grouping(node.op.groups, whole_groups=True) if several else None

    def refuse(self, node, analysis):
        axis = node.op.axis % len(node.inputs[0].shape)
        if not agree(analysis.inputs(node)[0], axis):
            return "it normalizes along another axis than the channels"
        return None

    def _each(self, node):
        """Number of channels of a group."""
        return node.output.shape[node.op.axis] // node.op.groups

    def _by_group(self, vector, node, analysis):
        """Which channels belong to a group with one of these."""
        each = self._each(node)
        channels = node.output.shape[node.op.axis]
        groups = analysis.algebra.any_of(vector, each)
        return analysis.algebra.take(groups, np.arange(channels) // each)

    def propagate_alive(self, node, analysis):
        (channels,) = analysis.inputs(node)
        if channels.axis is None:
            return [analysis.all_alive(node.output)]
        alive, nonzero = (
            self._by_group(x, node, analysis)
            for x in (channels.alive, channels.nonzero)
        )
        if node.op.center:
            nonzero = analysis.algebra.full
        return [analysis.carries(node.output, channels.axis, alive, nonzero)]

    def round_up(self, node, need, analysis):
        if analysis.channels[node.output].axis is None:
            return need
        return self._by_group(need, node, analysis)

    def propagate_needed(self, node, analysis):
        return [analysis.live(node.output)]  # Whole groups.

    def terms(self, node, analysis):
        size = node.output.shape[node.op.axis]
        factor = (analysis.live(node.output), size)
        return [Term("params", 1, (factor,)) for _ in node.op.weights]

    def output_order(self, node, analysis, order_of):
        each = self._each(node)
        return members(once(order_of(node.inputs[0]) // each), each)

    def constants(self, node, resolved):
        value = node.inputs[0]
        axis = resolved.analysis.channels[value].axis
        image = along(resolved.constants[value], axis, len(value.shape))
        tensor = keras.ops.convert_to_tensor(image, "float32")
        (result,) = trace.call(node.op, node, {value: tensor})
        return to_numpy(result).reshape(-1)

    def rebuild(self, node, builder):
        value, writes = node.inputs[0], builder.order[node.output]
        if writes is None:
            layer = builder.clone(node)
            outputs = trace.call(layer, node, {value: builder.tensors[value]})
            trace.copy_state(node.op, layer)
            return outputs
        groups = once(writes // self._each(node))
        made = members(groups, self._each(node))
        axis = builder.analysis.channels[node.output].axis
        layer = builder.clone(node, groups=len(groups))
        tensor = builder.read(value, made, axis)
        (output,) = trace.call(layer, node, {value: tensor})
        for old, new in zip(node.op.weights, layer.weights, strict=True):
            new.assign(to_numpy(old)[made])
        return [builder.select(output, made, writes, axis)]


def _axes(node):
    """The axes over which a layer normalizes."""
    rank = len(node.inputs[0].shape)
    return sorted(int(x) % rank for x in np.atleast_1d(node.op.axis))


def _apart(node, analysis):
    """The rule of a layer that normalizes over other axes than the channels."""
    return Unknown().specialized(node, analysis)
