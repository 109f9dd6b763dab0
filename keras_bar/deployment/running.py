"""Runs the files of a model in their runtimes."""

import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np

from keras_bar.deployment.requirements import require


def load(
    path: str | os.PathLike[str], threads: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    """Loads a file that `export` wrote, in the runtime of its format.

    OpenVINO computes in float32, not in the half precision that it chooses on
    some processors.

    Args:
        path: Path of a `.keras`, `.onnx`, `.tflite` or `.xml` file, or of the
            folder of a SavedModel; of a model with one input and one output.
        threads: Integer, threads of LiteRT, ONNX Runtime and OpenVINO. Keras
            and SavedModel use those of the process, one with TensorFlow if
            `TF_NUM_INTRAOP_THREADS=1` was set when it started.

    Returns:
        Function from a batch of inputs, array `(batch, ...)`, to the outputs.

    Raises:
        ImportError: If the runtime is not installed.
        ValueError: If the file is of another kind.

    Example:

    >>> from keras_bar import deployment
    >>> model = keras_bar.models.VGG((8, 8, 1), widths=(4, 8))
    >>> paths = deployment.export(model, "exported", "litert")
    >>> run = deployment.load(paths["litert"])
    >>> run(np.zeros((2, 8, 8, 1), "float32")).shape
    (2, 10)
    """
    path = pathlib.Path(path)
    kind = "" if path.is_dir() else path.suffix
    if kind not in _RUNTIMES:
        raise ValueError(
            "Unknown kind of file. Expected the folder of a SavedModel, or one "
            f"that ends with {', '.join(filter(None, _RUNTIMES))}. "
            f"Received: {path}"
        )
    return _RUNTIMES[kind](path, threads)


def _load_keras(path, threads):
    model = keras.models.load_model(path, compile=False)
    return model.predict_on_batch


def _load_saved_model(path, threads):
    require("tensorflow")
    import tensorflow as tf

    model = tf.saved_model.load(str(path))

    def run(batch):
        return model.serve(tf.constant(batch)).numpy()

    # The model owns the variables of its functions.
    run.model = model  # type: ignore[attr-defined]
    return run


def _load_onnx(path, threads):
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options)
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _load_litert(path, threads):
    require("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    size = source["shape"][0]

    def run(batch):
        nonlocal size
        if len(batch) != size:
            size = len(batch)
            interpreter.resize_tensor_input(source["index"], batch.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def _load_openvino(path, threads):
    require("openvino")
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda batch: model(batch)[0]


_RUNTIMES = {
    "": _load_saved_model,
    ".keras": _load_keras,
    ".onnx": _load_onnx,
    ".tflite": _load_litert,
    ".xml": _load_openvino,
}
