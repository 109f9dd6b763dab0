"""Latencies that are measured here: what they hold, not how long they are."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import __main__ as command_line
from keras_bar import deployment
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.deployment import layer_times
from keras_bar.deployment.latency import _fit
from keras_bar.deployment.latency import _known
from keras_bar.deployment.unit_models import build
from keras_bar.latency.units import find_units
from tests.helpers import tiny


def various():
    """Units of all kinds: several inputs, groups, paddings, ties."""
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = stem = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.SeparableConv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, stem])
    x = layers.Concatenate()([x, stem])
    x = layers.Conv2D(16, 3, groups=16, padding="same")(x)
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(16, 1, activation="sigmoid")(y)
    x = layers.MaxPooling2D()(layers.Multiply()([x, y]))
    x = layers.Conv2DTranspose(4, 3, strides=2)(x)
    x = layers.LayerNormalization()(x)
    x = layers.Dense(6, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(2)(x))


def units_of(model):
    return find_units(ChannelAnalysis(trace(model)))


def test_units_of_attention_are_built_with_any_widths():
    inputs = keras.Input((6, 12))
    x = layers.Dense(16)(inputs)
    x = layers.MultiHeadAttention(4, 3)(x, x)
    x = layers.Dense(2)(layers.GlobalAveragePooling1D()(x))
    units = units_of(keras_bar.gate(keras.Model(inputs, x)))
    to, attends, back = (
        next(x for x in units if text in x.key)
        for text in ("cde->abde", "DotProduct", "abcd,cde->abe")
    )
    model = build(to, 5, 2)
    assert (model.input_shape, model.output_shape[1:]) == (
        (None, 6, 5),
        (6, 2, 3),
    )
    assert build(attends, 1, 2).output_shape[1:] == (6, 2, 3)
    model = build(back, 2, 7)
    assert (model.input_shape[1:], model.output_shape[1:]) == (
        (6, 2, 3),
        (6, 7),
    )


def test_units_are_built_with_any_widths():
    for unit in units_of(keras_bar.gate(various())):
        full = build(unit, *unit.widths)
        assert full.output_shape[1:] == unit.nodes[-1].output.shape[1:] or (
            unit.moves
        )
        if not unit.is_scalable:
            assert "LayerNormalization" in unit.key
            continue
        writes = 4
        reads = 3 if unit.reads else 1
        small = build(unit, reads, writes)
        assert small.output_shape[-1] == writes
        if unit.reads:
            assert small.input_shape[-1] == reads
        x = [np.zeros((2, *x.shape[1:]), "float32") for x in small.inputs]
        assert np.all(np.isfinite(small(x if len(x) > 1 else x[0])))


@pytest.mark.parametrize("runtime", ["litert", "onnx", "keras"])
def test_measured_once(runtime, tmp_path):
    path = tmp_path / "latency.json"
    latency = deployment.measure_latency(
        tiny.network(8), runtime, path, verbose=False
    )
    assert (latency.runtime, latency.batch_size) == (runtime, 1)
    stem, branch, *_ = latency.tables.values()
    assert stem.reads == (2,) and stem.writes == (1, 8)
    assert branch.reads == branch.writes == (1, 8)
    assert np.all(np.array(branch.times) >= 0)
    (network,) = latency.networks.values()
    assert len(network["measured"]) == 4 and min(network["measured"]) > 0
    cost = keras_bar.measure_cost(tiny.network(8), latency).latency
    assert cost == pytest.approx(network["measured"][0], rel=0.9)
    # A second call finds everything in the file.
    before = path.read_text()
    again = deployment.measure_latency(
        keras_bar.gate(tiny.network(8)), runtime, path
    )
    assert again == latency == keras_bar.Latency(path)
    assert path.read_text() == before


@pytest.mark.parametrize("runtime", ["litert", "onnx", "keras"])
def test_inputs_of_several_dtypes(runtime):
    words = keras.Input((6,), dtype="int32")
    numbers = keras.Input((6, 2))
    x = layers.Conv1D(4, 1)(layers.Embedding(5, 4)(words))
    x = layers.Concatenate()([x, numbers])
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3)(x))
    model = keras.Model([words, numbers], layers.Dense(2)(x))
    latency = deployment.measure_latency(model, runtime, verbose=False)
    (network,) = latency.networks.values()
    assert min(network["measured"]) > 0
    assert keras_bar.measure_cost(model, latency).latency > 0


def test_what_cannot_be_run_is_refused_first(tmp_path):
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3)(inputs)
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    path = tmp_path / "latency.json"
    with pytest.raises(ValueError, match="known size, .* Received: inputs of"):
        deployment.measure_latency(keras.Model(inputs, outputs), path=path)
    inputs = keras.Input((6,))
    x = layers.Dense(4)(inputs)
    several = keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(3)(x)])
    with pytest.raises(ValueError, match="one output, .* Received: 2 outputs"):
        deployment.measure_latency(several, "onnx", path)
    assert not path.exists()


def test_wrong_arguments(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Unknown runtime. Expected one of"):
        deployment.measure_latency(tiny.network(), "tflite")
    path = tmp_path / "latency.json"
    keras_bar.Latency({"runtime": "onnx", "tables": {}}).save(path)
    with pytest.raises(ValueError, match="other latencies. Expected another"):
        deployment.measure_latency(tiny.network(), "litert", path)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="Expected `KERAS_BACKEND=tensorflow`"):
        deployment.measure_latency(tiny.network(), "litert")


@pytest.mark.parametrize("runtime", ["litert", "onnx", "keras"])
def test_files_of_other_devices_are_refused(runtime, tmp_path):
    settings = {"runtime": runtime, "batch_size": 1, "threads": 1}
    version = layer_times.runtime(runtime).version()
    assert version[0].isdigit()
    made = _known(None, settings, version)
    path = tmp_path / "latency.json"
    made.save(path)
    assert _known(path, settings, version) == made
    for name in ("processor", "backend", "version"):
        content = made.to_json()
        content["device"] = {**content["device"], name: "another"}
        keras_bar.Latency(content).save(path)
        message = f"another device. Expected .*{name}.* Received: .*{name}"
        with pytest.raises(ValueError, match=message):
            deployment.measure_latency(tiny.network(), runtime, path)
    # A file of an earlier version of this package.
    keras_bar.Latency({**settings, "tables": {}}).save(path)
    assert _known(path, settings, version).device == {}


def test_command(tmp_path, capsys):
    tiny.chain(4).save(tmp_path / "model.keras")
    output = tmp_path / "latency.json"
    arguments = ["measure", str(tmp_path / "model.keras"), "-o", str(output)]
    command_line.main([*arguments, "--runtime", "litert"])
    shown = capsys.readouterr().out
    assert "latency" in shown and f"wrote {output}" in shown
    latency = keras_bar.Latency(output)
    assert latency.runtime == "litert"
    command_line.main([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out) == latency.to_json()
    for wrong, message in (
        (["--runtime", "tflite"], "Unknown runtime"),
        (["--runtime", "onnx"], "other latencies"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command_line.main([*arguments, *wrong])
        assert message in capsys.readouterr().err


def test_a_disturbed_measurement_does_not_count():
    predicted = np.array([100.0, 50.0, 20.0, 10.0])
    measured = 3.0 + 1.1 * predicted
    measured[0] = 900.0
    assert _fit(predicted, measured) == pytest.approx((3.0, 1.1))
    # No overhead is negative.
    assert _fit(predicted, 2.0 * predicted - 1.0)[0] == 0.0
