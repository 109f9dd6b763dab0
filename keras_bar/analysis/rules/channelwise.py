"""Rules of layers that treat every channel separately."""

import keras
import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules import activations
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import agree
from keras_bar.analysis.rules.base import channel_axis
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.channel_selection import NO_ZEROS
from keras_bar.analysis.rules.channel_selection import ChannelPad
from keras_bar.analysis.rules.channel_selection import pads_zeros
from keras_bar.analysis.rules.restoring import Restoring


class Channelwise(Rule):
    """A layer that maps channel i of its input to channel i of its output and
    turns a constant into a constant."""

    passes_channels = True
    ties_channels = True

    def axis(self, node, analysis):
        """Channel axis of the output."""
        return analysis.inputs(node)[0].axis

    def refuse(self, node, analysis):
        if not set(node.inputs[1:]) <= node.masks:
            return "it reads several tensors"
        data_format = getattr(node.op, "data_format", None)
        if data_format is None:
            return None
        expected = channel_axis(data_format, len(node.inputs[0].shape))
        if not agree(analysis.inputs(node)[0], expected):
            return "it works along another axis than the channels"
        return None

    def propagate_alive(self, node, analysis):
        channels = analysis.inputs(node)[0]
        axis = self.axis(node, analysis)
        if axis is None:
            return [analysis.all_alive(node.output)]
        nonzero = analysis.algebra.full
        if self.preserves_zero(node):
            nonzero = channels.nonzero
        return [analysis.carries(node.output, axis, channels.alive, nonzero)]

    def propagate_needed(self, node, analysis):
        return [analysis.needed[node.output]] * len(node.inputs)

    def preserves_zero(self, node):
        """Whether 0 becomes 0."""
        return True

    def constants(self, node, resolved):
        """By default a constant stays the same."""
        return resolved.constants[node.inputs[0]]

    def rebuild(self, node, builder):
        tensor = builder.read_for(node, 0)
        layer = builder.clone(node, **self.config(node, builder))
        tensors = {x: builder.restored(x) for x in node.masks}
        outputs = trace.call(layer, node, {**tensors, node.inputs[0]: tensor})
        self.assign(node, layer, builder)
        return outputs

    def config(self, node, builder):
        """Configuration entries that change with the channels."""
        return {}

    def assign(self, node, layer, builder):
        """Copies what belongs to the kept channels."""
        trace.copy_state(node.op, layer)


class Elementwise(Channelwise):
    """Activations, and arithmetic with a number."""

    layers = "ReLU LeakyReLU ELU"
    operations = (
        "Relu Relu6 LeakyRelu Elu Celu Selu Gelu Silu Sigmoid LogSigmoid "
        "HardSigmoid HardSilu HardTanh HardShrink SoftShrink TanhShrink "
        "Softplus Softsign Squareplus SparsePlus SparseSigmoid Threshold "
        "Tanh Exp Expm1 Log1p Square Sqrt Abs Absolute Negative Clip Sin Cos "
        "Cast StopGradient"
    )

    def refuse(self, node, analysis):
        for x in keras.tree.flatten((node.args, node.kwargs)):
            if getattr(x, "shape", ()) != () and not isinstance(x, trace.Value):
                return "it combines the channels with a constant tensor"
        if "float" not in str(node.output.dtype):
            return "its output is not in floating point"
        if not np.all(np.isfinite(self._apply(node, np.zeros(1)))):
            return "it is not finite at 0"
        return None

    def preserves_zero(self, node):
        return not np.any(self._apply(node, np.zeros(1)))

    def constants(self, node, resolved):
        return self._apply(node, resolved.constants[node.inputs[0]])

    def _apply(self, node, vector):
        tensor = keras.ops.convert_to_tensor(vector, "float32")
        (result,) = trace.call(node.op, node, {node.inputs[0]: tensor})
        return to_numpy(result)


class Shift(Channelwise):
    """The sum of a tensor and a constant one that differs between positions,
    such as a mask, but not between channels: those that are dead have to be
    computed where they are read."""

    @staticmethod
    def holds(node, analysis):
        """Whether a sum adds such a constant."""
        axis, rank = analysis.inputs(node)[0].axis, len(node.output.shape)
        given = keras.tree.flatten((node.args, node.kwargs))
        shapes = [
            tuple(x.shape)
            for x in given
            if getattr(x, "shape", ()) and not isinstance(x, trace.Value)
        ]
        if axis is None or len(node.inputs[0].shape) != rank:
            return False
        places = [(x, axis - rank + len(x)) for x in shapes]
        return bool(places) and all(i < 0 or x[i] == 1 for x, i in places)

    def propagate_alive(self, node, analysis):
        axis = self.axis(node, analysis)
        return [analysis.all_alive(node.output, axis)]


class Activation(Elementwise):
    """keras.layers.Activation: only with a function of one number."""

    layers = "Activation"

    def refuse(self, node, analysis):
        if not activations.is_elementwise(node.op.activation):
            return "its activation looks at several channels at once"
        return None


class Spatial(Channelwise):
    """Pooling, cropping, up-sampling: moves values within a channel."""

    layers = (
        "MaxPooling1D MaxPooling2D MaxPooling3D "
        "AveragePooling1D AveragePooling2D AveragePooling3D "
        "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D "
        "AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
        "AdaptiveAveragePooling3D "
        "Cropping1D Cropping2D Cropping3D "
        "UpSampling1D UpSampling2D UpSampling3D "
        "Identity ActivityRegularization GaussianNoise "
        "SpatialDropout1D SpatialDropout2D SpatialDropout3D"
    )
    operations = "MaxPool AveragePool"


class Resize(Spatial):
    """keras.ops.image.resize: weighted means of positions."""

    operations = "Resize"

    def refuse(self, node, analysis):
        if node.op.pad_to_aspect_ratio:
            return "it pads with a value"
        return super().refuse(node, analysis)


class Roll(Channelwise):
    """keras.ops.roll along other axes than the channels."""

    operations = "Roll"

    def refuse(self, node, analysis):
        if node.op.axis is None:
            return "it moves values between channels"
        axes = {int(x) % len(node.output.shape) for x in np.ravel(node.op.axis)}
        if axes & {0, analysis.inputs(node)[0].axis}:
            return "it moves values between channels"
        return None


class RepeatVector(Channelwise):
    """Repeats the channels along a new axis in front of them."""

    layers = "RepeatVector"

    def axis(self, node, analysis):
        return None if super().axis(node, analysis) is None else 2


class Removed(Channelwise):
    """A layer that only training needs: the compact model omits it."""

    layers = "BudgetState"

    def rebuild(self, node, builder):
        return [builder.read_for(node, 0)]


class Dropout(Channelwise):
    """Dropout, whose mask may have a shape of its own."""

    layers = "Dropout AlphaDropout GaussianDropout"

    def config(self, node, builder):
        shape = getattr(node.op, "noise_shape", None)
        axis = builder.analysis.channels[node.output].axis
        if shape is None or axis is None or shape[axis] in (None, 1):
            return {}
        shape = list(shape)
        shape[axis] = len(builder.order[node.output])
        return {"noise_shape": shape}


class Localized(Channelwise):
    """A layer that turns a constant into values that differ by position, so
    that they have to be computed; only 0 stays 0."""

    def propagate_alive(self, node, analysis):
        channels, axis = analysis.inputs(node)[0], self.axis(node, analysis)
        if axis is None:
            return [analysis.all_alive(node.output)]
        nonzero = channels.nonzero
        return [analysis.carries(node.output, axis, nonzero, nonzero)]


class ZeroPadding(Localized):
    """A constant other than 0 ends here. Layers with a kernel take that into
    account; for other readers the padded channel has to be computed."""

    layers = "ZeroPadding1D ZeroPadding2D ZeroPadding3D"
    ends_constants = True

    def propagate_alive(self, node, analysis):
        analysis.channels[node.output] = Channelwise.propagate_alive(
            self, node, analysis
        )[0]
        by_kernels = all(
            # The other inputs of a reader are not analysed yet.
            len(reader.inputs) == 1
            and analysis.rule_for(reader).folds_constants
            for reader in node.output.consumers
        )
        if by_kernels and node.output not in analysis.graph.outputs:
            return [analysis.channels[node.output]]
        return super().propagate_alive(node, analysis)


class Pad(ZeroPadding):
    """keras.ops.pad with zeros, along other axes than the channels."""

    operations = "Pad"

    def specialized(self, node, analysis):
        if ChannelPad().holds(node, analysis):
            return ChannelPad()
        if node.op.mode != "constant":
            return Spatial()  # The padding repeats values of the same channel.
        return self if pads_zeros(node) else Framed()


class Framed(Restoring):
    """keras.ops.pad with another number than 0, which frames dead channels,
    too."""

    reason = NO_ZEROS


class GlobalPooling(Channelwise):
    """Leaves one value per channel."""

    layers = (
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
        "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D"
    )

    def axis(self, node, analysis):
        axis = super().axis(node, analysis)
        return axis if node.op.keepdims or axis is None else 1


class Reduction(Channelwise):
    """keras.ops.mean, max and min over other axes than the channels."""

    operations = "Mean Max Min Amax Amin"

    def specialized(self, node, analysis):
        axis, reduced = analysis.inputs(node)[0].axis, self._reduced(node)
        if axis is None or not reduced & {0, axis}:
            return self
        return WholeReduction("channels" if axis in reduced else "samples")

    def _reduced(self, node):
        axes, rank = node.op.axis, len(node.inputs[0].shape)
        axes = range(rank) if axes is None else np.atleast_1d(axes)
        return {int(axis) % rank for axis in axes}

    def axis(self, node, analysis):
        axis = super().axis(node, analysis)
        if axis is None or node.op.keepdims:
            return axis
        return axis - sum(x < axis for x in self._reduced(node))

    def preserves_zero(self, node):
        return not getattr(node.op, "initial", None)

    def constants(self, node, resolved):
        vector = super().constants(node, resolved)
        start = getattr(node.op, "initial", None)
        if start is None:
            return vector
        largest = type(node.op).__name__ == "Max"
        return (np.maximum if largest else np.minimum)(vector, start)


class WholeReduction(Restoring):
    """A reduction over the channels, or over the samples.

    Args:
        over: String, which of them.
    """

    def __init__(self, over):
        self.reason = f"it reduces over the {over}"

    def propagate_alive(self, node, analysis):
        return [analysis.all_alive(node.output)]


class Total(Reduction, Localized):
    """keras.ops.sum over other axes than the channels. Over an unknown number
    of positions, only 0 becomes a constant."""

    operations = "Sum"

    def _count(self, node):
        """Number of positions that are added; NaN if it is unknown."""
        shape = node.inputs[0].shape
        return product(shape[axis] for axis in self._reduced(node))

    def propagate_alive(self, node, analysis):
        if np.isnan(self._count(node)):
            return super().propagate_alive(node, analysis)
        return Channelwise.propagate_alive(self, node, analysis)

    def constants(self, node, resolved):
        vector = super().constants(node, resolved)
        return np.where(vector == 0, 0.0, self._count(node) * vector)
