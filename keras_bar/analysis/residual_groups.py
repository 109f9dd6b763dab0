"""Residual groups: tensors that additions tie together channel by channel."""

import numpy as np

from keras_bar.analysis import shared_calls
from keras_bar.analysis.evaluation import evaluate
from keras_bar.analysis.rules.base import has_full_shape

CONNECTIVITIES = ("mixed", "regular")


def check_connectivity(connectivity):
    """Raises a ValueError for an unknown connectivity."""
    if connectivity not in CONNECTIVITIES:
        raise ValueError(
            "Unknown connectivity. Expected one of "
            f"{', '.join(map(repr, CONNECTIVITIES))}. "
            f"Received: connectivity={connectivity!r}"
        )


class ResidualGroups:
    """Groups of tensors that keep the same channels: ordinary additions force
    them to, and the kernel of a layer that the model calls more than once.

    Args:
        analysis: `ChannelAnalysis`.
    """

    def __init__(self, analysis):
        self._parent = {value: value for value in analysis.graph.values}
        self._analysis = analysis
        for node in analysis.graph.nodes:
            for value in self._tied(node):
                for output in node.outputs:
                    self._parent[self.of(value)] = self.of(output)
            if shared_calls.has_rule(node, analysis):
                first = node.shared_calls[0]
                self._parent[self.of(node.output)] = self.of(first.output)

    def of(self, value):
        """The representative of the group of a tensor."""
        while self._parent[value] is not value:
            value = self._parent[value]
        return value

    def sources(self):
        """Dict from group to the nodes that write it, in the order of the
        graph; None stands for an input of the model."""
        sources: dict = {}
        for value in self._analysis.graph.values:
            producer = value.producer
            if producer is None or not self._tied(producer):
                sources.setdefault(self.of(value), []).append(producer)
        return sources

    def kept_by(self, value):
        """Whether a group has to keep the channels of a tensor: the tensor is
        written to the group, or added in it. A product may hold a constant
        that varies only with the other factor, as behind a dead channel that
        squeeze-and-excitation scales; nobody adds to that."""
        producer = value.producer
        written = producer is None or not self._tied(producer)
        return written or any(
            self._analysis.rules[node].unites_channels
            and value in self._tied(node)
            for node in value.consumers
        )

    def _tied(self, node):
        """The inputs of a node that keep the same channels as its output."""
        rule = self._analysis.rules[node]
        if not rule.ties_channels or rule.gate(node) is not None:
            return []
        if rule.starts_channels:
            return []
        return [
            x
            for x in node.inputs
            if self._alike(x, node) and not rule.only_scales(x, node)
        ]

    def _alike(self, value, node):
        channels = self._analysis.channels
        a, b = channels[value], channels[node.output]
        if a.axis is None:  # An input of the model, or a boundary's output.
            return b.axis is not None and has_full_shape(value, node)
        if b.axis is None or a.size != b.size:
            return False
        # A smaller one of several, as in squeeze-and-excitation, is broadcast.
        return len(node.inputs) == 1 or has_full_shape(value, node)


def is_mixed(analysis):
    """Whether writers of one group have different gates, although their
    tensors are alike enough to share one."""
    groups = ResidualGroups(analysis)
    gates: dict = {}
    for node, rule in analysis.rules.items():
        gate = rule.gate(node)
        if gate is not None:
            key = gate_key(node.output, groups, analysis)
            gates.setdefault(key, set()).add(gate)
    return any(len(x) > 1 for x in gates.values())


def gate_key(value, groups, analysis):
    """What the tensors that can share a gate have in common: their group, and
    the place of their channels, which the factors must fit.

    Args:
        value: `Value`.
        groups: `ResidualGroups`, or another object with its method `of`.
        analysis: `ChannelAnalysis`.
    """
    axis = analysis.channels[value].axis
    return groups.of(value), len(value.shape), axis


def unite(analysis, masks):
    """Alive vectors under regular connectivity: all writers of a group keep
    the union of their channels.

    Args:
        analysis: `ChannelAnalysis`.
        masks: Dict from gate to booleans `(channels,)`.

    Returns:
        Dict like `masks`.
    """
    groups, united = ResidualGroups(analysis), dict(masks)
    values = [
        x
        for x in analysis.graph.values
        if analysis.channels[x].axis is not None and groups.kept_by(x)
    ]
    gates = [
        (gate, groups.of(node.output))
        for node, rule in analysis.rules.items()
        if (gate := rule.gate(node)) is not None
    ]
    while True:
        found = evaluate([analysis.channels[x].alive for x in values], united)
        union: dict = {}
        for value in values:
            group, channels = groups.of(value), analysis.channels[value]
            alive = np.broadcast_to(found[channels.alive], channels.size) > 0.5
            union[group] = union.get(group, False) | alive
        before = sum(mask.sum() for mask in united.values())
        for gate, group in gates:
            wanted = np.zeros_like(united[gate])
            wanted[gate.factor_index[union[group]]] = True
            united[gate] = united[gate] | wanted
        if sum(mask.sum() for mask in united.values()) == before:
            return united
