"""Size, latency and accuracy of a model's files."""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from keras_bar.deployment.running import load
from keras_bar.reports import format_table
from keras_bar.reports.timing import median_times

# Images at a time whose classes are predicted.
BATCH = 128


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of one file.

    Attributes:
        model: Label of the model.
        format: Its format.
        file_bytes: Size of the file, or of all files that belong to it.
        latency_ms: Median latency of one sample, in milliseconds.
        speedup: Latency of the full model in the same format, in units of this
            one; None without such a file.
        accuracy: Fraction of the images that were classified correctly, or
            None.

    Example:

    >>> from keras_bar import deployment
    >>> deployment.Measurement("full", "onnx", 4096, 0.25).latency_ms
    0.25
    """

    model: str
    format: str
    file_bytes: int
    latency_ms: float
    speedup: float | None = None
    accuracy: float | None = None


def measure(
    files: dict[str, dict[str, str | os.PathLike[str]]],
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    repeats: int = 200,
    warmup: int = 20,
) -> list[Measurement]:
    """Measures files in their runtimes, side by side.

    The latency is the median of calls with one sample and one thread (see
    `load`). The files take turns, so that other load on the machine affects all
    of them alike.

    Args:
        files: Dict from a model's label to a dict from format to path, such as
            `export` returns. The first is the full model, which the others are
            compared with.
        images: Array `(samples, ...)`, inputs as the models take them.
        labels: Integer array `(samples,)`, their classes, for the accuracy.
        repeats: Integer, timed calls per file.
        warmup: Integer, preceding untimed calls per file.

    Returns:
        List of `Measurement`, ordered by format, then as `files` is.

    Raises:
        ImportError: If a runtime is not installed.

    Example:

    >>> from keras_bar import deployment
    >>> images = np.zeros((4, 8, 8, 1), "float32")
    >>> files = {}
    >>> for name, widths in {"full": (8, 16), "small": (2, 4)}.items():
    ...     model = keras_bar.models.VGG((8, 8, 1), widths=widths)
    ...     files[name] = deployment.export(model, name, "litert")
    >>> full, small = deployment.measure(files, images, repeats=5)
    >>> small.file_bytes < full.file_bytes
    True
    """
    paths = {
        (model, format_): pathlib.Path(path)
        for model, group in files.items()
        for format_, path in group.items()
    }
    runners = {key: load(path) for key, path in paths.items()}
    accuracies = {
        key: None if labels is None else _accuracy(run, images, labels)
        for key, run in runners.items()
    }
    calls = {
        key: functools.partial(run, images[:1]) for key, run in runners.items()
    }
    latencies = median_times(calls, repeats, warmup)
    full = next(iter(files))
    formats = list(dict.fromkeys(format_ for _, format_ in paths))
    return [
        Measurement(
            model,
            format_,
            _size(path),
            latencies[model, format_],
            (latencies[full, format_] / latencies[model, format_])
            if (full, format_) in latencies
            else None,
            accuracies[model, format_],
        )
        for (model, format_), path in sorted(
            paths.items(), key=lambda x: formats.index(x[0][1])
        )
    ]


def format_measurements(measurements: list[Measurement]) -> str:
    """Formats measurements as a table.

    Args:
        measurements: List of `Measurement`.

    Returns:
        String of several lines.

    Example:

    >>> from keras_bar import deployment
    >>> full = deployment.Measurement("full", "onnx", 4096, 0.25, 1.0)
    >>> print(deployment.format_measurements([full]))
    format  model  bytes     ms  speedup
    ------------------------------------
    onnx     full  4,096  0.250    1.0 x
    """
    header = ["format", "model", "bytes", "ms", "speedup"]
    has_accuracy = any(x.accuracy is not None for x in measurements)
    rows = []
    for x in measurements:
        row = [x.format, x.model, f"{x.file_bytes:,}", f"{x.latency_ms:.3f}"]
        row.append("" if x.speedup is None else f"{x.speedup:.1f} x")
        if has_accuracy:
            row.append("" if x.accuracy is None else f"{x.accuracy:.2%}")
        rows.append(row)
    return format_table(header + ["accuracy"] * has_accuracy, rows)


def _accuracy(run, images, labels):
    labels = np.asarray(labels)
    classes = labels[:, 0] if labels.shape == (len(images), 1) else labels
    outputs = np.concatenate(
        [run(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    )
    if classes.shape != (len(images),) or outputs.shape[1:] in ((), (1,)):
        raise ValueError(
            "These outputs and labels have no accuracy. Expected an output "
            "per class, and one class per image as an integer. Received: "
            f"outputs of shape {outputs.shape} and labels of shape "
            f"{labels.shape}"
        )
    return float(np.mean(np.argmax(outputs, axis=-1) == classes))


def _size(path):
    """Bytes of a file, of all files in a folder, or of OpenVINO's two files."""
    if path.is_dir():
        return sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
    parts = (
        [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    )
    return sum(x.stat().st_size for x in parts)
