"""The rule of gates on the widths of heads."""

from keras_bar.analysis.rules.gates import Gate
from keras_bar.analysis.rules.width_zones import zone_of
from keras_bar.analysis.rules.widths import Width


class WidthGate(Gate):
    """A gate on the features that all heads have in common.

    Args:
        zone: `Zone` of the gate's output.
    """

    def __init__(self, zone):
        self.zone = zone

    @staticmethod
    def zone_at(node, analysis):
        """The `Zone` that the gate at a node closes, or None."""
        value, axis = node.output, analysis.inputs(node)[0].axis
        last = len(value.shape) - 1
        along = node.op.axis % len(value.shape)
        if along != last or axis in (None, last) or len(node.outputs) > 1:
            return None
        zone = zone_of(value, analysis.graph.outputs, last)
        return zone if zone and zone.is_closed_by(value) else None

    def gate(self, node):
        return None  # None of the channels, which are heads.

    def width_gate(self, node):
        return node.op

    def refuse(self, node, analysis):
        return None

    def propagate_alive(self, node, analysis):
        (channels,), algebra = analysis.inputs(node), analysis.algebra
        alive = algebra.gate(node.op, node.output.shape[-1])
        for value, axis in self.zone.axes.items():
            known = analysis.widths.get(value)
            kept = algebra.conjunction(alive, known.alive) if known else alive
            size = value.shape[axis]
            analysis.widths[value] = Width(axis, size, kept)
        heads = [channels.alive, channels.nonzero]
        if self.zone.gives:  # A head without values gives 0.
            rest = algebra.any(alive)
            heads = [algebra.conjunction(x, rest) for x in heads]
        return [analysis.carries(node.output, channels.axis, *heads)]

    def propagate_needed(self, node, analysis):
        return [analysis.needed[node.output]]

    def constants(self, node, resolved):
        return resolved.constants[node.inputs[0]]

    def rebuild(self, node, builder):
        tensor = builder.read_for(node, 0)
        if node in builder.folded:
            return [tensor]
        factors = node.op.fixed_factors()[builder.widths(node.output)]
        name, axis = f"{node.name}_scale", len(node.output.shape) - 1
        return [
            builder.affine(tensor, node.output, name, scale=factors, axis=axis)
        ]
