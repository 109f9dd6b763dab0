"""VQ and ID: what remains stands in for what is gone."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from tests.helpers import pruning

pytestmark = pytest.mark.core
RNG = np.random.default_rng(0)


def numpy(x):
    return np.array(ops.convert_to_numpy(x))


def chain(norm=True, flatten=False, separable=False):
    """Eight channels, written by `a` and read by `b`."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, padding="same", name="a")(inputs)
    if norm:
        x = layers.BatchNormalization(name="a_norm")(x)
    x = layers.MaxPooling2D()(layers.ReLU()(x))
    if flatten:
        x = layers.Flatten()(x)
        return pruning.randomize(
            keras.Model(inputs, layers.Dense(3, name="b")(x))
        )
    kind = layers.SeparableConv2D if separable else layers.Conv2D
    x = kind(6, 3, padding="same", name="b")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return pruning.randomize(keras.Model(inputs, layers.Dense(3)(x)))


def repeat_channels(model, factors=1.0):
    """Makes channels 4 to 7 of `a` those before them, times factors: what the
    next layer reads has rank 4."""
    for name in ("a", "a_norm"):
        try:
            layer = model.get_layer(name)
        except ValueError:
            continue
        for weight in layer.weights:
            value = numpy(weight)
            value[..., 4:] = value[..., :4]
            weight.assign(value)
    scaled = [model.get_layer("a").kernel, model.get_layer("a").bias]
    if any(x.name == "a_norm" for x in model.layers):
        scaled = model.get_layer("a_norm").weights[:2]  # gamma, beta
    for weight in scaled:
        value = numpy(weight)
        value[..., 4:] *= factors
        weight.assign(value)
    return model


def half_of_a(model):
    """The budget at which half of the channels of `a` are left."""
    return keras_bar.measure_cost(model).volume - 4 * 64


def images(count=70):
    return RNG.normal(size=(count, 8, 8, 2)).astype("float32")


def difference(small, model):
    x = images(16)
    return pruning.difference(small, model, x)


@pytest.mark.parametrize(
    ("norm", "flatten", "scope"),
    [
        (True, True, "layer"),
        (True, False, "global"),
        (False, True, "global"),
        (False, False, "layer"),
    ],
)
def test_decomposition_of_a_rank_deficient_layer_is_exact(norm, flatten, scope):
    factors = np.array([2.0, 0.5, 3.0, 1.0])
    model = repeat_channels(chain(norm, flatten), factors)
    small = baselines.prune(
        model,
        baselines.InterpolativeDecomposition(images()),
        half_of_a(model),
        scope=scope,
        skip=() if flatten else ("b",),
    )
    assert small.get_layer("a").filters == 4
    assert difference(small, model) < 1e-4
    # The others cannot: what they drop is gone.
    dropped = baselines.prune(
        model,
        baselines.weight_magnitude,
        half_of_a(model),
        skip=() if flatten else ("b",),
    )
    assert difference(dropped, model) > 1e-2


@pytest.mark.parametrize(
    "criterion",
    [baselines.VectorQuantization, baselines.InterpolativeDecomposition],
)
@pytest.mark.parametrize("flatten", [True, False])
def test_equal_filters_become_one_without_a_change(criterion, flatten):
    model = repeat_channels(chain(flatten=flatten))
    small = baselines.prune(
        model,
        criterion(),
        half_of_a(model),
        skip=() if flatten else ("b",),
    )
    assert small.get_layer("a").filters == 4
    assert difference(small, model) < 1e-4


def test_clusters_by_hand():
    """Two pairs of filters: centroids, averages, sums."""
    inputs = keras.Input((1, 1, 1))
    x = layers.Conv2D(4, 1, name="a")(inputs)
    x = layers.BatchNormalization(name="a_norm")(x)
    outputs = layers.Dense(1, name="b")(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    layer, norm = model.get_layer("a"), model.get_layer("a_norm")
    layer.kernel.assign(np.array([1.0, 10.0, 3.0, 12.0]).reshape(1, 1, 1, 4))
    layer.bias.assign([0.0, 2.0, 1.0, 4.0])
    norm.gamma.assign([1.0, 2.0, 5.0, 4.0])
    norm.beta.assign([0.5, 0.0, 0.1, 2.0])
    norm.moving_mean.assign([0.2, 1.0, 0.4, 3.0])
    norm.moving_variance.assign([1.0, 1.0, 3.0, 5.0])
    model.get_layer("b").kernel.assign([[1.0], [2.0], [3.0], [5.0]])
    small = baselines.prune(model, baselines.VectorQuantization(), 0.5)
    order = np.argsort(numpy(small.get_layer("a").kernel).reshape(-1))

    def found(weight):
        return numpy(weight).reshape(-1)[order]

    small_norm = small.get_layer("a_norm")
    for weight, expected in (
        (small.get_layer("a").kernel, [2.0, 11.0]),
        (small.get_layer("a").bias, [0.5, 3.0]),
        (small_norm.gamma, [3.0, 3.0]),
        (small_norm.beta, [0.3, 1.0]),
        (small_norm.moving_mean, [0.3, 2.0]),
        (small_norm.moving_variance, [2.0, 3.0]),
        (small.get_layer("b").kernel, [4.0, 7.0]),
    ):
        np.testing.assert_allclose(found(weight), expected, rtol=1e-6)


def test_decomposition_is_the_best_fit_of_what_is_read():
    """The folded kernel is the least-squares solution, by NumPy."""
    model = chain(norm=False)
    x = images()
    small = baselines.prune(
        model,
        baselines.InterpolativeDecomposition(x),
        half_of_a(model),
        skip=("b",),
    )
    reads = keras.Model(model.inputs, model.get_layer("b").input)
    columns = numpy(reads(x)).reshape(-1, 8)
    kernel = numpy(model.get_layer("a").kernel)
    kept = [
        int(np.argmin(np.abs(kernel - one[..., None]).sum((0, 1, 2))))
        for one in np.moveaxis(numpy(small.get_layer("a").kernel), -1, 0)
    ]
    fit = np.linalg.lstsq(columns[:, kept], columns, rcond=None)[0]
    expected = np.einsum(
        "kc,hwco->hwko", fit, numpy(model.get_layer("b").kernel)
    )
    np.testing.assert_allclose(
        numpy(small.get_layer("b").kernel), expected, rtol=1e-3, atol=1e-4
    )


def test_activations_are_compressed_without_a_loss():
    """`R'R = X'X`, over more than one batch."""
    model = chain()
    seen = {}

    def remember(channels):
        seen[channels.name] = channels.activations(x)
        return baselines.weight_magnitude(channels)

    x = images()
    baselines.prune(model, remember, 0.5)
    reads = keras.Model(model.inputs, model.get_layer("b").input)
    columns = numpy(reads(x)).reshape(-1, 8)
    (triangle,) = seen["a"]
    np.testing.assert_allclose(
        triangle.T @ triangle, columns.T @ columns, rtol=1e-4
    )


def test_a_stream_is_read_by_all_of_its_readers():
    """Pre-activation blocks: the stream's channels are read behind several
    batch normalizations, each with a kernel of its own to make up for it."""
    model = pruning.randomize(keras_bar.models.WideResNet(10, 0.5, (8, 8, 2)))
    x = images()
    expected = numpy(model(x))

    def error(criterion):
        small = baselines.prune(model, criterion, 0.5)
        assert keras_bar.measure_cost(small).volume <= 0.5 * full
        return np.mean(np.square(numpy(small(x)) - expected))

    full = keras_bar.measure_cost(model).volume
    dropped = error(baselines.weight_magnitude)
    assert error(baselines.InterpolativeDecomposition(x)) < 0.5 * dropped


def joined():
    """Channels that a concatenation puts beside others."""
    inputs = keras.Input((8, 8, 2))
    x, y = (
        layers.Conv2D(8, 3, padding="same", name=name)(inputs)
        for name in ("a", "other")
    )
    x = layers.Conv2D(6, 3, name="b")(layers.Concatenate()([x, y]))
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    return pruning.randomize(keras.Model(inputs, x))


@pytest.mark.parametrize(
    ("make", "name", "skip", "data"),
    [
        (lambda: chain(separable=True), "a", ["b"], True),
        (pruning.squeezed, "expand", ["stem", "project"], False),
        (joined, "a", ["other", "b"], True),
        (joined, "a", ["other", "b"], False),
    ],
    ids=["separable", "squeezed", "joined", "joined, weights alone"],
)
def test_where_nothing_can_be_made_up_for(make, name, skip, data):
    """Channels that other layers read, too, are dropped, and no filter is
    changed for the others' sake."""
    model = make()
    x = pruning.inputs_for(model)
    criterion = baselines.InterpolativeDecomposition(x if data else None)
    kernel = numpy(model.get_layer(name).kernel)
    known = {one.tobytes() for one in np.moveaxis(kernel, -1, 0)}
    for merging in (criterion, baselines.VectorQuantization()):
        small = baselines.prune(model, merging, 0.7, skip=skip)
        left = np.moveaxis(numpy(small.get_layer(name).kernel), -1, 0)
        assert 0 < len(left) < len(known)
        assert {one.tobytes() for one in left} <= known


def test_behind_a_flattening_and_a_dropout():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, padding="same", name="a")(inputs)
    x = layers.Flatten()(layers.MaxPooling2D()(layers.ReLU()(x)))
    x = layers.ReLU()(layers.Dropout(0.5)(x))
    model = pruning.randomize(keras.Model(inputs, layers.Dense(3, name="b")(x)))
    model = repeat_channels(model, np.array([2.0, 0.5, 3.0, 1.0]))
    criterion = baselines.InterpolativeDecomposition(images())
    small = baselines.prune(model, criterion, half_of_a(model))
    assert small.get_layer("a").filters == 4
    assert difference(small, model) < 1e-4


def test_fewer_different_filters_than_clusters():
    model = chain(norm=False)
    kernel = numpy(model.get_layer("a").kernel)
    kernel[..., :5] = 0.0
    model.get_layer("a").kernel.assign(kernel)
    small = baselines.prune(
        model,
        baselines.VectorQuantization(),
        keras_bar.measure_cost(model).volume - 64,
        skip=("b",),
    )
    assert small.get_layer("a").filters == 7
    assert np.all(np.isfinite(numpy(small(images(4)))))


def test_own_criterion_that_merges():
    """Every channel that goes is read as the first one that stays."""

    class Nearest:
        def __call__(self, channels):
            return np.arange(channels.size)[::-1]

        def merge(self, channels, kept):
            matrix = np.zeros((len(kept), channels.size))
            matrix[0] = 1.0
            matrix[:, kept] = np.eye(len(kept))
            return baselines.Merge([matrix] * channels.reader_count)

    model = repeat_channels(chain(norm=False))
    kernel = numpy(model.get_layer("b").kernel)
    small = baselines.prune(model, Nearest(), half_of_a(model), skip=("b",))
    expected = kernel[:, :, :4].copy()
    expected[:, :, 0] += kernel[:, :, 4:].sum(axis=2)
    np.testing.assert_allclose(
        numpy(small.get_layer("b").kernel), expected, rtol=1e-5
    )
