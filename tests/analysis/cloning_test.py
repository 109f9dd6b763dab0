"""Copies of layers that were given objects of the user's."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
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


def added_loss(model):
    """The sum of what the regularizers of a model add to the loss."""
    return sum(np.sum(keras.ops.convert_to_numpy(x)) for x in model.losses)


WRAPPERS = {
    "recurrent": lambda **x: layers.LSTM(8, return_sequences=True, **x),
    "cells": lambda **x: layers.RNN(
        [layers.LSTMCell(8, **x), layers.GRUCell(8)], return_sequences=True
    ),
    "distributed": lambda **x: layers.TimeDistributed(layers.Dense(8, **x)),
    "attention": lambda **x: layers.MultiHeadAttention(2, 4, value_dim=3, **x),
}


@pytest.mark.filterwarnings("ignore:.*(cannot be saved|lambda)")
@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *((x, "lambda") for x in WRAPPERS if x != "attention"),
        *((x, "initializer") for x in WRAPPERS),
        *((x, "regularizer") for x in WRAPPERS),
    ],
)
def test_objects_inside_of_layers(kind, given):
    """Of wrappers, of the cells of recurrent layers, and private ones."""
    if kind == "attention" and keras.backend.backend() == "jax":
        pytest.skip("Keras's attention on JAX takes no values of another size")
    inputs = keras.Input((6, 8))
    x = layers.Dense(8, "relu", name="first")(inputs)
    layer = WRAPPERS[kind](**OBJECTS[given])
    x = layer(x, x) if kind == "attention" else layer(x)
    x = layers.Dense(9, "relu", name="hidden")(layers.Flatten()(x))
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    gated = keras_bar.gate(model)
    assert {"hidden"} <= {*keras_bar.explain(gated).gated}
    x = inputs_for(model)
    open_gates(gated)
    assert difference(gated, model, x) < 1e-5
    if given == "regularizer":
        found, expected = map(added_loss, (gated, model))
        assert found == pytest.approx(expected, rel=1e-4) and found > 0


@keras.saving.register_keras_serializable("tests")
class Describing(layers.Layer):
    """It describes a layer inside of it by itself."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(8, activation=activation)
        self.factor = None

    def build(self, shape):
        self.dense.build(shape)
        self.factor = self.add_weight(
            shape=(), initializer="ones", regularizer="l2"
        )

    def call(self, x):
        return self.factor * self.dense(x)

    def get_config(self):
        return {**super().get_config(), "activation": self.dense.activation}


def test_what_users_describe_themselves_stays():
    inputs = keras.Input((8,))
    x = layers.Dense(12, "relu", name="hidden")(inputs)
    x = Describing(doubled)(layers.Dense(8, "relu", name="first")(x))
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    gated = open_gates(keras_bar.gate(model))
    assert difference(gated, model, inputs_for(model)) < 1e-5


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


class Twice(layers.Layer):
    """Keras knows what it was given, which is not its attribute."""

    def __init__(self, activation="relu", **kwargs):
        super().__init__(**kwargs)
        function = keras.activations.get(activation)
        self.activation = lambda x: 2.0 * function(x)

    def build(self, shape):
        self.factor = self.add_weight(
            shape=(), initializer="ones", regularizer="l2"
        )

    def call(self, x):
        return self.factor * self.activation(x)


class Holding(layers.Layer):
    """Its argument is a layer: a copy would share it."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, shape):
        self.inner.build(shape)
        self.factor = self.add_weight(
            shape=(), initializer="ones", regularizer="l2"
        )

    def call(self, x):
        return self.factor * self.inner(x)


def around(layer):
    inputs = keras.Input((6, 8))
    x = layers.Dense(12, "relu", name="hidden")(inputs)
    x = layers.Flatten()(layer(layers.Dense(8)(x)))
    return randomize(keras.Model(inputs, layers.Dense(2)(x)))


def test_arguments_are_not_taken_from_attributes():
    model = around(Twice())
    gated = open_gates(keras_bar.gate(model))
    assert difference(gated, model, inputs_for(model)) < 1e-5


def test_a_layer_that_holds_another_is_not_shared():
    with pytest.raises(ValueError, match="cannot be rebuilt.*get_config"):
        keras_bar.gate(around(Holding(layers.Dense(8), name="holding")))


@keras.saving.register_keras_serializable("tests")
class RegisteredSquares(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(x * x)

    def get_config(self):
        return {}


def test_regularizers_inside_of_a_bidirectional_layer():
    given = {"kernel_regularizer": RegisteredSquares()}
    model = around(layers.Bidirectional(layers.LSTM(5, **given)))
    gated = keras_bar.gate(model)
    found, expected = map(added_loss, (gated, model))
    assert found == pytest.approx(expected, rel=1e-4) and found > 0
