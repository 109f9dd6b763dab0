"""Training in parts that can be interrupted at any time.

A finished part leaves its network in a file. Within a part a `Backup` keeps the
state of the last epochs. On several hosts the chief writes, and all read.
"""

import importlib.util
import shutil
import tempfile

import keras

from keras_bar import files
from keras_bar import reports
from keras_bar.callbacks import Backup
from keras_bar.callbacks import HistoryLogger
from keras_bar.costs import METRICS
from recipes.experiment import hosts

# Logs beside the bar, where there are any.
SHOWN = ("accuracy", "val_accuracy", "loss", "budget", *METRICS)


class OtherRunError(ValueError):
    """A folder holds a run with other settings."""


class Run:
    """A folder, and what has been done in it by a run with these settings, a
    dict that can be written as JSON."""

    def __init__(self, folder, settings):
        self.folder, self.hosts = folder, hosts.current()
        self._scratch = folder / "unfinished"
        self._parts = set()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        found = self.hosts.agree(folder / "settings.json", settings)
        if found != settings:
            raise OtherRunError(
                f"{folder} holds a run with other settings. Expected the "
                f"settings {found}, or another --output. Received: {settings}"
            )

    def report(self):
        """What `finish` wrote, or None where the run is not finished."""
        return files.read_json(self.folder / "report.json") or None

    def is_done(self):
        """Whether the run is finished."""
        return bool(self.hosts.from_chief(self.report() is not None))

    def finish(self, report):
        """Writes the report, and removes what only served to resume."""
        self.hosts.write_json(self.folder / "report.json", report)
        if self.hosts.is_chief:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def path(self, name):
        """Where the network of a part is, or will be."""
        return self.folder / f"{name}.keras"

    def history(self, name):
        """Dict from log to its values in a part, one per epoch."""
        return reports.read_history(self.folder / f"{name}.json")

    def once(self, name, make):
        """The network of a part: loaded if it is finished, or else made."""
        path = self.path(name)
        if self.hosts.from_chief(path.exists()):
            self.hosts.wait_for_file(path)
            print(f"{name}: done before, in {path}", flush=True)
            return keras.models.load_model(path, compile=False)
        model = self.save(name, make())
        # Their states only served to resume; others may be at work here.
        for part in self._parts if self.hosts.is_chief else ():
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
        unfinished = self._scratch / f"{name}{self.hosts.index}.keras"
        try:
            model.save(unfinished)
            if self.hosts.is_chief:
                unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        self.hosts.wait_for_file(path)
        # An interrupted run would go on with this. It lacks what a training
        # leaves, and on several devices has the statistics of the first one.
        return keras.models.load_model(path, compile=False)

    def fit(self, name, model, batches, epochs, callbacks=(), validation=None):
        """Trains a part, with a progress bar, from where it was interrupted.
        `batches` is a `PyDataset`, or holds a `dataset` that `fit` takes, and
        has an attribute `epoch`."""
        self._parts.add(name)
        backup = Backup(self._scratch / name, self.hosts)
        callbacks = [*callbacks, Progress(name, batches)]
        if self.hosts.is_chief:
            callbacks.append(HistoryLogger(self.folder / f"{name}.json"))
        callbacks.append(backup)
        # What TensorBoard does is no part of the state.
        needed = ("tensorboard", "tensorflow")
        if all(map(importlib.util.find_spec, needed)):
            # It makes a variable, which all hosts must do together.
            root = self.folder if self.hosts.is_chief else self._scratch
            logs = root / "tensorboard" / name
            callbacks.append(
                keras.callbacks.TensorBoard(logs, write_graph=False)
            )
        model.fit(
            getattr(batches, "dataset", batches),
            initial_epoch=backup.epoch,
            epochs=epochs,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
            validation_data=validation,
        )


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
