"""Layers without a rule, which keep channels apart."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import observing
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import assert_removable
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import randomize

register = keras.saving.register_keras_serializable("tests")


@register
class Affine(layers.Layer):
    """A factor and an offset per channel, as in ResMLP; its size is an
    argument."""

    def __init__(self, dim, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim

    def build(self, input_shape):
        self.alpha = self.add_weight(shape=(1, 1, self.dim), name="gamma")
        self.beta = self.add_weight(shape=(self.dim,), name="beta")

    def call(self, x):
        return x * self.alpha + self.beta

    def get_config(self):
        return {**super().get_config(), "dim": self.dim}


@register
class Scale(layers.Layer):
    """LayerScale, with a scalar for all channels as well."""

    def __init__(self, initial=0.1, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape):
        start = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(
            shape=(input_shape[-1],), initializer=start, name="gamma"
        )
        self.total = self.add_weight(shape=(), initializer="ones", name="gamma")

    def call(self, x):
        return x * self.gamma * self.total

    def get_config(self):
        return {**super().get_config(), "initial": self.initial}


@register
class FixedScale(layers.Layer):
    """Factors that are no weights."""

    def __init__(self, factors, **kwargs):
        super().__init__(**kwargs)
        self.factors = factors

    def build(self, input_shape):
        self.total = self.add_weight(shape=(), initializer="ones", name="gamma")

    def call(self, x):
        return x * self.total * ops.convert_to_tensor(self.factors, x.dtype)

    def get_config(self):
        return {**super().get_config(), "factors": self.factors}


@register
class Blur(layers.Layer):
    """A depthwise filter of its own that sees the border."""

    def build(self, input_shape):
        shape = (3, 3, input_shape[-1], 1)
        self.taps = self.add_weight(shape=shape, name="kernel")

    def call(self, x):
        return ops.depthwise_conv(x, self.taps, padding="same")


@register
class Noisy(Scale):
    """A random factor in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x, training=False):
        y = super().call(x)
        noise = keras.random.uniform(ops.shape(x), seed=self.seeds)
        return y * noise if training else y


APART = {
    "affine": lambda: Affine(CHANNELS),
    "layer_scale": lambda: Scale(),
    "fixed_factors": lambda: FixedScale([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    "noise": lambda: Noisy(),
    "roll": lambda: lambda x: ops.roll(x, 1, axis=1),
    "resize": lambda: layers.Resizing(9, 9),
}


@pytest.mark.parametrize("zero", (False, True))
@pytest.mark.parametrize("name", APART)
def test_layers_that_keep_channels_apart(name, zero):
    assert_removable(APART[name](), zero)


def test_it_is_saved_and_loaded(tmp_path):
    prune(model_with(Affine(CHANNELS), False), path=tmp_path / "small.keras")


@pytest.mark.parametrize("zero", (False, True))
def test_a_constant_that_ends_at_the_border_is_computed(zero):
    """Only channels of zeros can be left out."""
    gated, hard, small = prune(model_with(Blur(), zero))
    alive = int(gates_of(gated)[0].alive().sum())
    assert filters_of(small) == alive < CHANNELS
    blur = next(x for x in small.layers if isinstance(x, Blur))
    assert blur.taps.shape[2] == (alive if zero else CHANNELS)
    assert "Blur" in str(keras_bar.measure_cost(small))  # Multiplies.


def test_elementwise_layers_multiply_nothing():
    assert not keras_bar.measure_cost(model_with(Scale(), True)).uncounted


@register
class Lookahead(layers.Layer):
    """A causal filter that looks to the right: every position sees the one
    behind it, and none sees the first."""

    def build(self, input_shape):
        self.taps = self.add_weight(shape=(2,), name="kernel")

    def call(self, x):
        behind = ops.pad(x[:, :, 1:], [[0, 0], [0, 0], [0, 1], [0, 0]])
        return x * self.taps[0] + behind * self.taps[1]


def test_a_filter_that_looks_ahead_multiplies():
    model = model_with(Lookahead(name="ahead"), True)
    assert keras_bar.measure_cost(model).uncounted == {"ahead": "Lookahead"}


@register
class Mean(Scale):
    """Its channels see each other."""

    def call(self, x):
        return super().call(x) + ops.mean(x, axis=-1, keepdims=True)


@register
class Capped(Scale):
    """Its channels see each other where they are large."""

    def call(self, x):
        mean = ops.mean(x, axis=-1, keepdims=True)
        return super().call(ops.where(ops.abs(x) > 20, mean, x))


@register
class Limited(Scale):
    """A channel sees others that are large; no comparison with NaN holds."""

    def call(self, x):
        large = ops.any(x > 1000, axis=-1, keepdims=True)
        return super().call(ops.where(large, 0 * x[..., :1], x))


@register
class Ranked(Scale):
    """A channel counts according to its place."""

    def call(self, x):
        places = ops.arange(x.shape[-1], dtype=x.dtype)
        return super().call(x) * places


@register
class OnlyInTraining(Scale):
    """Its channels see each other in training."""

    def call(self, x, training=False):
        y = super().call(x)
        return y + ops.mean(x, axis=-1, keepdims=True) if training else y


@register
class Positions(Scale):
    """A value per position, in every channel."""

    def call(self, x):
        rows = ops.arange(x.shape[1], dtype=x.dtype)
        return super().call(x) + ops.reshape(rows, (1, -1, 1, 1))


class Forgetful(Scale):
    """Its configuration lacks an argument."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)


TOGETHER = {
    "mean": (lambda: Mean(), "its channels depend on each other"),
    "capped": (lambda: Capped(), "its channels depend on each other"),
    "limited": (lambda: Limited(), "its channels depend on each other"),
    "ranked": (lambda: Ranked(), "computes something else"),
    "training": (lambda: OnlyInTraining(), "something else, in training"),
    "softmax": (lambda: layers.Softmax(), "several channels at once"),
    "not_finite": (lambda: lambda x: ops.log10(x), "not finite"),
    "size": (lambda: lambda x: ops.tile(x, (1, 1, 1, 2)), "another number"),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_the_reason_why_a_layer_stays_whole(name):
    make, why = TOGETHER[name]
    model = model_with(make(), zero=True)
    assert why in keras_bar.explain(model).ungated["first"]
    if name == "mean":
        prune(model)


def test_values_per_position_are_restored():
    """A closed channel is no constant behind the layer, which gets the zeros in
    front of it back."""
    model = model_with(Positions(), zero=True)
    assert "first" in keras_bar.explain(model).gated
    prune(model)


def test_a_layer_that_its_configuration_does_not_describe():
    model = model_with(Forgetful(3), zero=True)
    why = keras_bar.explain(model).ungated["first"]
    assert "it cannot be made for fewer channels" in why


def test_what_was_observed_is_remembered_with_other_weights(monkeypatch):
    keras_bar.explain(model_with(Scale(0.2), zero=True))
    monkeypatch.setattr(observing, "_observe", None)  # Not called again.
    model = randomize(model_with(Scale(0.2), zero=True))
    assert "first" in keras_bar.explain(model).gated


@pytest.mark.core
def test_on_every_backend():
    x = inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(CHANNELS, 1, name="first")(x)
    x = Affine(CHANNELS)(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    gated = keras_bar.gate(model)
    gated.get_layer("first_gate").set_alive(np.arange(CHANNELS) < 2)
    small = keras_bar.compact(gated)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(small(x)),
        ops.convert_to_numpy(keras_bar.hard_prune(gated)(x)),
        rtol=1e-4,
        atol=1e-5,
    )
    assert filters_of(small) == 2
