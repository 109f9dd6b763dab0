"""Rules that users register for layers of their own."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import rule_registry
from keras_bar.analysis.rules import channel_selection
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import assert_removable
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import gates_of


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test registers ends with it."""
    monkeypatch.setattr(rule_registry, "_BY_CLASS", {})


@keras.saving.register_keras_serializable("tests")
class Reversed(layers.Layer):
    """Channels, last first."""

    def call(self, x):
        return x[..., ::-1] if x.shape[0] else ops.flip(x, axis=-1)


class ReversedRule(channel_selection.Selection):
    def chosen(self, node, axis):
        return np.arange(node.output.shape[axis])[::-1]


@pytest.mark.parametrize("zero", (False, True))
def test_a_kind_of_layer_is_one_rule(zero):
    """A class of rules, or a rule."""
    model = model_with(Reversed(), zero)
    assert "no rule knows" in keras_bar.explain(model).ungated["first"]
    keras_bar.register_rule(Reversed, ReversedRule if zero else ReversedRule())
    assert keras_bar.explain(model).gated[:2] == ["first", "last"]
    prune(model)


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """A factor per channel, which depends on the other channels' values if the
    layer is asked for that."""

    def __init__(self, mixed=False, **kwargs):
        super().__init__(**kwargs)
        self.mixed = mixed

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="gamma")

    def call(self, x):
        size = ops.mean(x, axis=-1, keepdims=True) if self.mixed else 1.0
        return x * size * self.scale

    def get_config(self):
        return {**super().get_config(), "mixed": self.mixed}


def test_an_elementwise_layer():
    keras_bar.register_rule(Scaled, like="elementwise")
    assert_removable(Scaled(), zero=False)


def test_an_elementwise_layer_that_is_none():
    keras_bar.register_rule(Scaled, like="elementwise")
    model = model_with(Scaled(mixed=True), zero=True)
    assert (
        "registered as elementwise, but its channels depend on each other"
        in keras_bar.explain(model).ungated["first"]
    )
    prune(model)


@keras.saving.register_keras_serializable("tests")
class Mistaken(layers.Layer):
    """Not the layer that it is registered as."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def build(self, input_shape):
        if self.kind == "weights":
            self.factor = self.add_weight(shape=(), name="gamma")

    def call(self, x):
        if self.kind == "mixed":
            return x + ops.mean(x, axis=-1, keepdims=True)
        if self.kind == "shifted":
            rows = ops.arange(x.shape[1], dtype=x.dtype)
            return x + ops.reshape(rows, (1, -1, 1, 1))
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("mixed", "its channels depend on each other"),
        ("weights", "weights that the rule does not count"),
        ("shifted", "values that differ by position"),
    ],
)
def test_a_layer_that_does_not_keep_channels_apart_as_registered(kind, why):
    keras_bar.register_rule(Mistaken, like="Identity")
    model = model_with(Mistaken(kind), zero=False)
    told = keras_bar.explain(model).ungated["first"]
    assert "its registered rule does not hold" in told
    assert why in told
    prune(model)


@keras.saving.register_keras_serializable("tests")
class Pooled(layers.GlobalMaxPooling2D):
    """Its output has the channels on another axis."""


@keras.saving.register_keras_serializable("tests")
class Slopes(layers.PReLU):
    """Its slopes differ by position."""


@pytest.mark.parametrize(
    ("make", "like"),
    [(Pooled, "GlobalMaxPooling2D"), (Slopes, "PReLU")],
)
def test_a_variant_of_a_layer_that_keeps_channels_apart(make, like):
    keras_bar.register_rule(make, like=like)
    assert_removable(make(), zero=True)


@keras.saving.register_keras_serializable("tests")
class Halved(layers.Dense):
    """A dense layer whose kernel counts half."""

    def call(self, inputs):
        return super().call(inputs / 2)


@keras.saving.register_keras_serializable("tests")
class Standardized(layers.Conv2D):
    """Each filter is shifted to mean 0, over all of its input channels."""

    def convolution_op(self, inputs, kernel):
        mean = ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, kernel - mean)


@pytest.mark.parametrize("like", ["pointwise", "Dense"])
@pytest.mark.parametrize("zero", (False, True))
def test_a_layer_with_a_kernel(like, zero):
    model = model_with(Halved(5, activation="relu"), zero)
    keras_bar.register_rule(Halved, like=like)
    gated, hard, small = prune(model)
    assert filters_of(small) == gates_of(gated)[0].alive().sum() < CHANNELS
    assert not keras_bar.measure_cost(small).uncounted


@pytest.mark.parametrize("like", ["Conv2D", "pointwise"])
def test_a_kernel_that_cannot_be_sliced_stays_whole(like):
    keras_bar.register_rule(Standardized, like=like)
    model = model_with(Standardized(4, 3), zero=True)
    why = keras_bar.explain(model).ungated["first"]
    told = "something else" if like == "Conv2D" else "for fewer channels"
    assert told in why
    prune(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Reversed(), "elementwise"), "not an instance"),
        ((int, "elementwise"), "a subclass of `keras.Layer`"),
        ((layers.Conv2D, "elementwise"), "their rules already"),
        ((Reversed, "element-wise"), "'elementwise', 'pointwise', the name"),
        ((Reversed, layers.Conv2D), "Unknown way to treat channels"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_bar.register_rule(*arguments)
