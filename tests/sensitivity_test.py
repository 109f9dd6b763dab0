"""The sweep over BAR's hyperparameters, in one process and in three.

For the latter this file runs itself as a script.
"""

import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import pytest

pytest.importorskip("keras_tuner")

from keras_bar import tuning  # noqa: E402
from recipes import backups  # noqa: E402
from recipes import command  # noqa: E402
from recipes import resuming  # noqa: E402
from recipes import sensitivity  # noqa: E402
from recipes import trials  # noqa: E402
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
    assert table(tmp_path / "trials.csv") == [
        pytest.approx(row) for row in table(finished / "trials.csv")
    ]


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

    def train(work, teacher, **_):
        cells.append(str(work.cell))
        if work.cell.method == "trial1" and work.cell.factor == 4:
            raise backups.DivergedError("The loss was NaN.")
        return teacher, {}

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
    assert "1 of the trials diverged" in text


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


def has_trial(folder, worker):
    """Whether a worker is at a trial, says the chief."""
    path = folder / "search" / "oracle.json"
    try:
        return worker in json.loads(path.read_text())["ongoing_trials"]
    except (OSError, ValueError):  # Not there yet, or being written.
        return False


@pytest.mark.slow
def test_a_worker_that_is_killed_and_comes_back(finished, pictures, tmp_path):
    """The sweep ends complete, and with the same rows."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    lend_teacher(finished, folder)
    with Sweep(pictures, folder) as sweep:
        for name in ("chief", "tuner0", "tuner1"):
            sweep.start(name)
        loopback.wait_for(lambda: has_trial(folder, "tuner1"))
        time.sleep(1)
        sweep.processes["tuner1"].kill()
        loopback.wait_for(lambda: has_trial(folder, "tuner1"))
        sweep.processes["tuner1"].wait()
        sweep.start("tuner1")
        for name, process in sweep.processes.items():
            log = tmp_path / f"{name}.log"
            assert process.wait(300) == 0, log.read_text()[-5000:]
    assert table(folder / "trials.csv") == [
        pytest.approx(row) for row in table(finished / "trials.csv")
    ]


def main():
    pictures, folder = sys.argv[1:]
    with fashion.narrow():
        command.run(lambda: run(pictures, folder))


if __name__ == "__main__":
    main()
