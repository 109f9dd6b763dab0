"""The effect of activation functions on channels and on constants."""

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


def is_elementwise(activation):
    """Whether an activation function maps one number to one number."""
    if isinstance(activation, keras.layers.Layer):
        return type(activation) in _LAYERS
    return activation is None or activation in _FUNCTIONS


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
