"""Backups of a training, which can be interrupted at any time."""

import io
import math
import os
import pathlib
import re
import shutil
import zlib

import keras
import numpy as np

from keras_bar import files
from keras_bar.multi_host import Hosts

PATTERN = re.compile(r"epoch-(\d+)-([0-9a-f]{8})\.npz")
# Number of states to keep, so that one is left if the last one is damaged.
KEPT = 2


class Backup(keras.callbacks.Callback):
    """Saves the state after every epoch, keeps the last two states, and resumes
    from the last valid one.

    `Backup` must be the last callback, because the changes that other callbacks
    make at the start and the end of an epoch or of the training belong to the
    state. Pass its `epoch` to `fit` as `initial_epoch`. The state holds the
    weights, the state of the gates' noise, and the optimizer; for a `Distiller`
    it holds those of the student.

    A state is one file, so that its weights and its epoch always belong
    together. The file gets its name, which contains its checksum, only after it
    is on the disk, so neither a killed process nor a full disk leaves a partial
    state. A damaged state is removed, and the previous one is used.
    `keras.callbacks.BackupAndRestore` keeps the weights and the epoch in two
    files, and `keras.callbacks.OrbaxCheckpoint` does not support a `Distiller`,
    whose teacher and student have variables of equal paths.

    Args:
        folder: Path of a folder that holds only the states; created if
            necessary.
        hosts: `keras_bar.multi_host.Hosts` if several hosts train: the chief
            writes, and chooses the state from which all of them resume.

    Attributes:
        epoch: Integer, the number of finished epochs.

    Raises:
        FloatingPointError: In `fit`, if the loss or a weight is not finite. The
            last state is then that of the previous epoch.
        OSError: In `fit`, if the disk has no room for the states, or the state
            belongs to another model.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((32, 4)), np.zeros((32, 1))
    >>> backup = keras_bar.callbacks.Backup("backup")
    >>> history = model.fit(
    ...     x,
    ...     y,
    ...     initial_epoch=backup.epoch,
    ...     epochs=3,
    ...     callbacks=[backup],
    ...     verbose=0,
    ... )
    >>> keras_bar.callbacks.Backup("backup").epoch
    3
    """

    def __init__(
        self, folder: str | os.PathLike[str], hosts: Hosts | None = None
    ):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self._hosts = hosts or Hosts()
        self._found = self._find()
        self.epoch = _parse(self._found)[0] if self._found else 0

    def on_train_begin(self, logs=None):
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self._check_space()
        if self._found:
            self._load(self._found)

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        values = [keras.ops.convert_to_numpy(x) for x in _variables(self.model)]
        # The loss does not reflect the last update of the weights.
        if not math.isfinite(loss) or not all(map(_is_finite, values)):
            kept = f"the state after {self.epoch} epochs is kept"
            raise FloatingPointError(
                "The training has diverged. Expected a finite loss and finite "
                f"weights in epoch {epoch + 1}; "
                f"{kept if self.epoch else 'no state is kept'} in "
                f"{self.folder}. Received: loss={loss}"
            )
        # A training that was stopped early is finished.
        ended = self.model.stop_training
        self.epoch = self.params["epochs"] if ended else epoch + 1
        if self._hosts.is_chief:
            self._save(values)

    def _save(self, values):
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, *values)
        path = self._path(self.epoch, zlib.crc32(content.getbuffer()))
        with files.replacing(path) as new, new.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        for old in self._states()[KEPT:]:
            old.unlink()

    def _find(self):
        """Path of the last valid state, which the chief chooses, or None."""
        path = self._choose() if self._hosts.is_chief else None
        epoch, checksum = map(
            self._hosts.from_chief, _parse(path) if path else (0, 0)
        )
        if not epoch:
            return None
        path = self._path(epoch, checksum)
        self._hosts.wait_for_file(path)
        return path

    def _choose(self):
        for path in self._states():
            if zlib.crc32(path.read_bytes()) == _parse(path)[1]:
                return path
            print(f"{path} is damaged, and removed", flush=True)
            path.unlink()
        return None

    def _path(self, epoch, checksum):
        return self.folder / f"epoch-{epoch}-{checksum:08x}.npz"

    def _load(self, path):
        variables = _variables(self.model)
        with np.load(path) as found:
            values = list(found.values())
        if [x.shape for x in values] != [tuple(x.shape) for x in variables]:
            raise OSError(
                "The state of an interrupted training belongs to another "
                f"network. Expected the {len(variables)} variables of this "
                f"one, or no such file. Received: {path} with {len(values)}"
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _check_space(self):
        """Raises an OSError if the disk has no room for the states, including
        those that exist."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = sum(math.prod(x.shape) for x in _variables(self.model))
        used = sum(x.stat().st_size for x in self.folder.glob("*"))
        # Numbers have 4 bytes. One more state exists while the next is written.
        needed = 4 * numbers * (KEPT + 1) - used
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                "There is no room for the states of the training. Expected "
                f"{needed / 2**20:.0f} MiB free in {self.folder}. "
                f"Received: {free / 2**20:.0f} MiB"
            )

    def _states(self):
        """List of the paths of the states, the last epoch first."""
        found = [x for x in self.folder.glob("*") if PATTERN.fullmatch(x.name)]
        return sorted(found, key=_parse, reverse=True)


def _parse(path):
    """The epoch and the checksum of a state, from the name of its file."""
    ((epoch, checksum),) = PATTERN.findall(path.name)
    return int(epoch), int(checksum, 16)


def _variables(model):
    """List of all variables that a training changes."""
    teacher = getattr(model, "teacher", None)
    frozen = {id(x) for x in teacher.variables} if teacher else ()
    weights = [x for x in model.variables if id(x) not in frozen]
    return weights + model.optimizer.variables


def _is_finite(values):
    return values.dtype.kind != "f" or np.isfinite(values).all()
