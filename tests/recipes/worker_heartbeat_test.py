"""A sweep of several processes, of which one is lost.

This file runs itself as a script.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

keras_tuner = pytest.importorskip("keras_tuner")

from keras_bar import tuning  # noqa: E402
from keras_bar.tuning import heartbeats  # noqa: E402
from recipes.experiment import command  # noqa: E402
from recipes.experiment import sweep  # noqa: E402
from tests.recipes import fashion  # noqa: E402
from tests.recipes import loopback  # noqa: E402
from tests.recipes import sweeps  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
FACTORS = ("--factors", "2", "4")


class Clock:
    """Stands in for the time."""

    now = 0.0

    def monotonic(self):
        return self.now


def test_a_silent_worker_loses_its_trial(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(heartbeats, "time", clock)
    oracle = tuning.HeartbeatOracle(
        tmp_path / "workers", objective=sweep.OBJECTIVE, max_trials=2
    )
    drawn = keras_tuner.HyperParameters()
    tuning.draw(drawn)
    oracle.update_space(drawn)
    oracle._set_project_dir(tmp_path, "search")
    signs = tmp_path / "workers"
    signs.mkdir()

    def ask(name, now):
        clock.now = now
        (signs / name).write_text(str(now))
        return oracle.create_trial(name)

    first, second = ask("tuner0", 0), ask("tuner1", 0)
    oracle.end_trial(ended(first))
    # Nothing is left to do, but tuner1 may be lost yet.
    assert ask("tuner0", 1).status == "IDLE"
    assert ask("tuner0", heartbeats.PATIENCE).status == "IDLE"
    again = ask("tuner0", 2 + heartbeats.PATIENCE)
    assert again.trial_id == second.trial_id
    assert again.hyperparameters.values == second.hyperparameters.values
    # It was only slow, and comes back.
    assert ask("tuner1", 3 + heartbeats.PATIENCE).status == "IDLE"
    oracle.end_trial(ended(again))
    assert ask("tuner0", 4 + heartbeats.PATIENCE).status == "STOPPED"
    assert ask("tuner1", 4 + heartbeats.PATIENCE).status == "STOPPED"
    assert not oracle.ongoing_trials and not oracle.tuner_ids


def ended(trial):
    """The trial as its worker gives it back."""
    trial.metrics.register("accuracy", "max")
    trial.metrics.update("accuracy", 0.5)
    trial.status = "COMPLETED"
    return trial


class Sweep:
    """A chief and workers of one sweep, each a process."""

    def __init__(self, pictures, folder):
        self.arguments = [str(pictures), str(folder)]
        (self.port,) = loopback.free_ports(1)
        self.logs = folder.parent
        self.processes: dict = {}

    def start(self, name):
        with (self.logs / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, __file__, *self.arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "KERASTUNER_TUNER_ID": name,
                    "KERASTUNER_ORACLE_IP": "127.0.0.1",
                    "KERASTUNER_ORACLE_PORT": str(self.port),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()


def is_pruning(folder, worker):
    """Whether a worker has done an epoch of the trial that it has got."""
    path = folder / "search" / "oracle.json"
    try:
        trial = json.loads(path.read_text())["ongoing_trials"][worker]
    except (OSError, ValueError, KeyError):  # Not there, or being written.
        return False
    turn, place = divmod(int(trial), 2)
    cell = f"vgg-teacher-trial{turn}-volume-{(2, 4)[place]}-seed0"
    return any((folder / cell / "unfinished" / "prune").glob("*.npz"))


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    sweeps.run(pictures, folder, *FACTORS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_worker_that_is_killed(finished, pictures, tmp_path, comes_back):
    """The sweep ends complete, and with the same networks, with that worker
    or without it."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    sweeps.lend_teacher(finished, folder)
    with Sweep(pictures, folder) as processes:
        for name in ("chief", "tuner0", "tuner1"):
            processes.start(name)
        loopback.wait_for(lambda: is_pruning(folder, "tuner1"))
        victim = processes.processes.pop("tuner1")
        victim.kill()
        victim.wait()
        if comes_back:
            processes.start("tuner1")
        for name, process in processes.processes.items():
            log = tmp_path / f"{name}.log"
            assert process.wait(300) == 0, log.read_text()[-5000:]
    told = "tuner1 is silent" in (tmp_path / "chief.log").read_text()
    assert told == (not comes_back)
    sweeps.assert_same(folder, finished)


def main():
    pictures, folder = sys.argv[1:]
    heartbeats.BEAT, heartbeats.PATIENCE = 1.0, 30.0
    with fashion.narrow():
        command.run(lambda: sweeps.run(pictures, folder, *FACTORS))


if __name__ == "__main__":
    main()
