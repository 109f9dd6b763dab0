"""Rules of convolutions."""

import numpy as np

from keras_bar.analysis import patches
from keras_bar.analysis import trace
from keras_bar.analysis.rules import activations
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import positions
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.grouped import GroupedConvolution
from keras_bar.analysis.rules.kernels import Kernel
from keras_bar.analysis.rules.kernels import Mixing


class Convolution(Mixing):
    """Conv1D, Conv2D, Conv3D."""

    layers = "Conv1D Conv2D Conv3D"
    prunable = True

    def specialized(self, node, analysis):
        for kind in (GroupPerChannel, GroupedConvolution):
            if kind.holds(node.op):
                return kind()
        return self

    def reads_patches(self, layer):
        return layer.groups == 1

    def output_sizes(self, node, array):
        array = np.moveaxis(array, self.axis(node, node.inputs[0]), -1)
        return patches.output_sizes(node.op, array.shape[1:-1])

    def patches(self, node, array, places):
        array = np.moveaxis(array, self.axis(node, node.inputs[0]), -1)
        return patches.read(node.op, array, places)

    def applications(self, node):
        """Number of applications of the kernel per sample."""
        return positions(node.output, self.axis(node, node.output))

    def terms(self, node, analysis):
        factors = self.factors(node, analysis)
        weights = product(node.op.kernel_size) / getattr(node.op, "groups", 1)
        outputs = positions(node.output, self.axis(node, node.output))
        return [
            Term("volume", outputs, factors[1:]),
            Term("flops", 2 * weights * self.applications(node), factors),
            Term("params", weights, factors),
            *self.bias_terms(node, analysis),
        ]


class TransposedConvolution(Convolution):
    """Conv1DTranspose, Conv2DTranspose, Conv3DTranspose."""

    layers = "Conv1DTranspose Conv2DTranspose Conv3DTranspose"
    output_axis = -2
    input_axis = -1

    def reads_patches(self, layer):
        return False

    def pads(self, node):
        # Output positions see different taps of the kernel, so that a constant
        # input does not give a constant output.
        return any(k > 1 for k in node.op.kernel_size)

    def applications(self, node):
        return positions(node.inputs[0], self.axis(node, node.inputs[0]))

    def forget(self, layer, dead):
        kernel = to_numpy(layer.kernel)
        kernel[..., dead] = 0.0
        layer.kernel.assign(kernel)

    def assign(self, old, new, reads, writes):
        new.kernel.assign(to_numpy(old.kernel)[..., writes, :][..., reads])
        if old.use_bias:
            new.bias.assign(to_numpy(old.bias)[writes])


class SeparableConvolution(Convolution):
    """SeparableConv1D, SeparableConv2D: a depthwise, then a 1x1 kernel."""

    layers = "SeparableConv1D SeparableConv2D"
    reads_linearly = False

    def reads_patches(self, layer):
        return False

    def terms(self, node, analysis):
        reads, writes = self.factors(node, analysis)
        taps = product(node.op.kernel_size)
        outputs = positions(node.output, self.axis(node, node.output))
        copies = node.op.depth_multiplier
        built = (analysis.algebra.any(writes[0]), 1)
        return [
            Term("volume", outputs, (writes,)),
            Term("flops", 2 * taps * copies * outputs, (reads, built)),
            Term("flops", 2 * copies * outputs, (reads, writes)),
            Term("params", taps * copies, (reads, built)),
            Term("params", copies, (reads, writes)),
            *self.bias_terms(node, analysis),
        ]

    def forget(self, layer, dead):
        kernel = to_numpy(layer.depthwise_kernel)
        kernel[..., dead, :] = 0.0
        layer.depthwise_kernel.assign(kernel)

    def assign(self, old, new, reads, writes):
        depthwise = to_numpy(old.depthwise_kernel)
        pointwise = to_numpy(old.pointwise_kernel)
        inputs, copies = depthwise.shape[-2:]
        rows = np.arange(inputs * copies).reshape(inputs, copies)[reads]
        new.depthwise_kernel.assign(depthwise[..., reads, :])
        new.pointwise_kernel.assign(
            pointwise[..., rows.reshape(-1), :][..., writes]
        )
        if old.use_bias:
            new.bias.assign(to_numpy(old.bias)[writes])

    def output_kernel(self, layer):
        return layer.pointwise_kernel

    def channels_between(self, node, count):
        return node.op.depth_multiplier * count


class DepthwiseConvolution(Kernel):
    """DepthwiseConv1D, DepthwiseConv2D: each channel has its own kernels."""

    layers = "DepthwiseConv1D DepthwiseConv2D"
    prunable = True
    ties_channels = True
    filters_each_channel = True

    def refuse(self, node, analysis):
        if not activations.is_elementwise(node.op.activation):
            return "its activation looks at several channels at once"
        return super().refuse(node, analysis)

    def copies(self, layer):
        """Number of output channels made from one input channel."""
        return layer.depth_multiplier

    def smaller(self, layer, reads):
        """Configuration entries of a layer that reads only `reads`."""
        return {}

    def filters(self, layer):
        kernel = to_numpy(layer.kernel)
        channels = kernel.shape[-2] * kernel.shape[-1]
        return kernel.reshape(-1, channels)

    def kernel_factors(self, factors, shape):
        return factors.reshape(shape[-2:])

    def part(self, kernel, reads, made):
        """The kernel that makes the channels `made` from `reads`."""
        return kernel[..., reads, :]

    def propagate_alive(self, node, analysis):
        value, axis = node.inputs[0], self.axis(node, node.output)
        of = self._readers(node, value.shape[self.axis(node, value)])
        alive = analysis.algebra.take(analysis.channels[value].alive, of)
        nonzero = analysis.algebra.full
        if self.preserves_zero(node):
            nonzero = analysis.algebra.take(
                analysis.channels[value].nonzero, of
            )
        return [analysis.carries(node.output, axis, alive, nonzero)]

    def round_up(self, node, need, analysis):
        # Either all outputs of an input channel are computed or none.
        copies = self.copies(node.op)
        inputs = node.output.shape[self.axis(node, node.output)] // copies
        live = analysis.algebra.any_of(need, copies)
        return analysis.algebra.take(live, self._readers(node, inputs))

    def propagate_needed(self, node, analysis):
        copies = self.copies(node.op)
        return [analysis.algebra.any_of(analysis.live(node.output), copies)]

    def terms(self, node, analysis):
        axis = self.axis(node, node.output)
        writes = (analysis.live(node.output), node.output.shape[axis])
        taps = product(node.op.kernel_size)
        outputs = positions(node.output, axis)
        return [
            Term("volume", outputs, (writes,)),
            Term("flops", 2 * taps * outputs, (writes,)),
            Term("params", taps + int(node.op.use_bias), (writes,)),
        ]

    def constants(self, node, resolved):
        analysis = resolved.analysis
        vector = self.contribution(node, resolved)
        if self.sees_end(node, analysis) and not self.takes_shift(
            node, analysis
        ):
            vector = np.zeros_like(vector)  # Hard pruning removes it.
        return self.shifted(node, vector)

    def output_order(self, node, analysis, order_of):
        copies = self.copies(node.op)
        if copies == 1:
            return None
        order = copies * order_of(node.inputs[0])[:, None]
        return (order + np.arange(copies)).reshape(-1)

    def rebuild(self, node, builder):
        value, layer = node.inputs[0], node.op
        writes, copies = builder.order[node.output], self.copies(layer)
        reads = np.array(list(dict.fromkeys((writes // copies).tolist())))
        tensor = builder.read(value, reads, self.axis(node, value))
        new = builder.clone(node, **self.smaller(layer, reads))
        outputs = trace.call(new, node, {value: tensor})
        made = (reads[:, None] * copies + np.arange(copies)).reshape(-1)
        new.kernel.assign(self.part(to_numpy(layer.kernel), reads, made))
        if layer.use_bias:
            new.bias.assign(to_numpy(layer.bias)[made])
        axis = self.axis(node, node.output)
        return [builder.select(outputs[0], made, writes, axis)]

    def _readers(self, node, inputs):
        """Per output channel, the input channel it is made from."""
        return np.repeat(np.arange(inputs), self.copies(node.op))

    def _made(self, node, writer):
        """Which input channels are filtered, booleans."""
        kept = writer.live[node.output]
        return kept.reshape(-1, self.copies(node.op)).any(axis=1)

    def operand(self, node, index, writer):
        value = node.inputs[index]
        return writer.read(node, value, self._made(node, writer))

    def run(self, node, writer):
        made = self._made(node, writer).sum() * self.copies(node.op)
        read, output = self.operand(node, 0, writer), node.output
        tensor = writer.run(node, "other", [read], output, made)
        writer.select(node, tensor, made, output)


class GroupPerChannel(DepthwiseConvolution):
    """Conv1D, Conv2D, Conv3D with one group per input channel: a depthwise
    convolution with a kernel `(..., 1, out)`, as in ConvNeXt."""

    @staticmethod
    def holds(layer):
        """Whether a convolution has one group per input channel."""
        groups = getattr(layer, "groups", 1)
        return groups > 1 and layer.kernel.shape[-2] == 1

    def copies(self, layer):
        return layer.filters // layer.groups

    def smaller(self, layer, reads):
        filters = len(reads) * self.copies(layer)
        return {"filters": filters, "groups": len(reads)}

    def part(self, kernel, reads, made):
        return kernel[..., made]

    def forget(self, layer, dead):
        kernel = to_numpy(layer.kernel)
        kernel[..., np.repeat(dead, self.copies(layer))] = 0.0
        layer.kernel.assign(kernel)
