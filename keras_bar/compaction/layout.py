"""In which order the channels of a compact network are stored.

The order of stored channels is free, and it decides what a mixed addition
costs: channels that form a run are padded, which is nearly free; scattered
ones have to be moved one by one (`docs/mixed_connectivity.md` has numbers).
Filters can be permuted at no cost, so one order is chosen for every residual
stream. All of its tensors store their channels in that order, and no layer
between two convolutions ever has to rearrange them.
"""

import numpy as np

from keras_bar.analysis.rules import channel_selection
from keras_bar.analysis.rules import multi_input
from keras_bar.analysis.rules import reshaping
from keras_bar.analysis.rules.base import Boundary
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.convolutions import DepthwiseConvolution


def arrange(analysis, resolved):
    """Chooses the stored channels of every tensor, in their order.

    Args:
        analysis: `ChannelAnalysis` of the hard-pruned network.
        resolved: Its `ResolvedChannels`.

    Returns:
        Dict from `Value` to an integer array, a permutation of the channels
        that are live.
    """
    layout = _Layout(analysis, resolved)
    return {value: layout.stored(value) for value in analysis.graph.values}


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


class _Group:
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

    def __init__(self, analysis, resolved):
        self._analysis = analysis
        self._resolved = resolved
        self._places = {
            value: i for i, value in enumerate(analysis.graph.values)
        }
        self._groups = _groups(analysis)
        self._ranks = {}

    def stored(self, value):
        """The live channels of a tensor, in their order."""
        order = self._order(value)
        return order[self._resolved.live[value][order]]

    def _order(self, value):
        """All channels of a tensor, in their order."""
        group = self._groups[value]
        if group not in self._ranks:
            # Stands also for a stream whose order depends on itself.
            self._ranks[group] = np.arange(group.size)
            self._ranks[group] = np.argsort(self._choose(group))
        return np.argsort(self._ranks[group][group.channels[value]])

    def _choose(self, group):
        """All channels of a stream, in their order."""
        sets = []
        for value in sorted(group.channels, key=lambda x: self._places[x]):
            channels = group.channels[value]
            order = self._prescribed(value)
            if order is not None:
                first = channels[order]
                others = np.setdiff1d(np.arange(group.size), first)
                return np.concatenate([first, others])
            members = np.zeros(group.size, bool)
            members[channels[self._resolved.live[value]]] = True
            sets.append(members)
        return gray_order(sets)

    def _prescribed(self, value):
        """The order of a tensor's channels, where it cannot be chosen."""
        if self._is_given(value):
            return np.arange(len(self._resolved.live[value]))
        node = value.producer
        rule, channels = (
            self._analysis.rules[node],
            self._analysis.channels[value],
        )
        if channels.axis is None:
            return None
        if isinstance(rule, multi_input.Concatenate):
            parts = zip(node.inputs, rule.numbering(node), strict=True)
            return np.concatenate([ids[self._part(x)] for x, ids in parts])
        if isinstance(rule, reshaping.Flatten):
            source = self._analysis.channels[node.inputs[0]]
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
        known = self._analysis.channels[value].axis is not None
        return self._order(value) if known else slice(None)

    def _is_given(self, value):
        """Whether someone outside decides on the order of a tensor: it is an
        input, or all of its channels will be needed in the original order."""
        graph, rules = self._analysis.graph, self._analysis.rules
        if value.producer is None or isinstance(
            rules[value.producer], Boundary
        ):
            return True
        restored = value in graph.outputs or any(
            isinstance(rules[node], Boundary)
            or self._analysis.reads_all(node, node.inputs.index(value))
            for node in value.consumers
        )
        return restored and bool(self._resolved.live[value].all())


def _groups(analysis):
    """Dict from `Value` to its `_Group`."""
    groups = {}
    for value in analysis.graph.values:
        groups[value] = _Group(value, analysis.channels[value].size or 1)
    for node in analysis.graph.nodes:
        for value, here, there in _ties(node, analysis):
            mine, other = groups[node.output], groups[value]
            if mine is not other:
                resolved = mine.channels[node.output][here]
                mine.absorb(other, resolved, other.channels[value][there])
                groups.update(dict.fromkeys(other.channels, mine))
    return groups


def _ties(node, analysis):
    """The tensors that keep the order of a node's output.

    Yields:
        Tuples of a `Value`, the output's channels that it holds, and its own
        channels that they are.
    """
    rule, axis = analysis.rules[node], analysis.channels[node.output].axis
    known = [x for x in node.inputs if analysis.channels[x].axis is not None]
    if axis is None or not known:
        return
    if isinstance(rule, channel_selection.Mixed):
        for value, places in zip(node.inputs, rule.places(node), strict=True):
            if value in known:
                yield value, places, np.arange(len(places))
    elif isinstance(rule, channel_selection.ChannelPad):
        places = rule.places(node, analysis.channels[known[0]])
        yield known[0], places, np.arange(len(places))
    elif isinstance(rule, channel_selection.Selection):
        chosen = rule.chosen(node, analysis.channels[known[0]].axis)
        yield known[0], np.arange(len(chosen)), chosen
    elif isinstance(
        rule, Channelwise | multi_input.Merge | DepthwiseConvolution
    ):
        everything = np.arange(analysis.channels[node.output].size)
        for value in [*known, *node.outputs[1:]]:
            if analysis.channels[value].size == len(everything):
                yield value, everything, everything
