"""One cut: what is left, within the budget, refitted to the full model."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.costs import METRICS
from tests.helpers import pruning
from tests.helpers import tiny

core = pytest.mark.core
IMAGES = np.random.default_rng(0).normal(size=(96, 6, 6, 2)).astype("float32")


KINDS = {
    "Dense": (layers.Dense, (12,), {}),
    "tokens": (layers.Dense, (6, 12), {}),
    "Conv1D": (layers.Conv1D, (6, 2), {"kernel_size": 3, "padding": "same"}),
    "Conv2D": (layers.Conv2D, (9, 9, 2), {"kernel_size": 3, "strides": 2}),
}


def redundant(kind):
    """Half of the channels of the first layer are five times the others, which
    a ReLU keeps so; and images for it."""
    make, shape, options = KINDS[kind]
    inputs = keras.Input(shape)
    x = make(8, name="first", **options)(inputs)
    x = layers.ReLU()(x)
    x = make(5, name="second", **options)(x)
    x = layers.ReLU()(x)
    outputs = layers.Dense(3)(layers.Flatten()(x) if len(shape) > 1 else x)
    model = pruning.randomize(keras.Model(inputs, outputs))
    for weight in model.get_layer("first").weights:
        half = ops.convert_to_numpy(weight)[..., :4]
        weight.assign(np.concatenate([half, 5 * half], axis=-1))
    rng = np.random.default_rng(0)
    return model, rng.normal(size=(96, *shape)).astype("float32")


def outputs_of(model, images=IMAGES):
    return ops.convert_to_numpy(model(images, training=False))


def error(model, small, images=IMAGES):
    return difference(model, small, [images])


@core
@pytest.mark.parametrize("kind", KINDS)
def test_redundant_channels_leave_without_a_trace(kind):
    model, images = redundant(kind)
    volumes = {x.name: x.volume for x in keras_bar.measure_cost(model).layers}
    half = volumes["first"] / 2 + volumes["second"]
    options = {"budget": half, "metric": "volume", "skip": ["second"]}
    small = keras_bar.prune(model, **options, data=images)
    assert small.get_layer("first").kernel.shape[-1] == 4
    assert error(model, small, images) < 0.01
    # The same channels, without the refit: their readers miss the others.
    cut = keras_bar.prune(model, **options)
    assert error(model, cut, images) > 0.05


@core
def test_the_refit_holds_for_other_samples():
    model = pruning.randomize(tiny.network(8))
    rng = np.random.default_rng(1)
    unseen = rng.normal(size=(64, 6, 6, 2)).astype("float32")
    seen = rng.normal(size=(512, 6, 6, 2)).astype("float32")
    small = keras_bar.prune(model, 1 / 2, "volume", seen)
    cut = keras_bar.prune(model, 1 / 2, "volume")
    assert error(model, small, unseen) < 0.6 * error(model, cut, unseen)


@core
def test_normalization_follows_what_it_reads():
    """With statistics of the samples before, there are such afterwards."""
    model = pruning.randomize(tiny.network(8))
    names = ("stem_norm", "branch_norm")
    for name in names:
        norm = model.get_layer(name)
        mean, variance = statistics(model, norm)
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)
    small = keras_bar.prune(model, 1 / 2, "volume", IMAGES)
    for name in names:
        norm = small.get_layer(name)
        mean, variance = statistics(small, norm)
        np.testing.assert_allclose(
            ops.convert_to_numpy(norm.moving_mean), mean, atol=1e-4
        )
        found = ops.convert_to_numpy(norm.moving_variance)
        np.testing.assert_allclose(found, variance, rtol=1e-3)


def statistics(model, layer):
    """Mean and variance per channel of what a layer reads."""
    reads = outputs_of(keras.Model(model.inputs, layer.input))
    return reads.mean((0, 1, 2)), reads.var((0, 1, 2))


@core
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("data", [None, IMAGES], ids=["cut", "refit"])
def test_the_budget_is_kept_and_used(metric, data):
    model = pruning.randomize(tiny.network(32))
    before = model.get_weights()
    full = getattr(keras_bar.measure_cost(model), metric)
    small = keras_bar.prune(model, 1 / 4, metric, data)
    left = getattr(keras_bar.measure_cost(small), metric)
    assert 0.9 * full / 4 < left <= full / 4
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@core
def test_aligned_widths():
    model = pruning.randomize(tiny.network(32))
    small = keras_bar.prune(model, 1 / 3, "flops", IMAGES, align=8)
    full, left = (keras_bar.measure_cost(x).flops for x in (model, small))
    assert left <= full / 3
    widths = {small.get_layer(x).filters for x in ("stem", "branch")}
    assert {x % 8 for x in widths} == {0}


@core
def test_trains_on_with_a_plain_fit():
    x, y = tiny.data()
    small = tiny.prepare(keras_bar.prune(tiny.network(8), 1 / 2, data=x))
    history = small.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def two_inputs():
    """An image and a vector; two outputs."""
    image, vector = keras.Input((6, 6, 2)), keras.Input((5,))
    x = layers.Conv2D(8, 3, padding="same", name="conv")(image)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    y = layers.Dense(8, "relu", name="hidden")(vector)
    x = layers.Dense(12, "relu", name="joined")(layers.Concatenate()([x, y]))
    outputs = [layers.Dense(3)(x), layers.Dense(2)(x)]
    return keras.Model([image, vector], outputs)


def pooled_residual():
    """A residual stream that has positions at first, and none later."""
    inputs = keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(inputs))
    y = layers.Dense(8)(layers.ReLU()(layers.Dense(12)(x)))
    return keras.Model(inputs, layers.Dense(2)(layers.Add()([x, y])))


def tokens():
    """Patches as tokens, and a residual block of dense layers."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 2, strides=2)(inputs)
    x = layers.Reshape((9, 8))(x)
    y = layers.Dense(8)(layers.ReLU()(layers.Dense(16)(x)))
    x = layers.GlobalAveragePooling1D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(2)(x))


def half():
    """Mixed precision, and a normalization without a scale."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, dtype="mixed_float16")(inputs)
    x = layers.BatchNormalization(scale=False, dtype="mixed_float16")(x)
    x = layers.Conv2D(8, 3, dtype="mixed_float16")(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


@core
@pytest.mark.parametrize("connectivity", ["mixed", "regular"])
@pytest.mark.parametrize("make", [two_inputs, pooled_residual, tokens, half])
def test_the_refit_is_better_than_the_cut(make, connectivity):
    model = pruning.randomize(make())
    # With the gates open, the gated model is the model.
    gated = keras_bar.gate(
        model, connectivity=connectivity, layer=keras_bar.layers.MarkerGate
    )
    rng = np.random.default_rng(0)
    seen, unseen = (
        [
            rng.normal(size=(count, *x.shape[1:])).astype("float32")
            for x in model.inputs
        ]
        for count in (512, 64)
    )
    assert difference(model, gated, unseen) < 1e-3
    options = {"metric": "params", "connectivity": connectivity}
    small = keras_bar.prune(model, 1 / 2, data=seen, **options)
    cut = keras_bar.prune(model, 1 / 2, **options)
    assert difference(model, small, unseen) < difference(model, cut, unseen)


def difference(model, other, inputs):
    """Root mean square difference of all outputs, relative to their own."""
    given = inputs if len(inputs) > 1 else inputs[0]
    wanted, found = (
        np.concatenate(
            [
                ops.convert_to_numpy(y).astype("float32")
                for y in keras.tree.flatten(x(given, training=False))
            ],
            axis=-1,
        )
        for x in (model, other)
    )
    return np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))


def test_few_samples_are_told():
    model, samples = redundant("Dense")
    with pytest.warns(UserWarning, match="few samples to refit 'second'"):
        keras_bar.prune(model, 0.9, "params", samples[:2])


@core
def test_a_layer_that_is_called_twice_keeps_its_weights():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = layers.Conv2D(6, 3, padding="same", name="second")(layers.ReLU()(x))
    shared = layers.Conv2D(6, 3, padding="same", name="shared")
    x = layers.GlobalAveragePooling2D()(shared(layers.ReLU()(shared(x))))
    model = pruning.randomize(keras.Model(inputs, layers.Dense(3)(x)))
    kept = ["second", "shared"]
    small = keras_bar.prune(model, 0.8, "volume", IMAGES, skip=kept)
    found = ops.convert_to_numpy(small.get_layer("shared").kernel)
    wanted = ops.convert_to_numpy(model.get_layer("shared").kernel)
    np.testing.assert_array_equal(found, wanted)
    assert small.get_layer("first").filters < 8


def test_refuses_what_has_gates():
    with pytest.raises(ValueError, match="already has gates"):
        keras_bar.prune(keras_bar.gate(tiny.network(8)), 1 / 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"budget": 0.0}, "Invalid budget"),
        ({"budget": 1e-9}, "too small"),
        ({"budget": 0.5, "metric": "bytes"}, "Unknown metric"),
        ({"budget": 0.5, "skip": ["stemm"]}, "stemm"),
        ({"budget": 0.5, "connectivity": "none"}, "connectivity"),
        ({"budget": 0.5, "align": 0}, "Invalid alignment"),
        ({"budget": 0.4, "align": 8}, "too small for aligned widths"),
    ],
)
def test_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        keras_bar.prune(tiny.network(8), **arguments)
