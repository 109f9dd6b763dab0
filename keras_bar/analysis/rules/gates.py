"""Rules of gates."""

import numpy as np

from keras_bar.analysis.rules.base import agree
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.layers import ChannelGate


class Gate(Channelwise):
    """A gate: its dead channels are exactly 0."""

    def gate(self, node):
        return node.op

    def gated(self, node):
        """The tensor that the gate multiplies."""
        return node.inputs[0]

    def refuse(self, node, analysis):
        axis = node.op.axis % len(node.inputs[0].shape)
        if not agree(analysis.inputs(node)[0], axis):
            return "it works along another axis than the channels"
        return None

    def propagate_alive(self, node, analysis):
        value, gate = self.gated(node), self.gate(node)
        axis, channels = gate.axis % len(value.shape), analysis.channels[value]
        factors = analysis.algebra.gate(gate, gate.channels)
        if gate.groups > 1:
            factors = analysis.algebra.take(factors, gate.factor_index)
        join = analysis.algebra.conjunction
        alive = join(factors, channels.alive)
        nonzero = join(factors, channels.nonzero)
        outputs = [analysis.carries(node.output, axis, alive, nonzero)]
        for value in node.outputs[1:]:  # The factors themselves.
            outputs.append(analysis.carries(value, axis, factors, factors))
        return outputs

    def propagate_needed(self, node, analysis):
        alive = analysis.channels[node.output].alive
        need = analysis.algebra.conjunction(alive, analysis.needed[node.output])
        return [need] * len(node.inputs)

    def constants(self, node, resolved):
        constants = resolved.constants[self.gated(node)]
        if not np.any(constants):
            return constants  # Saves the evaluation of the gate.
        return constants * self.gate(node).fixed_channel_factors()

    def rebuild(self, node, builder):
        outputs = [None] * len(node.outputs)
        kept = builder.order[node.output]
        if builder.is_built(node.output):
            index = node.inputs.index(self.gated(node))
            tensor = builder.read_for(node, index)
            if node not in builder.folded:
                factors = self.gate(node).fixed_channel_factors()[kept]
                tensor = builder.affine(
                    tensor, node.output, f"{node.name}_scale", scale=factors
                )
            outputs[0] = tensor
        # Nobody reads the factors themselves: they are constants by now.
        return outputs

    def run(self, node, writer):
        if writer.is_built(node.output):
            kept = writer.live[node.output]
            tensor = writer.read(node, self.gated(node), kept)
            writer.make(node, "in place", [tensor])


class SharedGate(Gate):
    """The product with the factors of a gate at another node, by which regular
    connectivity applies one gate to several writers of a residual group."""

    layers = "SharedGate"

    def refuse(self, node, analysis):
        return None

    def gate(self, node):
        return shared_gate(node)

    def gated(self, node):
        (value,) = (x for x in node.inputs if not _is_factor(x))
        return value


def shared_gate(node):
    """The gate whose factors multiply the other input of a product, or None
    if the product has no such factors."""
    gates = [x.producer.op for x in node.inputs if _is_factor(x)]
    return gates[0] if len(gates) == 1 and len(node.inputs) == 2 else None


def _is_factor(value):
    producer = value.producer
    return (
        producer is not None
        and isinstance(producer.op, ChannelGate)
        and value in producer.outputs[1:]
    )
