"""Residual streams: tensors that additions tie together channel by channel."""

import numpy as np

from keras_bar.graph.rules import merging
from keras_bar.graph.rules import mixing
from keras_bar.graph.rules.base import Boundary
from keras_bar.graph.rules.channelwise import Channelwise
from keras_bar.graph.rules.channelwise import Gate


class Streams:
    """The classes of tensors whose channels an ordinary addition would force
    to be the same.

    Args:
        flow: `Flow`.
    """

    def __init__(self, flow):
        self._parent = {value: value for value in flow.graph.values}
        self._flow = flow
        for node, rule in flow.rules.items():
            if _ties(node, rule, flow):
                for value in node.inputs:
                    if _same_width(value, node.output, flow):
                        self._join(value, node.output)

    def of(self, value):
        """The representative of the stream of a tensor."""
        while self._parent[value] is not value:
            value = self._parent[value]
        return value

    def gates(self):
        """Dict from stream to the gates that write it."""
        streams = {}
        for node, rule in self._flow.rules.items():
            if isinstance(rule, Gate):
                members = streams.setdefault(self.of(node.output), [])
                if node.op not in members:
                    members.append(node.op)
        return streams

    def ungated(self):
        """The streams with a writer that no gate can close."""
        flow = self._flow
        sources = list(flow.graph.inputs)
        for node, rule in flow.rules.items():
            if isinstance(rule, Boundary | mixing.Mixing):
                sources.extend(node.outputs)
        return {
            self.of(value)
            for value in sources
            if not any(
                isinstance(flow.rules[reader], Gate)
                for reader in _readers(value, flow)
            )
        }

    def _join(self, a, b):
        self._parent[self.of(a)] = self.of(b)


def unite(flow, masks):
    """Alive vectors under regular connectivity: all writers of a stream keep
    the union of their channels.

    Args:
        flow: `Flow`.
        masks: Dict from gate to booleans `(channels,)`.

    Returns:
        Dict like `masks`.
    """
    streams = Streams(flow)
    full = streams.ungated()
    united = dict(masks)
    for stream, gates in streams.gates().items():
        union = np.any([masks[gate] for gate in gates], axis=0)
        if stream in full:
            union = np.ones_like(union)
        for gate in gates:
            united[gate] = union
    return united


def _ties(node, rule, flow):
    adds = isinstance(
        rule,
        merging.Add
        | merging.Subtract
        | merging.Average
        | merging.Maximum
        | merging.Minimum,
    )
    return adds or isinstance(rule, Channelwise)


def _same_width(value, other, flow):
    a, b = flow.channels[value], flow.channels[other]
    return a.axis is not None and b.axis is not None and a.size == b.size


def _readers(value, flow):
    """Readers of a tensor, looking through layers that keep channels apart."""
    readers, stack = [], list(value.consumers)
    while stack:
        node = stack.pop()
        rule = flow.rules[node]
        if isinstance(rule, Channelwise) and not isinstance(rule, Gate):
            stack.extend(node.output.consumers)
        else:
            readers.append(node)
    return readers
