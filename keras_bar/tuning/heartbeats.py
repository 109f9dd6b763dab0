"""Heartbeats of the workers of a sweep on several machines."""

import contextlib
import itertools
import os
import pathlib
import threading
import time

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from keras_bar import files

# Seconds between heartbeats, and seconds without one after which a worker is
# lost. Compiling holds Python's lock for a while, and network file systems are
# slow.
BEAT, PATIENCE = 5.0, 60.0


def start_heartbeat(folder: str | os.PathLike[str], name: str) -> None:
    """Lets a worker of a sweep write heartbeats until its process ends.

    Args:
        folder: Path of the folder that a `HeartbeatOracle` watches, on a file
            system that all machines share; created if necessary.
        name: String, the name of the worker, as in `KERASTUNER_TUNER_ID`.

    Example:

    >>> from keras_bar import tuning
    >>> tuning.start_heartbeat("workers", "tuner0")
    """
    folder = pathlib.Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)

    def beat():
        for count in itertools.count():
            # A temporary failure of the file system must not end the beats.
            with contextlib.suppress(OSError):
                files.write_text(folder / name, f"{time.time()} {count}")
            time.sleep(BEAT)

    threading.Thread(target=beat, daemon=True).start()


def wait_for_chief(path: str | os.PathLike[str]) -> None:
    """Lets a worker of a sweep wait for a file that the chief writes.

    The chief may have to prepare data, or train the full network, before it
    hands out trials. A line is printed every minute.

    Args:
        path: Path of the file, on a file system that all machines share.

    Example:

    >>> from keras_bar import tuning
    >>> np.savez("images.npz", np.zeros((3, 8, 8)))
    >>> tuning.wait_for_chief("images.npz")
    """
    for seconds in itertools.count():
        if pathlib.Path(path).exists():
            return
        if seconds % 60 == 0:
            waited = f"for {seconds // 60} minutes now"
            print(
                f"waiting for the chief to write {path}, {waited}", flush=True
            )
        time.sleep(1)


class HeartbeatOracle(keras_tuner.oracles.RandomSearchOracle):
    """Draws at random, and hands the trial of a lost worker to another one.

    KerasTuner's chief waits for a lost worker without a limit. This oracle
    gives up a worker after a minute without a heartbeat, and the next worker
    that asks for a trial gets the lost one.

    Args:
        folder: Path of the folder of the heartbeats, on a file system that all
            machines share; see `start_heartbeat`.
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
        """Returns a new trial for a worker, or one that a worker lost."""
        for name in self.tuner_ids - {tuner_id}:
            if self._is_lost(name):
                self._give_up(name)
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
            # An ongoing trial may still be lost, so the worker asks again.
            trial.status = TrialStatus.IDLE
            self.tuner_ids.add(tuner_id)
        return trial

    def _is_lost(self, name):
        """Whether a worker has been silent for too long, by this machine's
        clock."""
        path = self._folder / name
        beat = path.read_text() if path.exists() else None
        now = time.monotonic()
        before, since = self._seen.get(name, (None, now))
        if name not in self._seen or beat != before:
            self._seen[name] = beat, now
            return False
        return now - since > PATIENCE

    def _give_up(self, name):
        self.tuner_ids.remove(name)
        trial = self.ongoing_trials.pop(name, None)
        if trial:
            print(f"{name} is silent: another worker resumes its trial")
            self._retry_queue.append(trial.trial_id)
