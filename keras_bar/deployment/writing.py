"""Writes a model in the formats of several runtimes."""

import os
import pathlib
import warnings
from collections.abc import Iterable

import keras
import numpy as np

from keras_bar import keras_internals
from keras_bar.analysis import kinds
from keras_bar.deployment.requirements import require
from keras_bar.layers import ChannelGate

# Size of an unknown dimension of an example of the input.
EXAMPLE_SIZE = 32


def export(
    model: keras.Model,
    folder: str | os.PathLike[str],
    formats: str | Iterable[str] = "keras",
    *,
    data: np.ndarray | None = None,
) -> dict[str, pathlib.Path]:
    """Writes a model in one or more formats.

    Formats are written by Keras's own `Model.save` and `Model.export`:

    - `"keras"`: `model.keras`, without the optimizer;
    - `"keras_int8"`: `model_int8.keras`, after Keras's `quantize("int8")`,
      which quantizes dense layers and no convolutions;
    - `"saved_model"`: the folder `saved_model`, for TensorFlow;
    - `"onnx"`: `model.onnx`;
    - `"litert"`: `model.tflite`, on the TensorFlow backend;
    - `"litert_int8"`: `model_int8.tflite`, with weights and activations in 8
      bits and inputs and outputs in float32. The ranges of the activations are
      those of `data`;
    - `"openvino"`: `model.xml` and `model.bin`.

    Args:
        model: Functional or Sequential `keras.Model` without gates, with one
            output. It is not changed.
        folder: Path of the folder for the files, which is created.
        formats: Names of formats.
        data: Array `(samples, ...)`, a few hundred training inputs as the model
            takes them; only `"litert_int8"` needs it.

    Returns:
        Dict from format to `pathlib.Path`.

    Raises:
        ImportError: If a package is missing that a format needs.
        ValueError: If the model has gates, a format is unknown, or `data` is
            missing.

    Example:

    >>> from keras_bar import deployment
    >>> model = keras_bar.models.VGG((8, 8, 1), widths=(4, 8))
    >>> paths = deployment.export(model, "exported", ["keras", "litert"])
    >>> paths["litert"].name
    'model.tflite'
    """
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    _check(model, formats, data)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return {x: _FORMATS[x](model, folder, data) for x in formats}


def _check(model, formats, data):
    unknown = [x for x in formats if x not in _FORMATS]
    if unknown:
        raise ValueError(
            "Unknown format. Expected some of "
            f"{', '.join(map(repr, _FORMATS))}. Received: {unknown}"
        )
    # A gated model refuses `export` itself, but Keras can save it, and a model
    # of the user's own class may have gates, too.
    gates = [
        x.name
        for x in keras_internals.layers_inside(model)
        if isinstance(x, ChannelGate)
    ]
    if gates:
        raise ValueError(
            "A model with gates is not for deployment: its closed channels "
            "would still be computed. Expected the result of "
            f"`keras_bar.compact(model)`. Received: {model.name!r} with "
            f"{len(gates)} gates, such as {gates[0]!r}"
        )
    if not kinds.is_functional(model) or len(model.outputs) != 1:
        raise ValueError(
            "The model cannot be written in all formats. Expected a Functional "
            "or Sequential model with one output, such as the result of "
            f"`keras_bar.compact`. Received: {model.name!r} (of type "
            f"{type(model).__name__})"
        )
    if data is None and "litert_int8" in formats:
        raise ValueError(
            "The ranges of the activations are unknown, so they cannot be "
            "quantized. Expected `data`, a few hundred training inputs. "
            "Received: data=None and format='litert_int8'"
        )


def _keras(model, folder, data):
    _copy(model).save(folder / "model.keras")
    return folder / "model.keras"


def _keras_int8(model, folder, data):
    path = folder / "model_int8.keras"
    copy = _copy(model)
    with warnings.catch_warnings():
        # One for every layer that Keras cannot quantize.
        warnings.filterwarnings("ignore", message=".*`quantize` method")
        copy.quantize("int8")
    copy.save(path)
    return path


def _copy(model):
    """A copy without the optimizer, which `save` would write."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def _saved_model(model, folder, data):
    require("tensorflow")
    path = folder / "saved_model"
    model.export(path, format="tf_saved_model", verbose=False)
    return path


def write_onnx(model, folder, data=None):
    backend = keras.backend.backend()
    require("onnx", *{"tensorflow": ["tf2onnx"]}.get(backend, []))
    path = folder / "model.onnx"
    # Keras refuses to export a model to ONNX that was never called.
    model(keras.tree.map_structure(_example, model.input), training=False)
    with warnings.catch_warnings():
        # tf2onnx uses deprecated names of NumPy and TensorFlow.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        model.export(path, format="onnx", verbose=False)
    _complete_onnx(path)
    return path


def _complete_onnx(path):
    """Writes `erfc(x)`, which TensorFlow's exact GELU contains and tf2onnx
    leaves as it is, as `1 - erf(x)`; raises a ValueError if the file holds
    anything else that ONNX does not know."""
    import onnx

    model = onnx.load(path)
    converted, nodes = len(model.graph.node), []
    for node in model.graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        erf, one = f"{node.output[0]}_erf", f"{node.output[0]}_one"
        value = onnx.helper.make_tensor(one, onnx.TensorProto.FLOAT, (), [1.0])
        nodes += [
            onnx.helper.make_node("Erf", node.input, [erf]),
            onnx.helper.make_node("Constant", [], [one], value=value),
            onnx.helper.make_node("Sub", [one, erf], node.output),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        path.unlink()
        raise ValueError(
            "ONNX cannot express the model. Expected operations that its "
            f"exporter converts, or another format. Received: {error}"
        ) from error
    if len(nodes) > converted:
        onnx.save(model, path)


def _example(x):
    shape = [d or EXAMPLE_SIZE for d in x.shape[1:]]
    return keras.ops.zeros((1, *shape), x.dtype)


def _litert(model, folder, data):
    path = folder / "model.tflite"
    model.export(path, format="litert", verbose=False)
    return path


def _litert_int8(model, folder, data):
    require("tensorflow")
    import tensorflow as tf

    path = folder / "model_int8.tflite"
    model.export(
        path,
        format="litert",
        verbose=False,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([x[None]] for x in data),
    )
    return path


def _openvino(model, folder, data):
    require("openvino")
    path = folder / "model.xml"
    model.export(str(path), format="openvino", verbose=False)
    return path


_FORMATS = {
    "keras": _keras,
    "keras_int8": _keras_int8,
    "saved_model": _saved_model,
    "onnx": write_onnx,
    "litert": _litert,
    "litert_int8": _litert_int8,
    "openvino": _openvino,
}
# Names of all formats.
FORMATS = tuple(_FORMATS)
