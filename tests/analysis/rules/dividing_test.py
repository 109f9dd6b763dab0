"""Division of a tensor by another one."""

import keras
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import before
from tests.helpers.one_layer import behind
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import prune


def conv(x, filters=CHANNELS, **options):
    return layers.Conv2D(filters, 1, name="other", **options)(x)


def per_sample(inputs, x):
    """A temperature."""
    size = ops.mean(ops.abs(inputs), axis=(1, 2, 3), keepdims=True)
    return ops.divide(x, size + 0.5)


def per_position(inputs, x):
    """One number for all channels."""
    return x / conv(inputs, 1, activation="sigmoid")


def per_channel(inputs, x):
    return x / (ops.exp(conv(inputs)) + 1.0)


def by_itself(inputs, x):
    largest = ops.max(ops.abs(x), axis=(1, 2), keepdims=True)
    return x / (largest + 1.0)


def one_for_all(inputs, x):
    """The numerator has a single channel."""
    return ops.sum(inputs, axis=-1, keepdims=True) / (ops.square(x) + 0.5)


@pytest.mark.parametrize("zero", (False, True))
@pytest.mark.parametrize(
    "divide", [per_sample, per_position, per_channel, by_itself, one_for_all]
)
def test_division(divide, zero):
    inputs = keras.Input((6, 6, 3))
    x = divide(inputs, before(inputs, zero))
    gated, _, small = prune(keras.Model(inputs, behind(x)))
    alive = int(gated.get_layer("first_gate").alive().sum())
    assert filters_of(small) == alive < CHANNELS
    if zero and divide is not one_for_all:  # 0 divided by anything is 0.
        assert small.get_layer("last").kernel.shape[2] == alive
    if divide is per_channel and zero:
        assert filters_of(small, "other") <= alive
    if divide is per_position:
        told = keras_bar.explain(gated).ungated["other"]
        assert "follow those it scales" in told
    assert not keras_bar.explain(small).boundaries


@pytest.mark.parametrize(
    "divisor",
    [
        lambda x: x,
        lambda x: ops.mean(x, axis=(1, 2), keepdims=True),
        lambda x: ops.exp(x) - 1.0,
        lambda x: ops.relu(x - 1.0) + 0.0,
    ],
)
def test_a_denominator_that_may_be_0(divisor):
    """If a gate closed its channel, the network would divide by 0."""
    inputs = keras.Input((6, 6, 3))
    x = before(inputs, zero=True)
    y = behind(ops.tanh(x) / divisor(conv(inputs)))
    told = keras_bar.explain(keras.Model(inputs, y))
    for name in ("first", "other"):
        assert "may be 0 where a channel is closed" in told.ungated[name]
