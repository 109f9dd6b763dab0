"""Rules of layers that combine several tensors."""

import keras
import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules import gates
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import disagreement
from keras_bar.analysis.rules.base import has_full_shape as has_full_shape
from keras_bar.analysis.rules.base import size_along
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.channelwise import Elementwise
from keras_bar.analysis.rules.channelwise import Localized
from keras_bar.analysis.rules.channelwise import Shift


class Merge(Rule):
    """Combines tensors channel by channel. A result is constant only where all
    of its operands are."""

    ties_channels = True
    unites_channels = True

    def specialized(self, node, analysis):
        is_layer = isinstance(node.op, keras.layers.Layer)
        return self if is_layer or len(node.inputs) > 1 else Elementwise()

    def refuse(self, node, analysis):
        if len(node.inputs) == 1:
            return "it combines a tensor with a constant tensor"
        return disagreement(node, analysis)

    def propagate_alive(self, node, analysis):
        inputs = analysis.inputs(node)
        rank = len(node.output.shape)
        axes = [
            rank - len(x.shape) + c.axis
            for x, c in zip(node.inputs, inputs, strict=True)
            if c.axis is not None
        ]
        if not axes:
            return [analysis.all_alive(node.output)]
        alive, nonzero = self.join(node, analysis)
        return [analysis.carries(node.output, axes[0], alive, nonzero)]

    def join(self, node, analysis):
        """Which channels vary, and which may be other than 0."""
        inputs, algebra = analysis.inputs(node), analysis.algebra
        alive = algebra.disjunction(*(c.alive for c in inputs))
        return alive, algebra.disjunction(*(c.nonzero for c in inputs))

    def propagate_needed(self, node, analysis):
        needed = analysis.needed[node.output]
        return [
            analysis.algebra.any(needed)
            if broadcasts(x, node, analysis)
            else needed
            for x in node.inputs
        ]

    def combine(self, arrays, node):
        """The operation on constants."""
        raise NotImplementedError

    def constants(self, node, resolved):
        arrays = [resolved.constants[x] for x in node.inputs]
        return self.combine(np.broadcast_arrays(*arrays), node)

    def rebuild(self, node, builder):
        tensors = {
            x: builder.restored(x)
            if broadcasts(x, node, builder.analysis)
            else builder.read_for(node, i)
            for i, x in enumerate(node.inputs)
            if builder.is_built(x)
        }
        # An entirely constant operand takes the shape of another one.
        like = next(
            (tensors[x] for x in tensors if has_full_shape(x, node)), None
        )
        for x in node.inputs:
            if x not in tensors:
                tensors[x] = (
                    builder.restored(x)
                    if broadcasts(x, node, builder.analysis)
                    else builder.constant_for(node, x, like)
                )
        return trace.call(builder.clone(node), node, tensors)

    def operand(self, node, index, writer):
        value = node.inputs[index]
        if broadcasts(value, node, writer.analysis):
            return writer.whole(node, value)
        return writer.like_output(node, index)


class Maximum(Merge):
    """The larger of two numbers."""

    layers = operations = "Maximum"

    def combine(self, arrays, node):
        return np.max(arrays, axis=0)


class Minimum(Merge):
    """The smaller of two numbers."""

    layers = operations = "Minimum"

    def combine(self, arrays, node):
        return np.min(arrays, axis=0)


class Sum(Merge):
    """Linear combination: a mixed residual connection in the compact model.

    As in Algorithm 1 of the supplement, each operand stores its own alive
    channels and adds them where they belong.
    """

    layers = operations = "Add"
    adds_inputs = True

    def specialized(self, node, analysis):
        rule = super().specialized(node, analysis)
        if rule is not self and Shift.holds(node, analysis):
            return Shift()
        return rule

    def weights(self, node):
        """The factor of every operand."""
        return [1.0] * len(node.inputs)

    def combine(self, arrays, node):
        return np.tensordot(self.weights(node), arrays, axes=1)

    def rebuild(self, node, builder):
        full = all(has_full_shape(x, node) for x in node.inputs)
        if not full or builder.order[node.output] is None:
            return super().rebuild(node, builder)
        operands, constant = builder.operands(node, self.weights(node))
        complete = len(operands) == len(node.inputs)
        if complete and all(x.places is None for x in operands):
            tensors = {x.value: x.tensor for x in operands}
            return trace.call(builder.clone(node), node, tensors)
        return [builder.add(node, operands, constant)]

    def run(self, node, writer):
        full = all(has_full_shape(x, node) for x in node.inputs)
        if not full or not writer.knows(node.output):
            return super().run(node, writer)
        writer.run_sum(node, [slice(None)] * len(node.inputs))


class Subtract(Sum):
    """The first operand minus the second."""

    layers = operations = "Subtract"

    def weights(self, node):
        return [1.0, -1.0]


class Average(Sum):
    """The mean of all operands."""

    layers = "Average"

    def weights(self, node):
        return [1.0 / len(node.inputs)] * len(node.inputs)


class ScaledResidual(Sum):
    """InceptionResNet's `x + scale * residual`."""

    layers = "CustomScaleLayer"

    def weights(self, node):
        return [1.0, node.op.scale]


class Multiply(Merge):
    """Multiply: a channel that is 0 in one operand is 0 in the product, so
    squeeze-and-excitation follows the channels it scales."""

    layers = operations = "Multiply"
    unites_channels = False

    def specialized(self, node, analysis):
        shared = gates.shared_gate(node)
        if shared is not None:
            return gates.SharedGate()
        if _scales_positions(node, analysis):
            return Localized()
        return super().specialized(node, analysis)

    def only_scales(self, value, node):
        return not has_full_shape(value, node)

    def join(self, node, analysis):
        inputs, algebra = analysis.inputs(node), analysis.algebra
        varies = algebra.disjunction(*(c.alive for c in inputs))
        nonzero = algebra.conjunction(*(c.nonzero for c in inputs))
        return algebra.conjunction(varies, nonzero), nonzero

    def propagate_needed(self, node, analysis):
        # Nobody needs the other operands where one is 0.
        inputs, needs = (
            analysis.inputs(node),
            super().propagate_needed(node, analysis),
        )
        for i, value in enumerate(node.inputs):
            others = [
                c.nonzero
                for j, c in enumerate(inputs)
                if j != i and not broadcasts(value, node, analysis)
            ]
            needs[i] = analysis.algebra.conjunction(needs[i], *others)
        return needs

    def combine(self, arrays, node):
        return np.prod(arrays, axis=0)

    def rebuild(self, node, builder):
        built = [x for x in node.inputs if builder.is_built(x)]
        rest = [x for x in node.inputs if not builder.is_built(x)]
        if not rest or len(built) > 1 or not has_full_shape(built[0], node):
            return super().rebuild(node, builder)
        # The other operands only hold constants: a fixed factor.
        kept = builder.order[node.output]
        size = builder.analysis.channels[node.output].size
        arrays = [np.broadcast_to(builder.constants[x], (size,)) for x in rest]
        factors = self.combine(arrays, node)[kept]
        tensor = builder.read_for(node, node.inputs.index(built[0]))
        name = f"{node.name}_factor"
        return [builder.affine(tensor, node.output, name, scale=factors)]


class AddedLoss(Channelwise):
    """Returns its first input; the others, losses, read what they read."""

    layers = "AddedLoss"

    def refuse(self, node, analysis):
        return None

    def restored_inputs(self, node, analysis):
        losses = list(enumerate(node.inputs))[1:]
        return [i for i, x in losses if analysis.removable(x)]

    def propagate_needed(self, node, analysis):
        needed = analysis.needed[node.output]
        is_read = analysis.algebra.any(needed)
        return [needed, *[is_read] * (len(node.inputs) - 1)]

    def rebuild(self, node, builder):
        first, *losses = node.inputs
        tensors = {x: builder.restored(x) for x in losses}
        tensors[first] = builder.read_for(node, 0)
        return trace.call(builder.clone(node), node, tensors)

    def operand(self, node, index, writer):
        if index:
            return writer.whole(node, node.inputs[index])
        return super().operand(node, index, writer)


class Where(Merge):
    """keras.ops.where: a channel is 0 where both branches are. A branch that
    holds another constant makes the output vary with the condition."""

    operations = "Where"

    def specialized(self, node, analysis):
        return self

    def refuse(self, node, analysis):
        condition, *branches = node.args
        if len([x for x in branches if x is not None]) < 2:
            return "it returns indices"
        if any(_differs(x, node, analysis) for x in node.args):
            return "it combines the channels with a constant tensor"
        varies = isinstance(condition, trace.Value)
        if varies and analysis.channels[condition].constant:
            return "its condition may be a constant other than 0"
        return disagreement(node, analysis)

    def join(self, node, analysis):
        branches, algebra = node.args[1:], analysis.algebra
        parts = [
            analysis.channels[x].nonzero
            if isinstance(x, trace.Value)
            else algebra.full
            for x in branches
            if isinstance(x, trace.Value) or np.any(to_numpy(x) != 0)
        ]
        nonzero = algebra.disjunction(*parts)
        return nonzero, nonzero

    def constants(self, node, resolved):
        size = resolved.analysis.channels[node.output].size
        return np.zeros(size)  # Any other constant is computed.


def _differs(x, node, analysis):
    """Whether an argument is a constant with entries per channel."""
    shape = getattr(x, "shape", ())
    if isinstance(x, trace.Value) or not shape:
        return False
    rank = len(node.output.shape)
    return any(
        size_along(x, rank - len(value.shape) + channels.axis, rank) != 1
        for value, channels in zip(
            node.inputs, analysis.inputs(node), strict=True
        )
        if channels.axis is not None
    )


def _scales_positions(node, analysis):
    """Whether an operation multiplies a tensor by constants that are the same
    for all channels, such as the sines of rotary positions."""
    if isinstance(node.op, keras.layers.Layer) or len(node.inputs) > 1:
        return False
    constants = [x for x in node.args if getattr(x, "shape", ())]
    same_rank = len(node.inputs[0].shape) == len(node.output.shape)
    known = analysis.inputs(node)[0].axis is not None
    return (
        known
        and same_rank
        and len(constants) > 1  # The tensor itself is one of them.
        and not any(_differs(x, node, analysis) for x in constants)
    )


def broadcasts(value, node, analysis):
    """Whether an operand has one channel that serves all of the output's."""
    axis = analysis.channels[node.output].axis
    if axis is None:
        return False
    size = size_along(value, axis, len(node.output.shape))
    return size == 1 and node.output.shape[axis] != 1
