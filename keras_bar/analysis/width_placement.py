"""The places of gates on the widths of heads."""

from keras_bar.analysis import shared_placements
from keras_bar.analysis.placement import Placement
from keras_bar.analysis.rules.attended import is_attended_by
from keras_bar.analysis.rules.attended import is_product
from keras_bar.analysis.rules.width_zones import zone_at
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate


def place_widths(analysis, skip):
    """The placements of gates on the features that all heads of an attention
    have in common: those of its values, and those of its queries, whose
    products with the keys lose the same features."""
    placements: list[Placement] = []
    seen: set = set()
    for node in analysis.graph.nodes:
        for value in node.inputs if is_product(node) else ():
            if value in seen or is_attended_by(value, node) is None:
                continue
            zone = zone_at(node, value, analysis.graph.outputs)
            seen.update(zone.axes if zone else ())
            if zone and not _keep_all(zone, analysis):
                placements += _place_width(zone, skip)
    return placements


def _place_width(zone, skip):
    """The placement of the gate of a `Zone`, in a list; empty if no gate closes
    all of it."""
    gates = {x: list(_gates_on(x, zone)) for x in zone.makers}
    for value, found in gates.items():
        rank, axis = len(value.shape), zone.axes[value]
        if any(x.op.axis % rank == axis for x in found):
            return [_named(value, gated=True, axis=axis)]
    for value in gates:
        if zone.is_closed_by(value):
            node, axis = value.producer, zone.axes[value]
            if node.is_named(skip):
                return [_named(value, reason="was skipped", axis=axis)]
            return [_named(value, value=value, axis=axis)]
    return []


def _named(made, **options):
    """The `Placement` of widths that a node makes."""
    node = made.producer
    return Placement(f"{node.name}_width", node, **options)


def _gates_on(value, zone):
    """The nodes of the gates that multiply a tensor, one behind the other."""
    while len(value.consumers) == 1 and value in zone.axes:
        (node,) = value.consumers
        if not isinstance(node.op, ChannelGate | BudgetState):
            return
        if isinstance(node.op, ChannelGate):
            yield node
        value = node.output


def _keep_all(zone, analysis):
    """Whether a layer has another rule than those that know widths, or several
    calls; or the heads are unknown, or there is a single width."""
    axes = analysis.channels
    return (
        any(analysis.rules[x].reason for x in zone.nodes)
        or any(map(shared_placements.is_repeated, zone.nodes))
        or any(axes[x].axis in (None, axis) for x, axis in zone.axes.items())
        or any(x.shape[axis] < 2 for x, axis in zone.axes.items())
        or any(None in x.shape[1:] for x in zone.axes)
    )
