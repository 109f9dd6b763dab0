"""Rules of layers whose every output channel is made from all input channels:
convolutions and dense layers."""

import keras
import numpy as np

from keras_bar.graph.rules.base import Rule
from keras_bar.graph.rules.base import Term
from keras_bar.graph.rules.base import agree
from keras_bar.graph.rules.base import channel_axis
from keras_bar.graph.rules.base import product
from keras_bar.graph.rules.channelwise import is_elementwise
from keras_bar.graph.rules.channelwise import preserves_zero


class Mixing(Rule):
    """A layer with a kernel `(..., in, out)` and possibly a bias.

    A dead input channel holds a constant, which is folded into the bias (or
    into the mean of the batch normalization behind it) exactly, unless a
    zero-padded kernel sees the constant end at the border.
    """

    def axis(self, node, value):
        """Channel axis of an input or output tensor."""
        raise NotImplementedError

    def pads(self, node):
        """Whether the kernel sees zeros beyond the border."""
        return False

    def kernel(self, layer):
        """The kernel as an array `(taps, in, out)`."""
        return np.reshape(
            to_numpy(layer.kernel), (-1, *layer.kernel.shape[-2:])
        )

    def refuse(self, node, flow):
        (channels,) = flow.inputs(node)
        if not agree(channels, self.axis(node, node.inputs[0])):
            return "it works along another axis than the channels"
        if getattr(node.op, "lora_enabled", False):
            return "it has LoRA weights"
        if getattr(node.op, "quantization_mode", None):
            return "it is quantized"
        return None

    def restored_inputs(self, node, flow):
        zeroed = not self.pads(node) or flow.can_be_zeroed(node.inputs[0])
        return () if zeroed else (0,)

    def forward(self, node, flow):
        zero = (
            flow.inputs(node)[0].zero
            and not node.op.use_bias
            and preserves_zero(node.op.activation)
        )
        alive = flow.algebra.any(flow.read(node, 0))
        axis = self.axis(node, node.output)
        return [flow.carries(node.output, axis, alive, zero)]

    def backward(self, node, flow):
        return [flow.algebra.any(flow.live(node.output))]

    def reads_and_writes(self, node, flow):
        """The two factors of a kernel's cost: channels read and written."""
        value = node.inputs[0]
        inputs = value.shape[self.axis(node, value)]
        outputs = node.output.shape[self.axis(node, node.output)]
        return (flow.read(node, 0), inputs), (flow.live(node.output), outputs)

    def bias_terms(self, node, flow):
        writes = self.reads_and_writes(node, flow)[1]
        if node.op.use_bias:
            return [Term("params", 1, (writes,))]
        if self.gains_bias(node, flow):
            folded = flow.algebra.not_all(flow.read(node, 0))
            return [Term("params", 1, (writes, (folded, 1)))]
        return []

    def gains_bias(self, node, flow):
        """Whether constants can only be folded into a new bias: the layer has
        none, and no batch normalization follows that could take them."""
        return (
            not node.op.use_bias
            and flow.removable(node.inputs[0])
            and not flow.channels[node.inputs[0]].zero
            and not flow.reads_all(node, 0)
            and following_norm(node, flow) is None
        )

    def contribution(self, node, constants):
        """What the constants of dead input channels add to the output.

        Args:
            constants: Array `(in,)`, 0 where the channel is alive.

        Returns:
            Array `(out,)`.
        """
        kernel = self.kernel(node.op)
        if not np.any(constants):
            return np.zeros(kernel.shape[-1])
        return constants @ kernel.sum(axis=0)

    def constants(self, node, numbers):
        """Only asked where no input channel is alive."""
        layer = node.op
        shift = self.contribution(node, numbers.constants[node.inputs[0]])
        if layer.use_bias:
            shift = shift + to_numpy(layer.bias)
        return apply_activation(layer.activation, shift)

    def shrunk(self, node, kernel, reads, writes):
        """The kernel of the compact layer."""
        return kernel[..., reads, :][..., writes]

    def size_config(self, node, writes):
        """Configuration entries that say how many channels are written."""
        return {"filters": len(writes)}

    def rebuild(self, node, builder):
        value, layer = node.inputs[0], node.op
        writes = builder.order[node.output]
        if builder.flow.reads_all(node, 0):
            tensor, reads = builder.restored(value), slice(None)
            shift = 0.0
        else:
            tensor, reads = builder.tensors[value], builder.order[value]
            reads = slice(None) if reads is None else reads
            shift = self.contribution(node, builder.folded(value))[writes]
        gains_bias = (
            self.gains_bias(node, builder.flow)
            and not builder.numbers.alive[value].all()
        )
        config = self.size_config(node, writes)
        if gains_bias:
            config["use_bias"] = True
        new = builder.clone(node, **config)
        output = new(tensor)
        self.assign(node, new, reads, writes, builder)
        if np.any(shift):
            builder.shift(node, new, shift)
        return [output]

    def assign(self, node, new, reads, writes, builder):
        kernel = self.shrunk(node, to_numpy(node.op.kernel), reads, writes)
        new.kernel.assign(kernel)
        if node.op.use_bias:
            new.bias.assign(to_numpy(node.op.bias)[writes])
        elif new.use_bias:
            new.bias.assign(np.zeros(len(writes)))


class Convolution(Mixing):
    """Conv1D, Conv2D, Conv3D."""

    def axis(self, node, value):
        return channel_axis(node.op.data_format, len(value.shape))

    def pads(self, node):
        padded = node.op.padding in ("same", "causal")
        return padded and any(k > 1 for k in node.op.kernel_size)

    def refuse(self, node, flow):
        if node.op.groups > 1:
            return f"its {node.op.groups} groups fix the channels"
        return super().refuse(node, flow)

    def positions(self, node):
        """Number of times the kernel is applied per sample."""
        return spatial_size(node.output, self.axis(node, node.output))

    def terms(self, node, flow):
        reads, writes = self.reads_and_writes(node, flow)
        taps = product(node.op.kernel_size)
        outputs = spatial_size(node.output, self.axis(node, node.output))
        return [
            Term("volume", outputs, (writes,)),
            Term("flops", 2 * taps * self.positions(node), (reads, writes)),
            Term("params", taps, (reads, writes)),
            *self.bias_terms(node, flow),
        ]


class TransposedConvolution(Convolution):
    """Conv1DTranspose, Conv2DTranspose, Conv3DTranspose."""

    def refuse(self, node, flow):
        return Mixing.refuse(self, node, flow)

    def kernel(self, layer):
        return np.swapaxes(super().kernel(layer), -1, -2)

    def pads(self, node):
        # Output positions see different taps of the kernel, so a constant
        # input gives no constant output unless strides equal the kernel.
        return any(k > 1 for k in node.op.kernel_size)

    def positions(self, node):
        return spatial_size(node.inputs[0], self.axis(node, node.inputs[0]))

    def shrunk(self, node, kernel, reads, writes):
        return kernel[..., writes, :][..., reads]


class SeparableConvolution(Convolution):
    """SeparableConv1D, SeparableConv2D: a depthwise, then a 1x1 kernel."""

    def refuse(self, node, flow):
        return Mixing.refuse(self, node, flow)

    def kernel(self, layer):
        depthwise = to_numpy(layer.depthwise_kernel)
        depthwise = np.reshape(depthwise, (-1, *depthwise.shape[-2:]))
        pointwise = to_numpy(layer.pointwise_kernel)
        pointwise = np.reshape(
            pointwise, (*depthwise.shape[1:], pointwise.shape[-1])
        )
        return np.einsum("tim,imo->tio", depthwise, pointwise)

    def terms(self, node, flow):
        reads, writes = self.reads_and_writes(node, flow)
        taps = product(node.op.kernel_size)
        outputs = spatial_size(node.output, self.axis(node, node.output))
        copies = node.op.depth_multiplier
        built = (flow.algebra.any(writes[0]), 1)
        return [
            Term("volume", outputs, (writes,)),
            Term("flops", 2 * taps * copies * outputs, (reads, built)),
            Term("flops", 2 * copies * outputs, (reads, writes)),
            Term("params", taps * copies, (reads, built)),
            Term("params", copies, (reads, writes)),
            *self.bias_terms(node, flow),
        ]

    def assign(self, node, new, reads, writes, builder):
        layer = node.op
        depthwise = to_numpy(layer.depthwise_kernel)
        pointwise = to_numpy(layer.pointwise_kernel)
        shape = pointwise.shape
        by_input = np.reshape(
            pointwise,
            (*shape[:-2], depthwise.shape[-2], depthwise.shape[-1], shape[-1]),
        )
        kept = by_input[..., reads, :, :][..., writes]
        new.depthwise_kernel.assign(depthwise[..., reads, :])
        new.pointwise_kernel.assign(
            np.reshape(kept, (*shape[:-2], -1, kept.shape[-1]))
        )
        if layer.use_bias:
            new.bias.assign(to_numpy(layer.bias)[writes])


class Dense(Mixing):
    """Dense: mixes the last axis."""

    def axis(self, node, value):
        return len(value.shape) - 1

    def terms(self, node, flow):
        reads, writes = self.reads_and_writes(node, flow)
        positions = product(node.output.shape[1:-1])
        return [
            Term("flops", 2 * positions, (reads, writes)),
            Term("params", 1, (reads, writes)),
            *self.bias_terms(node, flow),
        ]

    def size_config(self, node, writes):
        return {"units": len(writes)}


def following_norm(node, flow):
    """The batch normalization that is the only reader of a node, or None."""
    value = node.output
    if len(value.consumers) != 1 or value in flow.graph.outputs:
        return None
    if not is_linear(node.op.activation):
        return None
    reader = value.consumers[0]
    norm = isinstance(reader.op, keras.layers.BatchNormalization)
    axis_is_channels = norm and reader.calls == 1
    return reader if axis_is_channels else None


def is_linear(activation):
    return activation is None or activation is keras.activations.linear


def apply_activation(activation, vector):
    if is_linear(activation):
        return vector
    if not is_elementwise(activation):
        return vector  # Such a layer is never asked for its constants' use.
    return to_numpy(activation(keras.ops.convert_to_tensor(vector, "float32")))


def spatial_size(value, axis):
    dims = [d for i, d in enumerate(value.shape) if i not in (0, axis)]
    return product(dims)


def to_numpy(variable):
    return keras.ops.convert_to_numpy(variable).astype("float64")
