"""Trainings of several parts that can be interrupted at any time."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras

from keras_bar import files
from keras_bar import reports
from keras_bar.callbacks import Backup
from keras_bar.callbacks import HistoryLogger
from keras_bar.costs import METRICS
from keras_bar.multi_host import Hosts
from keras_bar.multi_host import current

__all__ = ["OtherRunError", "Run", "lock"]

# Logs beside the bar, where there are any.
SHOWN = ("accuracy", "val_accuracy", "loss", "budget", *METRICS)


class OtherRunError(ValueError):
    """A folder holds a run with other settings.

    Example:

    >>> from keras_bar import runs
    >>> run = runs.Run("run", {"seed": 0})
    >>> try:
    ...     runs.Run("run", {"seed": 1})
    ... except runs.OtherRunError:
    ...     print("another run")
    another run
    """


class Run:
    """A folder, and what has been done in it by a run with some settings.

    A run has parts, such as training a teacher, pruning and fine-tuning. A
    finished part leaves its model in a file, and is not repeated. Within a part
    a `keras_bar.callbacks.Backup` keeps the state of the last epochs. After an
    interruption, start the same program again: it resumes.

    On several hosts the chief writes, and all hosts read.

    Args:
        folder: Path of the folder. Created if necessary.
        settings: Dict that JSON can hold, of all that distinguishes this run
            from others. Stored in `settings.json`.
        hosts: `keras_bar.multi_host.Hosts` that train. Defaults to those of
            `keras_bar.multi_host.current`.

    Attributes:
        folder: `pathlib.Path` of the folder.
        hosts: The hosts.

    Raises:
        OtherRunError: If the folder holds a run with other settings.
        OSError: If the folder cannot be written to.

    Example:

    >>> from keras_bar import runs
    >>> run = runs.Run("run", {"seed": 0})
    >>> def train():
    ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    ...     model.compile("adam", "mse")
    ...     x, y = np.ones((32, 4)), np.zeros((32, 1))
    ...     run.fit("teacher", model, x, y=y, epochs=2)
    ...     return model
    >>> teacher = run.once("teacher", train)
    teacher
    ...
    >>> run.finish({"loss": run.history("teacher")["loss"][-1]})
    >>> runs.Run("run", {"seed": 0}).is_done()
    True
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: dict[str, Any],
        hosts: Hosts | None = None,
    ):
        self.folder, self.hosts = pathlib.Path(folder), hosts or current()
        self._scratch = self.folder / "unfinished"
        self._parts: set[str] = set()
        self.folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.folder).close()
        found = self.hosts.agree(self.folder / "settings.json", settings)
        if found != settings:
            raise OtherRunError(
                f"{folder} holds a run with other settings. Expected the "
                f"settings {found}, or another folder. Received: {settings}"
            )

    def report(self) -> dict[str, Any] | None:
        """Returns the report of `finish`, or None if the run is unfinished."""
        return files.read_json(self.folder / "report.json") or None

    def is_done(self) -> bool:
        """Returns whether the run is finished."""
        return bool(self.hosts.from_chief(self.report() is not None))

    def finish(self, report: dict[str, Any]) -> None:
        """Writes the report, and removes the states of interrupted parts."""
        self.hosts.write_json(self.folder / "report.json", report)
        if self.hosts.is_chief:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def path(self, name: str) -> pathlib.Path:
        """Returns the path of the model of a part, which may not exist yet."""
        return self.folder / f"{name}.keras"

    def history(self, name: str) -> dict[str, list[float]]:
        """Returns a dict from log to its values in a part, one per epoch."""
        return reports.read_history(self.folder / f"{name}.json")

    def once(self, name: str, make: Callable[[], keras.Model]) -> keras.Model:
        """Returns the model of a part: loaded if it is finished, otherwise made
        and saved."""
        path = self.path(name)
        if self.hosts.from_chief(path.exists()):
            self.hosts.wait_for_file(path)
            print(f"{name}: done before, in {path}", flush=True)
            return keras.models.load_model(path, compile=False)
        model = self.save(name, make())
        # Only the states of this process: other ones may work in the folder.
        for part in self._parts if self.hosts.is_chief else ():
            shutil.rmtree(self._scratch / part, ignore_errors=True)
        return model

    def done(self, prefix: str) -> list[str]:
        """Returns the names of finished parts with a prefix, without it."""
        names = [x.stem for x in self.folder.glob(f"{prefix}*.keras")]
        return sorted(x.removeprefix(prefix) for x in names)

    def save(self, name: str, model: keras.Model) -> keras.Model:
        """Saves a model atomically, and returns it as it is loaded."""
        path = self.path(name)
        self._scratch.mkdir(exist_ok=True)
        # All hosts save: Keras creates a variable when it first saves an
        # optimizer, which they must do together.
        unfinished = self._scratch / f"{name}{self.hosts.index}.keras"
        try:
            model.save(unfinished)
            if self.hosts.is_chief:
                unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        self.hosts.wait_for_file(path)
        # A resumed run would continue with the loaded model. It lacks what a
        # training leaves, and has the statistics of the first device.
        return keras.models.load_model(path, compile=False)

    def fit(
        self,
        name: str,
        model: keras.Model,
        x: Any,
        epochs: int,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        **kwargs,
    ) -> None:
        """Trains a part, with a progress bar, from where it was interrupted.

        A resumed training equals an uninterrupted one if the data depends only
        on the epoch, as the batches of `keras_bar.in_memory.InMemoryData` and
        `keras_bar.datasets.Stream` do.

        Args:
            name: String, the name of the part. Its logs are written to
                `<name>.json`.
            model: Compiled model.
            x: The argument `x` of `fit`.
            epochs: Integer, the number of epochs of the part.
            callbacks: Further callbacks, whose own state is not kept.
            **kwargs: Further arguments of `fit`.
        """
        self._parts.add(name)
        backup = Backup(self._scratch / name, self.hosts)
        callbacks = [*callbacks, Progress(name)]
        if self.hosts.is_chief:
            callbacks.append(HistoryLogger(self.folder / f"{name}.json"))
        model.fit(
            x,
            initial_epoch=backup.epoch,
            epochs=epochs,
            callbacks=[*callbacks, backup],
            verbose=0,
            **kwargs,
        )


class Progress(keras.callbacks.Callback):
    """Shows a bar whose unit is an epoch."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.bar: Any = None

    def on_epoch_begin(self, epoch, logs=None):
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


@contextlib.contextmanager
def lock(folder: str | os.PathLike[str], role: str = "") -> Iterator[None]:
    """Context in which this process alone works in a folder.

    Hosts, and the workers of a sweep, share a folder on purpose; two processes
    of one role do not. The kernel releases the lock of a process that ends,
    however it ends. Needs a POSIX system.

    Args:
        folder: Path of the folder. Created if necessary.
        role: String, the role of this process. Defaults to one per host.

    Raises:
        BlockingIOError: If another process of the role is at work in the
            folder, with the number of the process and its machine.

    Example:

    >>> from keras_bar import runs
    >>> with runs.lock("run"):
    ...     run = runs.Run("run", {"seed": 0})
    """
    import fcntl

    folder = pathlib.Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".lock-{role or f'host{current().index}'}"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise BlockingIOError(
                f"Another process is at work in {folder}. Expected that it has "
                "ended, or another folder. Received: the process "
                f"{file.read().strip() or 'unknown'}"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {os.uname().nodename}")
        file.flush()
        try:
            yield
        finally:
            # A process that fails before it writes leaves nothing behind.
            if list(folder.iterdir()) == [path]:
                path.unlink()
                if is_new:
                    folder.rmdir()
