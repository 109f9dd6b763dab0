"""Training in parts that can be interrupted at any time.

A finished part leaves its network in a file. Within a part a `Backup` keeps the
state of the last epochs. On several hosts the chief writes, and all read.
"""

import importlib.util
import json
import shutil
import tempfile
import time

import keras

from keras_bar import files
from keras_bar.files import read_json
from recipes.experiment import devices
from recipes.experiment import hosts
from recipes.experiment.backups import Backup
from recipes.experiment.backups import DivergedError
from recipes.experiment.backups import check_space
from recipes.experiment.command import RecipeError
from recipes.results import logs

SHOWN = [
    "accuracy",
    "val_accuracy",
    "loss",
    "budget",
    "volume",
    "flops",
    "params",
]


class OtherRunError(RecipeError, ValueError):
    """A folder holds a run with other settings."""


class Run:
    """A folder, and what has been done in it.

    Args:
        folder: `pathlib.Path` of the folder.
        settings: Dict that tells one run from another, writable as JSON.

    Raises:
        OtherRunError: If the folder holds a run with other settings.
        OSError: If the folder cannot be written to.
    """

    def __init__(self, folder, settings):
        self.folder = folder
        self._scratch = folder / "unfinished"
        self._parts = set()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        found = self.agree("settings.json", settings)
        if found != settings:
            raise OtherRunError(
                f"{folder} holds a run with other settings. Expected the "
                f"settings {found}, or another --output. Received: {settings}"
            )

    def agree(self, name, value):
        """What a JSON file holds, where it is missing after it was written."""
        return hosts.agree(self.folder / name, value)

    def write(self, name, value):
        """Writes a JSON file."""
        hosts.write(self.folder / name, value)

    def report(self):
        """What `finish` wrote, or None where the run is not finished."""
        return read_json(self.folder / "report.json") or None

    def is_done(self):
        """Whether the run is finished."""
        return bool(hosts.chiefs(self.report() is not None))

    def once(self, name, make):
        """The network of a part: loaded if it is finished, or else made."""
        path = self.path(name)
        if hosts.chiefs(path.exists()):
            hosts.wait_for_file(path)
            print(f"{name}: done before, in {path}", flush=True)
            return keras.models.load_model(path, compile=False)
        model = self.save(name, make())
        # Their states only served to resume; others may be at work here.
        for part in self._parts if hosts.is_chief() else ():
            shutil.rmtree(self._scratch / part, ignore_errors=True)
        return model

    def done(self, prefix):
        """What the names of finished parts have behind a prefix."""
        names = [x.stem for x in self.folder.glob(f"{prefix}*.keras")]
        return sorted(x.removeprefix(prefix) for x in names)

    def save(self, name, model):
        """Writes a network that is never seen half written, and returns it as
        it would be loaded."""
        path = self.path(name)
        self._scratch.mkdir(exist_ok=True)
        # All hosts save, because Keras makes a variable when it first saves
        # an optimizer, which they must do together.
        unfinished = self._scratch / f"{name}{hosts.index()}.keras"
        try:
            model.save(unfinished)
            if hosts.is_chief():
                unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        hosts.wait_for_file(path)
        if devices.replicated():
            return keras.models.load_model(path, compile=False)
        return model

    def path(self, name):
        """Where the network of a part is, or will be."""
        return self.folder / f"{name}.keras"

    def fit(self, name, model, batches, epochs, callbacks=(), validation=None):
        """Trains, with a progress bar, from where it was interrupted.

        Args:
            name: String, the part. Its logs are kept under this name.
            model: Compiled `keras.Model`.
            batches: `keras.utils.PyDataset`, or holder of a `dataset` that
                `fit` takes, with an attribute `epoch`.
            epochs: Integer.
            callbacks: Callbacks that add to the logs.
            validation: What `fit` validates on, or None.
        """
        self._parts.add(name)
        check_space(self._scratch / name, model)
        backup = Backup(self._scratch / name)
        callbacks = [*callbacks, Progress(name, batches)]
        if hosts.is_chief():
            callbacks.append(EpochLog(self.folder / f"{name}.json"))
        # What TensorBoard does is no part of the state.
        callbacks += [backup, *self._tensorboard(name)]
        try:
            model.fit(
                getattr(batches, "dataset", batches),
                initial_epoch=backup.epoch,
                epochs=epochs,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
                validation_data=validation,
            )
        except FloatingPointError as error:  # A regularizer saw it first.
            raise DivergedError(
                f"The training has diverged. {error}"
            ) from error

    def _tensorboard(self, name):
        """Writes the same logs for TensorBoard, where it is installed."""
        needed = ("tensorboard", "tensorflow")
        if not all(map(importlib.util.find_spec, needed)):
            return []
        # It makes a variable, which all hosts must do together.
        root = self.folder if hosts.is_chief() else self._scratch
        folder = root / "tensorboard" / name
        return [keras.callbacks.TensorBoard(folder, write_graph=False)]

    def history(self, name):
        """Dict from log to its values in a part, one per epoch."""
        return logs.read_history(self.folder / f"{name}.json")

    def finish(self, report):
        """Writes the report, and removes what only served to resume."""
        self.write("report.json", report)
        if hosts.is_chief():
            shutil.rmtree(self._scratch, ignore_errors=True)


class Progress(keras.callbacks.Callback):
    """Shows a bar, and sets the epoch of the batches."""

    def __init__(self, name, batches):
        super().__init__()
        self.name, self.batches = name, batches
        self.bar = None

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch
        if self.bar is None:
            resumed = f", resumed after epoch {epoch}" if epoch else ""
            print(f"{self.name}{resumed}", flush=True)
            self.bar = keras.utils.Progbar(
                self.params["epochs"], stateful_metrics=SHOWN, unit_name="epoch"
            )
            self.bar.update(epoch)  # Compiling takes its time, too.

    def on_epoch_end(self, epoch, logs=None):
        row = {x: float(logs[x]) for x in SHOWN if x in logs}
        self.bar.update(epoch + 1, list(row.items()))


class EpochLog(keras.callbacks.Callback):
    """Writes down the logs of every epoch, and how long it took.

    `keras.callbacks.CSVLogger` appends: after a kill between its row and the
    state an epoch is there twice, and a row that a full disk has cut runs into
    the next one. This file is replaced as a whole.
    """

    def __init__(self, path):
        super().__init__()
        self.path, self.rows = path, read_json(path)

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        row = {log: float(value) for log, value in logs.items()}
        row["seconds"] = time.perf_counter() - self.start
        self.rows[str(epoch)] = row
        with files.replacing(self.path) as new:
            new.write_text(json.dumps(self.rows), encoding="utf-8")
