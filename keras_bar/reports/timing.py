"""Latency and size of models."""

import functools
import os
import pathlib
import statistics
import time

import keras
import numpy as np

from keras_bar.costs import METRICS
from keras_bar.costs import measure_cost


def measure_latency(
    models: dict[str, keras.Model],
    batch_size: int = 1,
    repeats: int = 50,
    warmup: int = 5,
) -> dict[str, float]:
    """Measures the latency of predictions.

    Times `predict_on_batch`, which is compiled, on one batch of noise, from
    NumPy array to NumPy array. The models take turns, so that other load on the
    machine affects all of them alike, and the median ignores outliers.

    Args:
        models: Dict from a label to a `keras.Model` with one input of known
            size.
        batch_size: Integer, samples per prediction.
        repeats: Integer, timed predictions per model.
        warmup: Integer, preceding untimed predictions, which trace and compile.

    Returns:
        Dict from label to the median in milliseconds per batch.

    Example:

    >>> from keras_bar import reports
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> times = reports.measure_latency({"dense": model}, repeats=3)
    >>> times["dense"] > 0  # milliseconds
    True
    """
    rng = np.random.default_rng(0)
    batches = {
        label: rng.random((batch_size, *model.input_shape[1:]), "float32")
        for label, model in models.items()
    }
    calls = {
        label: functools.partial(model.predict_on_batch, batches[label])
        for label, model in models.items()
    }
    return median_times(calls, repeats, warmup)


def median_times(calls, repeats, warmup):
    """Times functions, which take turns.

    Args:
        calls: Dict from a label to a function without arguments.
        repeats: Integer, timed calls per function.
        warmup: Integer, preceding untimed calls per function.

    Returns:
        Dict from label to the median in milliseconds.
    """
    times: dict = {label: [] for label in calls}
    for turn in range(warmup + repeats):
        for label, call in calls.items():
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if turn >= warmup:
                times[label].append(elapsed)
    return {label: 1e3 * statistics.median(x) for label, x in times.items()}


def measure_files(
    paths: dict[str, str | os.PathLike[str]],
) -> dict[str, dict[str, float]]:
    """Measures the costs, the files and the latencies of saved models.

    Args:
        paths: Dict from a label to the path of a `.keras` file.

    Returns:
        Dict from label to a dict in the form that `comparison_table` takes,
        without accuracies.

    Example:

    >>> from keras_bar import reports
    >>> model = keras_bar.models.WideResNet(10, 1, input_shape=(8, 8, 1))
    >>> model.save("full.keras")
    >>> results = reports.measure_files({"full": "full.keras"})
    >>> results["full"]["params"] == model.count_params()
    True
    """
    models = {
        label: keras.models.load_model(path, compile=False)
        for label, path in paths.items()
    }
    results: dict[str, dict[str, float]] = {}
    for label, model in models.items():
        cost = measure_cost(model)
        size = pathlib.Path(paths[label]).stat().st_size
        results[label] = {x: getattr(cost, x) for x in METRICS}
        results[label]["file_bytes"] = size
    for size in (1, 128):
        for label, milliseconds in measure_latency(models, size).items():
            results[label][f"latency_ms_batch_{size}"] = milliseconds
    return results
