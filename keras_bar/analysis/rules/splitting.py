"""Rules of operations with several outputs."""

import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules.base import Rule


class Divided(Rule):
    """Splits a tensor along another axis than the channels."""

    passes_channels = True
    ties_channels = True

    def axis(self, node, analysis):
        """Channel axis of the outputs."""
        return analysis.inputs(node)[0].axis

    def propagate_alive(self, node, analysis):
        (channels,), axis = analysis.inputs(node), self.axis(node, analysis)
        if axis is None:
            return [analysis.all_alive(x) for x in node.outputs]
        alive, nonzero = channels.alive, channels.nonzero
        return [analysis.carries(x, axis, alive, nonzero) for x in node.outputs]

    def propagate_needed(self, node, analysis):
        needs = [
            analysis.needed[x] for x in node.outputs if x in analysis.needed
        ]
        return [analysis.algebra.disjunction(*needs)]

    def constants(self, node, resolved):
        return resolved.constants[node.inputs[0]]

    def rebuild(self, node, builder):
        (value,) = node.inputs
        tensors = {value: builder.tensors[value]}
        outputs = trace.call(builder.clone(node), node, tensors)
        stored, axis = builder.order[value], self.axis(node, builder.analysis)
        if axis is None:
            return outputs
        return [
            builder.select(tensor, stored, builder.order[x], axis)
            if builder.is_built(x)
            else None
            for x, tensor in zip(node.outputs, outputs, strict=True)
        ]

    def run(self, node, writer):
        value = node.inputs[0]
        tensor, stored = writer.tensors[value], writer.count(value)
        made = writer.run_all(node, "other", [tensor], stored)
        for output, tensor in zip(node.outputs, made, strict=True):
            if writer.is_built(output):
                writer.select(node, tensor, stored, output)


class Unstack(Divided):
    """keras.ops.unstack: one output per entry of an axis."""

    operations = "Unstack"

    def refuse(self, node, analysis):
        if analysis.inputs(node)[0].axis == self._place(node):
            return "it separates the channels"
        return None

    def _place(self, node):
        return node.op.axis % len(node.inputs[0].shape)

    def axis(self, node, analysis):
        axis = super().axis(node, analysis)
        return None if axis is None else axis - (self._place(node) < axis)


class Split(Rule):
    """keras.ops.split along the channels: every output has some of them."""

    operations = "Split"
    moves_channels = True

    def specialized(self, node, analysis):
        along = node.op.axis % len(node.inputs[0].shape)
        return self if analysis.inputs(node)[0].axis == along else Divided()

    def places(self, node, analysis):
        """The input channels of every output."""
        (channels,) = analysis.inputs(node)
        sizes = [x.shape[channels.axis] for x in node.outputs]
        return np.split(np.arange(channels.size), np.cumsum(sizes)[:-1])

    def parts(self, node, analysis):
        places = self.places(node, analysis)
        return list(zip(node.outputs, places, strict=True))

    def order_ties(self, node, analysis):
        return [
            (node.inputs[0], places, value, np.arange(len(places)))
            for value, places in self.parts(node, analysis)
        ]

    def propagate_alive(self, node, analysis):
        (channels,), take = analysis.inputs(node), analysis.algebra.take
        return [
            analysis.carries(
                value,
                channels.axis,
                take(channels.alive, places),
                take(channels.nonzero, places),
            )
            for value, places in zip(
                node.outputs, self.places(node, analysis), strict=True
            )
        ]

    def propagate_needed(self, node, analysis):
        algebra, places = analysis.algebra, self.places(node, analysis)
        sizes = [len(x) for x in places]
        needs = [
            analysis.needed.get(x, algebra.constant(np.zeros(size, bool)))
            for x, size in zip(node.outputs, sizes, strict=True)
        ]
        return [algebra.concatenate(needs, sizes)]

    def constants_of(self, value, node, resolved):
        places = self.places(node, resolved.analysis)
        mine = places[node.outputs.index(value)]
        return resolved.constants[node.inputs[0]][mine]

    def rebuild(self, node, builder):
        (value,) = node.inputs
        outputs: list = []
        axis = builder.analysis.channels[value].axis
        places = self.places(node, builder.analysis)
        for output, channels in zip(node.outputs, places, strict=True):
            if not builder.is_built(output):
                outputs.append(None)
                continue
            wanted = channels[builder.order[output]]
            outputs.append(builder.read(value, wanted, axis))
        return outputs

    def run(self, node, writer):
        if not writer.has_gates:
            return super().run(node, writer)
        value = node.inputs[0]
        tensor, stored = writer.tensors[value], writer.count(value)
        for output in filter(writer.is_built, node.outputs):
            writer.select(node, tensor, stored, output)
