"""Residual streams: tensors that additions tie together channel by channel."""

import numpy as np

from keras_bar.analysis.evaluation import evaluate
from keras_bar.analysis.rules import multi_input
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.convolutions import DepthwiseConvolution
from keras_bar.analysis.rules.gates import Gate

_TYING = (
    Channelwise,
    DepthwiseConvolution,
    multi_input.Sum,
    multi_input.Maximum,
    multi_input.Minimum,
    multi_input.Multiply,
)
_ADDING = (multi_input.Sum, multi_input.Maximum, multi_input.Minimum)

CONNECTIVITIES = ("mixed", "regular")


def check_connectivity(connectivity):
    """Raises a ValueError unless it is known."""
    if connectivity not in CONNECTIVITIES:
        raise ValueError(
            "Unknown connectivity. Expected one of "
            f"{', '.join(map(repr, CONNECTIVITIES))}. "
            f"Received: connectivity={connectivity!r}"
        )


class ResidualGroups:
    """The classes of tensors whose channels an ordinary addition would force
    to be the same.

    Args:
        analysis: `ChannelAnalysis`.
    """

    def __init__(self, analysis):
        self._parent = {value: value for value in analysis.graph.values}
        self._analysis = analysis
        for node in analysis.graph.nodes:
            for value in self._tied(node):
                self._parent[self.of(value)] = self.of(node.output)

    def of(self, value):
        """The representative of the stream of a tensor."""
        while self._parent[value] is not value:
            value = self._parent[value]
        return value

    def sources(self):
        """Dict from stream to the nodes that write it, first come first; None
        stands for an input of the model."""
        sources: dict = {}
        for value in self._analysis.graph.values:
            producer = value.producer
            if producer is None or not self._tied(producer):
                sources.setdefault(self.of(value), []).append(producer)
        return sources

    def kept_by(self, value):
        """Whether a stream has to keep the channels of a tensor: one that is
        written to it, or that is added in it. A product may hold a constant
        that varies only with the other factor, as behind a dead channel that
        squeeze-and-excitation scales; nobody adds to that."""
        producer = value.producer
        written = producer is None or not self._tied(producer)
        return written or any(
            isinstance(self._analysis.rules[node], _ADDING)
            and value in self._tied(node)
            for node in value.consumers
        )

    def _tied(self, node):
        """The inputs of a node that keep the same channels as its output."""
        rule = self._analysis.rules[node]
        if not isinstance(rule, _TYING) or isinstance(rule, Gate):
            return []
        return [x for x in node.inputs if self._alike(x, node)]

    def _alike(self, value, node):
        channels = self._analysis.channels
        a, b = channels[value], channels[node.output]
        if a.axis is None:  # An input of the model, or from a boundary.
            return b.axis is not None and multi_input.has_full_shape(
                value, node
            )
        if b.axis is None or a.size != b.size:
            return False
        # A factor that is smaller, as in squeeze-and-excitation, only scales.
        merges = isinstance(self._analysis.rules[node], multi_input.Merge)
        return not merges or multi_input.has_full_shape(value, node)


def unite(analysis, masks):
    """Alive vectors under regular connectivity: all writers of a stream keep
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
        (rule.gate(node), groups.of(node.output))
        for node, rule in analysis.rules.items()
        if isinstance(rule, Gate)
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
            united[gate] = united[gate] | union[group]
        if sum(mask.sum() for mask in united.values()) == before:
            return united
