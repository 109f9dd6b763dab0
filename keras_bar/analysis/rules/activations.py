"""The effect of activation functions on channels and on constants."""

import functools

import keras
import numpy as np

from keras_bar.analysis.rules.base import to_numpy

# Functions of one number. Softmax, glu and the like combine several channels
# and are not listed.
_ELEMENTWISE = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish "
    "hard_tanh leaky_relu linear log_sigmoid mish relu relu6 selu sigmoid silu "
    "soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus swish "
    "tanh tanh_shrink threshold"
)
_LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)


def _functions(names):
    """The Keras functions with these names."""
    modules = (keras.activations, keras.ops)
    return {
        getattr(module, name)
        for module in modules
        for name in names.split()
        if hasattr(module, name)
    }


_FUNCTIONS = _functions(_ELEMENTWISE)
_HOMOGENEOUS = _functions("linear relu leaky_relu")
# Standard deviations of the numbers on which another function is observed, and
# what replaces those that must not matter.
_SCALES = (1.0, 1e-2, 1e2)
_FILLS = (np.nan, 1e4, -1e4)


def is_elementwise(activation):
    """Whether an activation function maps one number to one number."""
    if isinstance(activation, keras.layers.Layer):
        return type(activation) in _LAYERS
    return (
        activation is None
        or activation in _FUNCTIONS
        or _is_observed_elementwise(activation)
    )


@functools.lru_cache(maxsize=64)
def _is_observed_elementwise(function):
    """Whether a function, of the user's as a rule, maps random numbers one by
    one, and all of them alike."""
    rng = np.random.default_rng(0)

    def run(array):
        tensor = keras.ops.convert_to_tensor(array, "float32")
        return to_numpy(function(tensor))

    def same(a, b):
        """Backends round differently in different places."""
        return np.allclose(a, b, rtol=1e-5, atol=1e-9)

    try:
        for scale in _SCALES:
            array = rng.normal(scale=scale, size=(2, 3, 8))
            expected = run(array)
            if expected.shape != array.shape:
                return False
            order = rng.permutation(array.size)
            moved = run(array.reshape(-1)[order].reshape(array.shape))
            if not same(moved.reshape(-1), expected.reshape(-1)[order]):
                return False
            for fill in _FILLS:
                kept = rng.random(array.shape) < 0.5
                found = run(np.where(kept, array, fill))
                if not same(found[kept], expected[kept]):
                    return False
    except Exception:  # Whatever the function raises.
        return False
    return True


def is_linear(activation):
    """Whether it is the identity."""
    return activation is None or activation is keras.activations.linear


def is_homogeneous(activation):
    """Whether `f(c x) = c f(x)` for all c >= 0: factors pass through it."""
    if isinstance(activation, keras.layers.Layer):
        return False
    return activation is None or activation in _HOMOGENEOUS


def preserves_zero(activation):
    """Whether it maps 0 to 0."""
    if not is_elementwise(activation):
        return False
    return not np.any(apply(activation, np.zeros(1)))


def apply(activation, vector):
    """The activation of constants, one per channel, the channels last."""
    if is_linear(activation):
        return vector
    tensor = keras.ops.convert_to_tensor(vector[None], "float32")
    return to_numpy(activation(tensor))[0]
