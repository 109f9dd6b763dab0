"""The order in which a compact network stores its channels.

The order of stored channels is free, and it determines the cost of a mixed
addition: channels that form a run are padded, which is nearly free; scattered
ones have to be moved one by one (`docs/mixed_connectivity.md` has numbers).
Filters can be permuted at no cost, so one order is chosen for every residual
stream. All of its tensors store their channels in that order, and no layer
between two convolutions has to rearrange them.
"""

import numpy as np

from keras_bar.analysis import shared_calls


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
    """An order of channels in which sets consist of few runs.

    Channels are grouped by the sets they belong to, and the groups are sorted
    as a reflected Gray code: neighbours differ as little as possible. In the
    union of all sets up to it, the first set is a prefix, the second is one
    run, the third at most two, the k-th at most `2^(k-2)`; and every such union
    is a prefix of the next one. When one branch after another writes a stream,
    stored channels therefore keep their places, and new ones follow them.

    Args:
        sets: List of booleans `(channels,)`; earlier ones have fewer runs.

    Returns:
        Integer array, a permutation of all channels; channels in no set come
        last.
    """
    groups = np.zeros(len(sets[0]), int)
    # Digits of the code: a channel's digit flips with every set that it
    # belongs to, and 0 comes first.
    digit, digits = np.ones(len(groups), int), []
    for members in sets:
        refined = np.unique(2 * groups + members, return_inverse=True)[1]
        if refined.max() > groups.max():  # Else the set adds nothing.
            groups, digit = refined, digit ^ members
            digits.append(digit)
    return np.lexsort([np.arange(len(groups)), *digits[::-1]])


class _Group:
    """Tensors that store their channels in the same order.

    Attributes:
        size: Number of channels of the stream.
        channels: Dict from `Value` to the channels of the stream that it
            holds, one integer per channel of its own.
    """

    def __init__(self, value, size):
        self.size = size
        self.channels = {value: np.arange(size)}

    def absorb(self, other, mine, theirs):
        """Takes over all tensors of another stream. Its channels `theirs` are
        the channels `mine` of this one."""
        renumbered = np.full(other.size, -1)
        renumbered[theirs] = mine
        fresh = np.flatnonzero(renumbered < 0)
        renumbered[fresh] = self.size + np.arange(len(fresh))
        self.size += len(fresh)
        for value, channels in other.channels.items():
            self.channels[value] = renumbered[channels]


class _Layout:
    """The orders of the streams of a network, found on first use."""

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
            # Ends the recursion if the order of a stream depends on itself.
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
        rule = self._analysis.rules[node]
        if self._analysis.channels[value].axis is None:
            return None
        return rule.output_order(node, self._analysis, self._order)

    def _is_given(self, value):
        """Whether the order of a tensor is determined from outside: it is an
        input, or all of its channels are needed in the original order."""
        graph, rules = self._analysis.graph, self._analysis.rules
        if value.producer is None or rules[value.producer].reason:
            return True
        restored = value in graph.outputs or any(
            rules[node].reason
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
        ties = analysis.rules[node].order_ties(node, analysis)
        ties += shared_calls.order_ties(node, analysis)
        for tensor, here, value, there in ties:
            mine, other = groups[tensor], groups[value]
            if mine is not other:
                resolved = mine.channels[tensor][here]
                mine.absorb(other, resolved, other.channels[value][there])
                groups.update(dict.fromkeys(other.channels, mine))
    return groups
