"""The files of a model compute what the model computes."""

import importlib.util
import os

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import deployment
from keras_bar import models
from tests.helpers import pruning
from tests.helpers import tiny
from tests.helpers.block_networks import inverted_residuals

# Largest difference, relative to the largest output.
ROUNDING = 1e-4
INT8 = 0.2
FLOAT = [x for x in deployment.FORMATS if not x.endswith("int8")]


def compacted(model, **options):
    """A pruned model, compacted, and inputs for it."""
    gated = keras_bar.gate(pruning.randomize(model))
    pruning.recalibrate(pruning.close_gates(gated))
    return keras_bar.compact(gated, **options)


@pytest.fixture(scope="module")
def mixed():
    """A compact model in which the sides of additions keep other channels."""
    small = compacted(models.WideResNet(10, 1, (8, 8, 1)))
    assert keras_bar.explain(small).mixed
    return small


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")


def assert_same(model, path, x, tolerance=ROUNDING):
    expected = model.predict(x, verbose=0)
    run = deployment.load(path)
    # Other batches than the first one, too.
    found = np.concatenate([run(x[:1]), run(x[1:4]), run(x[4:])])
    assert found.shape == expected.shape
    assert pruning.distance([found], [expected]) < tolerance


@pytest.mark.parametrize("name", FLOAT)
def test_numbers_of_a_mixed_network(name, mixed, images, tmp_path):
    paths = deployment.export(mixed, tmp_path / "new", name)
    assert list(paths) == [name] and paths[name].exists()
    assert_same(mixed, paths[name], images)


@pytest.mark.parametrize("name", ["keras_int8", "litert_int8"])
def test_numbers_of_int8(name, mixed, images, tmp_path):
    before = mixed.get_weights()
    paths = deployment.export(mixed, tmp_path, [name], data=images)
    assert_same(mixed, paths[name], images, INT8)
    for x, y in zip(mixed.get_weights(), before, strict=True):
        np.testing.assert_array_equal(x, y)


def test_keras_files_have_no_optimizer(images, tmp_path):
    model = models.VGG((8, 8, 1), widths=(4, 8))
    model.compile("adam", "mse")
    model.fit(images, np.zeros((len(images), 10)), verbose=0)
    path = deployment.export(model, tmp_path)["keras"]
    assert not keras.models.load_model(path).compiled
    assert_same(model, path, images)


def test_int8_weights_are_a_quarter(images, tmp_path):
    model = models.VGG((8, 8, 1), widths=(32, 64))
    paths = deployment.export(
        model, tmp_path, ["litert", "litert_int8"], data=images
    )
    large, small = (x.stat().st_size for x in paths.values())
    assert 3.5 < large / small < 4.2


def transposed():
    """Kinds of convolutions that the models lack."""
    inputs = keras.Input((8, 8, 1))
    x = layers.SeparableConv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x)
    x = layers.Activation("silu")(layers.BatchNormalization()(x))
    x = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: models.ViT((8, 8, 1), width=16, depth=1),
        lambda: models.ConvNeXt((8, 8, 1), widths=(8, 16), depths=(1, 1)),
        inverted_residuals,
        transposed,
        lambda: keras.applications.MobileNetV2(
            weights=None, input_shape=(32, 32, 3), classes=4
        ),
    ],
    ids=["vit", "convnext", "inverted", "transposed", "mobilenetv2"],
)
def test_numbers_of_other_networks(make, tmp_path):
    for fold in (False, True):
        small = compacted(make(), fold_batch_norm=fold)
        x = pruning.inputs_for(small, batch=8)
        paths = deployment.export(small, tmp_path / str(fold), FLOAT)
        for path in paths.values():
            assert_same(small, path, x)


def test_gates_are_refused(tmp_path):
    gated = pruning.close_gates(keras_bar.gate(tiny.network()))
    inside = keras.Sequential([keras.Input((6, 6, 2)), gated])
    for model in (gated, inside):
        with pytest.raises(ValueError, match="Expected the result of"):
            deployment.export(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_wrong_arguments_are_refused(mixed, tmp_path):
    with pytest.raises(ValueError, match="Unknown format. Expected some of"):
        deployment.export(mixed, tmp_path / "new", ["keras", "tflite"])
    with pytest.raises(ValueError, match="Expected `data`"):
        deployment.export(mixed, tmp_path / "new", ["keras", "litert_int8"])
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="Unknown kind of file"):
        deployment.load(tmp_path / "model.h5")


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_missing_packages_are_named(name, mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ImportError, match=r"pip install keras-bar\[deploy\]"):
        deployment.export(mixed, tmp_path, name)
    kind = {"onnx": "model.onnx", "openvino": "model.xml"}[name]
    with pytest.raises(ImportError, match=r"pip install keras-bar\[deploy\]"):
        deployment.load(tmp_path / kind)


def test_measures_side_by_side(mixed, images, tmp_path):
    full = models.WideResNet(10, 1, (8, 8, 1))
    formats = ["litert", "openvino"]
    files = {
        "full": deployment.export(full, tmp_path / "full", formats[0]),
        "small": deployment.export(mixed, tmp_path / "small", formats),
    }
    labels = mixed.predict(images, verbose=0).argmax(-1)
    found = deployment.measure(files, images, labels, repeats=5, warmup=1)
    assert [(x.format, x.model) for x in found] == [
        ("litert", "full"),
        ("litert", "small"),
        ("openvino", "small"),
    ]
    for x in found:
        assert x.latency_ms > 0
        assert x.model == "full" or x.accuracy == 1.0
    sizes = [x.file_bytes for x in found]
    assert sizes[1] == os.path.getsize(tmp_path / "small" / "model.tflite")
    assert sizes[2] == sum(
        os.path.getsize(tmp_path / "small" / f"model.{x}")
        for x in ("xml", "bin")
    )
    one, other = found[:2]
    assert one.speedup == 1.0
    assert other.speedup == one.latency_ms / other.latency_ms
    assert found[2].speedup is None  # There is no full model to compare with.
    table = deployment.format_measurements(found)
    assert len(table.splitlines()) == 2 + len(found)
    assert "100.00%" in table


@pytest.mark.parametrize("column", [False, True])
def test_accuracy_of_labels_in_a_column(column, images, tmp_path):
    model = models.VGG((8, 8, 1), widths=(4,))
    labels = model.predict(images, verbose=0).argmax(-1)
    labels[:16] = (labels[:16] + 1) % 10
    given = labels[:, None] if column else labels
    paths = {"small": deployment.export(model, tmp_path)}
    (found,) = deployment.measure(paths, images, given, repeats=1, warmup=0)
    assert found.accuracy == 0.75
    with pytest.raises(ValueError, match="no accuracy"):
        one_hot = np.eye(10)[labels]
        deployment.measure(paths, images, one_hot, repeats=1, warmup=0)


def test_models_without_a_graph_are_refused(tmp_path):
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Expected a Functional or Sequential"):
        deployment.export(Own(), tmp_path)


def perceptron(activation):
    inputs = keras.Input((6,))
    x = layers.Activation(activation)(layers.Dense(8)(inputs))
    return keras.Model(inputs, layers.Dense(3)(x))


def test_exact_gelu_in_onnx(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 6)).astype("float32")
    model = pruning.randomize(perceptron("gelu"))
    path = deployment.export(model, tmp_path, "onnx")["onnx"]
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        deployment.load(path)(x), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="another exporter"
)
def test_what_onnx_does_not_know_is_refused(tmp_path):
    model = perceptron(lambda x: keras.ops.erfinv(keras.ops.tanh(x)))
    with pytest.raises(ValueError, match=r"(?s)ONNX cannot express.*Erfinv"):
        deployment.export(model, tmp_path, "onnx")
    assert not list(tmp_path.iterdir())
