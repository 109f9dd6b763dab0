"""Which tensors hold the same constants in their dead channels, whatever the
gates do: they are made by the same layers from such tensors."""

import keras

from keras_bar.analysis import cloning
from keras_bar.analysis import trace

_PLAIN = (int, float, str, bool, type(None))


def are_same(values, analysis):
    """Whether some tensors have the same dead channels, with the same constants
    in them.

    Args:
        values: List of `Value`.
        analysis: `ChannelAnalysis`.
    """
    channels = [analysis.channels[x] for x in values]
    if len({(x.alive, x.nonzero) for x in channels}) > 1:
        return False
    found: dict = {}
    return len({_origin(x, analysis, found) for x in values}) == 1


def _origin(value, analysis, found):
    """What determines the constants in a tensor, to be compared."""
    if value not in found:
        found[value] = _made_from(value, analysis, found)
    return found[value]


def _made_from(value, analysis, found):
    channels, node = analysis.channels[value], value.producer
    if not channels.constant:
        return "zeros"
    rule = analysis.rules.get(node)
    if node is None or rule.reason or len(node.outputs) > 1:
        return value
    made = tuple(_origin(x, analysis, found) for x in node.inputs)
    gate = rule.gate(node)
    if gate is not None:
        return gate, made
    if getattr(node.op, "weights", ()):
        return (node.shared_calls[0], made) if node.shares_weights else value
    return type(node.op), _settings(node), made


def _settings(node):
    """The settings of an operation without weights, to be compared."""
    if isinstance(node.op, keras.layers.Layer):
        settings = cloning.config_of(node.op)
    else:
        settings = {x: y for x, y in vars(node.op).items() if x[0] != "_"}
    settings.pop("name", None)
    given = keras.tree.flatten((node.args, node.kwargs))
    numbers = [x for x in given if not isinstance(x, trace.Value)]
    return repr(settings), *(
        x if isinstance(x, _PLAIN) else id(x) for x in numbers
    )
