"""Rules of layers with a kernel: weighted sums of their inputs.

A dead input channel that holds a constant adds a constant to the output. Hard
pruning moves it into the bias, or into the mean of the batch normalization
behind the layer. That is exact unless the constant ends within the layer's
reach, at a border padded with zeros; see `keras_bar.compaction.hard_pruning`.
"""

import keras
import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules import activations
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import agree
from keras_bar.analysis.rules.base import along
from keras_bar.analysis.rules.base import channel_axis
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import to_numpy

# Replaces an unknown height or width when border effects are averaged.
TYPICAL_SIZE = 32


class Kernel(Rule):
    """Base class for convolutions, depthwise ones too, and dense layers."""

    folds_constants = True
    has_kernel = True

    def axis(self, node, value):
        """Channel axis of an input or output tensor."""
        return channel_axis(node.op.data_format, len(value.shape))

    def pads(self, node):
        """Whether the kernel reads zeros beyond the border."""
        padded = node.op.padding in ("same", "causal")
        return padded and any(k > 1 for k in node.op.kernel_size)

    def smallest_input(self, node):
        """Spatial size that gives one output position."""
        sizes = zip(node.op.kernel_size, node.op.dilation_rate, strict=True)
        return [(k - 1) * dilation + 1 for k, dilation in sizes]

    def refuse(self, node, analysis):
        if len(node.inputs) > 1:
            return "it reads several tensors"
        if not agree(analysis.inputs(node)[0], self.axis(node, node.inputs[0])):
            return "it works along another axis than the channels"
        if getattr(node.op, "lora_enabled", False):
            return "it has LoRA weights"
        if getattr(node.op, "quantization_mode", None):
            return "it is quantized"
        activation = node.op.activation
        last = self.axis(node, node.output) == len(node.output.shape) - 1
        if not last and not activations.is_elementwise(activation):
            return "its activation looks at several positions at once"
        return None

    def preserves_zero(self, node):
        """Whether 0 in all channels becomes 0."""
        activation = node.op.activation
        return not self.has_bias(node.op) and activations.preserves_zero(
            activation
        )

    def takes_shift(self, node, analysis):
        """Whether a constant can be added to its output."""
        if self.has_bias(node.op):
            return True
        norm = following_norm(node, analysis)
        return norm is not None and norm.calls == node.calls == 1

    def sees_end(self, node, analysis):
        """Whether constants that enter it end before its border does."""
        return self.pads(node) or _padding_before(node, analysis) is not None

    def entering(self, node, resolved):
        """Constants `(in,)` that enter it, in front of a zero padding."""
        padding = _padding_before(node, resolved.analysis)
        return resolved.constants[(padding or node).inputs[0]]

    def response(self, node, resolved):
        """The contribution to the output of the constants that enter.

        Returns:
            Array `(positions, out)`; a single position if the constants do
            not end anywhere.
        """
        constants, analysis = self.entering(node, resolved), resolved.analysis
        padding = _padding_before(node, analysis)
        value = (padding or node).inputs[0]
        axis = self.axis(node, value)
        size = [d or TYPICAL_SIZE for d in value.shape]
        if not self.sees_end(node, analysis):
            size = [1, *self.smallest_input(node)]
            size.insert(axis, 1)
        size[0], size[axis] = 1, len(constants)
        image = np.broadcast_to(along(constants, axis, len(size)), size)
        image = keras.ops.convert_to_tensor(image.astype("float32"))
        if padding is not None:
            (image,) = trace.call(padding.op, padding, {value: image})
        output = self.linear_part(node.op, image.shape)(image)
        rows = np.moveaxis(to_numpy(output), self.axis(node, node.output), -1)
        return rows.reshape(-1, rows.shape[-1])

    def contribution(self, node, resolved):
        """Mean contribution of the constants that enter, array `(out,)`."""
        if not np.any(self.entering(node, resolved)):
            return np.zeros(node.output.shape[self.axis(node, node.output)])
        return self.response(node, resolved).mean(axis=0)

    def has_bias(self, layer):
        """Whether a layer adds a bias `(out,)`."""
        return layer.use_bias

    def bias_config(self, layer, wanted):
        """Configuration entries of a layer with or without a bias."""
        return {"use_bias": wanted}

    def linear_part(self, layer, input_shape):
        """A copy of a layer that only applies the kernel, in float32."""
        changes = {**self.bias_config(layer, False), "activation": None}
        copy = trace.clone(layer, dtype="float32", **changes)
        copy.build(input_shape)
        for old, new in zip(layer.weights, copy.weights, strict=False):
            new.assign(old)
        return copy

    # Axes of the output channels in the kernel that writes them, and of the
    # input channels in that which reads them.
    output_axis = -1
    input_axis = -2

    def output_kernel(self, layer):
        """The weight with an axis for the output channels."""
        return layer.kernel

    def filters(self, layer):
        """The filter of each output channel, array `(weights, channels)`."""
        kernel = to_numpy(self.output_kernel(layer))
        kernel = np.moveaxis(kernel, self.output_axis, -1)
        return kernel.reshape(-1, kernel.shape[-1])

    def output_weights(self, layer, factors):
        activation = layer.activation
        linear = activations.is_linear(activation)
        positive = activations.is_homogeneous(activation) and min(factors) >= 0
        if not (linear or positive):
            return []
        bias = [(layer.bias, factors)] if self.has_bias(layer) else []
        kernel = self.output_kernel(layer)
        return [(kernel, self.kernel_factors(factors, kernel.shape)), *bias]

    def kernel_factors(self, factors, shape):
        """Factors of the output channels that are broadcast to a kernel."""
        return along(factors, self.output_axis, len(shape))

    def forget(self, layer, dead):
        """Makes a layer ignore the input channels `dead`."""
        kernel = to_numpy(layer.kernel)
        kernel[..., dead, :] = 0.0
        layer.kernel.assign(kernel)

    def shifted(self, node, vector):
        """Constants of the output: bias and activation applied."""
        if self.has_bias(node.op):
            vector = vector + to_numpy(node.op.bias)
        return activations.apply(node.op.activation, vector)

    def size_config(self, node, writes):
        """Configuration entries for the number of output channels."""
        return {"filters": len(writes)}


class Mixing(Kernel):
    """A layer that computes every output channel from all input channels."""

    mixes_channels = True
    reads_linearly = True

    def propagate_alive(self, node, analysis):
        (channels,), algebra = analysis.inputs(node), analysis.algebra
        nonzero = algebra.full
        if self.preserves_zero(node):
            nonzero = algebra.any(channels.nonzero)
        alive = algebra.any(channels.alive)
        axis = self.axis(node, node.output)
        return [analysis.carries(node.output, axis, alive, nonzero)]

    def round_up(self, node, need, analysis):
        # A softmax over the channels needs all of them.
        elementwise = activations.is_elementwise(node.op.activation)
        return need if elementwise else analysis.algebra.any(need)

    def propagate_needed(self, node, analysis):
        return [analysis.algebra.any(analysis.live(node.output))]

    def factors(self, node, analysis):
        """The two factors of a kernel's cost: channels read and written."""
        value, output = node.inputs[0], node.output
        inputs = value.shape[self.axis(node, value)]
        outputs = output.shape[self.axis(node, output)]
        return (analysis.read(node, 0), inputs), (
            analysis.live(output),
            outputs,
        )

    def bias_terms(self, node, analysis):
        writes = self.factors(node, analysis)[1]
        if self.has_bias(node.op):
            return [Term("params", 1, (writes,))]
        gained = self.gains_bias(node, analysis)
        if gained is None:
            return []
        return [Term("params", 1, (writes,), ((gained, 1),))]

    def gains_bias(self, node, analysis):
        (channels,) = analysis.inputs(node)
        if not channels.constant or self.takes_shift(node, analysis):
            return None
        return analysis.algebra.exceeds(channels.nonzero, channels.alive)

    def constants(self, node, resolved):
        """Only called where no input channel is alive."""
        return self.shifted(node, self.contribution(node, resolved))

    def rebuild(self, node, builder):
        value, writes = node.inputs[0], builder.order[node.output]
        reads = builder.order[value]
        if reads is None:
            reads = np.arange(value.shape[self.axis(node, value)])
        # A function of several channels may depend on their order.
        elementwise = activations.is_elementwise(node.op.activation)
        made = writes if elementwise else np.sort(writes)
        new = builder.clone(node, **self.size_config(node, made))
        (output,) = trace.call(new, node, {value: builder.tensors[value]})
        self.assign(node.op, new, reads, made)
        return [builder.select(output, made, writes, self.axis(node, output))]

    def assign(self, old, new, reads, writes):
        """Copies the weights of the channels that remain."""
        new.kernel.assign(to_numpy(old.kernel)[..., reads, :][..., writes])
        if self.has_bias(old):
            new.bias.assign(to_numpy(old.bias)[writes])

    def operand(self, node, index, writer):
        return writer.tensors[node.inputs[index]]


class Dense(Mixing):
    """Dense: mixes the last axis."""

    layers = "Dense"
    prunable = True
    only_hidden = True

    def axis(self, node, value):
        return len(value.shape) - 1

    def pads(self, node):
        return False

    def smallest_input(self, node):
        return [1] * (len(node.inputs[0].shape) - 2)

    def terms(self, node, analysis):
        factors = self.factors(node, analysis)
        places = product(node.output.shape[1:-1])
        terms = [
            Term("flops", 2 * places, factors),
            Term("params", 1, factors),
            *self.bias_terms(node, analysis),
        ]
        if not analysis.becomes_output(node.output):
            terms.append(Term("volume", places, factors[1:]))
        return terms

    def size_config(self, node, writes):
        return {"units": len(writes)}

    def reads_patches(self, layer):
        return True

    def output_sizes(self, node, array):
        return array.shape[1:-1]

    def patches(self, node, array, places):
        return array[places]


def following_norm(node, analysis):
    """The batch normalization that is the only reader of a layer, or None."""
    value = node.output
    if len(value.consumers) != 1 or value in analysis.graph.outputs:
        return None
    if not activations.is_linear(getattr(node.op, "activation", None)):
        return None
    reader = value.consumers[0]
    return reader if analysis.rules[reader].subtracts_mean else None


def _padding_before(node, analysis):
    """The zero padding whose output is what a node reads, or None."""
    producer = node.inputs[0].producer
    padded = producer is not None and analysis.rules[producer].ends_constants
    return producer if padded else None
