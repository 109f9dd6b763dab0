"""MorphNet's expansion: uniform, to a budget, or refused."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import baselines
from keras_bar.layers import MarkerGate
from tests.helpers import pruning
from tests.helpers import tiny

core = pytest.mark.core


def assert_predicts(model):
    x = pruning.inputs_for(model)
    assert np.all(np.isfinite(pruning.outputs_of(model, x)[0]))


def rescalings(model):
    return [x for x in model.layers if isinstance(x, layers.Rescaling)]


@core
@pytest.mark.parametrize("metric", ["flops", "volume", "params"])
def test_expansion_is_uniform_and_uses_the_budget(metric):
    residual = keras_bar.models.WideResNet
    model = residual(10, 1, (8, 8, 3)) if metric == "flops" else uneven()
    full = getattr(keras_bar.measure_cost(model), metric)
    wider = baselines.expand(model, 3.0 * full, metric)
    used = getattr(keras_bar.measure_cost(wider), metric)
    assert 0.9 * 3.0 * full <= used <= 3.0 * full
    ratios = [
        wider.get_layer(x.name).filters / x.filters
        for x in model.layers
        if isinstance(x, layers.Conv2D)
    ]
    assert max(ratios) - min(ratios) <= 1 / 16 + 1e-9
    assert wider.output_shape == model.output_shape
    assert_predicts(wider)


@core
def test_expansion_keeps_the_shape_that_was_learned():
    """Narrow layers stay narrow; the weights are new."""
    gated = keras_bar.gate(uneven(), connectivity="regular", layer=MarkerGate)
    mask = np.zeros(16, bool)
    mask[:4] = True
    first, second = pruning.gates_of(gated)
    first.set_alive(mask)
    second.set_alive(np.ones(16, bool))
    small = keras_bar.compact(gated)
    wider = baselines.expand(
        small, keras_bar.measure_cost(gated).volume * 2, "volume"
    )
    filters = [wider.get_layer(x).filters for x in ("first", "second")]
    assert filters == [8, 32]
    assert wider.get_layer("second").kernel.shape == (3, 3, 8, 32)
    assert_predicts(wider)


@pytest.mark.parametrize("groups", (2, 4))
def test_convolutions_in_groups_keep_their_groups(groups):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 1, name="front")(inputs)
    x = layers.Conv2D(12, 3, groups=groups, name="grouped")(layers.ReLU()(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    cost = keras_bar.measure_cost(model)
    wide = baselines.expand(model, 3 * cost.flops, "flops")
    assert cost.flops < keras_bar.measure_cost(wide).flops <= 3 * cost.flops
    assert wide.get_layer("grouped").groups == groups
    assert wide.get_layer("front").filters > 8
    assert wide.get_layer("grouped").filters > 12
    assert_predicts(wide)


def uneven():
    x = inputs = keras.Input((6, 6, 2))
    for name in ("first", "second"):
        x = layers.Conv2D(16, 3, padding="same", name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, dtype="float32")(x))


@core
def test_expansion_keeps_shared_layers_shared():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="free")(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="other")(layers.ReLU()(x))
    twice = layers.Conv2D(4, 3, padding="same", name="twice")
    x = twice(layers.ReLU()(twice(layers.ReLU()(x))))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    wider = baselines.expand(model, 5 * 4 * 36, "volume")
    for name in ("free", "other", "twice"):
        assert wider.get_layer(name).filters == 5
    assert [x.name for x in wider.layers if "twice" in x.name] == ["twice"]
    assert len(wider.get_layer("twice")._inbound_nodes) == 2
    assert_predicts(wider)


# --- Constants ---------------------------------------------------------------


def dead_branch(pixels=None):
    """What compaction leaves of a block whose branch is constant."""
    x = inputs = keras.Input((6, 6, 3))
    x = x if pixels is None else pixels(x)
    x = stem = pruning.conv_norm_relu(x, 4, name="stem")
    x = pruning.conv_norm_relu(x, 6, name="inner")
    x = layers.Conv2D(4, 3, padding="same", name="outer")(x)
    x = layers.Add()([stem, layers.BatchNormalization()(x)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = pruning.randomize(keras.Model(inputs, layers.Dense(3)(x)))
    gated = keras_bar.gate(model, connectivity="regular", layer=MarkerGate)
    gated.get_layer("inner_gate").set_alive(np.zeros(6, bool))
    gated.get_layer("stem_gate").fix()
    return keras_bar.compact(gated)


@core
@pytest.mark.parametrize(
    ("multiple", "width", "loaded"), [(1, 4, True), (2, 8, False)]
)
def test_constants_of_old_weights_are_gone(multiple, width, loaded, tmp_path):
    small = dead_branch()
    assert len(rescalings(small)) == 1
    if loaded:
        small.save(tmp_path / "small.keras")
        small = keras.models.load_model(tmp_path / "small.keras")
    budget = multiple * keras_bar.measure_cost(small).volume
    wider = baselines.expand(small, budget, "volume")
    assert wider.get_layer("stem").filters == width
    assert not rescalings(wider)
    assert_predicts(wider)
    wider.save(tmp_path / "wider.keras")
    again = keras.models.load_model(tmp_path / "wider.keras")
    assert pruning.difference(again, wider, pruning.inputs_for(wider)) < 1e-6


@core
def test_constants_are_known_for_what_they_are_when_pruned_again():
    again = keras_bar.gate(dead_branch(), connectivity="regular")
    small = keras_bar.compact(pruning.close_gates(again))
    assert rescalings(small)
    budget = 2 * keras_bar.measure_cost(small).volume
    assert not rescalings(baselines.expand(small, budget, "volume"))


@core
def test_factors_of_old_gates_are_gone():
    """A sigmoid had kept the factors out of the weights."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activation="sigmoid", name="a")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    gated = keras_bar.gate(keras.Model(inputs, layers.Dense(3)(x)))
    small = keras_bar.compact(pruning.close_gates(gated))
    assert len(rescalings(small)) == 1
    budget = 2 * keras_bar.measure_cost(small).volume
    wider = baselines.expand(small, budget, "volume")
    assert not rescalings(wider)
    assert_predicts(wider)


@core
@pytest.mark.parametrize(
    ("name", "scale", "offset"),
    [
        ("pixel_scale", 1 / 255, 0.0),
        ("pixel_scale", [0.5, 0.25, 2.0], [-1.0, 0.0, 0.5]),
        ("pixel_scale", np.array([0.5, 0.25, 2.0]), 0.0),
        ("pixels", 1.0, np.full((1, 1, 1, 3), 0.5)),
        ("image_constant_1", [[[[0.5, 0.25, 2.0]]]], 0.0),
    ],
)
def test_images_are_scaled_as_before(name, scale, offset):
    """Neither a name nor a shape that a user may choose marks constants."""
    small = dead_branch(layers.Rescaling(scale, offset, name=name))
    budget = 2 * keras_bar.measure_cost(small).volume
    wider = baselines.expand(small, budget, "volume")
    (found,) = rescalings(wider)
    np.testing.assert_array_equal(found.scale, scale)
    np.testing.assert_array_equal(found.offset, offset)
    assert_predicts(wider)


@core
def test_a_rescaling_of_what_is_widened_is_refused():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="a")(inputs)
    x = layers.Rescaling(1.0, [0.1, 0.2, 0.3, 0.4], name="levels")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    with pytest.raises(ValueError, match="cannot be widened.*'levels'"):
        baselines.expand(model, 1e6)


# --- What is refused --------------------------------------------------------


def test_expansion_of_squeeze_and_excitation_is_refused():
    with pytest.raises(ValueError, match="cannot be widened"):
        baselines.expand(pruning.squeezed(), 1e9, "volume")


def test_expansion_that_cannot_be():
    model = tiny.network()
    with pytest.raises(ValueError, match="Expected at least the cost of one"):
        baselines.expand(model, 10, "flops")
    with pytest.raises(ValueError, match="Invalid budget"):
        baselines.expand(model, -1)
    gated = tiny.student()
    stem, branch = tiny.gates(gated)
    stem.set_alive(np.arange(16) < 5)
    branch.set_alive(np.arange(16) >= 3)
    with pytest.raises(ValueError, match="connectivity='regular'"):
        baselines.expand(keras_bar.compact(gated), 1e6)
    inputs = keras.Input((4, 4, 2))
    plain = keras.Model(inputs, layers.Conv2D(3, 3)(inputs))
    with pytest.raises(ValueError, match="Nothing in this model"):
        baselines.expand(plain, 1e6)
