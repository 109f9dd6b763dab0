"""The places of gates: behind every convolution whose channels are free."""

import dataclasses

import keras

from keras_bar import keras_internals
from keras_bar.analysis import trace
from keras_bar.analysis.residual_groups import ResidualGroups
from keras_bar.analysis.rules.kernels import following_norm


@dataclasses.dataclass(frozen=True)
class Placement:
    """The place of the gate of a convolution, or why it has none.

    Attributes:
        name: Name of the convolution.
        node: Its `Node`; None if it is hidden inside a layer.
        value: `Value` that the gate multiplies, or None.
        reason: Why there is no gate; empty if there is one.
        gated: Whether it has a gate already.
    """

    name: str
    node: trace.Node | None = None
    value: trace.Value | None = None
    reason: str = ""
    gated: bool = False


def place_gates(analysis, skip=()):
    """Chooses the place of the gate of every convolution.

    Args:
        analysis: `ChannelAnalysis` of a graph.
        skip: Names of layers that get no gate.

    Returns:
        List of `Placement`, one per convolution.
    """
    placements: list[Placement] = []
    for node, rule in analysis.rules.items():
        if rule.prunable:
            if node.name in skip or node.op.name in skip:
                placement = Placement(node.name, node, None, "was skipped")
            else:
                placement = _place(node, analysis, placements)
            placements.append(placement)
        elif _is_convolution(node.op):
            placements.append(Placement(node.name, node, None, rule.reason))
        else:
            placements.extend(_hidden(node))
    return placements


def _place(node, analysis, placements):
    value = node.output
    norm = following_norm(node, analysis)
    if norm is not None:
        value = norm.output
    reason = _obstacle(value, analysis)
    if reason is None:
        return Placement(node.name, node, gated=True)
    tied = analysis.rules[node].ties_channels
    if tied and _follows_gates(node, analysis, placements):
        reason = "its channels follow those of its input"
    return Placement(node.name, node, None if reason else value, reason)


def _obstacle(value, analysis):
    """Why a gate on this tensor could remove nothing: an empty string if it
    could, None if the tensor has a gate already."""
    stack = [value]
    while stack:
        tensor = stack.pop()
        if tensor in analysis.graph.outputs:
            return "its channels are the model's output"
        for reader in tensor.consumers:
            rule = analysis.rules[reader]
            if rule.gate(reader) is not None:
                return None
            if rule.reason:
                return (
                    f"{reader.name!r} needs all of its channels: {rule.reason}"
                )
            if rule.only_scales(tensor, reader):
                return f"its channels follow those it scales in {reader.name!r}"
            if rule.passes_channels:
                stack.append(reader.output)
    return ""


def _follows_gates(node, analysis, placements):
    """Whether a depthwise convolution reads the channels of convolutions with
    gates: these gates close its channels, too."""
    gated = {x.node for x in placements if x.value is not None or x.gated}
    stack = [node.inputs[0]]
    while stack:
        producer = stack.pop().producer
        if producer in gated:
            return True
        rule = analysis.rules.get(producer)
        if rule and not rule.mixes_channels:
            stack.extend(producer.inputs)
    return False


def whole_groups(analysis, placements):
    """Placements under regular connectivity: a gate that the writers of a
    group share is useful only if it closes all of them."""
    groups = ResidualGroups(analysis)
    # The gates in front of these close their channels.
    moving = {
        node
        for node, rule in analysis.rules.items()
        if rule.moves_channels and not rule.unites_channels
    }
    closed = {x.node for x in placements if x.value is not None or x.gated}
    sources = groups.sources()
    checked = []
    for x in placements:
        if x.value is not None:
            writers = sources[groups.of(x.value)]
            free = [x for x in writers if x not in closed | moving]
            if free:
                name = repr(free[0].name) if free[0] else "the model's input"
                reason = f"{name} writes the same stream without a gate"
                x = dataclasses.replace(x, value=None, reason=reason)
        checked.append(x)
    return checked


def _is_convolution(op):
    return "Conv" in type(op).__name__ and hasattr(op, "kernel_size")


def _hidden(node):
    """Placements of the convolutions inside a layer without a rule."""
    if not isinstance(node.op, keras.layers.Layer):
        return []
    reason = f"it is inside {node.name!r}, which no rule knows"
    return [
        Placement(f"{node.name}/{layer.name}", reason=reason)
        for layer in keras_internals.layers_inside(node.op)
        if _is_convolution(layer)
    ]
