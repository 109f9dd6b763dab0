"""Gates of layers that the model calls more than once.

One gate serves all calls of a layer, because they have one kernel: the channels
that it keeps are the same in all of them. It multiplies the output of each
call, or of the batch normalization behind it.
"""

import dataclasses


def agreed(placements, analysis):
    """Placements in which either all calls of a layer have a gate, or none.

    Args:
        placements: List of `Placement`.
        analysis: `ChannelAnalysis`.
    """
    by_layer: dict = {}
    for x in placements:
        if x.node is not None and x.node.shares_weights:
            by_layer.setdefault(x.node.shared_calls[0], []).append(x)
    reasons = {
        first: _obstacle(first, calls, analysis)
        for first, calls in by_layer.items()
    }
    return [
        x
        if x.node is None or not reasons.get(x.node.shared_calls[0])
        else _without_gate(x, reasons[x.node.shared_calls[0]])
        for x in placements
    ]


def is_repeated(node):
    """Whether the model calls an operation several times, or a layer with
    weights in front of it or behind it."""
    readers = [y for x in node.outputs for y in x.consumers]
    makers = [x.producer for x in node.inputs if x.producer is not None]
    beside = any(x.shares_weights for x in (*readers, *makers))
    return node.calls > 1 or beside


def _without_gate(placement, reason):
    """A placement that gets no gate, for its own reason if it has one."""
    if placement.gated:
        return placement
    return dataclasses.replace(
        placement,
        value=None,
        reason=placement.reason or reason,
        grouping=None,
        front=None,
    )


def _obstacle(first, calls, analysis):
    """Why the calls of a layer have no gate in common; empty if they have."""
    for x in calls:
        if x.value is None:
            reason = x.reason or "it has a gate"
            return f"it has the weights of {x.node.name!r}: {reason}"
    if len(calls) < first.calls:
        return "other calls of it have no channels to lose"
    if len({x.grouping for x in calls}) > 1:
        return "its calls do not share the same groups of channels"
    kinds = {
        (len(x.value.shape), analysis.channels[x.value].axis) for x in calls
    }
    if len(kinds) > 1:
        return "its calls make tensors of different ranks"
    return ""


class SharedGates:
    """Which places have one gate in common, whatever the connectivity: those
    behind the calls of a layer, or of a batch normalization.

    Args:
        placements: List of `Placement`, those with a gate.
    """

    def __init__(self, placements):
        self._parent: dict = {}
        self._layers = {}
        for x in placements:
            layer, last = self._of(x.node.shared_calls[0]), x.value.producer
            if last.shares_weights:
                self._parent[self._of(last.shared_calls[0])] = layer
            self._layers[x.value] = layer

    def of(self, value):
        """What stands for all places that share the gate on a tensor."""
        return self._of(self._layers[value])

    def _of(self, node):
        while self._parent.setdefault(node, node) is not node:
            node = self._parent[node]
        return node
