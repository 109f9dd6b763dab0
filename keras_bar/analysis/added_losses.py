"""Losses that the `call` of a layer adds, in its graph."""

import contextlib

import keras
from keras import ops
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis.replacing import replaced
from keras_bar.layers import AddedLoss
from keras_bar.layers.backend_function import NotDescribed


@contextlib.contextmanager
def collected():
    """A context in which symbolic losses are not added to a layer.

    Yields:
        List of these losses, symbolic scalars.
    """
    found: list = []
    add_loss = keras.Layer.add_loss

    def collect(layer, loss):
        if keras_internals.infers_shapes():
            add_loss(layer, loss)
            return
        losses = tree.flatten(loss)
        if not all(isinstance(x, keras.KerasTensor) for x in losses):
            raise NotDescribed("it adds a loss of something else than tensors")
        found.extend(ops.sum(x) if x.shape else x for x in losses)

    with replaced(keras.Layer, add_loss=collect):
        yield found


def attached(outputs, losses):
    """The symbolic outputs of a call, the first of which adds losses."""
    symbolic = [
        x for x in tree.flatten(outputs) if isinstance(x, keras.KerasTensor)
    ]
    if not losses or not symbolic:
        return outputs
    first = symbolic[0]
    new = AddedLoss(dtype=first.dtype)(first, losses)
    return tree.map_structure(lambda x: new if x is first else x, outputs)
