"""Reads the logs of trainings from files."""

import os
import pathlib

from keras_bar import files


def read_history(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Reads the logs that `keras_bar.callbacks.HistoryLogger` has written.

    Args:
        path: Path of the file, which may be missing.

    Returns:
        Dict from the name of a log to its values, one per epoch, like the
        attribute `history` of what `fit` returns; empty if there is no file.

    Raises:
        keras_bar.files.DamagedFileError: If the file does not hold a JSON
            object.

    Example:

    >>> from keras_bar import reports
    >>> reports.read_history("missing.json")
    {}
    """
    rows = files.read_json(pathlib.Path(path))
    epochs = [rows[x] for x in sorted(rows, key=int)]
    return {x: [row[x] for row in epochs] for x in epochs[0]} if rows else {}


def summarize_pruning(
    history: dict[str, list[float]], metric: str
) -> dict[str, float]:
    """Tells how a training followed its moving budget.

    Args:
        history: Dict from log to its values, one per epoch, as `read_history`
            returns it, of a training with a `BudgetRegularizer`.
        metric: `"volume"`, `"flops"` or `"params"`, what the budget limits.

    Returns:
        Dict of fractions of the full cost: `"expected"`, the expected cost
        after the last epoch; `"hard"`, the cost then; `"worst_drop"`, the
        largest fall of the cost within an epoch; `"worst_excess"`, how far it
        was above the moving budget at most, after the first tenth of the
        epochs.

    Example:

    >>> from keras_bar import reports
    >>> history = {
    ...     "volume": [1.0, 0.5],
    ...     "budget": [1.0, 0.25],
    ...     "expected": [1.0, 0.5],
    ... }
    >>> reports.summarize_pruning(history, "volume")["worst_excess"]
    0.25
    """
    costs = history[metric]
    budgets = history[log_of("budget", metric, history)]
    later = range(-(-len(costs) // 10), len(costs))
    falls = zip([1.0, *costs], costs, strict=False)
    return {
        "expected": history[log_of("expected", metric, history)][-1],
        "hard": costs[-1],
        "worst_drop": max(a - b for a, b in falls),
        "worst_excess": max((costs[i] - budgets[i] for i in later), default=0),
    }


def log_of(name, metric, history):
    """The name of a log of a metric's budget: the first of several budgets has
    logs without the metric in their names.

    Args:
        name: `"budget"` or `"expected"`.
        metric: The metric of the budget.
        history: Dict from log to its values.
    """
    own = f"{name}_{metric}"
    return own if own in history else name
