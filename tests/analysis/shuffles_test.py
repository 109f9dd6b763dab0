"""Channel shuffles."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import trace
from tests.helpers import pruning
from tests.helpers.subclassed import copy_of

pytestmark = pytest.mark.core


def by_operations(x, groups):
    _, height, width, size = x.shape
    x = ops.reshape(x, (-1, height, width, groups, size // groups))
    x = ops.transpose(x, (0, 1, 2, 4, 3))
    return ops.reshape(x, (-1, height, width, size))


def by_layers(x, groups):
    _, *sizes, size = x.shape
    x = layers.Reshape((*sizes, groups, size // groups))(x)
    return layers.Reshape((*sizes, size))(layers.Permute((1, 2, 4, 3))(x))


class Shuffle(layers.Layer):
    def __init__(self, groups, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, x):
        batch, height, width, size = ops.shape(x)
        shape = (batch, height, width, self.groups, size // self.groups)
        x = ops.transpose(ops.reshape(x, shape), (0, 1, 2, 4, 3))
        return ops.reshape(x, (batch, height, width, size))


SHUFFLES = {
    "operations": by_operations,
    "layers": by_layers,
    "subclassed": lambda x, groups: Shuffle(groups)(x),
}


def conv(x, filters, size, name, **options):
    x = layers.Conv2D(filters, size, padding="same", name=name, **options)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def first_version(shuffle):
    """A unit of ShuffleNet: grouped convolutions, a shuffle in between."""
    inputs = keras.Input((6, 6, 3))
    x = conv(inputs, 12, 3, "stem")
    y = shuffle(conv(x, 12, 1, "expand", groups=3), 3)
    y = layers.DepthwiseConv2D(3, padding="same")(y)
    y = layers.Conv2D(12, 1, groups=3, name="project")(y)
    return classifier(inputs, x + y)


def second_version(shuffle):
    """Two units of ShuffleNetV2: half of the channels pass, then a shuffle."""
    inputs = keras.Input((6, 6, 3))
    x = conv(inputs, 12, 3, "stem")
    for i in range(2):
        left, right = ops.split(x, 2, axis=-1)
        right = conv(right, 6, 1, f"first{i}")
        right = layers.DepthwiseConv2D(3, padding="same")(right)
        right = conv(right, 6, 1, f"second{i}")
        x = shuffle(layers.Concatenate()([left, right]), 2)
    return classifier(inputs, x)


def classifier(inputs, x):
    x = layers.GlobalAveragePooling2D()(conv(x, 8, 1, "last"))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    return pruning.randomize(model)


@pytest.mark.parametrize("kind", SHUFFLES)
@pytest.mark.parametrize("network", [first_version, second_version])
def test_convolutions_have_gates(network, kind, tmp_path):
    model = network(SHUFFLES[kind])
    convolutions = {x.name for x in model.layers if type(x) is layers.Conv2D}
    assert {*keras_bar.explain(model).gated} == convolutions
    gated = keras_bar.gate(model, seed=0)
    pruning.assert_invariants(
        pruning.close_gates(gated),
        ("mixed", "regular"),
        path=tmp_path / "small.keras",
    )


@pytest.mark.parametrize("kind", SHUFFLES)
def test_channels_are_moved_alike(kind):
    inputs = keras.Input((2, 2, 6))
    model = keras.Model(inputs, SHUFFLES[kind](inputs, 2))
    (node,) = trace.trace(model).nodes
    assert type(node.op).__name__ == "Take"
    x = np.random.default_rng(0).normal(size=(2, 2, 2, 6)).astype("float32")
    expected = x[..., [0, 3, 1, 4, 2, 5]]
    np.testing.assert_array_equal(model(x), expected)
    np.testing.assert_array_equal(copy_of(model)(x), expected)


def test_channels_first():
    inputs = keras.Input((6, 4, 4))
    x = layers.Reshape((2, 3, 4, 4))(inputs)
    x = layers.Reshape((6, 4, 4))(layers.Permute((2, 1, 3, 4))(x))
    model = keras.Model(inputs, x)
    (node,) = trace.trace(model).nodes
    assert node.op.axis == 1
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 4)).astype("float32")
    np.testing.assert_array_equal(copy_of(model)(x), model(x))


def attended(x):
    """The transposed groups are read by somebody else, too."""
    x = ops.reshape(x, (-1, 2, 2, 2, 3))
    x = ops.transpose(x, (0, 1, 2, 4, 3))
    return ops.reshape(x, (-1, 2, 2, 6)) + ops.sum(x)


OTHERS = {
    "read_twice": attended,
    "other_size": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 2, 2, 2, 3)), (0, 1, 2, 4, 3)),
        (-1, 2, 12),
    ),
    "other_axes": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 2, 2, 2, 3)), (0, 2, 1, 3, 4)),
        (-1, 2, 2, 6),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_chains_stay(name):
    inputs = keras.Input((2, 2, 6))
    model = keras.Model(inputs, OTHERS[name](inputs))
    assert len(trace.trace(model).nodes) == len(model.operations) - 1
    x = np.random.default_rng(0).normal(size=(2, 2, 2, 6)).astype("float32")
    np.testing.assert_array_equal(copy_of(model)(x), model(x))
