"""The rule of convolutions in groups."""

import keras
import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.grouping import Grouping
from keras_bar.analysis.rules import activations
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import along
from keras_bar.analysis.rules.base import members
from keras_bar.analysis.rules.base import once
from keras_bar.analysis.rules.base import positions
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.kernels import Kernel


class GroupedConvolution(Kernel):
    """Conv1D, Conv2D, Conv3D with several groups, as in ResNeXt and RegNet.

    All groups that are left read equally many channels, and write equally many.
    A group is computed as long as one of its output channels is needed and one
    of its input channels is alive. A place in the groups is read, or written,
    as long as the channel there is in one of these groups; those of the others
    are restored, or computed for nothing.
    """

    prunable = True
    shares_factors = True
    # Constants are restored, and end at a padded border as they did.
    folds_constants = False

    @staticmethod
    def holds(layer):
        """Whether a convolution has groups of several input channels."""
        return getattr(layer, "groups", 1) > 1 and layer.kernel.shape[-2] > 1

    def refuse(self, node, analysis):
        if not activations.is_elementwise(node.op.activation):
            return "its activation looks at several channels at once"
        return super().refuse(node, analysis)

    def grouping(self, node):
        """Whole groups, or some channels of each: what leaves more choice."""
        groups = node.op.groups
        return Grouping(groups, groups >= min(self._sizes(node)))

    def _sizes(self, node):
        """Channels that each group reads, and those that it writes."""
        return node.op.kernel.shape[-2], node.op.filters // node.op.groups

    def _spread(self, groups, size, node, analysis):
        """A vector over groups, for `size` channels of each."""
        index = np.repeat(np.arange(node.op.groups), size)
        return analysis.algebra.take(groups, index)

    def _places(self, channels, size, node, analysis):
        """A vector over the places in a group: whether a channel of some group
        is there."""
        index = np.arange(node.op.groups * size).reshape(-1, size)
        by_place = analysis.algebra.take(channels, index.T.reshape(-1))
        return analysis.algebra.any_of(by_place, node.op.groups)

    def places_read(self, node, analysis):
        """Which places it reads: those that hold something in some group that
        is left."""
        (wanted,) = self.propagate_needed(node, analysis)
        read = analysis.algebra.conjunction(
            analysis.inputs(node)[0].nonzero, wanted
        )
        return self._places(read, self._sizes(node)[0], node, analysis)

    def propagate_alive(self, node, analysis):
        (channels,), (reads, writes) = analysis.inputs(node), self._sizes(node)
        alive, nonzero = (
            self._spread(
                analysis.algebra.any_of(x, reads), writes, node, analysis
            )
            for x in (channels.alive, channels.nonzero)
        )
        if self.pads(node):
            alive = nonzero
        if not self.preserves_zero(node):
            nonzero = analysis.algebra.full
        axis = self.axis(node, node.output)
        return [analysis.carries(node.output, axis, alive, nonzero)]

    def round_up(self, node, need, analysis):
        writes, output = self._sizes(node)[1], analysis.channels[node.output]
        need = analysis.algebra.conjunction(need, output.alive)
        groups = analysis.algebra.any_of(need, writes)
        places = self._places(need, writes, node, analysis)
        index = np.tile(np.arange(writes), node.op.groups)
        return analysis.algebra.conjunction(
            self._spread(groups, writes, node, analysis),
            analysis.algebra.take(places, index),
        )

    def propagate_needed(self, node, analysis):
        reads, writes = self._sizes(node)
        groups = analysis.algebra.any_of(analysis.live(node.output), writes)
        return [self._spread(groups, reads, node, analysis)]

    def terms(self, node, analysis):
        axis = self.axis(node, node.output)
        writes = (analysis.live(node.output), node.output.shape[axis])
        reads = (self.places_read(node, analysis), self._sizes(node)[0])
        taps = product(node.op.kernel_size)
        outputs = positions(node.output, axis)
        terms = [
            Term("volume", outputs, (writes,)),
            Term("flops", 2 * taps * outputs, (writes, reads)),
            Term("params", taps, (writes, reads)),
        ]
        if node.op.use_bias:
            terms.append(Term("params", 1, (writes,)))
        return terms

    def output_order(self, node, analysis, order_of):
        reads, writes = self._sizes(node)
        return members(once(order_of(node.inputs[0]) // reads), writes)

    def constants(self, node, resolved):
        value = node.inputs[0]
        axis = self.axis(node, value)
        size = [1, *self.smallest_input(node)]
        size.insert(axis, len(resolved.constants[value]))
        vector = along(resolved.constants[value], axis, len(size))
        image = np.broadcast_to(vector, size).astype("float32")
        tensor = keras.ops.convert_to_tensor(image)
        (output,) = trace.call(node.op, node, {value: tensor})
        rows = np.moveaxis(to_numpy(output), self.axis(node, node.output), -1)
        return rows.reshape(-1, rows.shape[-1]).mean(axis=0)

    def rebuild(self, node, builder):
        value, layer = node.inputs[0], node.op
        reads, writes = self._sizes(node)
        wanted = builder.order[node.output]
        groups = once(wanted // writes)
        holds = builder.resolved.holds(self.places_read(node, builder.analysis))
        taken = np.flatnonzero(np.broadcast_to(holds, reads))
        given = once(wanted % writes)
        read = np.add.outer(groups * reads, taken).ravel()
        made = np.add.outer(groups * writes, given).ravel()
        tensor = builder.read(value, read, self.axis(node, value))
        new = builder.clone(node, filters=len(made), groups=len(groups))
        (output,) = trace.call(new, node, {value: tensor})
        new.kernel.assign(to_numpy(layer.kernel)[..., taken, :][..., made])
        if layer.use_bias:
            new.bias.assign(to_numpy(layer.bias)[made])
        axis = self.axis(node, node.output)
        return [builder.select(output, made, wanted, axis)]

    def operand(self, node, index, writer):
        reads, writes = self._sizes(node)
        groups = writer.live[node.output].reshape(-1, writes).any(axis=1)
        places = writer.holds(self.places_read(node, writer.analysis))
        wanted = groups[:, None] & np.broadcast_to(places, reads)
        return writer.read(node, node.inputs[index], wanted.reshape(-1))
