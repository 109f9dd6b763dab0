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
