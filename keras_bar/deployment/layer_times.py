"""Times of small models in a runtime."""

import contextlib
import gc
import importlib
import itertools
import json
import logging
import pathlib
import tempfile
import time
from importlib import metadata

import keras
import numpy as np

from keras_bar.deployment.requirements import require
from keras_bar.deployment.writing import export
from keras_bar.deployment.writing import write_onnx
from keras_bar.latency.table import LEAST_TIME

# Rounds in which the models take turns, and runs of one turn.
ROUNDS = 15
BURST = 3
QUANTILE = 0.25
# Copies of a layer in a model of Keras's, whose calls take long themselves.
COPIES = 4


def runtime(name, threads=1):
    """A runtime, in which models are timed.

    Args:
        name: `"keras"`, `"litert"` or `"onnx"`.
        threads: Integer, the threads of LiteRT and ONNX Runtime.
    """
    if name not in RUNTIMES:
        raise ValueError(
            "Unknown runtime. Expected one of "
            f"{', '.join(map(repr, RUNTIMES))}. Received: runtime={name!r}"
        )
    return RUNTIMES[name](threads)


def take_turns(calls, rounds=ROUNDS, burst=BURST):
    """Times functions that take turns.

    Args:
        calls: List of functions without arguments.
        rounds: Integer, turns of each.
        burst: Integer, calls in a turn, the fastest of which counts.

    Returns:
        List of lower quartiles over the turns, in microseconds: other
        programs can only make a call slower.
    """
    times: list = [[] for _ in calls]
    for call in calls:
        call()
    with _without_collection():
        for _ in range(rounds):
            for call, found in zip(calls, times, strict=True):
                fastest = float("inf")
                for _ in range(burst):
                    start = time.perf_counter()
                    call()
                    fastest = min(fastest, time.perf_counter() - start)
                found.append(fastest)
    return [1e6 * float(np.quantile(x, QUANTILE)) for x in times]


@contextlib.contextmanager
def _quiet_absl():
    """The converter would rather have the model, and says so each time."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _without_collection():
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class LiteRT:
    """LiteRT, with its delegate for the processor."""

    def __init__(self, threads):
        require("tensorflow", "ai_edge_litert")
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "Keras converts to LiteRT on one backend only. Expected "
                "`KERAS_BACKEND=tensorflow`; its measured file serves "
                f"trainings on all. Received: {keras.backend.backend()!r}"
            )
        self.threads = threads
        self._idle = None

    def version(self):
        """Version of the runtime, a string."""
        return metadata.version("ai-edge-litert")

    def layers(self, models, batch_size):
        """Times of models of one layer.

        Args:
            models: List of `keras.Model`.
            batch_size: Integer.

        Returns:
            List of floats, in microseconds.
        """
        if self._idle is None:
            inputs = keras.Input((1,))
            idle = keras.Model(inputs, keras.ops.negative(inputs))
            self._idle = self._invoke(idle, 1)
        calls = [self._invoke(x, batch_size) for x in models]
        idle, *times = take_turns([self._idle, *calls])
        return [max(x - idle, LEAST_TIME) for x in times]

    def _invoke(self, model, batch_size):
        import tensorflow as tf
        from ai_edge_litert.interpreter import Interpreter

        specs = [
            tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype)
            for x in model.inputs
        ]

        @tf.function(input_signature=specs)
        def run(*inputs):
            return model(
                inputs if len(inputs) > 1 else inputs[0], training=False
            )

        # Without the model, the converter makes constants of the weights. Its
        # delegate computes no layers whose weights are variables.
        with _quiet_absl():
            converter = tf.lite.TFLiteConverter.from_concrete_functions(
                [run.get_concrete_function()], None
            )
            content = converter.convert()
        interpreter = Interpreter(
            model_content=content, num_threads=self.threads
        )
        interpreter.allocate_tensors()
        for x in interpreter.get_input_details():
            array = _random(x["shape"], x["dtype"], batch_size)
            interpreter.set_tensor(x["index"], array)
        return interpreter.invoke

    def network(self, model, batch_size, folder):
        """Function that runs a whole network on a batch."""
        from ai_edge_litert.interpreter import Interpreter

        path = export(model, folder, "litert")["litert"]
        interpreter = Interpreter(str(path), num_threads=self.threads)
        sources = interpreter.get_input_details()
        for x in sources:
            shape = (batch_size, *x["shape"][1:])
            interpreter.resize_tensor_input(x["index"], shape)
        interpreter.allocate_tensors()
        (target,) = interpreter.get_output_details()
        feeds = {
            x["index"]: _random(x["shape"], x["dtype"], batch_size)
            for x in sources
        }

        def run():
            for index, array in feeds.items():
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return interpreter.get_tensor(target["index"])

        return run


class Onnx:
    """ONNX Runtime on the processor. Its profiler tells the times of single
    layers from those of changes of the data format at the ends of a file."""

    RUNS = 60
    MOVES = ("Transpose", "ReorderInput", "ReorderOutput", "Reshape")

    def __init__(self, threads):
        require("onnx", "onnxruntime")
        self.threads = threads

    def version(self):
        """See `LiteRT.version`."""
        import onnxruntime

        return onnxruntime.__version__

    def layers(self, models, batch_size):
        """See `LiteRT.layers`."""
        with tempfile.TemporaryDirectory() as folder:
            paths = _split_onnx(models, pathlib.Path(folder))
            return [self._profiled(path, batch_size, folder) for path in paths]

    def _profiled(self, path, batch_size, folder):
        options = self._options()
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        options.log_severity_level = 3
        session, run = self._session(path, options, batch_size)
        for _ in range(self.RUNS):
            run()
        profile = pathlib.Path(session.end_profiling())
        events = json.loads(profile.read_text())
        profile.unlink()
        times: dict = {}
        for event in events:
            if event.get("cat") != "Node" or "kernel" not in event["name"]:
                continue
            if event["args"]["op_name"] not in self.MOVES:
                times.setdefault(event["name"], []).append(event["dur"])
        # Whole microseconds: a mean, without the runs that were disturbed.
        total = sum(
            float(np.mean(np.sort(x)[: max(1, len(x) // 2)]))
            for x in times.values()
        )
        return max(total, LEAST_TIME)

    def network(self, model, batch_size, folder):
        """See `LiteRT.network`."""
        path = export(model, folder, "onnx")["onnx"]
        return self._session(path, self._options(), batch_size)[1]

    def _options(self):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        return options

    def _session(self, path, options, batch_size):
        """A session, and a function that runs it on a batch."""
        import onnx
        import onnxruntime

        session = onnxruntime.InferenceSession(path, options)
        feeds = {}
        for x in session.get_inputs():
            kind = x.type.removeprefix("tensor(").removesuffix(")").upper()
            dtype = onnx.helper.tensor_dtype_to_np_dtype(
                getattr(onnx.TensorProto, kind)
            )
            feeds[x.name] = _random(x.shape, dtype, batch_size)
        return session, lambda: session.run(None, feeds)


class Keras:
    """`predict_on_batch` of Keras, on the current backend and its device."""

    def __init__(self, threads):
        self._idle = None

    def version(self):
        """See `LiteRT.version`."""
        backend = importlib.import_module(keras.backend.backend())
        return f"{keras.__version__} on {backend.__version__}"

    def layers(self, models, batch_size):
        """See `LiteRT.layers`."""
        calls = [self._several(x, batch_size) for x in models]
        idle = [self._idle_like(x, batch_size) for x in models]
        times = take_turns([*calls, *idle])
        half = len(models)
        return [
            max((x - y) / COPIES, LEAST_TIME)
            for x, y in zip(times[:half], times[half:], strict=True)
        ]

    def _several(self, model, batch_size):
        """Several copies of a layer, of which little is returned."""
        outputs = []
        for i in range(COPIES):
            copy = keras.models.clone_model(model)
            copy.name = f"copy_{i}"
            copy.set_weights(model.get_weights())
            outputs.append(_corner(copy(model.inputs)))
        return _predict(keras.Model(model.inputs, outputs), batch_size)

    def _idle_like(self, model, batch_size):
        outputs = [_corner(model.inputs[0]) for _ in range(COPIES)]
        return _predict(keras.Model(model.inputs, outputs), batch_size)

    def network(self, model, batch_size, folder):
        """See `LiteRT.network`."""
        return _predict(model, batch_size)


RUNTIMES = {"keras": Keras, "litert": LiteRT, "onnx": Onnx}


def _corner(x):
    """The first number of every sample."""
    return x[(slice(None),) + (slice(0, 1),) * (len(x.shape) - 1)]


def _predict(model, batch_size):
    batch = [_random(x.shape, x.dtype, batch_size) for x in model.inputs]
    given = batch if len(batch) > 1 else batch[0]
    return lambda: model.predict_on_batch(given)


def _random(shape, dtype, batch_size):
    """A batch for an input; 0 of integers, which any embedding knows."""
    rng = np.random.default_rng(0)
    return rng.random((batch_size, *shape[1:])).astype(dtype)


def _split_onnx(models, folder):
    """Files of several models, which are converted together."""
    import onnx
    from onnx import utils

    inputs = [
        [keras.Input(x.shape[1:], dtype=x.dtype) for x in model.inputs]
        for model in models
    ]
    outputs = [
        model(x if len(x) > 1 else x[0])
        for model, x in zip(models, inputs, strict=True)
    ]
    joint = keras.Model([y for x in inputs for y in x], outputs)
    whole = onnx.load(write_onnx(joint, folder))
    extractor = utils.Extractor(whole)
    names = iter([x.name for x in whole.graph.input])
    paths = []
    for i, output in enumerate(whole.graph.output):
        mine = list(itertools.islice(names, len(inputs[i])))
        part = extractor.extract_model(mine, [output.name])
        paths.append(folder / f"{i}.onnx")
        onnx.save(part, paths[-1])
    return paths
