"""Gradients and finite differences on the current backend."""

import keras
import numpy as np
from keras import ops


def gradient(fn, x):
    """Gradient of `sum(fn(x))` with respect to `x`.

    Args:
        fn: Function of one float32 tensor that returns a tensor.
        x: Array, where to differentiate.

    Returns:
        NumPy array with the shape of `x`; zeros where nothing depends on it.
    """
    x = np.asarray(x, "float32")
    return _GRADIENTS[keras.backend.backend()](fn, x)


def finite_difference(fn, x, step=1e-2):
    """Central difference of an elementwise `fn` at `x`.

    Args:
        fn: Elementwise function of one float32 tensor.
        x: Array, where to differentiate.
        step: Float. Below 1e-3 the rounding of float32 outweighs the gain.

    Returns:
        NumPy array with the shape of `x`.
    """
    x = np.asarray(x, "float32")
    after = ops.convert_to_numpy(fn(ops.convert_to_tensor(x + step)))
    before = ops.convert_to_numpy(fn(ops.convert_to_tensor(x - step)))
    return (after - before) / (2 * step)


def _tensorflow(fn, x):
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(fn(x))
    return tape.gradient(total, x, unconnected_gradients="zero").numpy()


def _jax(fn, x):
    import jax

    return np.asarray(jax.grad(lambda x: ops.sum(fn(x)))(x))


def _torch(fn, x):
    x = ops.convert_to_tensor(x).requires_grad_()
    total = fn(x).sum()
    if total.requires_grad:
        total.backward()
    return np.zeros(x.shape) if x.grad is None else x.grad.cpu().numpy()


_GRADIENTS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
