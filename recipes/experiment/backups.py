"""Backups of a training, so that it can be interrupted at any time."""

import math
import re
import shutil

import keras
import numpy as np

from recipes.experiment import files
from recipes.experiment import hosts

NAME = "epoch-{epoch}-{checksum}.npz"
PATTERN = re.compile(r"epoch-(\d+)-([0-9a-f]{8})\.npz")
# How many states are kept, so that there is one if the last one is broken.
KEPT = 2


class DivergedError(ArithmeticError):
    """The loss of a training is not a number any more."""


class Backup(keras.callbacks.Callback):
    """Keeps the state after each of the last two epochs, and goes on from the
    last one that is whole.

    Unlike with `keras.callbacks.BackupAndRestore` a state is one file, so that
    there is no moment in which the weights are those of one epoch and the
    number is that of another. It is no HDF5 file, for these crash the program
    where the disk is full. Its name tells its checksum, so that a damaged one
    is known before any of it is used.

    Stands behind all other callbacks: what they do when an epoch or the
    training begins or ends belongs to the state.

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
        self.epoch = _epoch(self._found) if self._found else 0

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
            self._save(self.epoch, values)

    def _save(self, epoch, values):
        self.folder.mkdir(parents=True, exist_ok=True)
        with files.temporary(self.folder / "unfinished.npz") as unfinished:
            np.savez(unfinished, *values)
            name = NAME.format(epoch=epoch, checksum=files.checksum(unfinished))
            files.put(unfinished, self.folder / name)
        for old in self._states()[KEPT:]:
            old.unlink()

    def _load(self, path):
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        variables = _variables(self.model)
        with np.load(path) as found:
            values = list(found.values())
        shapes = [tuple(x.shape) for x in variables]
        if [x.shape for x in values] != shapes:
            raise OSError(
                "The state of an interrupted training is that of another "
                f"network. Expected the {len(shapes)} variables of this "
                f"one, or no such file. Received: {path} with {len(values)}"
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _states(self):
        """The files, the last epoch's first."""
        if not self.folder.exists():
            return []
        found = [x for x in self.folder.iterdir() if PATTERN.fullmatch(x.name)]
        return sorted(found, key=_epoch, reverse=True)

    def _find(self):
        """The last state that is whole, if there is one. The chief chooses,
        and removes those that are damaged."""
        path = self._choose() if hosts.is_chief() else None
        epoch = hosts.chiefs(_epoch(path) if path else 0)
        checksum = hosts.chiefs(int(_checksum(path), 16) if path else 0)
        if not epoch:
            return None
        name = NAME.format(epoch=epoch, checksum=f"{checksum:08x}")
        hosts.see(self.folder / name)
        return self.folder / name

    def _choose(self):
        for path in self._states():
            if files.checksum(path) == _checksum(path):
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


def _epoch(path):
    return int(PATTERN.fullmatch(path.name)[1])


def _checksum(path):
    return PATTERN.fullmatch(path.name)[2]


def check_space(folder, model):
    """Raises an OSError if a disk has no room for the backups of a training.

    Args:
        folder: `pathlib.Path`, where they would be, or are already.
        model: `keras.Model` that would be trained.
    """
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
            "There is no room for the backups of the training. Expected "
            f"{needed / 2**20:.0f} MiB free in {folder}. "
            f"Received: {free / 2**20:.0f} MiB"
        )
