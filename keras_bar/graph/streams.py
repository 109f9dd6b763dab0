"""Residual streams: tensors that additions tie together channel by channel."""

import numpy as np

from keras_bar.graph.evaluation import evaluate
from keras_bar.graph.rules import merging
from keras_bar.graph.rules.channelwise import Channelwise
from keras_bar.graph.rules.convolutions import DepthwiseConvolution
from keras_bar.graph.rules.gates import Gate

_TYING = (
    Channelwise,
    DepthwiseConvolution,
    merging.Sum,
    merging.Maximum,
    merging.Minimum,
    merging.Multiply,
)
_ADDING = (merging.Sum, merging.Maximum, merging.Minimum)

CONNECTIVITIES = ("mixed", "regular")


def check_connectivity(connectivity):
    """Raises a ValueError unless it is known."""
    if connectivity not in CONNECTIVITIES:
        raise ValueError(
            "Unknown connectivity. Expected one of "
            f"{', '.join(map(repr, CONNECTIVITIES))}. "
            f"Received: connectivity={connectivity!r}"
        )


class Streams:
    """The classes of tensors whose channels an ordinary addition would force
    to be the same.

    Args:
        flow: `Flow`.
    """

    def __init__(self, flow):
        self._parent = {value: value for value in flow.graph.values}
        self._flow = flow
        for node in flow.graph.nodes:
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
        for value in self._flow.graph.values:
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
            isinstance(self._flow.rules[node], _ADDING)
            and value in self._tied(node)
            for node in value.consumers
        )

    def _tied(self, node):
        """The inputs of a node that keep the same channels as its output."""
        rule = self._flow.rules[node]
        if not isinstance(rule, _TYING) or isinstance(rule, Gate):
            return []
        return [x for x in node.inputs if self._alike(x, node)]

    def _alike(self, value, node):
        channels = self._flow.channels
        a, b = channels[value], channels[node.output]
        if a.axis is None:  # An input of the model, or from a boundary.
            return b.axis is not None and merging.has_full_shape(value, node)
        if b.axis is None or a.size != b.size:
            return False
        # A factor that is smaller, as in squeeze-and-excitation, only scales.
        merges = isinstance(self._flow.rules[node], merging.Merge)
        return not merges or merging.has_full_shape(value, node)


def unite(flow, masks):
    """Alive vectors under regular connectivity: all writers of a stream keep
    the union of their channels.

    Args:
        flow: `Flow`.
        masks: Dict from gate to booleans `(channels,)`.

    Returns:
        Dict like `masks`.
    """
    streams, united = Streams(flow), dict(masks)
    values = [
        x
        for x in flow.graph.values
        if flow.channels[x].axis is not None and streams.kept_by(x)
    ]
    gates = [
        (rule.gate(node), streams.of(node.output))
        for node, rule in flow.rules.items()
        if isinstance(rule, Gate)
    ]
    while True:
        found = evaluate([flow.channels[x].alive for x in values], united)
        union: dict = {}
        for value in values:
            stream, channels = streams.of(value), flow.channels[value]
            alive = np.broadcast_to(found[channels.alive], channels.size) > 0.5
            union[stream] = union.get(stream, False) | alive
        before = sum(mask.sum() for mask in united.values())
        for gate, stream in gates:
            united[gate] = united[gate] | union[stream]
        if sum(mask.sum() for mask in united.values()) == before:
            return united
