"""Rules of layers that concatenate or stack tensors."""

import keras
import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import disagreement


class Concatenate(Rule):
    """Concatenate: channels one after the other."""

    layers = operations = "Concatenate"

    def axis(self, node):
        return node.op.axis % len(node.output.shape)

    def specialized(self, node, analysis):
        known = {c.axis for c in analysis.inputs(node) if c.axis is not None}
        return Joined() if known and self.axis(node) not in known else self

    def refuse(self, node, analysis):
        known = {c.axis for c in analysis.inputs(node) if c.axis is not None}
        if not known <= {self.axis(node)}:
            return "its inputs carry their channels along different axes"
        if known and None in self.sizes(node):
            return "it does not know its number of channels"
        return None

    def sizes(self, node):
        return [x.shape[self.axis(node)] for x in node.inputs]

    def propagate_alive(self, node, analysis):
        inputs, axis = analysis.inputs(node), self.axis(node)
        if not any(c.axis == axis for c in inputs):
            return [analysis.all_alive(node.output)]
        alive = analysis.algebra.concatenate(
            [c.alive for c in inputs], self.sizes(node)
        )
        nonzero = analysis.algebra.concatenate(
            [c.nonzero for c in inputs], self.sizes(node)
        )
        return [analysis.carries(node.output, axis, alive, nonzero)]

    def propagate_needed(self, node, analysis):
        needed = analysis.needed[node.output]
        return [analysis.algebra.take(needed, x) for x in self.numbering(node)]

    def numbering(self, node):
        """The output channels that each input becomes."""
        ends = np.cumsum(self.sizes(node))
        return np.split(np.arange(ends[-1]), ends[:-1])

    def output_order(self, node, analysis, order_of):
        parts = []
        for value, ids in zip(node.inputs, self.numbering(node), strict=True):
            known = analysis.channels[value].axis is not None
            parts.append(ids[order_of(value)] if known else ids)
        return np.concatenate(parts)

    def constants(self, node, resolved):
        parts = [
            np.broadcast_to(resolved.constants[x], (size,))
            for x, size in zip(node.inputs, self.sizes(node), strict=True)
        ]
        return np.concatenate(parts)

    def rebuild(self, node, builder):
        kept = builder.order[node.output]
        if kept is None:
            by_value = {x: builder.restored(x) for x in node.inputs}
            return trace.call(builder.clone(node), node, by_value)
        stored, tensors = [], []
        for value, ids in zip(node.inputs, self.numbering(node), strict=True):
            if builder.is_built(value):
                order = builder.order[value]
                stored.append(ids if order is None else ids[order])
                tensors.append(builder.tensors[value])
        output = tensors[0]
        if len(tensors) > 1:
            layer = keras.layers.Concatenate(axis=node.op.axis, name=node.name)
            output = layer(tensors)
        channels = np.concatenate(stored)
        return [builder.select(output, channels, kept, self.axis(node))]

    def run(self, node, writer):
        if not writer.knows(node.output):
            return super().run(node, writer)
        built = [x for x in node.inputs if writer.is_built(x)]
        tensors = [writer.tensors[x] for x in writer.data(node)]
        stored = sum(map(writer.count, built))
        tensor = tensors[0]
        if len(built) > 1:
            tensor = writer.run(node, "other", tensors, node.output, stored)
        writer.select(node, tensor, stored, node.output)


class Joined(Rule):
    """Concatenate along another axis than the channels: output channel i is
    made of channel i of every input, which hold constants of their own there,
    so that only 0 stays constant."""

    ties_channels = True
    unites_channels = True

    def axis(self, node, axis):
        """Channel axis of the output, where it is `axis` of the inputs."""
        return axis

    def input_axis(self, node, axis):
        """Channel axis of an input, where it is `axis` of the output."""
        return axis

    def refuse(self, node, analysis):
        return disagreement(node, analysis)

    def propagate_alive(self, node, analysis):
        inputs = analysis.inputs(node)
        axes = [c.axis for c in inputs if c.axis is not None]
        if not axes:
            return [analysis.all_alive(node.output)]
        nonzero = analysis.algebra.disjunction(*(c.nonzero for c in inputs))
        axis = self.axis(node, axes[0])
        return [analysis.carries(node.output, axis, nonzero, nonzero)]

    def propagate_needed(self, node, analysis):
        return [analysis.needed[node.output]] * len(node.inputs)

    def constants(self, node, resolved):
        size = resolved.analysis.channels[node.output].size
        return np.zeros(size)  # Any other constant is computed.

    def rebuild(self, node, builder):
        kept = builder.order[node.output]
        if kept is None:
            tensors = {x: builder.restored(x) for x in node.inputs}
        else:
            axis = builder.analysis.channels[node.output].axis
            axis = self.input_axis(node, axis)
            tensors = {x: builder.read(x, kept, axis) for x in node.inputs}
        return trace.call(builder.clone(node), node, tensors)


class Stack(Joined):
    """keras.ops.stack: a new axis beside the channels."""

    operations = "Stack"

    def _place(self, node):
        return node.op.axis % len(node.output.shape)

    def axis(self, node, axis):
        return axis + (self._place(node) <= axis)

    def input_axis(self, node, axis):
        return axis - (self._place(node) < axis)
