"""Rules of keras.ops.take and slices."""

import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules.channel_selection import Selection
from keras_bar.analysis.rules.channelwise import Channelwise

WHOLE = slice(None)


class Beside(Channelwise):
    """Selects along other axes than the channels.

    Args:
        place: Integer, the channel axis of the output.
    """

    def __init__(self, place):
        self.place = place

    def axis(self, node, analysis):
        return self.place


class Take(Selection):
    """keras.ops.take."""

    operations = "Take"

    def specialized(self, node, analysis):
        axis, index = analysis.inputs(node)[0].axis, self._index(node)
        if axis is None or index is None or node.op.axis is None:
            return self
        along = node.op.axis % len(node.inputs[0].shape)
        if along in (0, axis):
            return self
        return Beside(axis + (index.ndim - 1) * (along < axis))

    def _index(self, node):
        """The indices that it takes, an array; None if they are a tensor."""
        args = [*node.args, *node.kwargs.values()]
        if len(args) != 2 or len(node.inputs) != 1:
            return None
        return np.asarray(args[1])

    def chosen(self, node, axis):
        value, chosen = node.inputs[0], self._index(node)
        rank = len(value.shape)
        along = node.op.axis is not None and node.op.axis % rank == axis
        if not along or chosen is None:
            return None
        flat = chosen.ndim == 1 and np.issubdtype(chosen.dtype, np.integer)
        return chosen % value.shape[axis] if flat else None


class Slice(Selection):
    """Slicing with brackets, `x[..., 3:8]`."""

    operations = "GetItem"

    def specialized(self, node, analysis):
        axis, key = analysis.inputs(node)[0].axis, whole_key(node)
        if axis is None or key is None:
            return self
        before = _entries(key)[axis]
        if key[before] != WHOLE:
            return self
        if key[0] != WHOLE and not _is_behind_batch(node.inputs[0]):
            return self
        # An integer takes an axis away, and None adds one.
        removed = sum(isinstance(x, int) for x in key[:before])
        return Beside(before - removed)

    def chosen(self, node, axis):
        key = whole_key(node)
        if key is None or not all(isinstance(x, slice) for x in key):
            return None
        if any(x != WHOLE for i, x in enumerate(key) if i != axis):
            return None
        return np.arange(node.inputs[0].shape[axis])[key[axis]]


def _is_behind_batch(value):
    """Whether a transposition has put another axis in front of the batch."""
    maker = value.producer and value.producer.op
    axes = getattr(maker, "axes", None)
    return type(maker).__name__ == "Transpose" and axes and axes[0] != 0


def whole_key(node):
    """A slice, an integer or None per axis, without an ellipsis; None if there
    is anything else among them."""
    key, rank = node.args[1], len(node.inputs[0].shape)
    # The key is a list in a model that was loaded from a file.
    key = tuple(key) if isinstance(key, list | tuple) else (key,)
    kinds = (slice, int, type(None), type(Ellipsis))
    if any(
        isinstance(x, bool | trace.Value) or not isinstance(x, kinds)
        for x in key
    ):
        return None
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    before = key.index(Ellipsis)
    given = sum(x is not None for x in key) - 1
    whole = (WHOLE,) * (rank - given)
    return key[:before] + whole + key[before + 1 :]


def _entries(key):
    """Per axis of the input, the place of its entry in a key."""
    return [i for i, x in enumerate(key) if x is not None]
