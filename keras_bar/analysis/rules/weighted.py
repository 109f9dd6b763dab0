"""Rules of layers with weights for every channel."""

import keras
import numpy as np

from keras_bar import keras_internals
from keras_bar.analysis import trace
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import agree
from keras_bar.analysis.rules.base import along
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.channelwise import Localized


class Weighted(Channelwise):
    """A layer with weights `(channels,)`, and scalars for all channels."""

    def terms(self, node, analysis):
        live = analysis.live(node.output)
        factors = {1: live, 0: analysis.algebra.any(live)}
        return [
            Term("params", 1, ((factors[len(x.shape)], product(x.shape)),))
            for x in node.op.weights
        ]

    def constants(self, node, resolved):
        vector = resolved.constants[node.inputs[0]]
        axis = resolved.analysis.channels[node.output].axis
        image = along(vector, axis, len(node.inputs[0].shape))
        tensor = keras.ops.convert_to_tensor(image, "float32")
        (result,) = trace.call(node.op, node, {node.inputs[0]: tensor})
        return to_numpy(result).reshape(-1)

    def assign(self, node, layer, builder):
        kept = builder.order[node.output]
        for old, new in zip(node.op.weights, layer.weights, strict=True):
            array = keras.ops.convert_to_numpy(old)
            per_channel = array.ndim and kept is not None
            new.assign(array[kept] if per_channel else array)


class BatchNormalization(Weighted):
    """Turns a dead channel, and any constant, into its shift."""

    layers = "BatchNormalization"
    subtracts_mean = True

    def refuse(self, node, analysis):
        axis = node.op.axis % len(node.inputs[0].shape)
        if not agree(analysis.inputs(node)[0], axis):
            return "it normalizes along another axis than the channels"
        if node.kwargs.get("training"):
            return "it always normalizes by the statistics of the batch"
        return None

    def preserves_zero(self, node):
        return False

    def output_weights(self, layer, factors):
        if layer.gamma is None:
            return []
        weights = [layer.gamma, layer.beta]
        return [(x, factors) for x in weights if x is not None]


class LayerScale(Weighted):
    """A factor per channel, from ConvNeXt."""

    layers = "LayerScale"

    def config(self, node, builder):
        kept = builder.order[node.output]
        return {} if kept is None else {"projection_dim": len(kept)}


class Normalization(Weighted):
    """keras.layers.Normalization: mean and variance per channel, or one of
    each, as adapted weights or in the configuration."""

    layers = "Normalization"

    def refuse(self, node, analysis):
        axis = analysis.inputs(node)[0].axis
        scalar = np.ndim(node.op.input_mean) == 0
        fixed = node.op.input_mean is not None and scalar
        if (
            axis is None
            or fixed
            or keras_internals.normalized_axes(node.op) in ((), (axis,))
        ):
            return None
        return "it normalizes along another axis than the channels"

    def preserves_zero(self, node):
        return False

    def config(self, node, builder):
        kept = builder.order[node.output]
        if kept is None or np.ndim(node.op.input_mean) == 0:
            return {}
        return {
            "mean": np.asarray(node.op.input_mean)[kept].tolist(),
            "variance": np.asarray(node.op.input_variance)[kept].tolist(),
        }

    def assign(self, node, layer, builder):
        super().assign(node, layer, builder)
        layer.finalize_state()


class PReLU(Localized):
    """A slope per channel, shared or not along the other axes."""

    layers = "PReLU"

    def propagate_alive(self, node, analysis):
        axis = self.axis(node, analysis)
        if axis is not None and self._slopes(node, axis).shape[0] == 1:
            return Channelwise.propagate_alive(self, node, analysis)
        return super().propagate_alive(node, analysis)

    def _slopes(self, node, axis):
        """The slopes, shape (positions, channels)."""
        alpha = np.moveaxis(to_numpy(node.op.alpha), axis - 1, -1)
        return alpha.reshape(-1, alpha.shape[-1])

    def terms(self, node, analysis):
        alpha, axis = node.op.alpha, analysis.channels[node.output].axis
        live, count = analysis.live(node.output), product(alpha.shape)
        if axis is None or alpha.shape[axis - 1] == 1:
            return [Term("params", count, ((analysis.algebra.any(live), 1),))]
        size = alpha.shape[axis - 1]
        return [Term("params", count // size, ((live, size),))]

    def constants(self, node, resolved):
        vector = resolved.constants[node.inputs[0]]
        axis = resolved.analysis.channels[node.output].axis
        slopes = self._slopes(node, axis)[0]
        return np.maximum(vector, 0) + slopes * np.minimum(vector, 0)

    def assign(self, node, layer, builder):
        alpha, kept = to_numpy(node.op.alpha), builder.order[node.output]
        if kept is not None:
            axis = builder.analysis.channels[node.output].axis - 1
            if alpha.shape[axis] > 1:
                alpha = np.take(alpha, kept, axis=axis)
        layer.alpha.assign(alpha)


class Rescaling(Channelwise):
    """Scale and offset, each a number or one per channel."""

    layers = "Rescaling"

    def _arrays(self, node):
        return {x: np.asarray(getattr(node.op, x)) for x in ("scale", "offset")}

    def specialized(self, node, analysis):
        axis, arrays = analysis.inputs(node)[0].axis, self._arrays(node)
        scale, rank = arrays["scale"], len(node.inputs[0].shape)
        if axis is None or scale.ndim != rank or np.any(arrays["offset"]):
            return self
        # Factors along another axis, as of the features of heads.
        beside = scale.size > 1 and scale.shape[axis] == 1
        return Localized() if beside else self

    def refuse(self, node, analysis):
        axis, shape = analysis.inputs(node)[0].axis, node.inputs[0].shape
        if axis is None:
            return None
        first = keras.config.image_data_format() == "channels_first"
        for array in self._arrays(node).values():
            if array.size == 1:
                continue
            if first and array.ndim < 3:
                return "Keras reshapes its factors if channels come first"
            full = (1,) * (len(shape) - array.ndim) + array.shape
            if len(full) > len(shape) or full[axis] != array.size:
                return "its factors do not match the channels"
        return None

    def preserves_zero(self, node):
        return not np.any(self._arrays(node)["offset"])

    def constants(self, node, resolved):
        vector = resolved.constants[node.inputs[0]]
        scale, offset = (x.reshape(-1) for x in self._arrays(node).values())
        return vector * scale + offset

    def config(self, node, builder):
        kept = builder.order[node.output]
        if kept is None:
            return {}
        config = {}
        for name, array in self._arrays(node).items():
            if array.size > 1:
                axis = int(np.argmax(array.shape))
                config[name] = np.take(array, kept, axis=axis).tolist()
        return config
