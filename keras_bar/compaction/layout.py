"""In which order the channels of a compact network are stored.

The order of stored channels is free, and it decides what a mixed addition
costs: channels that form a run are padded, which is nearly free; scattered
ones have to be moved one by one (`docs/mixed_connectivity.md` has numbers).
Filters can be permuted at no cost, so one order is chosen for every residual
stream. All of its tensors store their channels in that order, and no layer
between two convolutions ever has to rearrange them.
"""

import numpy as np

from keras_bar.graph.rules import merging
from keras_bar.graph.rules import placing
from keras_bar.graph.rules import reshaping
from keras_bar.graph.rules.base import Boundary
from keras_bar.graph.rules.channelwise import Channelwise
from keras_bar.graph.rules.convolutions import DepthwiseConvolution


def arrange(flow, numbers):
    """Chooses the stored channels of every tensor, in their order.

    Args:
        flow: `Flow` of the hard-pruned network.
        numbers: Its `Numbers`.

    Returns:
        Dict from `Value` to an integer array, a permutation of the channels
        that are live.
    """
    layout = _Layout(flow, numbers)
    return {value: layout.stored(value) for value in flow.graph.values}


def gray_order(sets):
    """An order of channels in which sets are made of few runs.

    Channels are grouped by the sets they belong to, and the groups sorted as
    a reflected Gray code: neighbours differ in as little as can be. In the
    union of all sets up to it, the first set is a prefix, the second one run,
    the third at most two, the k-th at most `2^(k-2)`; and every such union is
    a prefix of the next one. So when a stream is written by one branch after
    another, what was there stays where it is, and the new channels follow it.

    Args:
        sets: List of booleans `(channels,)`; earlier ones have fewer runs.

    Returns:
        Integer array, a permutation of all channels; those in no set are
        last.
    """
    groups = np.zeros(len(sets[0]), int)
    # The digits of the code: a channel's digit alternates with every set that
    # it belongs to, and 0 comes first.
    digit, digits = np.ones(len(groups), int), []
    for members in sets:
        refined = np.unique(2 * groups + members, return_inverse=True)[1]
        if refined.max() > groups.max():  # Else the set says nothing new.
            groups, digit = refined, digit ^ members
            digits.append(digit)
    return np.lexsort([np.arange(len(groups)), *digits[::-1]])


class _Stream:
    """Tensors whose channels have to be stored in the same order.

    Attributes:
        size: Number of channels of the stream.
        channels: Dict from `Value` to the channels of the stream that it
            holds, one integer per channel of its own.
    """

    def __init__(self, value, size):
        self.size = size
        self.channels = {value: np.arange(size)}

    def absorb(self, other, mine, theirs):
        """Takes over all tensors of another stream, whose channels `theirs`
        are the channels `mine` of this one."""
        renumbered = self.size + np.arange(other.size)
        renumbered[theirs] = mine
        self.size += other.size
        for value, channels in other.channels.items():
            self.channels[value] = renumbered[channels]


class _Layout:
    """The orders of the streams of a network, found when first asked for."""

    def __init__(self, flow, numbers):
        self._flow = flow
        self._numbers = numbers
        self._places = {value: i for i, value in enumerate(flow.graph.values)}
        self._streams = _streams(flow)
        self._ranks = {}

    def stored(self, value):
        """The live channels of a tensor, in their order."""
        order = self._order(value)
        return order[self._numbers.live[value][order]]

    def _order(self, value):
        """All channels of a tensor, in their order."""
        stream = self._streams[value]
        if stream not in self._ranks:
            # Stands also for a stream whose order depends on itself.
            self._ranks[stream] = np.arange(stream.size)
            self._ranks[stream] = np.argsort(self._choose(stream))
        return np.argsort(self._ranks[stream][stream.channels[value]])

    def _choose(self, stream):
        """All channels of a stream, in their order."""
        sets = []
        for value in sorted(stream.channels, key=lambda x: self._places[x]):
            channels = stream.channels[value]
            order = self._prescribed(value)
            if order is not None:
                first = channels[order]
                others = np.setdiff1d(np.arange(stream.size), first)
                return np.concatenate([first, others])
            members = np.zeros(stream.size, bool)
            members[channels[self._numbers.live[value]]] = True
            sets.append(members)
        return gray_order(sets)

    def _prescribed(self, value):
        """The order of a tensor's channels, where it cannot be chosen."""
        if self._is_given(value):
            return np.arange(len(self._numbers.live[value]))
        node = value.producer
        rule, channels = self._flow.rules[node], self._flow.channels[value]
        if channels.axis is None:
            return None
        if isinstance(rule, merging.Concatenate):
            parts = zip(node.inputs, rule.numbering(node), strict=True)
            return np.concatenate([ids[self._part(x)] for x, ids in parts])
        if isinstance(rule, reshaping.Flatten):
            source = self._flow.channels[node.inputs[0]]
            order = self._order(node.inputs[0])
            return rule.features(node, source, order)[1]
        depthwise = isinstance(rule, DepthwiseConvolution)
        copies = rule.copies(node.op) if depthwise else 1
        if copies > 1:
            order = copies * self._order(node.inputs[0])[:, None]
            return (order + np.arange(copies)).reshape(-1)
        return None

    def _part(self, value):
        """The order of all channels of an input of a concatenation."""
        known = self._flow.channels[value].axis is not None
        return self._order(value) if known else slice(None)

    def _is_given(self, value):
        """Whether someone outside decides on the order of a tensor: it is an
        input, or all of its channels will be needed in the original order."""
        graph, rules = self._flow.graph, self._flow.rules
        if value.producer is None or isinstance(
            rules[value.producer], Boundary
        ):
            return True
        restored = value in graph.outputs or any(
            isinstance(rules[node], Boundary)
            or self._flow.reads_all(node, node.inputs.index(value))
            for node in value.consumers
        )
        return restored and bool(self._numbers.live[value].all())


def _streams(flow):
    """Dict from `Value` to its `_Stream`."""
    streams = {}
    for value in flow.graph.values:
        streams[value] = _Stream(value, flow.channels[value].size or 1)
    for node in flow.graph.nodes:
        for value, here, there in _ties(node, flow):
            mine, other = streams[node.output], streams[value]
            if mine is not other:
                numbers = mine.channels[node.output][here]
                mine.absorb(other, numbers, other.channels[value][there])
                streams.update(dict.fromkeys(other.channels, mine))
    return streams


def _ties(node, flow):
    """The tensors that keep the order of a node's output.

    Yields:
        Tuples of a `Value`, the output's channels that it holds, and its own
        channels that they are.
    """
    rule, axis = flow.rules[node], flow.channels[node.output].axis
    known = [x for x in node.inputs if flow.channels[x].axis is not None]
    if axis is None or not known:
        return
    if isinstance(rule, placing.Mixed):
        for value, places in zip(node.inputs, rule.places(node), strict=True):
            if value in known:
                yield value, places, np.arange(len(places))
    elif isinstance(rule, placing.ChannelPad):
        places = rule.places(node, flow.channels[known[0]])
        yield known[0], places, np.arange(len(places))
    elif isinstance(rule, placing.Selection):
        chosen = rule.chosen(node, flow.channels[known[0]].axis)
        yield known[0], np.arange(len(chosen)), chosen
    elif isinstance(rule, Channelwise | merging.Merge | DepthwiseConvolution):
        everything = np.arange(flow.channels[node.output].size)
        for value in [*known, *node.outputs[1:]]:
            if flow.channels[value].size == len(everything):
                yield value, everything, everything
