"""Rules of layers that treat every channel by itself."""

import keras
import numpy as np

from keras_bar.graph import trace
from keras_bar.graph.rules.base import Rule
from keras_bar.graph.rules.base import Term
from keras_bar.graph.rules.base import agree
from keras_bar.graph.rules.base import channel_axis
from keras_bar.graph.rules.base import product

# Activation functions of one number. Softmax, glu and their kin look at
# several channels at once and are no members.
ELEMENTWISE = frozenset(
    ["celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "swish", "tanh", "tanh_shrink", "threshold"]
)


class Channelwise(Rule):
    """A layer that maps channel i of its input to channel i of its output and
    turns a constant into a constant."""

    def axis(self, node, flow):
        """Channel axis of the output."""
        return flow.inputs(node)[0].axis

    def refuse(self, node, flow):
        channels = flow.inputs(node)[0]
        data_format = getattr(node.op, "data_format", None)
        if data_format is None:
            return None
        expected = channel_axis(data_format, len(node.inputs[0].shape))
        if not agree(channels, expected):
            return "it works along another axis than the channels"
        return None

    def forward(self, node, flow):
        channels = flow.inputs(node)[0]
        axis = self.axis(node, flow)
        if axis is None:
            return [flow.all_alive(node.output)]
        zero = channels.zero and self.preserves_zero(node)
        return [flow.carries(node.output, axis, channels.alive, zero)]

    def backward(self, node, flow):
        return [flow.needed[node.output]]

    def preserves_zero(self, node):
        return True

    def can_zero(self, node, flow):
        return self.preserves_zero(node) and flow.can_be_zeroed(node.inputs[0])

    def zero(self, node, dead, surgeon):
        surgeon.zero(node.inputs[0], dead)

    def constants(self, node, numbers):
        """By default a constant stays what it is."""
        return numbers.constants[node.inputs[0]]

    def rebuild(self, node, builder):
        tensor = builder.read_for(node, 0)
        layer = builder.clone(node, **self.config(node, builder))
        outputs = trace.call(layer, node, {node.inputs[0]: tensor})
        self.assign(node, layer, builder.order[node.output], builder)
        return outputs

    def config(self, node, builder):
        """Configuration entries that change with the channels."""
        return {}

    def assign(self, node, layer, kept, builder):
        """Copies what belongs to the kept channels."""
        builder.copy_state(node.op, layer)


class Elementwise(Channelwise):
    """Activations, and arithmetic with a number."""

    def preserves_zero(self, node):
        return not np.any(self._apply(node, np.zeros(1)))

    def constants(self, node, numbers):
        return self._apply(node, numbers.constants[node.inputs[0]])

    def refuse(self, node, flow):
        for x in keras.tree.flatten((node.args, node.kwargs)):
            if getattr(x, "shape", ()) != () and not isinstance(x, trace.Value):
                return "it combines the channels with a constant tensor"
        return None

    def _apply(self, node, vector):
        tensor = keras.ops.convert_to_tensor(vector, "float32")
        (result,) = trace.call(node.op, node, {node.inputs[0]: tensor})
        return keras.ops.convert_to_numpy(result).astype("float64")


class Activation(Elementwise):
    """keras.layers.Activation: only with a function of one number."""

    def refuse(self, node, flow):
        if not is_elementwise(node.op.activation):
            return "its activation looks at several channels at once"
        return None


class Spatial(Channelwise):
    """Pooling, cropping, up-sampling: moves values about within a channel."""


class Removed(Channelwise):
    """A layer of training only: the compact model does without it."""

    def rebuild(self, node, builder):
        return [builder.read_for(node, 0)]


class SpatialDropout(Channelwise):
    """Dropout whose mask has a shape of its own."""

    def refuse(self, node, flow):
        if getattr(node.op, "noise_shape", None) is not None:
            return "its noise shape fixes the channels"
        return None


class ZeroPadding(Channelwise):
    """A constant channel stays constant only if it is 0."""

    def restored_inputs(self, node, flow):
        return () if flow.can_be_zeroed(node.inputs[0]) else (0,)

    def forward(self, node, flow):
        if flow.reads_all(node, 0):
            axis = flow.inputs(node)[0].axis
            return [flow.all_alive(node.output, axis)]
        return super().forward(node, flow)

    def rebuild(self, node, builder):
        if not builder.flow.reads_all(node, 0):
            return super().rebuild(node, builder)
        tensor = builder.restored(node.inputs[0])
        layer = builder.clone(node)
        return trace.call(layer, node, {node.inputs[0]: tensor})


class GlobalPooling(Channelwise):
    """Leaves one value per channel."""

    def axis(self, node, flow):
        if node.op.keepdims:
            return super().axis(node, flow)
        return 1


class Weighted(Channelwise):
    """A layer with weights `(channels,)`."""

    def terms(self, node, flow):
        live = flow.live(node.output)
        return [
            Term("params", 1, ((live, x.shape[-1]),)) for x in node.op.weights
        ]

    def constants(self, node, numbers):
        vector = numbers.constants[node.inputs[0]]
        axis = numbers.flow.channels[node.output].axis
        shape = [1] * len(node.inputs[0].shape)
        shape[axis] = -1
        tensor = keras.ops.convert_to_tensor(vector.reshape(shape), "float32")
        kwargs = {"training": False} if "training" in node.kwargs else {}
        result = node.op(tensor, **kwargs)
        return keras.ops.convert_to_numpy(result).reshape(-1).astype("float64")

    def assign(self, node, layer, kept, builder):
        for old, new in zip(node.op.weights, layer.weights, strict=True):
            array = keras.ops.convert_to_numpy(old)
            new.assign(array if kept is None else array[..., kept])


class BatchNormalization(Weighted):
    """Turns a constant into its shift; there constants are born."""

    def refuse(self, node, flow):
        axis = node.op.axis % len(node.inputs[0].shape)
        if not agree(flow.inputs(node)[0], axis):
            return "it normalizes along another axis than the channels"
        return None

    def preserves_zero(self, node):
        return False

    def can_zero(self, node, flow):
        return True

    def assign(self, node, layer, kept, builder):
        super().assign(node, layer, kept, builder)
        shift = builder.mean_shift(node)
        if shift is not None:
            mean = keras.ops.convert_to_numpy(layer.moving_mean)
            layer.moving_mean.assign(mean - shift)

    def zero(self, node, dead, surgeon):
        layer = node.op
        for weight in (layer.gamma, layer.beta):
            if weight is not None:
                surgeon.put(weight, dead, 0.0)
        if layer.gamma is None:
            # Without a factor to close, the constant itself is the mean.
            constants = surgeon.numbers.constants[node.inputs[0]]
            surgeon.put(layer.moving_mean, dead, constants[dead])


class LayerScale(Weighted):
    """ConvNeXt's factor per channel."""

    def config(self, node, builder):
        kept = builder.order[node.output]
        return {} if kept is None else {"projection_dim": len(kept)}


class PReLU(Channelwise):
    """A slope per channel, shared or not along the other axes."""

    def refuse(self, node, flow):
        channels = flow.inputs(node)[0]
        if channels.axis is None:
            return None
        sizes = list(node.op.alpha.shape)
        del sizes[channels.axis - 1]
        if not channels.zero and any(size > 1 for size in sizes):
            return "its slopes differ from place to place"
        return None

    def terms(self, node, flow):
        alpha, channels = node.op.alpha, flow.channels[node.output]
        count = product(alpha.shape)
        if channels.axis is None or alpha.shape[channels.axis - 1] == 1:
            live = flow.algebra.any(flow.live(node.output))
            return [Term("params", count, ((live, 1),))]
        each = count // channels.size
        live = flow.live(node.output)
        return [Term("params", each, ((live, channels.size),))]

    def constants(self, node, numbers):
        vector = numbers.constants[node.inputs[0]]
        axis = numbers.flow.channels[node.output].axis
        alpha = keras.ops.convert_to_numpy(node.op.alpha)
        slopes = np.moveaxis(alpha, axis - 1, -1).reshape(
            -1, alpha.shape[axis - 1]
        )[0]
        return np.maximum(vector, 0) + slopes * np.minimum(vector, 0)

    def assign(self, node, layer, kept, builder):
        alpha = keras.ops.convert_to_numpy(node.op.alpha)
        axis = builder.flow.channels[node.output].axis
        if kept is not None and alpha.shape[axis - 1] > 1:
            alpha = np.take(alpha, kept, axis=axis - 1)
        layer.alpha.assign(alpha)


class DepthwiseConvolution(Channelwise):
    """DepthwiseConv1D, DepthwiseConv2D: each channel its own kernels."""

    def refuse(self, node, flow):
        if getattr(node.op, "quantization_mode", None):
            return "it is quantized"
        if not is_elementwise(node.op.activation):
            return "its activation looks at several channels at once"
        return super().refuse(node, flow)

    def restored_inputs(self, node, flow):
        zeroed = not self.pads(node) or flow.can_be_zeroed(node.inputs[0])
        return () if zeroed else (0,)

    def pads(self, node):
        padded = node.op.padding == "same"
        return padded and any(k > 1 for k in node.op.kernel_size)

    def forward(self, node, flow):
        copies = node.op.depth_multiplier
        alive = flow.algebra.repeat(flow.read(node, 0), copies)
        axis = channel_axis(node.op.data_format, len(node.output.shape))
        zero = flow.inputs(node)[0].zero and self.preserves_zero(node)
        return [flow.carries(node.output, axis, alive, zero)]

    def preserves_zero(self, node):
        return not node.op.use_bias and preserves_zero(node.op.activation)

    def can_zero(self, node, flow):
        return (
            self.preserves_zero(node)
            and node.op.depth_multiplier == 1
            and flow.can_be_zeroed(node.inputs[0])
        )

    def backward(self, node, flow):
        needed = flow.needed[node.output]
        if node.op.depth_multiplier > 1:
            # One copy suffices to need the input channel.
            needed = flow.algebra.any(needed)
        return [needed]

    def terms(self, node, flow):
        axis = flow.channels[node.output].axis
        writes = (flow.live(node.output), node.output.shape[axis])
        taps = product(node.op.kernel_size)
        dims = [
            d for i, d in enumerate(node.output.shape) if i not in (0, axis)
        ]
        outputs = product(dims)
        return [
            Term("volume", outputs, (writes,)),
            Term("flops", 2 * taps * outputs, (writes,)),
            Term("params", taps + int(node.op.use_bias), (writes,)),
        ]

    def contribution(self, node, constants):
        """What constant input channels `(in,)` add to the output `(out,)`."""
        kernel = keras.ops.convert_to_numpy(node.op.kernel).astype("float64")
        taps = kernel.reshape(-1, *kernel.shape[-2:]).sum(axis=0)
        return (np.reshape(constants, (-1, 1)) * taps).reshape(-1)

    def constants(self, node, numbers):
        layer = node.op
        vector = self.contribution(node, numbers.constants[node.inputs[0]])
        if layer.use_bias:
            vector = vector + keras.ops.convert_to_numpy(layer.bias)
        if layer.activation is None:
            return vector
        tensor = keras.ops.convert_to_tensor(vector, "float32")
        result = keras.ops.convert_to_numpy(layer.activation(tensor))
        return result.astype("float64")

    def rebuild(self, node, builder):
        layer, value = node.op, node.inputs[0]
        copies = layer.depth_multiplier
        writes = builder.order[node.output]
        if builder.flow.reads_all(node, 0):
            tensor, reads = builder.restored(value), None
        else:
            tensor = builder.tensors[value]
            reads = builder.order[value]
        if reads is None:
            reads = np.arange(layer.kernel.shape[-2])
        new = builder.clone(node)
        output = new(tensor)
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        new.kernel.assign(kernel[..., reads, :])
        made = (reads[:, None] * copies + np.arange(copies)).reshape(-1)
        if layer.use_bias:
            new.bias.assign(keras.ops.convert_to_numpy(layer.bias)[made])
        return [builder.select(output, made, writes, node.output)]


class Rescaling(Elementwise):
    """Scale and offset, each a number or one per channel."""

    def refuse(self, node, flow):
        return Channelwise.refuse(self, node, flow)

    def preserves_zero(self, node):
        return not np.any(np.asarray(node.op.offset))

    def constants(self, node, numbers):
        vector = numbers.constants[node.inputs[0]]
        return vector * np.asarray(node.op.scale) + np.asarray(node.op.offset)

    def config(self, node, builder):
        kept = builder.order[node.output]
        if kept is None:
            return {}
        return {
            name: np.asarray(value)[kept].tolist()
            for name in ("scale", "offset")
            if np.ndim(value := getattr(node.op, name)) == 1
        }


class Gate(Channelwise):
    """HardConcreteGate: where channels die, and leave exactly 0."""

    def refuse(self, node, flow):
        axis = node.op.axis % len(node.inputs[0].shape)
        if not agree(flow.inputs(node)[0], axis):
            return "it works along another axis than the channels"
        return None

    def forward(self, node, flow):
        value = node.inputs[0]
        axis = node.op.axis % len(value.shape)
        gate = flow.algebra.gate(node.op, value.shape[axis])
        alive = flow.algebra.conjunction(gate, flow.channels[value].alive)
        outputs = [flow.carries(node.output, axis, alive, zero=True)]
        if len(node.outputs) == 2:  # The factors themselves, to be shared.
            factors = node.outputs[1]
            outputs.append(flow.carries(factors, axis, gate, zero=True))
        return outputs

    def backward(self, node, flow):
        alive = flow.channels[node.output].alive
        needed = flow.needed.get(node.output)
        if needed is None:  # Only the factors are read.
            needed = flow.needed[node.outputs[1]]
        return [flow.algebra.conjunction(alive, needed)]

    def can_zero(self, node, flow):
        return True

    def zero(self, node, dead, surgeon):
        pass  # It already is.

    def constants(self, node, numbers):
        return np.zeros(node.op.log_alpha.shape[0])

    def rebuild(self, node, builder):
        kept = builder.order[node.output]
        factors = builder.gate_values(node.op)[kept]
        output = builder.scale(builder.read_for(node, 0), factors, node)
        # The factors of a shared gate are numbers by now; nobody reads them.
        return [output, None][: len(node.outputs)]


def is_elementwise(activation):
    """Whether an activation function maps one number to one number."""
    name = getattr(activation, "__name__", type(activation).__name__)
    return activation is None or name.lower() in ELEMENTWISE


def preserves_zero(activation):
    """Whether an activation function maps 0 to 0."""
    if activation is None:
        return True
    if not is_elementwise(activation):
        return False
    result = activation(keras.ops.zeros((1,)))
    return not np.any(keras.ops.convert_to_numpy(result))


def is_homogeneous(activation):
    """Whether `f(c x) = c f(x)` for all c > 0: factors pass through it."""
    name = getattr(activation, "__name__", type(activation).__name__)
    return activation is None or name in ("linear", "relu", "leaky_relu")
