"""Rules of layers that combine several tensors."""

import keras
import numpy as np

from keras_bar.graph import trace
from keras_bar.graph.rules.base import Rule
from keras_bar.layers.hard_concrete_gate import HardConcreteGate


class Merge(Rule):
    """Combines tensors channel by channel; a result is constant only where
    all of its operands are."""

    def refuse(self, node, flow):
        if len(node.inputs) == 1 and len(node.outputs) == 1:
            return "it combines a tensor with a constant tensor"
        known = [c for c in flow.inputs(node) if c.axis is not None]
        ranks = {len(x.shape) for x in node.inputs}
        if known and len(ranks) > 1:
            return "its inputs have different ranks"
        if len({c.axis for c in known}) > 1:
            return "its inputs carry their channels along different axes"
        if known and None in {x.shape[known[0].axis] for x in node.inputs}:
            return "it does not know its number of channels"
        return None

    def forward(self, node, flow):
        inputs = flow.inputs(node)
        axes = [c.axis for c in inputs if c.axis is not None]
        if not axes:
            return [flow.all_alive(node.output)]
        alive, zero = self.alive(inputs, flow), self.zeros(inputs, flow)
        return [flow.carries(node.output, axes[0], alive, zero)]

    def alive(self, inputs, flow):
        return flow.algebra.disjunction(*(c.alive for c in inputs))

    def zeros(self, inputs, flow):
        return all(c.zero for c in inputs)

    def backward(self, node, flow):
        needed = flow.needed[node.output]
        return [
            flow.algebra.any(needed) if broadcasts(x, node, flow) else needed
            for x in node.inputs
        ]

    def can_zero(self, node, flow):
        return all(flow.can_be_zeroed(x) for x in node.inputs)

    def zero(self, node, dead, surgeon):
        for value in node.inputs:
            surgeon.zero(value, dead)

    def combine(self, arrays):
        """The operation on constants."""
        raise NotImplementedError

    def constants(self, node, numbers):
        return self.combine([numbers.constants[x] for x in node.inputs])

    def rebuild(self, node, builder):
        tensors = {
            x: builder.restored(x)
            if broadcasts(x, node, builder.flow)
            else builder.read_for(node, i)
            for i, x in enumerate(node.inputs)
        }
        return trace.call(builder.clone(node), node, tensors)


class Add(Merge):
    """Add: in the compact model a mixed residual connection.

    The supplement's Algorithm 1: each operand stores its own alive channels,
    and adds them where they belong.
    """

    def combine(self, arrays):
        return np.sum(np.broadcast_arrays(*arrays), axis=0)

    def rebuild(self, node, builder):
        if any(broadcasts(x, node, builder.flow) for x in node.inputs):
            return super().rebuild(node, builder)
        tensors, indices, constant = builder.operands(node)
        aligned = all(x is None for x in indices)
        if aligned and constant is None:
            return self.plain(node, builder, tensors)
        return [builder.mix(tensors, indices, node, constant)]

    def plain(self, node, builder, tensors):
        if len(tensors) == 1:
            return tensors
        if len(tensors) == len(node.inputs):
            by_value = dict(zip(node.inputs, tensors, strict=True))
            return trace.call(builder.clone(node), node, by_value)
        return [keras.layers.Add(name=node.name)(tensors)]


class Subtract(Merge):
    def combine(self, arrays):
        return arrays[0] - arrays[1]


class Average(Merge):
    def combine(self, arrays):
        return np.mean(np.broadcast_arrays(*arrays), axis=0)


class Maximum(Merge):
    def combine(self, arrays):
        return np.max(np.broadcast_arrays(*arrays), axis=0)


class Minimum(Merge):
    def combine(self, arrays):
        return np.min(np.broadcast_arrays(*arrays), axis=0)


class Multiply(Merge):
    """Multiply: a channel that is 0 in one operand is 0 in the product, so
    squeeze-and-excitation follows the channels it scales."""

    def alive(self, inputs, flow):
        changing = super().alive(inputs, flow)
        nonzero = [c.alive for c in inputs if c.zero]
        return flow.algebra.conjunction(changing, *nonzero)

    def zeros(self, inputs, flow):
        full = flow.algebra.full
        return any(c.zero and c.alive is not full for c in inputs)

    def backward(self, node, flow):
        # Where one operand is 0 nobody needs the others.
        inputs, needs = flow.inputs(node), super().backward(node, flow)
        for i, value in enumerate(node.inputs):
            others = [
                c.alive
                for j, c in enumerate(inputs)
                if j != i and c.zero and not broadcasts(value, node, flow)
            ]
            needs[i] = flow.algebra.conjunction(needs[i], *others)
        return needs

    def can_zero(self, node, flow):
        return any(flow.can_be_zeroed(x) for x in node.inputs)

    def zero(self, node, dead, surgeon):
        for value in node.inputs:
            flow = surgeon.flow
            if flow.removable(value) and flow.can_be_zeroed(value):
                surgeon.zero(value, dead)
                return

    def combine(self, arrays):
        return np.prod(np.broadcast_arrays(*arrays), axis=0)

    def rebuild(self, node, builder):
        gate = shared_gate(node)
        if gate is not None:
            return self._gated(node, gate, builder)
        computed = [x for x in node.inputs if builder.tensors[x] is not None]
        if len(computed) == len(node.inputs):
            return super().rebuild(node, builder)
        # The other operands hold nothing but constants: a fixed factor.
        kept = builder.order[node.output]
        rest = [x for x in node.inputs if builder.tensors[x] is None]
        factors = self.combine([builder.constants[x] for x in rest])[kept]
        tensor = builder.read_for(node, node.inputs.index(computed[0]))
        return [builder.scale(tensor, factors, node)]

    def _gated(self, node, gate, builder):
        (index,) = (
            i for i, x in enumerate(node.inputs) if x.producer is not gate
        )
        kept = builder.order[node.output]
        factors = builder.gate_values(gate.op)[kept]
        tensor = builder.read_for(node, index)
        return [builder.scale(tensor, factors, node)]


class Residual(Add):
    """InceptionResNet's `x + scale * residual`."""

    def combine(self, arrays):
        raise NotImplementedError

    def constants(self, node, numbers):
        first, second = (numbers.constants[x] for x in node.inputs)
        return first + node.op.scale * second

    def rebuild(self, node, builder):
        value = node.inputs[1]
        if builder.tensors[value] is not None:
            builder.tensors[value] = keras.layers.Rescaling(
                node.op.scale, name=f"{node.name}_scale"
            )(builder.tensors[value])
            builder.constants[value] = builder.constants[value] * node.op.scale
        return super().rebuild(node, builder)

    def plain(self, node, builder, tensors):
        if len(tensors) == 1:
            return tensors
        return [keras.layers.Add(name=node.name)(tensors)]


class Concatenate(Rule):
    """Concatenate: channels one after the other, or along another axis."""

    def refuse(self, node, flow):
        axis = node.op.axis % len(node.output.shape)
        known = {c.axis for c in flow.inputs(node) if c.axis is not None}
        if not known <= {axis}:
            return "it joins another axis than the channels"
        return None

    def sizes(self, node):
        axis = node.op.axis % len(node.inputs[0].shape)
        return [x.shape[axis] for x in node.inputs]

    def forward(self, node, flow):
        inputs = flow.inputs(node)
        axis = node.op.axis % len(node.output.shape)
        if not any(c.axis == axis for c in inputs):
            return [flow.all_alive(node.output)]
        alive = flow.algebra.concatenate(
            [c.alive for c in inputs], self.sizes(node)
        )
        zero = all(c.zero for c in inputs)
        return [flow.carries(node.output, axis, alive, zero)]

    def backward(self, node, flow):
        needed, start, needs = flow.needed[node.output], 0, []
        for size in self.sizes(node):
            needs.append(flow.algebra.slice(needed, start, start + size))
            start += size
        return needs

    def can_zero(self, node, flow):
        return all(flow.can_be_zeroed(x) for x in node.inputs)

    def zero(self, node, dead, surgeon):
        start = 0
        for value, size in zip(node.inputs, self.sizes(node), strict=True):
            surgeon.zero(value, dead[start : start + size])
            start += size

    def constants(self, node, numbers):
        parts = [
            np.broadcast_to(numbers.constants[x], (size,))
            for x, size in zip(node.inputs, self.sizes(node), strict=True)
        ]
        return np.concatenate(parts)

    def rebuild(self, node, builder):
        stored, tensors, start = [], [], 0
        for value, size in zip(node.inputs, self.sizes(node), strict=True):
            if builder.tensors[value] is not None:
                order = builder.order[value]
                order = np.arange(size) if order is None else order
                stored.append(order + start)
                tensors.append(builder.tensors[value])
            start += size
        stored = np.concatenate(stored)
        output = tensors[0]
        if len(tensors) > 1:
            layer = keras.layers.Concatenate(axis=node.op.axis, name=node.name)
            output = layer(tensors)
        kept = builder.order[node.output]
        return [builder.select(output, stored, kept, node.output)]


def shared_gate(node):
    """The gate node one of whose outputs is the factor of this product: how
    regular connectivity applies one gate to several writers. None if this is
    a product like any other."""
    for value in node.inputs:
        producer = value.producer
        if (
            producer is not None
            and isinstance(producer.op, HardConcreteGate)
            and len(producer.outputs) == 2
            and value is producer.outputs[1]
        ):
            return producer
    return None


def broadcasts(value, node, flow):
    """Whether an operand has one channel that serves all of the output's."""
    axis = flow.channels[node.output].axis
    if axis is None:
        return False
    return value.shape[axis] == 1 and node.output.shape[axis] != 1
