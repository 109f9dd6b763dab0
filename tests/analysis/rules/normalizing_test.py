"""Normalization over several channels of a sample."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import assert_removable
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import randomize
from tests.helpers.pruning import set_gate


@pytest.mark.parametrize("zero", (False, True))
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LayerNormalization(name="norm"),
        lambda: layers.LayerNormalization([1, 2, 3], center=False, name="norm"),
        lambda: layers.RMSNormalization([1, 3], name="norm"),
    ],
)
def test_dead_channels_are_restored_in_front(make, zero):
    """What writes them is smaller, and what is behind is free."""

    def layer(x):
        return layers.Conv2D(4, 1, name="behind")(make()(x))

    gated, hard, small = prune(model_with(layer, zero))
    assert filters_of(small) == gates_of(gated)[0].alive().sum() < CHANNELS
    assert filters_of(small, "behind") < 4
    explanation = keras_bar.explain(small)
    assert explanation.gated[:2] == ["first", "behind"]
    assert explanation.restored
    assert explanation.boundaries == {"norm": "it normalizes over the channels"}


# On PyTorch, Keras 3.15 normalizes over the last axes instead of these.
not_torch = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="Keras normalizes over other axes",
)


@not_torch
@pytest.mark.parametrize("zero", (False, True))
def test_channels_normalized_one_by_one(zero):
    assert_removable(layers.LayerNormalization([1, 2], center=False), zero)


@not_torch
@pytest.mark.parametrize("zero", (False, True))
def test_a_shift_that_differs_between_positions(zero):
    """It has the shape of the normalized axes, so that a channel of zeros
    becomes no constant: its input is restored."""

    def layer(x):
        return layers.LayerNormalization([1, 2], name="norm")(x)

    gated, _, small = prune(model_with(layer, zero))
    assert filters_of(small) == gates_of(gated)[0].alive().sum() < CHANNELS
    why = keras_bar.explain(small).boundaries["norm"]
    assert why == "it maps zeros to values that differ by position"


@pytest.mark.parametrize("zero", (False, True))
def test_root_mean_square(zero, tmp_path):
    """Exact with fewer channels, where the others are 0."""

    def layer(x):
        return layers.RMSNormalization(epsilon=0.1, name="norm")(x)

    gated, hard, small = prune(
        model_with(layer, zero), path=tmp_path / "small.keras"
    )
    alive = int(gates_of(gated)[0].alive().sum())
    norm = small.get_layer("norm")
    assert filters_of(small) == alive < CHANNELS
    assert norm.scale.shape[0] == (alive if zero else CHANNELS)
    if zero:
        assert norm.epsilon == pytest.approx(0.1 * CHANNELS / alive)
        assert not keras_bar.explain(small).boundaries


class OwnRMS(layers.Layer):
    """Root mean square as packages write it."""

    def build(self, shape):
        self.gamma = self.add_weight((shape[-1],), "ones", name="gamma")

    def call(self, x):
        mean = ops.mean(ops.square(x), axis=-1, keepdims=True)
        return x * ops.rsqrt(mean + 0.1) * self.gamma


class ConstrainedRMS(OwnRMS):
    def build(self, shape):
        self.gamma = self.add_weight(
            (shape[-1],), "ones", constraint="non_neg", name="gamma"
        )


class OwnShare(OwnRMS):
    """Another norm."""

    def call(self, x):
        mean = ops.mean(ops.abs(x), axis=-1, keepdims=True)
        return x / (mean + 0.1) * self.gamma


def test_root_mean_square_of_a_user(tmp_path):
    """Recognized by what it computes, and pruned like that of Keras."""
    model = model_with(lambda x: OwnRMS(name="norm")(x), zero=True)
    gated, _, small = prune(model, path=tmp_path / "small.keras")
    alive = int(gates_of(gated)[0].alive().sum())
    assert filters_of(small) == alive < CHANNELS
    norm = small.get_layer("norm_normalization")
    assert norm.epsilon == pytest.approx(0.1 * CHANNELS / alive)
    assert not keras_bar.explain(small).boundaries
    model = model_with(lambda x: ConstrainedRMS(name="norm")(x), zero=True)
    assert "first" in keras_bar.explain(model).gated
    other = model_with(lambda x: OwnShare(name="norm")(x), zero=True)
    assert "OwnShare" in keras_bar.explain(other).ungated["first"]


def groups_closed(alive, center, zero):
    """A network whose first gate has these channels alive."""

    def layer(x):
        return layers.GroupNormalization(3, center=center, name="norm")(x)

    gated = keras_bar.gate(randomize(model_with(layer, zero)))
    first, last = gates_of(gated)
    set_gate(first, np.where(alive, [1.0, 0.1, 0.5, 2.0, 0.3, 0.7], -5.0))
    set_gate(last, np.ones(3))
    return gated


@pytest.mark.parametrize("zero", (False, True))
@pytest.mark.parametrize("center", (False, True))
@pytest.mark.parametrize(
    ("alive", "groups"),
    [
        ([1, 1, 0, 0, 1, 1], 2),
        ([0, 0, 0, 1, 0, 0], 1),
        ([0, 1, 1, 0, 1, 0], 3),
    ],
)
def test_groups(alive, groups, center, zero):
    """A group goes with its last channel."""
    gated = groups_closed(np.array(alive, bool), center, zero)
    hard, small = assert_invariants(gated)
    assert filters_of(small) == sum(alive)
    assert small.get_layer("norm").groups == groups
    assert bool(keras_bar.explain(small).restored) == (sum(alive) < 2 * groups)


def test_groups_in_a_residual_network(tmp_path):
    def conv_norm(x, filters, name):
        x = layers.Conv2D(filters, 3, padding="same", name=name)(x)
        return layers.GroupNormalization(4)(x)

    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(conv_norm(inputs, 16, "stem"))
    for i in range(2):
        y = layers.ReLU()(conv_norm(x, 8, f"a{i}"))
        x = layers.ReLU()(layers.Add()([x, conv_norm(y, 16, f"b{i}")]))
    x = layers.GlobalAveragePooling2D()(x)
    prune(
        keras.Model(inputs, layers.Dense(3)(x)),
        recalibrated=True,
        connectivities=("regular", "mixed"),
        path=tmp_path / "small.keras",
    )


@pytest.mark.parametrize("center", (True, False))
def test_gates_in_front_of_groups_close_whole_groups(center, tmp_path):
    def layer(x):
        x = layers.Conv2D(8, 1, name="conv")(x)
        return layers.ReLU()(layers.GroupNormalization(4, center=center)(x))

    gated = keras_bar.gate(randomize(model_with(layer, True)))
    gates = gates_of(gated)
    assert [x.channels for x in gates] == [6, 4, 3]
    gates[1].set_alive(np.array([True, False, False, True]))
    for gate in (gates[0], gates[2]):
        gate.set_alive(np.ones(gate.channels, bool))
    flops = {x.name: x.flops for x in keras_bar.measure_cost(gated).layers}
    assert flops["conv"] == 2 * 36 * 6 * 4
    assert flops["last"] == 2 * 36 * 4 * 3
    hard, small = assert_invariants(gated)
    assert filters_of(small, "conv") == 4
    assert not keras_bar.explain(small).restored


def test_few_groups_are_no_unit():
    def layer(x):
        return layers.GroupNormalization(2)(x)

    gated = keras_bar.gate(model_with(layer, True))
    assert gates_of(gated)[0].channels == 6
