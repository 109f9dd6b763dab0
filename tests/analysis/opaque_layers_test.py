"""Layers that stay whole, each with the reason why."""

import gc
import re
import weakref

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import trace
from tests.helpers import tiny
from tests.helpers.subclassed import ConvNorm
from tests.helpers.subclassed import built
from tests.helpers.subclassed import copy_of

pytestmark = pytest.mark.core


class Stochastic(layers.Layer):
    def call(self, x, training=None):
        return 2 * x if training else x


class Sized(layers.Layer):
    def call(self, x):
        return (
            x
            + ops.cast(ops.arange(ops.shape(x)[0]), x.dtype)[
                :, None, None, None
            ]
        )

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class Scaled(layers.Layer):
    def build(self, shape):
        self.gamma = self.add_weight(
            shape=shape[-1:], initializer="ones", name="gamma"
        )

    def call(self, x):
        return x * self.gamma


class Branching(layers.Layer):
    def call(self, x):
        return x if ops.max(x) > 0 else -x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class Lying(layers.Layer):
    def call(self, x):
        return x if isinstance(x, keras.KerasTensor) else 2 * x


class Tied(layers.Layer):
    """Computes with a sublayer's weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, use_bias=False)

    def call(self, x):
        return ops.matmul(self.dense(x), ops.transpose(self.dense.kernel))


class Inference(layers.Layer):
    """Runs a sublayer in inference, whatever the mode."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x):
        return self.norm(x, training=False)


@pytest.mark.parametrize(
    "kind, reason",
    [
        (Stochastic, "something else on symbolic tensors.*in training"),
        (Sized, "does not run on symbolic tensors"),
        (Scaled, "a variable of its own, 'gamma'"),
        (Branching, "does not run on symbolic tensors"),
        (Lying, "something else on symbolic tensors.*in inference"),
        (Tied, "something else on symbolic tensors.*in inference"),
        (Inference, "with `training=False` in any.*'norm' depends"),
    ],
)
def test_layers_that_stay_whole(kind, reason):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = kind(name="whole")(x)
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="last")(x))
    whole = model.get_layer("whole")
    (node,) = [x for x in trace.trace(model).nodes if x.op is whole]
    assert re.search(reason, node.opaque)
    explanation = keras_bar.explain(model)
    if kind in (Branching, Tied):  # The others keep channels apart.
        why = explanation.ungated["conv"]
        assert re.search(f"{kind.__name__}.*{reason}", why)
    else:
        assert "conv" in explanation.gated
    assert not whole.losses
    # It is rebuilt as it is.
    x, _ = tiny.data(4)
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(m(x)) for m in (copy_of(model), model)),
        atol=1e-6,
    )


def test_a_lambda_that_captures_a_layer():
    dense = layers.Dense(2)
    dense.build((None, 2))
    scaled = layers.Lambda(lambda x: x * ops.sum(dense.kernel), name="scaled")
    inputs = keras.Input((6, 6, 2))
    (node,) = trace.trace(keras.Model(inputs, scaled(inputs))).nodes
    assert "uses 'dense' from outside" in node.opaque


def test_an_activity_regularizer_stays():
    inputs = keras.Input((6, 6, 2))
    block = ConvNorm(4, activity_regularizer="l2", name="block")
    (node,) = trace.trace(keras.Model(inputs, block(inputs))).nodes
    assert node.op is block and "activity regularizer" in node.opaque


def test_a_model_that_cannot_be_unrolled_is_refused():
    class Odd(keras.Model):
        def call(self, x):
            return Branching.call(self, x)

    with pytest.raises(ValueError, match="no graph of layers.*'odd'") as error:
        keras_bar.gate(built(Odd(name="odd")))
    assert "symbolic tensors" in str(error.value)


@pytest.mark.parametrize("kind", [ConvNorm, lambda _: Scaled()])
def test_models_are_freed(kind):
    block = kind(2)
    inputs = keras.Input((6, 6, 2))
    model = keras.Model(inputs, block(inputs))
    trace.trace(model)
    alive = weakref.ref(block)
    keras.backend.clear_session()
    del model, block, inputs
    gc.collect()
    assert alive() is None
