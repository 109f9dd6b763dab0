"""Common parts of the comparisons with programs of other authors."""

import keras
import numpy as np
from keras import layers
from keras import ops

import keras_bar
from tests.helpers import pruning
from tests.helpers.gradients import gradient

# Rounding error of sums of numbers around 1 that almost cancel.
FLOAT32 = 1e-7


def numpy(x):
    return ops.convert_to_numpy(x)


def assert_close(found, expected, absolute=0.0):
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5, atol=absolute)


def gated_convolution(layer, size):
    """A convolution of 5 channels of 18 weights each, with a gate."""
    inputs = keras.Input((*size, 2))
    x = layers.Conv2D(5, 3, padding="same", use_bias=False)(inputs)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.Dense(3, use_bias=False)(x)
    model = keras_bar.gate(keras.Model(inputs, x), layer=layer)
    return model, *pruning.gates_of(model)


def loss_of(model, regularizer):
    """Function without arguments that returns the loss."""
    control, state = pruning.control_of(model, regularizer)
    return lambda: control(state)


def slope(loss, variable):
    """Gradient of a loss with respect to a variable."""

    def at(x):
        with keras.StatelessScope(state_mapping=[(variable, x)]):
            return loss()

    return gradient(at, numpy(variable))
