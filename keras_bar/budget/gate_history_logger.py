"""The history of the gates, epoch by epoch."""

import json
import os
import pathlib

import keras
import numpy as np
from keras import ops

from keras_bar import files
from keras_bar.budget import validation
from keras_bar.layers import ChannelGate

# Number of equal bins of the probabilities, from 0 to 1.
BINS = 20


class GateHistoryLogger(keras.callbacks.Callback):
    """Writes a histogram of `P(z > 0)` per gate, after every epoch.

    `keras_bar.reports.plot_gates` draws it. The file holds a JSON dict from
    epoch number, starting at 1, to a dict from gate name to the counts of its
    channels in 20 equal bins from 0 to 1. A resumed run appends.

    Args:
        path: Path of the file. Its folder must exist.

    Raises:
        ValueError: If the file cannot be written, or exists and is not a
            gate history; in `fit`, if the model has no gates.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model, seed=0)
    >>> student.compile("adam", "mse")
    >>> x, y = np.ones((32, 8, 8, 1)), np.zeros((32, 2))
    >>> logger = keras_bar.callbacks.GateHistoryLogger("gates.json")
    >>> history = student.fit(x, y, epochs=2, verbose=0, callbacks=[logger])
    >>> sum(logger.epochs["2"]["conv_gate"])  # Channels, in 20 bins.
    8
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__()
        self.path = _checked(path)
        self.epochs = files.read_json(self.path)
        if not all(x.isdecimal() for x in self.epochs):
            raise files.DamagedFileError(
                f"{self.path} is not a history of gates and cannot be "
                "continued. Expected epoch numbers as its keys, or a path "
                f"without a file. Received: {[*self.epochs][:3]}"
            )

    def set_model(self, model):
        super().set_model(model)
        gated = validation.find_gated(model)
        self._gates = [x for x in gated.layers if isinstance(x, ChannelGate)]

    def on_epoch_begin(self, epoch, logs=None):
        # Drop later epochs logged by a previous run.
        self.epochs = {x: y for x, y in self.epochs.items() if int(x) <= epoch}

    def on_epoch_end(self, epoch, logs=None):
        _ = self.model  # On JAX this brings the variables up to date.
        self.epochs[str(epoch + 1)] = {
            gate.name: _count(gate.probability()) for gate in self._gates
        }
        with files.replacing(self.path) as unfinished:
            unfinished.write_text(json.dumps(self.epochs))


def _checked(path):
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            "Invalid path of a gate history. Expected a string or a path. "
            f"Received: path={path!r}"
        )
    files.check_writable(path)
    return pathlib.Path(path)


def _count(probabilities):
    """Histogram of probabilities, list of integers."""
    values = ops.convert_to_numpy(probabilities)
    counts, _ = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    return counts.tolist()
