"""What compact models of custom layers are told about their files."""

import warnings

import keras
import pytest
from keras import layers

import keras_bar
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import files_of
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import randomize

pytestmark = pytest.mark.core


class Opaque(layers.Layer):
    """A layer that stays whole, because it has a variable of its own."""

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return self.factor * x


@keras.saving.register_keras_serializable("tests")
class Registered(Opaque):
    pass


class Unregistered(Opaque):
    pass


@keras.saving.register_keras_serializable("tests")
class Applying(Opaque):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(super().call(x))

    def get_config(self):
        return {**super().get_config(), "function": self.function}


def unregistered(x):
    return 2 * x


def gated_with(layer):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(layers.Conv2D(4, 3)(inputs))
    x = layers.GlobalAveragePooling2D()(layer(x))
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    return close_gates(keras_bar.gate(model))


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda: Unregistered(name="odd"), "Unregistered.*'odd'"),
        (lambda: Applying(unregistered, name="odd"), "Applying.*'odd'"),
    ],
)
def test_compact_says_that_its_result_cannot_be_loaded(
    make, received, tmp_path
):
    advice = r"write `@keras.saving.register_keras_serializable\(\)`"
    with pytest.warns(UserWarning, match=f"{advice}.*{received}") as found:
        small = keras_bar.compact(gated_with(make()))
    assert files_of(found) == [__file__]
    small.save(tmp_path / "small.keras")
    with pytest.raises((TypeError, ValueError)):
        keras.models.load_model(tmp_path / "small.keras")


def test_what_is_registered_needs_no_warning(tmp_path):
    gated = gated_with(Registered())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        small = keras_bar.compact(gated)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert difference(loaded, small, inputs_for(small)) == 0.0


def test_a_layer_is_told_from_others_that_load():
    """Layers of Keras that differ in numbers alone are restored once."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="loads")(inputs)
    x = layers.Conv2D(6, 1, activation="relu", name="wider")(x)
    x = layers.Conv2D(6, 3, activation=unregistered, name="odd")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    with pytest.warns(UserWarning, match=r"Conv2D \('odd'"):
        keras_bar.compact(close_gates(keras_bar.gate(model)))


def test_registering_in_time_is_enough(tmp_path):
    class Late(Opaque):
        pass

    with pytest.warns(UserWarning, match="Late"):
        small = keras_bar.compact(gated_with(Late()))
    keras.saving.register_keras_serializable("tests")(Late)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert difference(loaded, small, inputs_for(small)) == 0.0
