"""Batch normalization that is folded into convolutions and dense layers."""

import keras
import pytest
from keras import layers

import keras_bar
from keras_bar import models
from tests.helpers import pruning

SMALL = (32, 32, 3)


def norms_of(model):
    return [x for x in model.layers if isinstance(x, layers.BatchNormalization)]


def compacted(model, **options):
    """A pruned model, compacted without and with folding."""
    gated = keras_bar.gate(pruning.randomize(model))
    pruning.recalibrate(pruning.close_gates(gated))
    return [
        keras_bar.compact(gated, fold_batch_norm=x, **options)
        for x in (False, True)
    ]


def assert_folded(model, folded, path=None):
    x = pruning.inputs_for(model, batch=4)
    assert pruning.difference(folded, model, x) < 1e-5
    if path is not None:
        folded.save(path)
        loaded = keras.models.load_model(path)
        assert pruning.difference(loaded, folded, x) < 1e-6


def one_layer(make, shape=(8, 8, 4), **options):
    """A layer, batch normalization and ReLU."""
    inputs = keras.Input(shape)
    x = layers.BatchNormalization(**options)(make(inputs))
    return pruning.randomize(keras.Model(inputs, layers.ReLU()(x)))


LAYERS = {
    "convolution": lambda: layers.Conv2D(6, 3, padding="same"),
    "without a bias": lambda: layers.Conv2D(
        6, 3, strides=2, use_bias=False, bias_initializer="ones"
    ),
    "grouped": lambda: layers.Conv2D(6, 3, groups=2, use_bias=False),
    "one group per channel": lambda: layers.Conv2D(8, 3, groups=4),
    "depthwise": lambda: layers.DepthwiseConv2D(3, use_bias=False),
    "depthwise, multiplied": lambda: layers.DepthwiseConv2D(
        3, depth_multiplier=3, padding="same"
    ),
    "transposed": lambda: layers.Conv2DTranspose(6, 3, strides=2),
    "separable": lambda: layers.SeparableConv2D(6, 3, use_bias=False),
    "dense": lambda: layers.Dense(6),
    "einsum": lambda: layers.EinsumDense("abcd,de->abce", (8, 8, 6)),
}


@pytest.mark.core
@pytest.mark.parametrize("name", LAYERS)
def test_is_exact_for_every_kind_of_layer(name):
    model = one_layer(LAYERS[name]())
    folded = keras_bar.fold_batch_norm(model)
    assert not norms_of(folded)
    assert len(folded.layers) == len(model.layers) - 1
    assert_folded(model, folded)


@pytest.mark.parametrize(
    "options", [{"center": False}, {"scale": False}, {"epsilon": 0.1}]
)
def test_reads_the_settings_of_the_normalization(options):
    model = one_layer(layers.Conv2D(6, 3, use_bias=False), **options)
    folded = keras_bar.fold_batch_norm(model)
    assert not norms_of(folded)
    assert_folded(model, folded)


def two_readers(x):
    x = layers.Conv2D(4, 3)(x)
    return layers.Add()([layers.BatchNormalization()(x), x])


def activated(x):
    x = layers.Conv2D(4, 3, activation="relu")(x)
    return layers.BatchNormalization()(x)


def in_front(x):
    return layers.Conv2D(4, 3)(layers.BatchNormalization()(x))


def along_rows(x):
    return layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3)(x))


def called_twice(x):
    conv = layers.Conv2D(4, 3, padding="same")
    y = layers.BatchNormalization()(conv(x))
    return layers.BatchNormalization()(conv(y))


def of_the_batch(x):
    x = layers.Conv2D(4, 3)(x)
    return layers.BatchNormalization()(x, training=True)


@pytest.mark.parametrize(
    "network",
    [two_readers, activated, in_front, along_rows, called_twice, of_the_batch],
)
def test_leaves_what_cannot_be_folded(network):
    inputs = keras.Input((8, 8, 4))
    model = pruning.randomize(keras.Model(inputs, network(inputs)))
    folded = keras_bar.fold_batch_norm(model)
    assert len(norms_of(folded)) == len(norms_of(model))
    assert_folded(model, folded)


def test_refuses_gates():
    gated = keras_bar.gate(models.VGG(SMALL, widths=(8, 16)))
    with pytest.raises(ValueError, match="Received: .* with 4 gates"):
        keras_bar.fold_batch_norm(gated)


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: models.VGG(SMALL, widths=(8, 16)), 0),
        # Pre-activation: what reads the sum of a block stays.
        (lambda: models.WideResNet(10, 1, SMALL), 3),
        (lambda: models.MobileNet(SMALL, blocks=((8, 16, 1), (8, 16, 2))), 0),
    ],
)
def test_compact_networks_lose_their_normalization(make, left, tmp_path):
    plain, folded = compacted(make())
    assert len(norms_of(plain)) > len(norms_of(folded)) == left
    assert_folded(plain, folded, tmp_path / "folded.keras")
    before, after = map(keras_bar.measure_cost, (plain, folded))
    assert (after.volume, after.flops) == (before.volume, before.flops)
    assert after.params == folded.count_params() < before.params
    assert keras_bar.explain(folded) == keras_bar.explain(plain)


def test_folds_into_one_dimensional_convolutions(tmp_path):
    inputs = keras.Input((8, 4, 4))
    x = layers.Dense(8)(inputs)
    x = layers.Conv1D(6, 3, padding="same")(layers.Reshape((8, 32))(x))
    x = layers.Activation("silu")(layers.BatchNormalization()(x))
    outputs = layers.Dense(2)(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    plain, folded = compacted(model, connectivity="regular")
    assert norms_of(plain) and not norms_of(folded)
    assert_folded(plain, folded, tmp_path / "folded.keras")


@pytest.fixture
def float64():
    """In float32, 50 layers of random weights differ by up to 7e-5 by rounding,
    as a compact model of them does from the hard-pruned one."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "make",
    [
        lambda: models.ResNet50(SMALL),
        lambda: application("MobileNetV2"),
        lambda: application("ResNet50"),
        lambda: application("EfficientNetB0"),
    ],
    ids=["resnet50", "mobilenetv2", "keras_resnet50", "efficientnetb0"],
)
def test_large_networks(make, tmp_path):
    plain, folded = compacted(make())
    assert len(norms_of(folded)) < len(norms_of(plain)) / 2
    assert_folded(plain, folded, tmp_path / "folded.keras")


def application(name):
    make = getattr(keras.applications, name)
    return make(
        weights=None, input_shape=SMALL, classes=4, classifier_activation=None
    )
