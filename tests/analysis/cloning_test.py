"""Copies of layers that were given objects of the user's."""

import functools
import warnings

import keras
import pytest
from keras import layers

import keras_bar
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import randomize

pytestmark = pytest.mark.core


def doubled(x):
    return 2 * keras.ops.relu(x)


class Halves(keras.initializers.Initializer):
    """Without `get_config`, like the next."""

    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, 0.5, dtype)


class Squares(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(x * x)


OBJECTS = {
    "function": {"activation": doubled},
    "lambda": {"activation": lambda x: 3 * keras.ops.tanh(x)},
    "operation": {"activation": keras.ops.sin},
    "partial": {
        "activation": functools.partial(keras.activations.relu, max_value=3)
    },
    "initializer": {"kernel_initializer": Halves()},
    "regularizer": {"kernel_regularizer": Squares()},
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_that_keras_does_not_find_by_name(kind):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="conv", **OBJECTS[kind])(inputs)
    x = layers.Conv2D(8, 3)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    gated = keras_bar.gate(model)
    assert "conv" in keras_bar.explain(gated).gated
    with warnings.catch_warnings():  # The file will need the user's object.
        warnings.filterwarnings("ignore", message=".*cannot be saved|.*lambda")
        _, small = assert_invariants(close_gates(gated))
    (name, given), *_ = OBJECTS[kind].items()
    assert getattr(small.get_layer("conv"), name) is given
    assert getattr(model.get_layer("conv"), name) is given


class Mixing(layers.Layer):
    """Keras keeps the arguments of a layer without `get_config`, unless one of
    them is an object such as a policy."""

    def __init__(self, share=0.1, **kwargs):
        super().__init__(**kwargs)
        self.share = share

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        mean = keras.ops.mean(x, axis=-1, keepdims=True)
        return x * self.scale + self.share * mean


class Changed(Mixing):
    """Its attribute is not its argument."""

    def __init__(self, share=0.1, **kwargs):
        super().__init__(2 * share, **kwargs)


def with_layer(kind):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="conv")(inputs)
    x = layers.Conv2D(8, 3)(x)
    x = kind(0.5, name="mixing", dtype=keras.DTypePolicy("float32"))(x)
    x = layers.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(inputs, layers.Dense(2)(x)))


@pytest.mark.filterwarnings("ignore:.*cannot be saved")
def test_layers_without_a_configuration():
    gated = keras_bar.gate(with_layer(Mixing))
    assert gated.get_layer("mixing").share == 0.5
    _, small = assert_invariants(close_gates(gated))
    assert small.get_layer("mixing").share == 0.5


def test_layers_whose_attributes_are_not_their_arguments():
    with pytest.raises(
        ValueError, match="'mixing' cannot be rebuilt.*get_config"
    ):
        keras_bar.gate(with_layer(Changed))
