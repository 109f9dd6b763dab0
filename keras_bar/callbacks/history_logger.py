"""Writes the logs of a training to a file, epoch by epoch."""

import os
import pathlib
import time

import keras

from keras_bar import files


class HistoryLogger(keras.callbacks.Callback):
    """Writes the logs and the duration of every epoch to a file.

    `keras_bar.reports.read_history` reads them. The history that `fit` returns
    lacks the epochs before an interruption. This file has every epoch exactly
    once, however often it was started. `keras.callbacks.CSVLogger` appends: an
    epoch that is interrupted between its row and a backup appears twice, and a
    row that a full disk has truncated runs into the next one.

    Args:
        path: Path of the file. It holds a JSON dict from epoch number, starting
            at 0, to the logs and `seconds`. Its folder must exist.

    Raises:
        keras_bar.files.DamagedFileError: If the file exists and does not hold a
            JSON object.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((32, 4)), np.zeros((32, 1))
    >>> logger = keras_bar.callbacks.HistoryLogger("history.json")
    >>> history = model.fit(x, y, epochs=2, callbacks=[logger], verbose=0)
    >>> sorted(keras_bar.reports.read_history("history.json"))
    ['loss', 'seconds']
    """

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__()
        self.path = pathlib.Path(path)
        self.rows = files.read_json(self.path)

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        row = {log: float(value) for log, value in (logs or {}).items()}
        row["seconds"] = time.perf_counter() - self._start
        self.rows[str(epoch)] = row
        files.write_json(self.path, self.rows)
