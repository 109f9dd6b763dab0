"""The sweep over BAR's hyperparameters, in one process and in three.

For the latter this file runs itself as a script.
"""

import csv
import dataclasses
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import pytest

keras_tuner = pytest.importorskip("keras_tuner")

from keras_bar import tuning  # noqa: E402
from recipes import command  # noqa: E402
from recipes import resuming  # noqa: E402
from recipes import sensitivity  # noqa: E402
from recipes import trials  # noqa: E402
from recipes import workers  # noqa: E402
from tests import fashion  # noqa: E402
from tests import loopback  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]
TRIALS = 2


def run(pictures, folder, *arguments):
    sensitivity.main(
        ["--data", str(pictures), "--output", str(folder)]
        + ["--pictures", "256", "--scale", "0.1", "--trials", str(TRIALS)]
        + ["--factors", "2", "4", "--network", "vgg"]
        + list(arguments)
    )


def lend_teacher(source, folder):
    """Copies the full network from one run's folder to another."""
    name = "vgg-scratch-teacher-volume-1-seed0"
    shutil.copytree(source / name, folder / name)


def table(path):
    with path.open(newline="") as file:
        return [
            {x: float(y) for x, y in row.items()}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sensitivity")
    run(pictures, folder)
    return folder


def test_every_trial_is_a_row(finished):
    rows = table(finished / "trials.csv")
    places = [(row["factor"], row["trial"]) for row in rows]
    assert places == [(2, 0), (2, 1), (4, 0), (4, 1)]
    for name, interval in tuning.INTERVALS.items():
        drawn = [row[name] for row in rows]
        assert len(set(drawn)) == len(rows)
        assert all(interval.least <= x <= interval.greatest for x in drawn)
    for row in rows:
        assert 0.9 / row["factor"] < row["volume"] <= 1 / row["factor"]


def test_what_was_drawn_reaches_the_training(
    finished, pictures, tmp_path, monkeypatch
):
    """The last trial's values, when it is run again."""
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "search")
    (path,) = folder.glob("*-trial1-volume-4-seed0/report.json")
    drawn = json.loads(path.read_text())["drawn"]
    assert set(drawn) == set(tuning.INTERVALS)
    path.unlink()
    seen = {}

    def stop(work, teacher, **settings):
        tuned = work.manner.tuned
        seen.update(settings, **{x: getattr(tuned, x) for x in trials.TUNED})
        raise KeyboardInterrupt

    monkeypatch.setattr(trials.methods, "bar", stop)
    with pytest.raises(KeyboardInterrupt):
        run(pictures, folder)
    assert seen == pytest.approx(drawn)


def test_mean_and_deviation(finished):
    rows = table(finished / "trials.csv")
    summary = table(finished / "sensitivity.csv")
    assert [row["factor"] for row in summary] == [2, 4]
    for row in summary:
        found = [x["accuracy"] for x in rows if x["factor"] == row["factor"]]
        assert row["accuracy"] == pytest.approx(statistics.mean(found))
        deviation = statistics.stdev(found)
        assert row["standard_deviation"] == pytest.approx(deviation)
    text = (finished / "sensitivity.md").read_text()
    # The supplement's numbers for CIFAR-10.
    assert "| 92.71 | 0.19 |" in text and "| 92.76 | 0.17 |" in text
    for ending in ("png", "svg"):
        assert (finished / f"sensitivity.{ending}").stat().st_size > 0


def test_what_is_done_is_not_done_again(finished, pictures, monkeypatch):
    monkeypatch.setattr(trials.methods, "bar", None)
    before = (finished / "trials.csv").read_text()
    run(pictures, finished)
    assert (finished / "trials.csv").read_text() == before


def losses(folder):
    """The last loss of every part of every trial: few pictures are too few for
    accuracies to differ."""
    found = {}
    for path in folder.glob("*trial*/*.json"):
        if path.stem in ("prune", "finetune"):
            *_, last = json.loads(path.read_text()).values()
            found[path.parent.name, path.stem] = last["loss"]
    return found


@pytest.mark.slow
def test_interrupted_equals_uninterrupted(finished, pictures, tmp_path):
    lend_teacher(finished, tmp_path)
    patch = pytest.MonkeyPatch()
    begin = resuming.Progress.on_epoch_begin

    prunings = []

    def stop(self, epoch, logs=None):
        if self.name == "prune" and epoch == 1:
            prunings.append(epoch)
            if len(prunings) == 2:
                raise KeyboardInterrupt
        begin(self, epoch, logs)

    patch.setattr(resuming.Progress, "on_epoch_begin", stop)
    with pytest.raises(KeyboardInterrupt):
        run(pictures, tmp_path)
    patch.undo()
    run(pictures, tmp_path)
    assert_same(tmp_path, finished)


def assert_same(folder, finished):
    """That two sweeps have drawn, trained and found the same."""
    assert table(folder / "trials.csv") == [
        pytest.approx(row) for row in table(finished / "trials.csv")
    ]
    expected = losses(finished)
    assert len(expected) == 8
    assert len(set(expected.values())) == 8
    assert losses(folder) == pytest.approx(expected, rel=1e-4)


def test_another_sweep_needs_another_folder(finished, pictures, capsys):
    others = ["--seed", "1"], ["--factors", "2"], ["--metric", "flops"]
    for arguments in others:
        with pytest.raises(SystemExit):
            run(pictures, finished, *arguments)
        assert "other settings" in capsys.readouterr().err


def test_errors_of_a_trial_stop_the_sweep(
    finished, pictures, tmp_path, monkeypatch
):
    """They are not taken for bad hyperparameters."""
    lend_teacher(finished, tmp_path)

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(trials.methods, "bar", fail)
    with pytest.raises(OSError, match="no space left"):
        run(pictures, tmp_path)


def test_a_trial_that_diverges_does_not_end_the_sweep(
    finished, pictures, tmp_path, monkeypatch
):
    lend_teacher(finished, tmp_path)
    cells = []

    bar = trials.methods.bar

    def train(work, teacher, **settings):
        cells.append(str(work.cell))
        if work.cell.method != "trial1" or work.cell.factor != 4:
            return teacher, {}
        tuned = dataclasses.replace(work.manner.tuned, learning_rate=math.nan)
        work.manner = dataclasses.replace(work.manner, tuned=tuned)
        return bar(work, teacher, **settings)

    monkeypatch.setattr(trials.methods, "bar", train)
    for _ in range(2):  # It would diverge again, so it is not tried again.
        run(pictures, tmp_path)
        assert len(cells) == 4
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [row["accuracy"] == "" for row in rows] == 3 * [False] + [True]
    _, row = csv.DictReader((tmp_path / "sensitivity.csv").open())
    assert (row["trials"], row["diverged"]) == ("2", "1")
    assert row["accuracy"] == rows[2]["accuracy"]
    text = (tmp_path / "sensitivity.md").read_text()
    assert "| 4 | 1 of 2 |" in text and "| 2 | 2 |" in text


def test_the_papers_penalty(finished, pictures, tmp_path):
    lend_teacher(finished, tmp_path)
    run(pictures, tmp_path, "--paper", *("--trials", "1"), *("--factors", "2"))
    (row,) = table(tmp_path / "trials.csv")
    for name, interval in tuning.PAPER_INTERVALS.items():
        assert interval.least <= row[name] <= interval.greatest
    assert not {"openness", "price_exponent"} & row.keys()
    assert row["volume"] <= 0.5


def test_a_trial_of_other_hyperparameters_is_refused(
    finished, pictures, tmp_path
):
    folder = tmp_path / "other"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "search")
    (path,) = folder.glob("*-trial0-volume-2-seed0/settings.json")
    settings = json.loads(path.read_text())
    settings["drawn"]["temperature"] += 0.1
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="other settings"):
        run(pictures, folder)


def test_a_machine_that_knows_only_half(
    pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(SystemExit):
        run(pictures, tmp_path)
    assert "Expected all of KERASTUNER_TUNER_ID" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "Expected at least 1"),
        (["--strategy", "multiworker"], "A trial is for one host"),
    ],
)
def test_wrong_arguments(pictures, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run(pictures, tmp_path, *arguments)
    assert message in capsys.readouterr().err


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


class Clock:
    """Stands in for the time."""

    now = 0.0

    def monotonic(self):
        return self.now


def test_a_silent_worker_loses_its_trial(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(workers, "time", clock)
    oracle = workers.Oracle(
        tmp_path / "workers", objective=trials.OBJECTIVE, max_trials=2
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
    assert ask("tuner0", workers.PATIENCE).status == "IDLE"
    again = ask("tuner0", 2 + workers.PATIENCE)
    assert again.trial_id == second.trial_id
    assert again.hyperparameters.values == second.hyperparameters.values
    # It was only slow, and comes back.
    assert ask("tuner1", 3 + workers.PATIENCE).status == "IDLE"
    oracle.end_trial(ended(again))
    assert ask("tuner0", 4 + workers.PATIENCE).status == "STOPPED"
    assert ask("tuner1", 4 + workers.PATIENCE).status == "STOPPED"
    assert not oracle.ongoing_trials and not oracle.tuner_ids


def ended(trial):
    """The trial as its worker gives it back."""
    trial.metrics.register("accuracy", "max")
    trial.metrics.update("accuracy", 0.5)
    trial.status = "COMPLETED"
    return trial


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


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_worker_that_is_killed(finished, pictures, tmp_path, comes_back):
    """The sweep ends complete, and with the same networks, with that worker
    or without it."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    lend_teacher(finished, folder)
    with Sweep(pictures, folder) as sweep:
        for name in ("chief", "tuner0", "tuner1"):
            sweep.start(name)
        loopback.wait_for(lambda: is_pruning(folder, "tuner1"))
        victim = sweep.processes.pop("tuner1")
        victim.kill()
        victim.wait()
        if comes_back:
            sweep.start("tuner1")
        for name, process in sweep.processes.items():
            log = tmp_path / f"{name}.log"
            assert process.wait(300) == 0, log.read_text()[-5000:]
    told = "tuner1 is silent" in (tmp_path / "chief.log").read_text()
    assert told == (not comes_back)
    assert_same(folder, finished)


def main():
    pictures, folder = sys.argv[1:]
    workers.BEAT, workers.PATIENCE = 1.0, 30.0
    with fashion.narrow():
        command.run(lambda: run(pictures, folder))


if __name__ == "__main__":
    main()
