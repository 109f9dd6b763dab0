"""The workers of a sweep on several machines: which of them live.

KerasTuner's chief waits for a worker for as long as it takes, also for one that
is gone for good. Here workers write a sign of life into a folder that all
machines see, and the chief hands the trial of a silent one to another.
"""

import itertools
import threading
import time

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from keras_bar import files

# Seconds between two signs of life, and without one until a worker is lost:
# compiling holds Python's lock for some, network file systems are slow.
BEAT, PATIENCE = 5.0, 60.0


def start(folder, name):
    """Lets this process write signs of life until it ends."""
    folder.mkdir(parents=True, exist_ok=True)

    def beat():
        for count in itertools.count():
            with files.replacing(folder / name) as new:
                new.write_text(f"{time.time()} {count}")
            time.sleep(BEAT)

    threading.Thread(target=beat, daemon=True).start()


class Oracle(keras_tuner.oracles.RandomSearchOracle):
    """Draws, and hands the trial of a lost worker to the next one that asks.

    Args:
        folder: `pathlib.Path` of the signs of life.
        **kwargs: As KerasTuner's.
    """

    def __init__(self, folder, **kwargs):
        super().__init__(**kwargs)
        self._folder = folder
        self._seen = {}

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
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
