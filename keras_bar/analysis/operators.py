"""Operators of symbolic tensors that Keras lacks, though tensors have them.

Without them a `call` would run and compute something else: `==` would compare
objects, and be False.
"""

import contextlib
import numbers
import sys

import keras
import numpy as np
from keras import ops

from keras_bar.analysis.replacing import replaced

# Packages that compare symbolic tensors as objects, such as to find one in a
# list.
_OBJECTS = {"keras", "keras_bar", "optree"}


@contextlib.contextmanager
def completed():
    """A context in which symbolic tensors have the operator `==`, a slice or
    new axes by None as an index, and operators with a NumPy array on the left.
    """
    kind = keras.KerasTensor
    index = kind.__getitem__

    def item(tensor, key):
        return _item(index, tensor, key)

    # NumPy leaves its operators to types without `__array_ufunc__`.
    with replaced(kind, __eq__=_equal, __array_ufunc__=None, __getitem__=item):
        yield


def _equal(tensor, other):
    """Compares numbers, but for packages that find tensors in lists by `in`,
    which calls this from their code. In the user's code `in` fails, as for
    tensors."""
    compared = isinstance(other, numbers.Number | np.ndarray | np.generic)
    compared |= isinstance(other, keras.KerasTensor)
    if not compared and not ops.is_tensor(other):
        return NotImplemented
    caller = sys._getframe(1).f_globals.get("__name__", "")
    if caller.partition(".")[0] in _OBJECTS:
        return tensor is other
    return ops.equal(tensor, other)


def _item(index, tensor, key):
    """What an index selects. New axes are inserted behind the selection."""
    keys = key if isinstance(key, tuple) else (key,)
    simple = (int, slice, type(None), type(Ellipsis))
    if not all(isinstance(x, simple) for x in keys):
        return index(tensor, key)
    if None not in keys:  # Keras takes no slice that is not in a tuple.
        return index(tensor, keys)
    kept = tuple(x for x in keys if x is not None)
    whole = all(x in (slice(None), Ellipsis) for x in kept)
    found = tensor if whole else index(tensor, kept)
    axis = 0
    for x in keys:
        if x is None:
            found = ops.expand_dims(found, axis)
        if x is Ellipsis:
            axis += len(tensor.shape) - sum(y is not Ellipsis for y in kept)
        elif not isinstance(x, int):
            axis += 1
    return found
