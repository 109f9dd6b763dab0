"""The rules of layers that are run to find out how they treat channels."""

import math

import keras
import numpy as np

from keras_bar.analysis import cloning
from keras_bar.analysis import experiments
from keras_bar.analysis import observing
from keras_bar.analysis import trace
from keras_bar.analysis.counting import may_multiply
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import along
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.channelwise import Localized
from keras_bar.analysis.rules.kernels import TYPICAL_SIZE
from keras_bar.analysis.rules.restoring import Restoring
from keras_bar.analysis.rules.restoring import unknown


class Unknown(Rule):
    """A layer without a rule, before it is observed.

    Args:
        registered: Whether a user registered it as elementwise.
    """

    def __init__(self, registered=False):
        self.registered = registered
        self.obstacle = ""

    def specialized(self, node, analysis):
        axis = self._known_axis(node, analysis)
        if axis is None:
            return self
        try:
            behaviour = observing.observe(node, axis)
        except experiments.NotChannelwise as error:
            self.obstacle = str(error)
            return self
        if self.registered and not behaviour.elementwise:
            self.obstacle = "it moves values between positions"
            return self
        if behaviour.preserves_constants:
            return Observed(behaviour)
        if behaviour.preserves_zero:
            return ObservedInPlace(behaviour)
        return ObservedWhole(behaviour)

    def _known_axis(self, node, analysis):
        """The channel axis of the only input of a layer with one output."""
        if len(node.inputs) != 1 or len(node.outputs) != 1:
            return None
        channels = analysis.inputs(node)[0]
        return channels.axis if channels.size is not None else None

    def refuse(self, node, analysis):
        if self.registered and self.obstacle:
            return f"it is registered as elementwise, but {self.obstacle}"
        return "; ".join(x for x in (unknown(node), self.obstacle) if x)

    def is_counted(self, node):
        return self.registered or not may_multiply(node.op)


class Observed(Channelwise):
    """A layer that keeps channels apart, as was observed.

    Args:
        behaviour: `Behaviour`.
    """

    def __init__(self, behaviour):
        self.behaviour = behaviour

    def is_counted(self, node):
        return self.behaviour.elementwise or not may_multiply(node.op)

    def preserves_zero(self, node):
        return self.behaviour.preserves_zero

    def terms(self, node, analysis):
        live = analysis.live(node.output)
        axes, terms = self._axes(node.op), []
        for weight in getattr(node.op, "weights", ()):
            axis, count = axes[id(weight)], product(weight.shape)
            if axis is None:
                factor, each = (analysis.algebra.any(live), 1), count
            else:
                size = weight.shape[axis]
                factor, each = (live, size), count // size
            terms.append(Term("params", each, (factor,)))
        return terms

    def _axes(self, layer):
        """Dict from the identity of a variable to the axis of its channels."""
        variables = map(id, getattr(layer, "variables", ()))
        return dict(zip(variables, self.behaviour.axes, strict=True))

    def constants(self, node, resolved):
        value = node.inputs[0]
        axis = resolved.analysis.channels[value].axis
        rows = math.ceil(value.rows)
        size = [rows, *(d or TYPICAL_SIZE for d in value.shape[1:])]
        vector = along(resolved.constants[value], axis, len(size))
        image = np.broadcast_to(vector, size).astype("float32")
        tensor = keras.ops.convert_to_tensor(image, value.dtype)
        (result,) = trace.call(node.op, node, {value: tensor})
        rows = np.moveaxis(to_numpy(result), axis, -1)
        return rows.reshape(-1, rows.shape[-1])[0]

    def config(self, node, builder):
        kept = builder.order[node.output]
        if not self.behaviour.entries:
            return {}
        old = cloning.config_of(node.op)
        size = builder.analysis.channels[node.output].size
        return {
            name: experiments.adapted(old[name], size, kept)
            for name in self.behaviour.entries
        }

    def assign(self, node, layer, builder):
        kept = builder.order[node.output]
        pairs = zip(
            getattr(node.op, "variables", ()),
            getattr(layer, "variables", ()),
            self.behaviour.axes,
            strict=True,
        )
        for old, new, axis in pairs:
            array = np.array(keras.ops.convert_to_numpy(old))
            new.assign(experiments.part(array, axis, kept))
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


class ObservedInPlace(Localized, Observed):
    """The same for a layer that turns constants into values that differ by
    position."""


class ObservedWhole(Restoring):
    """The same for a layer that turns zeros into values that differ by
    position: its output has all channels.

    Args:
        behaviour: `Behaviour`.
    """

    reason = "it maps zeros to values that differ by position"

    def __init__(self, behaviour):
        self.behaviour = behaviour

    is_counted = Observed.is_counted
