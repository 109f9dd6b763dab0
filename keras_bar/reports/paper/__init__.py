"""The tables of the paper's supplement, for comparison."""

import csv
import math
from importlib import resources

from keras_bar.reports.curves import Curve

TABLES = ("connectivity", "results", "sensitivity")


def load(table: str) -> list[dict[str, str | float | None]]:
    """Reads a table of the supplement of *Structured Pruning of Neural
    Networks with Budget-Aware Regularization* (CVPR 2019).

    Args:
        table: `"connectivity"` (section 5: volume and FLOPs of the same gates
            with regular and with mixed blocks), `"results"` (section 6: test
            accuracy over volume and FLOPs factor, by data set and method) or
            `"sensitivity"` (section 8: test accuracy under random
            hyperparameters).

    Returns:
        List of dicts, one per row; numbers are floats, and None where the
        supplement has none.

    Raises:
        ValueError: If the supplement has no such table.

    Example:

    >>> from keras_bar import reports
    >>> rows = reports.paper.load("results")
    >>> rows[0]["method"]
    'Random'
    """
    if table not in TABLES:
        raise ValueError(
            "The supplement has no such table. Expected one of "
            f"{', '.join(map(repr, TABLES))}. Received: table={table!r}"
        )
    text = resources.files(__name__).joinpath(f"{table}.csv").read_text("utf-8")
    return [
        {key: _number(value) for key, value in row.items()}
        for row in csv.DictReader(text.splitlines())
    ]


def curves(dataset: str, metric: str) -> list[Curve]:
    """Returns the supplement's accuracies on a data set.

    Args:
        dataset: `"cifar10"`, `"cifar100"`, `"mio_tcd"` or `"tiny_imagenet"`.
        metric: `"volume"` or `"flops"`, whose factor is the key of an accuracy.

    Returns:
        List of `keras_bar.reports.Curve`, one per method.

    Example:

    >>> from keras_bar import reports
    >>> curves = reports.paper.curves("cifar10", "volume")
    >>> curves[0].method
    'Random'
    """
    found: dict = {}
    for row in _with_accuracy(dataset):
        points = found.setdefault(row["method"], {})
        place = row[f"{metric}_factor"]
        points.setdefault(place, []).append(row["test_accuracy"])
    return [Curve(x, points, published=True) for x, points in found.items()]


def nearest(
    dataset: str, method: str, factor: float, metric: str
) -> dict[str, float] | None:
    """Returns the supplement's row of a method that is nearest to a factor.

    Args:
        dataset: See `curves`.
        method: String, the supplement's name of the method.
        factor: Float, the reduction of the metric. For the volume of the
            F-trained BAR it is that of the narrowed network of equal FLOPs.
        metric: `"volume"` or `"flops"`.

    Returns:
        Dict with `"volume_factor"`, `"flops_factor"` and `"test_accuracy"`, or
        None if the supplement has nothing within 1.5 times the factor.

    Example:

    >>> from keras_bar import reports
    >>> row = reports.paper.nearest("cifar10", "WM", 16, "volume")
    >>> row["test_accuracy"]
    0.8633
    """

    def miss(row):
        place = row.get(f"{metric}_factor") or math.inf
        if method == "BAR (F-trained)" and metric == "volume":
            place = row["flops_factor"] ** 0.5
        return abs(math.log(place / factor))

    rows = [x for x in _with_accuracy(dataset) if x["method"] == method]
    row = min(rows, key=miss, default=None)
    return row if row and miss(row) <= math.log(1.5) else None


def _with_accuracy(dataset):
    """The rows of the supplement's section 6 that have an accuracy."""
    return [
        x
        for x in load("results")
        if x["dataset"] == dataset and x["test_accuracy"] is not None
    ]


def _number(text):
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text
