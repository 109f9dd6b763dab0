"""Products of symbolic tensors with constants."""

import contextlib

import keras

from keras_bar import keras_internals
from keras_bar.analysis.replacing import replaced

# Packages whose layers describe their outputs.
_OWN = ("keras", "keras_bar")


@contextlib.contextmanager
def are_dense():
    """A context in which they are dense if the tensors are: Keras takes
    constants for sparse, and operations refuse sparse tensors."""
    kind = keras_internals.operations.Multiply
    infer = kind.compute_output_spec

    def infer_dense(operation, x1, x2):
        product = infer(operation, x1, x2)
        if any(getattr(x, "sparse", False) for x in (x1, x2)):
            return product
        return keras.KerasTensor(product.shape, product.dtype)

    with replaced(kind, compute_output_spec=infer_dense):
        yield


def as_dense(tensor, node, fresh_name):
    """The output of a node in a new model, which Keras takes for dense when it
    loads the model, if a layer of the user's reads it: behind a cast.

    Args:
        tensor: Symbolic tensor, or None.
        node: `Node`.
        fresh_name: Function that makes a new name like a given one.
    """
    constant = (
        type(node.op) is keras_internals.operations.Multiply
        and len(node.inputs) == 1
    )
    read = (x.op for value in node.outputs for x in value.consumers)
    if not constant or tensor is None or not any(map(_is_custom, read)):
        return tensor
    dense = keras.ops.cast(tensor, tensor.dtype)
    keras_internals.maker_of(dense).name = fresh_name(f"{node.name}_dense")
    return dense


def _is_custom(op):
    package = type(op).__module__.partition(".")[0]
    return isinstance(op, keras.Layer) and package not in _OWN
