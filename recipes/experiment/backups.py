"""The state of a training, so that it can be interrupted at any time."""

import io
import math
import os
import re
import shutil
import zlib

import keras
import numpy as np

from keras_bar import files
from recipes.experiment import hosts
from recipes.experiment.command import RecipeError

NAME = "epoch-{}-{:08x}.npz"
PATTERN = re.compile(r"epoch-(\d+)-([0-9a-f]{8})\.npz")
# How many states are kept, so that there is one if the last one is broken.
KEPT = 2


class DivergedError(RecipeError):
    """The loss of a training is not a number any more."""


class Backup(keras.callbacks.Callback):
    """Keeps the state after each of the last two epochs, and resumes from the
    last one that is whole.

    Stands behind all other callbacks: what they do when an epoch or the
    training begins or ends belongs to the state.

    Keras's own callbacks fail the tests of this one. `OrbaxCheckpoint` (Keras
    3.15, Orbax 0.12) raises a ValueError for a distiller, whose teacher and
    student have variables of the same path; loading its checkpoint gave other
    weights, a flipped bit was read without an error, and a cut file raised one
    instead of leading to the checkpoint before. `BackupAndRestore` keeps the
    weights and the number of the epoch in two files, and writes HDF5, which
    crashes the program where the disk is full.

    Args:
        folder: `pathlib.Path` of a folder for nothing else.

    Attributes:
        epoch: Integer, the number of epochs that are done: the
            `initial_epoch` of `fit`.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self._found = self._find()
        self.epoch = _parse(self._found)[0] if self._found else 0

    def on_train_begin(self, logs=None):
        if self._found:
            self._load(self._found)

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        values = [keras.ops.convert_to_numpy(x) for x in _variables(self.model)]
        # The loss does not know of the last update.
        if not math.isfinite(loss) or not all(map(_is_finite, values)):
            kept = f"the state after {self.epoch} epochs is kept"
            raise DivergedError(
                f"The training has diverged. Expected a finite loss and finite "
                f"weights in epoch {epoch + 1}; "
                f"{kept if self.epoch else 'no state is kept'} in "
                f"{self.folder}. Received: loss={loss}"
            )
        # One that stops early is done.
        ended = self.model.stop_training
        self.epoch = self.params["epochs"] if ended else epoch + 1
        if hosts.is_chief():
            self._save(values)

    def _save(self, values):
        """One file, so that there is no moment in which the weights are those
        of one epoch and the number is that of another. Its name has its
        checksum, so that a damaged one is known before any of it is used."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, *values)
        name = NAME.format(self.epoch, zlib.crc32(content.getbuffer()))
        with files.replacing(self.folder / name) as new, new.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        for old in self._states()[KEPT:]:
            old.unlink()

    def _load(self, path):
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        variables = _variables(self.model)
        with np.load(path) as found:
            values = list(found.values())
        if [x.shape for x in values] != [tuple(x.shape) for x in variables]:
            raise OSError(
                "The state of an interrupted training is that of another "
                f"network. Expected the {len(variables)} variables of this "
                f"one, or no such file. Received: {path} with {len(values)}"
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _states(self):
        """The files, the last epoch's first."""
        found = [x for x in self.folder.glob("*") if PATTERN.fullmatch(x.name)]
        return sorted(found, key=_parse, reverse=True)

    def _find(self):
        """The last state that is whole, if there is one. The chief chooses,
        and removes those that are damaged."""
        path = self._choose() if hosts.is_chief() else None
        epoch, checksum = map(hosts.chiefs, _parse(path) if path else (0, 0))
        if not epoch:
            return None
        path = self.folder / NAME.format(epoch, checksum)
        hosts.wait_for_file(path)
        return path

    def _choose(self):
        for path in self._states():
            if zlib.crc32(path.read_bytes()) == _parse(path)[1]:
                return path
            print(f"{path} is damaged, and removed", flush=True)
            path.unlink()
        return None


def _variables(model):
    """All that a training changes."""
    teacher = getattr(model, "teacher", None)
    frozen = {id(x) for x in teacher.variables} if teacher else ()
    weights = [x for x in model.variables if id(x) not in frozen]
    return weights + model.optimizer.variables


def _is_finite(values):
    return values.dtype.kind != "f" or np.isfinite(values).all()


def _parse(path):
    """The epoch of a state, and its checksum."""
    epoch, checksum = PATTERN.fullmatch(path.name).groups()
    return int(epoch), int(checksum, 16)


def check_space(folder, model):
    """Raises an OSError if a disk has no room for the states of a model's
    training in a folder, beside those that are there."""
    sizes = [4 * math.prod(x.shape) for x in model.variables]
    # Adam keeps two more of what it trains.
    adam = [8 * math.prod(x.shape) for x in model.trainable_variables]
    there = sum(x.stat().st_size for x in folder.glob("*"))
    # One more state while the next is written.
    needed = (sum(sizes) + sum(adam)) * (KEPT + 1) - there
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            "There is no room for the states of the training. Expected "
            f"{needed / 2**20:.0f} MiB free in {folder}. "
            f"Received: {free / 2**20:.0f} MiB"
        )
