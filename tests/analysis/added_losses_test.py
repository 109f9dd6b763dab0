"""Losses that subclassed layers and models add in their `call`."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import trace
from tests.helpers import pruning

pytestmark = pytest.mark.core


class Sparse(layers.Layer):
    """A convolution whose activations are penalized; in training more."""

    def __init__(self, more=1.0, **kwargs):
        super().__init__(**kwargs)
        self.more = more
        self.conv = layers.Conv2D(8, 3, padding="same", name="conv")

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x, training=False):
        y = ops.relu(self.conv(x))
        factor = self.more if training else 1.0
        self.add_loss([factor * ops.mean(ops.square(y)), -ops.mean(x)])
        return y


class Network(keras.Model):
    """Adds a loss of its own beside that of its layer."""

    def __init__(self, more=1.0, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Conv2D(6, 3, activation="relu", name="stem")
        self.sparse = Sparse(more, name="sparse")
        self.logits = layers.Dense(3, name="logits")

    def call(self, x):
        y = self.sparse(self.stem(x))
        self.add_loss(0.5 * ops.sum(ops.mean(y, axis=(0, 1, 2))))
        return self.logits(ops.mean(y, axis=(1, 2)))


def network(more=1.0):
    keras.utils.set_random_seed(0)
    model = Network(more)
    model(images())
    return pruning.randomize(model)


def images(count=4):
    shape = (count, 8, 8, 2)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def total(model, training=False):
    model(images(), training=training)
    return sum(float(ops.sum(x)) for x in model.losses)


@pytest.mark.parametrize("training", [False, True])
def test_the_gated_model_has_the_same_losses(training):
    model = network()
    gated = keras_bar.gate(model, inputs=keras.Input((8, 8, 2)))
    assert {x.name for x in pruning.gates_of(gated)} == {
        "stem_gate",
        "sparse_conv_gate",
    }
    for gate in pruning.gates_of(gated):
        gate.fixed_value.assign(np.ones(gate.channels))
    expected = total(model, training)
    assert abs(expected) > 0.1
    np.testing.assert_allclose(total(gated, training), expected, rtol=1e-5)


def test_the_compact_model_has_the_losses_of_the_hard_pruned(tmp_path):
    gated = keras_bar.gate(network(), inputs=keras.Input((8, 8, 2)))
    pruning.close_gates(gated)
    hard, small = pruning.assert_invariants(
        gated, ("mixed", "regular"), path=tmp_path / "small.keras"
    )
    np.testing.assert_allclose(total(small), total(hard), rtol=1e-4)
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(total(loaded), total(small), rtol=1e-5)


def test_they_are_trained():
    """`fit` reports the sum of the compiled and of the added losses."""
    gated = keras_bar.gate(network(), inputs=keras.Input((8, 8, 2)))
    pruning.close_gates(gated)
    small = keras_bar.compact(gated)
    small.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.zeros((4, 3), "float32")
    found = small.fit(images(), y, batch_size=4, verbose=0).history["loss"][0]
    mse = float(np.mean(ops.convert_to_numpy(small(images())) ** 2))
    np.testing.assert_allclose(found, mse + total(small), rtol=1e-4)


def test_losses_that_depend_on_the_mode_are_refused():
    model = keras.Sequential([keras.Input((8, 8, 2)), Sparse(2.0, name="s")])
    (node,) = trace.trace(model).nodes
    assert "losses" in node.opaque


class Two(layers.Layer):
    """Penalizes its second output."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(4, 3, name="first")
        self.second = layers.Conv2D(5, 3, name="second")

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x):
        y, z = self.first(x), self.second(x)
        self.add_loss(ops.square(z))
        return y, z


@pytest.mark.parametrize("read", [0, 1])
def test_the_loss_stays_if_one_output_is_read(read):
    inputs = keras.Input((8, 8, 2))
    x = Two(name="two")(inputs)[read]
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model = pruning.randomize(keras.Model(inputs, x))
    gated = keras_bar.gate(model)
    for gate in pruning.gates_of(gated):
        gate.fixed_value.assign(np.ones(gate.channels))
    np.testing.assert_allclose(total(gated), total(model), rtol=1e-5)
    pruning.assert_invariants(pruning.close_gates(gated))


class Branch(layers.Layer):
    """Penalizes what it reads."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(6, 3, padding="same", name="conv")

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x):
        self.add_loss(ops.mean(ops.square(x)))
        return self.conv(x)


def test_the_loss_stays_if_its_layer_is_closed():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(6, 3, name="stem")(inputs)
    x = layers.Add()([x, Branch(name="branch")(x)])
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    gated = keras_bar.gate(pruning.randomize(keras.Model(inputs, x)))
    pruning.close_gates(gated, dead=["branch_conv_gate"])
    hard, small = pruning.assert_invariants(gated)
    assert "branch_conv" not in {x.name for x in small.layers}
    assert total(small) == pytest.approx(total(hard), rel=1e-4) != 0.0


def test_a_compact_model_can_be_pruned_again():
    gated = keras_bar.gate(network(), inputs=keras.Input((8, 8, 2)))
    small = keras_bar.compact(pruning.close_gates(gated))
    again = keras_bar.gate(small)
    for gate in pruning.gates_of(again):
        gate.fixed_value.assign(np.ones(gate.channels))
    np.testing.assert_allclose(total(again), total(small), rtol=1e-5)
