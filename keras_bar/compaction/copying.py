"""Copies of gated models whose gates are set."""

from keras_bar.analysis import replaying
from keras_bar.analysis import trace
from keras_bar.gated_model import GatedModel
from keras_bar.layers import ChannelGate


def copied(graph, settle, weights=None):
    """A copy of a gated model.

    Args:
        graph: Its `Graph`.
        settle: Function of a gate of the graph and its copy, which it sets.
        weights: `OwnWeights`, the layers that differ from those of the graph.

    Returns:
        A `GatedModel`.
    """
    copies: dict = {}

    def rebuild(node, tensors):
        op = weights[node] if weights else node.op
        if id(op) not in copies:  # Several calls may share a layer.
            copies[id(op)] = trace.clone(op, node.name, node)
        copy = copies[id(op)]
        outputs = trace.call(copy, node, tensors)
        trace.copy_state(op, copy)
        if isinstance(copy, ChannelGate):
            settle(node.op, copy)
        return outputs

    return replaying.replay(graph, rebuild, kind=GatedModel)
