"""Costs name the layers that multiply what they do not count."""

import warnings

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.costs import CostModel
from keras_bar.costs import measure_cost
from tests.helpers import pruning


@keras.saving.register_keras_serializable("tests")
class Pyramid(keras.layers.Layer):
    """Convolutions that only its code knows of, as it differs in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(4, 3, padding="same")

    def build(self, input_shape):
        self.conv.build(input_shape)

    def call(self, x, training=False):
        return self.conv(2 * x if training else x)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 4)


def with_pyramid():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = Pyramid(name="pyramid")(x)
    x = keras.layers.Conv2D(6, 1, name="behind")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def test_layers_that_are_not_counted_are_named():
    expected = {"pyramid": "Pyramid"}
    model = with_pyramid()
    gated = pruning.close_gates(keras_bar.gate(model))
    for x in (model, gated, keras_bar.compact(gated)):
        cost = measure_cost(x)
        assert cost.uncounted == expected
        assert "Not counted in volume and FLOPs: pyramid (Pyramid)" in str(cost)
        assert keras_bar.explain(x).uncounted == expected
        assert "pyramid (Pyramid)" in str(keras_bar.explain(x))
    assert "Not counted" not in str(
        measure_cost(keras_bar.models.WideResNet(10, 1, (16, 16, 3)))
    )


UNCOUNTED = {
    "attention": lambda x: keras.layers.Attention()([x, x]),
    "dot": lambda x: keras.layers.Dot(axes=(2, 2))([x, x]),
    "einsum_dense": lambda x: keras.layers.EinsumDense("abc,bd->adc", (4, 8))(
        x
    ),
    "lambda": lambda x: keras.layers.Lambda(lambda y: y + (y.shape[0] or 1))(x),
    "recurrence": lambda x: keras.layers.LSTM(4, return_sequences=True)(x),
    "wrapper": lambda x: keras.layers.SpectralNormalization(
        keras.layers.Dense(4)
    )(x),
    "matmul": lambda x: keras.ops.matmul(x, np.ones((x.shape[-1], 2))),
    "einsum": lambda x: keras.ops.einsum("abc,adc,aec->abd", x, x, x),
}
COUNTED = {
    "shown": lambda x: keras.layers.Lambda(lambda y: y + 1)(x),
    "dense": lambda x: keras.layers.Dense(4)(x),
    "time": lambda x: keras.layers.TimeDistributed(keras.layers.Dense(4))(x),
    "einsum_dense_as_dense": lambda x: keras.layers.EinsumDense(
        "abc,cd->abd", (5, 4)
    )(x),
    "matmul_of_two": lambda x: keras.ops.matmul(
        x, keras.ops.transpose(x, (0, 2, 1))
    ),
    "einsum_of_two": lambda x: keras.ops.einsum("abc,adc->abd", x, x),
    "layer_norm": lambda x: keras.layers.LayerNormalization(axis=(1, 2))(x),
    "group_norm": lambda x: keras.layers.GroupNormalization(2)(x),
    "softmax": lambda x: keras.layers.Softmax()(x),
    "permute": lambda x: keras.layers.Permute((2, 1))(x),
    "repeated": lambda x: keras.ops.repeat(x, 2, axis=1),
    "multiplied": lambda x: x * keras.ops.sigmoid(x),
    "sorted": lambda x: keras.ops.sort(x, axis=1),
}


@pytest.mark.core
@pytest.mark.parametrize("name", [*UNCOUNTED, *COUNTED])
def test_what_multiplies_matrices_is_counted_or_named(name):
    x = inputs = keras.Input((5, 8))
    outputs = {**UNCOUNTED, **COUNTED}[name](x)
    uncounted = measure_cost(keras.Model(inputs, outputs)).uncounted
    assert len(uncounted) == (name in UNCOUNTED)


@pytest.mark.core
def test_look_ups_are_no_products():
    inputs = keras.Input((5,), dtype="int32")
    outputs = keras.layers.Embedding(10, 4)(inputs)
    assert not measure_cost(keras.Model(inputs, outputs)).uncounted


@pytest.mark.core
def test_a_budget_on_flops_says_what_it_leaves_out():
    gated = keras_bar.gate(with_pyramid())
    cost_model = CostModel(ChannelAnalysis(trace(gated)))
    for metric in ("volume", "params"):
        regularizer = keras_bar.callbacks.BudgetRegularizer(0.98, metric)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            regularizer.check_model(cost_model, "student")
    regularizer = keras_bar.callbacks.BudgetRegularizer(0.98, "flops")
    with pytest.warns(UserWarning, match=r"'student'.*pyramid \(Pyramid\)"):
        regularizer.check_model(cost_model, "student")
