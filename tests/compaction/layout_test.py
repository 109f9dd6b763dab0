import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.compaction.hard_pruning import hard_prune
from keras_bar.compaction.layout import arrange
from keras_bar.compaction.layout import gray_order
from keras_bar.compaction.resolved_channels import ResolvedChannels
from keras_bar.layers import HardConcreteGate
from keras_bar.layers import MixedResidual


def conv(x, filters, size=3, strides=1):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def wide_resnet():
    return keras_bar.models.WideResNet(16, 0.5, (8, 8, 3))


def long_stream():
    """Four writers: more runs than the first networks have."""
    return keras_bar.models.WideResNet(20, 0.5, (8, 8, 3))


def resnet50():
    return keras_bar.models.ResNet50((32, 32, 3), narrow=16)


def dense_net():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for _ in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(12, 3, padding="same", use_bias=False)(y)
        x = layers.Concatenate()([x, y])
    return head(inputs, layers.ReLU()(layers.BatchNormalization()(x)))


def mobile_net():
    inputs = keras.Input((8, 8, 3))
    x = conv(inputs, 12)
    for _ in range(3):
        y = layers.ReLU(6.0)(conv(x, 24, 1))
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        x = layers.Add()([x, conv(y, 12, 1)])
    return head(inputs, x)


def squeeze_and_excite():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(conv(inputs, 16))
    for _ in range(2):
        y = conv(x, 16)
        scale = layers.GlobalAveragePooling2D(keepdims=True)(y)
        scale = layers.Conv2D(16, 1, activation="sigmoid")(scale)
        y = layers.Multiply()([y, scale])
        x = layers.ReLU()(layers.Add()([x, y]))
    return head(inputs, x)


def mixed_then_joined():
    """Streams that are concatenated, flattened and read by two copies."""
    inputs = keras.Input((8, 8, 3))
    x = conv(inputs, 10)
    x = layers.Add()([x, conv(x, 10), conv(x, 10)])
    y = layers.Concatenate()([conv(x, 6), x])
    y = layers.DepthwiseConv2D(
        3, padding="same", depth_multiplier=2, use_bias=False
    )(y)
    y = layers.MaxPooling2D(4)(layers.ReLU()(y))
    outputs = layers.Dense(5)(layers.Flatten()(y))
    return keras.Model(inputs, outputs)


def head(inputs, x):
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5)(x))


NETWORKS = [
    wide_resnet,
    long_stream,
    pytest.param(resnet50, marks=pytest.mark.slow),
    dense_net,
    mobile_net,
    squeeze_and_excite,
    mixed_then_joined,
]


@functools.cache
def gated(network, keep):
    """A gated network with random weights, statistics and masks."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = keras_bar.gate(network(), seed=0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            layer.moving_mean.assign(0.1 * rng.normal(size=size))
            layer.beta.assign(0.1 * rng.normal(size=size))
        if isinstance(layer, HardConcreteGate):
            mask = rng.random(layer.log_alpha.shape[0]) < keep
            mask[rng.integers(len(mask))] = True
            layer.set_alive(mask)
    return model


@functools.cache
def pruned(network, keep):
    return hard_prune(gated(network, keep))


@functools.cache
def compact(network, keep):
    return keras_bar.compact(gated(network, keep))


def predict(model):
    x = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:]))
    return keras.ops.convert_to_numpy(model(x.astype("float32")))


def runs(places):
    return 0 if places is None else 1 + int(np.sum(np.diff(places) != 1))


def named(model, *kinds):
    return [x.name for x in model.operations if type(x).__name__ in kinds]


def gathers(model):
    """What moves channels elsewhere than in a mixed addition."""
    additions = tuple(f"{x}_" for x in keras_bar.explain(model).mixed)
    moves = named(model, "Take", "GetItem", "Transpose", "Pad")
    return [x for x in moves if not x.startswith(additions)]


@pytest.mark.core
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_gray_order_makes_few_runs(count):
    rng = np.random.default_rng(count)
    sets = list(rng.random((count, 200)) < 0.4)
    order = gray_order(sets)
    assert sorted(order) == list(range(200))
    union = np.zeros(200, bool)
    for k, members in enumerate(sets, start=1):
        union = union | members
        stored = order[union[order]]
        # The union so far is a prefix, and what was added lies in few runs.
        np.testing.assert_array_equal(stored, order[: len(stored)])
        places = np.flatnonzero(members[stored])
        assert runs(places) <= max(1, 2 ** (k - 2))


@pytest.mark.core
def test_gray_order_of_one_set_is_ascending():
    members = np.array([False, True, False, True, True])
    np.testing.assert_array_equal(gray_order([members]), [1, 3, 4, 0, 2])


@pytest.mark.core
def test_a_set_that_says_nothing_new_costs_no_runs():
    a, b, c = np.random.default_rng(0).random((3, 100)) < 0.5
    np.testing.assert_array_equal(
        gray_order([a, b, a | b, a & b, c]), gray_order([a, b, c])
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_orders_are_permutations_of_what_is_live(network):
    analysis = ChannelAnalysis(trace(pruned(network, 0.5)))
    masks = {
        node.op: node.op.alive()
        for node in analysis.graph.nodes
        if isinstance(node.op, HardConcreteGate)
    }
    numbers = ResolvedChannels(analysis, masks)
    orders = arrange(analysis, numbers)
    assert list(orders) == analysis.graph.values
    for value, order in orders.items():
        live = np.flatnonzero(numbers.live[value])
        np.testing.assert_array_equal(np.sort(order), live)


@pytest.mark.parametrize(
    ("network", "keep"),
    [
        *((network, 0.5) for network in NETWORKS if callable(network)),
        pytest.param(resnet50, 0.5, marks=pytest.mark.slow),
        (wide_resnet, 0.2),
        (mixed_then_joined, 0.2),
    ],
)
def test_compact_network_computes_and_costs_the_same(network, keep):
    model, small = gated(network, keep), compact(network, keep)
    expected = predict(pruned(network, keep))
    np.testing.assert_allclose(
        predict(small), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    before, after = keras_bar.measure_cost(model), keras_bar.measure_cost(small)
    for metric in ("volume", "flops", "params"):
        assert getattr(before, metric) == getattr(after, metric)


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_is_gathered_between_convolutions(network):
    assert gathers(compact(network, 0.5)) == []


@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_wide_resnet_needs_pads_only(keep):
    small = compact(wide_resnet, keep)
    mixed = keras_bar.explain(small).mixed
    assert len(mixed) == 6
    assert not named(small, "Take", "Transpose")
    for name in mixed:
        # Two blocks per group: what the first adds is one run beside or among
        # the shortcut's, what the second adds is at most two.
        slices = [x for x in named(small, "GetItem") if f"{name}_" in x]
        assert len(slices) in (0, 2)


def test_regular_connectivity_needs_ordinary_additions_only():
    small = keras_bar.compact(gated(wide_resnet, 0.5), connectivity="regular")
    assert not keras_bar.explain(small).mixed
    assert not named(small, "Pad", "Take", "GetItem", "MixedResidual")


def test_ordinary_networks_keep_their_order():
    model, small = gated(dense_net, 0.5), compact(dense_net, 0.5)
    factors = np.array(model.get_layer("stem_gate").deterministic())
    kernel = np.array(model.get_layer("stem").kernel) * factors
    np.testing.assert_allclose(
        small.get_layer("stem").kernel, kernel[..., factors > 0], rtol=1e-6
    )


def test_a_compact_network_can_be_pruned_again():
    rng = np.random.default_rng(0)
    model = keras_bar.gate(compact(wide_resnet, 0.7))
    for layer in model.layers:
        if isinstance(layer, HardConcreteGate):
            layer.set_alive(rng.random(layer.log_alpha.shape[0]) < 0.7)
    small = keras_bar.compact(model)
    np.testing.assert_allclose(
        predict(small), predict(hard_prune(model)), rtol=1e-4, atol=1e-5
    )
    assert not named(small, "Take", "Transpose")


def test_an_output_keeps_its_order():
    inputs = keras.Input((8, 8, 3))
    x = conv(inputs, 10)
    x = layers.Add()([x, conv(x, 10)])
    y = layers.Conv2D(10, 1)(x)
    model = keras.Model(inputs, [layers.Add()([x, y]), x])
    model = keras_bar.gate(model)
    for layer in model.layers:
        if isinstance(layer, HardConcreteGate):
            layer.set_alive(np.arange(10) % 3 > 0)
    small = keras_bar.compact(model)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")
    for a, b in zip(hard_prune(model)(x), small(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4, 9, 16])
def test_mixed_residual_places_any_channels(count, ascending, axis):
    rng = np.random.default_rng(count)
    places = rng.permutation(16)[:count]
    places = np.sort(places) if ascending else places
    first, second = (rng.normal(size=(2, 3, 4, n)) for n in (16, count))
    expected = first.copy()
    expected[..., places] += second
    layer = MixedResidual([None, places], axis=axis)
    inputs = [
        np.moveaxis(x, -1, axis).astype("float32") for x in (first, second)
    ]
    output = keras.ops.convert_to_numpy(layer(inputs))
    np.testing.assert_allclose(
        np.moveaxis(output, axis, -1), expected, rtol=1e-5, atol=1e-5
    )
