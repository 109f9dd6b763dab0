"""Reads what trainings have written down."""

import os
import pathlib

from keras_bar import files


def read_history(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Reads the logs that `keras_bar.callbacks.HistoryLogger` has written.

    Args:
        path: Path of the file, which may be missing.

    Returns:
        Dict from log to its values, one per epoch, like `history` of what `fit`
        returns; an empty one if there is no file.

    Raises:
        keras_bar.files.DamagedFileError: If the file is no JSON object.

    Example:

    >>> from keras_bar import reports
    >>> reports.read_history("missing.json")
    {}
    """
    rows = files.read_json(pathlib.Path(path))
    epochs = [rows[x] for x in sorted(rows, key=int)]
    return {x: [row[x] for row in epochs] for x in epochs[0]} if rows else {}
