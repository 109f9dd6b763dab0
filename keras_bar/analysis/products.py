"""Products of symbolic tensors with constants."""

import contextlib
import functools

import keras

from keras_bar import keras_internals


@contextlib.contextmanager
def are_dense():
    """A context in which they are dense if the tensors are: Keras takes
    constants for sparse, and operations refuse sparse tensors."""
    kind = _multiplication()
    infer = kind.compute_output_spec

    def infer_dense(operation, x1, x2):
        product = infer(operation, x1, x2)
        if any(getattr(x, "sparse", False) for x in (x1, x2)):
            return product
        return keras.KerasTensor(product.shape, product.dtype)

    kind.compute_output_spec = infer_dense
    try:
        yield
    finally:
        kind.compute_output_spec = infer


@functools.cache
def _multiplication():
    """The class of the operation `keras.ops.multiply`."""
    product = keras.ops.multiply(keras.KerasTensor((None, 2)), 2.0)
    return type(keras_internals.maker_of(product))
