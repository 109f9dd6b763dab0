"""The workers of a sweep on several machines: which of them live."""

import contextlib
import itertools
import os
import pathlib
import threading
import time

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from keras_bar import files

# Seconds between two signs of life, and without one until a worker is lost:
# compiling holds Python's lock for some, network file systems are slow.
BEAT, PATIENCE = 5.0, 60.0


def start_heartbeat(folder: str | os.PathLike[str], name: str) -> None:
    """Lets a worker of a sweep write signs of life until its process ends.

    Args:
        folder: Path of the folder that a `HeartbeatOracle` watches, in a file
            system that all machines share. It is made when needed.
        name: String, the worker's, as in `KERASTUNER_TUNER_ID`.

    Example:

    >>> from keras_bar import tuning
    >>> tuning.start_heartbeat("workers", "tuner0")
    """
    folder = pathlib.Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)

    def beat():
        for count in itertools.count():
            # A file system that fails for a moment must not end the signs.
            with contextlib.suppress(OSError):
                files.write_text(folder / name, f"{time.time()} {count}")
            time.sleep(BEAT)

    threading.Thread(target=beat, daemon=True).start()


class HeartbeatOracle(keras_tuner.oracles.RandomSearchOracle):
    """Draws at random, and hands the trial of a lost worker to another one.

    KerasTuner's chief waits for a worker for as long as it takes, also for one
    that is gone for good. This one gives up a worker without a sign of life for
    a minute, and the next one that asks gets its trial.

    Args:
        folder: Path of the folder of the signs of life, in a file system that
            all machines share; see `start_heartbeat`.
        **kwargs: Arguments of `keras_tuner.oracles.RandomSearchOracle`.

    Example:

    >>> import keras_tuner
    >>> from keras_bar import tuning
    >>> oracle = tuning.HeartbeatOracle(
    ...     "workers",
    ...     objective=keras_tuner.Objective("val_loss", "min"),
    ...     max_trials=10,
    ... )
    """

    def __init__(self, folder: str | os.PathLike[str], **kwargs):
        super().__init__(**kwargs)
        self._folder = pathlib.Path(folder)
        self._seen: dict = {}

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        """Creates a trial for a worker that asks, or repeats a lost one."""
        for name in self.tuner_ids - {tuner_id}:
            if self._is_lost(name):
                self._give_up(name)
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
            # One of those may be lost yet: ask again.
            trial.status = TrialStatus.IDLE
            self.tuner_ids.add(tuner_id)
        return trial

    def _is_lost(self, name):
        """Whether a worker is silent for too long, by this machine's clock."""
        path = self._folder / name
        sign = path.read_text() if path.exists() else None
        now = time.monotonic()
        before, since = self._seen.get(name, (None, now))
        if name not in self._seen or sign != before:
            self._seen[name] = sign, now
            return False
        return now - since > PATIENCE

    def _give_up(self, name):
        self.tuner_ids.remove(name)
        trial = self.ongoing_trials.pop(name, None)
        if trial:
            print(f"{name} is silent: another one resumes its trial")
            self._retry_queue.append(trial.trial_id)
