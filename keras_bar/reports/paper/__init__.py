"""The tables of the paper's supplement, for comparison."""

import csv
from importlib import resources

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


def _number(text):
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text
