"""Plain-text tables."""

from collections.abc import Sequence

# Heading, format, and whether less is better, by the key of a result. If less
# is better, a comparison is a factor, and otherwise a difference.
_COLUMNS = {
    "accuracy": ("accuracy", "{:.2%}", False),
    "volume": ("volume", "{:,}", True),
    "flops": ("FLOPs", "{:,}", True),
    "params": ("params", "{:,}", True),
    "file_bytes": ("file, bytes", "{:,}", True),
    "latency_ms_batch_1": ("ms, batch 1", "{:.2f}", True),
    "latency_ms_batch_128": ("ms, batch 128", "{:.2f}", True),
}


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligns cells in columns, the first to the left, the others to the right.

    Args:
        header: Sequence of strings.
        rows: Sequence of sequences of strings, as long as the header.

    Returns:
        String of several lines.

    Example:

    >>> from keras_bar import reports
    >>> print(reports.format_table(["", "FLOPs"], [["full", "1,024"]]))
          FLOPs
    -----------
    full  1,024
    """
    table = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def comparison_table(results: dict[str, dict[str, float]]) -> str:
    """Compares the accuracy and the costs of models.

    Args:
        results: Dict from a model's label to a dict with some of the keys
            `"accuracy"` (fraction), `"volume"` (activations per sample),
            `"flops"`, `"params"`, `"file_bytes"`, `"latency_ms_batch_1"` and
            `"latency_ms_batch_128"` (ms per batch); the same keys for each.

    Returns:
        String, a table with a row per quantity. For two models, a last column
        gives the factor by which the second is smaller, or the difference of
        the accuracies in points.

    Example:

    >>> from keras_bar import reports
    >>> results = {"full": {"flops": 1000}, "compact": {"flops": 125}}
    >>> print(reports.comparison_table(results))
            full  compact
    ----------------------------
    FLOPs  1,000      125  8.0 x
    """
    labels, values = list(results), list(results.values())
    compares = len(labels) == 2
    rows = []
    for key, (heading, form, has_factor) in _COLUMNS.items():
        if key not in values[0]:
            continue
        row = [heading, *(form.format(x[key]) for x in values)]
        if compares:
            first, second = (x[key] for x in values)
            row.append(_factor(first, second, has_factor))
        rows.append(row)
    return format_table(["", *labels, *([""] if compares else [])], rows)


def _factor(first, second, has_factor):
    if not has_factor:
        return f"{100 * (second - first):+.2f} points"
    return f"{first / second:.1f} x" if second else ""
