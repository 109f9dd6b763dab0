"""Convolutions and dense layers, and the padding in front of them."""

import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import gates_of

MIXING = {
    "conv1d": (1, lambda **k: layers.Conv1D(4, 3, **k)),
    "conv2d": (2, lambda **k: layers.Conv2D(4, 3, **k)),
    "conv3d": (3, lambda **k: layers.Conv3D(4, 2, **k)),
    "strided": (2, lambda **k: layers.Conv2D(4, (3, 2), strides=2, **k)),
    "dilated": (2, lambda **k: layers.Conv2D(4, 2, dilation_rate=2, **k)),
    "relu_inside": (2, lambda **k: layers.Conv2D(4, 3, activation="relu", **k)),
    "sigmoid_inside": (
        2,
        lambda **k: layers.Conv2D(4, 3, activation="sigmoid", **k),
    ),
    "softmax_inside": (
        2,
        lambda **k: layers.Conv2D(4, 3, activation="softmax", **k),
    ),
    "conv1d_transpose": (1, lambda **k: layers.Conv1DTranspose(4, 3, **k)),
    "conv2d_transpose": (
        2,
        lambda **k: layers.Conv2DTranspose(4, 3, strides=2, **k),
    ),
    "conv3d_transpose": (3, lambda **k: layers.Conv3DTranspose(4, 2, **k)),
    "separable_1d": (1, lambda **k: layers.SeparableConv1D(4, 3, **k)),
    "separable_2d": (
        2,
        lambda **k: layers.SeparableConv2D(4, 3, depth_multiplier=2, **k),
    ),
    "depthwise_1d": (1, lambda **k: layers.DepthwiseConv1D(3, **k)),
    "depthwise_2d": (2, lambda **k: layers.DepthwiseConv2D(3, **k)),
    "depthwise_multiplied": (
        2,
        lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=3, **k),
    ),
}


# Whether dead channels in front are 0, the padding, and a bias or none.
WAYS = {
    "zero": (True, "same", False),
    "constant": (False, "same", False),
    "valid": (False, "valid", False),
    "bias": (False, "same", True),
}
# Constants in front are the hardest way, which every kernel goes. The others
# are gone by one kernel of each way to read and write channels.
EVERY_WAY = (
    *("conv2d", "strided", "sigmoid_inside", "conv2d_transpose"),
    *("separable_2d", "depthwise_multiplied"),
)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name in MIXING
        for way in (WAYS if name in EVERY_WAY else ("constant",))
    ],
)
def test_kernels(name, way):
    rank, make = MIXING[name]
    zero, padding, use_bias = WAYS[way]
    layer = make(padding=padding, use_bias=use_bias)
    gated, hard, small = prune(model_with(layer, zero, rank, size=5))
    assert filters_of(small) == gates_of(gated)[0].alive().sum() < CHANNELS
    explanation = keras_bar.explain(small)
    assert not explanation.boundaries
    changes = not zero and (padding == "same" or "transpose" in name)
    assert len(explanation.adjustments) == changes


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no_norm"])
@pytest.mark.parametrize("zero", [True, False], ids=["zero", "constant"])
def test_causal_convolution(zero, norm):
    def layer(x):
        x = layers.Conv1D(4, 3, padding="causal", use_bias=not norm)(x)
        return layers.BatchNormalization()(x) if norm else x

    prune(model_with(layer, zero, rank=1))


READERS = {
    "conv": lambda x: layers.Conv2D(4, 3, use_bias=False)(x),
    "conv_norm": lambda x: layers.BatchNormalization()(
        layers.Conv2D(4, 3, 2, use_bias=False)(x)
    ),
    "depthwise": lambda x: layers.DepthwiseConv2D(3)(x),
    "depthwise_norm": lambda x: layers.BatchNormalization()(
        layers.DepthwiseConv2D(3, use_bias=False)(x)
    ),
    "pool": lambda x: layers.MaxPooling2D(3, 2)(x),
    "both": lambda x: layers.Concatenate()(
        [layers.Conv2D(4, 3)(x), layers.AveragePooling2D(3, 1)(x)]
    ),
}
PADDINGS = {
    "layer": lambda x: layers.ZeroPadding2D(((1, 0), (2, 1)))(x),
    "ops": lambda x: ops.pad(x, [[0, 0], [1, 0], [1, 1], [0, 0]]),
}


@pytest.mark.parametrize(
    ("reader", "padding", "zero"),
    [(reader, "layer", False) for reader in READERS]
    # The operation has the rule of the layer, and zeros are the easier case.
    + [("conv", "ops", False), ("both", "ops", False)]
    + [("conv", "layer", True), ("depthwise_norm", "layer", True)],
)
def test_readers_of_a_zero_padding(reader, padding, zero):
    def layer(x):
        return READERS[reader](PADDINGS[padding](x))

    gated, hard, small = prune(model_with(layer, zero))
    assert filters_of(small) == gates_of(gated)[0].alive().sum()


@pytest.mark.parametrize(
    ("units", "zero"), [(None, True), ("sigmoid", False), ("softmax", False)]
)
def test_dense(units, zero):
    def layer(x):
        x = layers.GlobalAveragePooling2D()(x)
        return layers.Dense(5, activation=units)(x)

    gated, hard, small = prune(model_with(layer, zero))
    assert filters_of(small) == gates_of(gated)[0].alive().sum()


def test_dense_over_positions():
    prune(model_with(layers.Dense(5, activation="relu"), zero=False))
