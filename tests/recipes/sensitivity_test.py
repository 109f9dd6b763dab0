"""The sweep over BAR's hyperparameters."""

import csv
import dataclasses
import json
import math
import shutil
import statistics

import pytest

pytest.importorskip("keras_tuner")

from keras_bar import runs  # noqa: E402
from keras_bar import tuning  # noqa: E402
from recipes.experiment import sweep  # noqa: E402
from recipes.experiment.training import Experiment  # noqa: E402
from recipes.results import figures  # noqa: E402
from tests.recipes import sweeps  # noqa: E402
from tests.recipes.fashion import squeezed  # noqa: E402


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sensitivity")
    with pytest.MonkeyPatch.context() as patch:
        # One trial's figures are as good as those of all.
        patch.setattr(figures, "draw_prunings", lambda rows: None)
        sweeps.run(pictures, folder)
    return folder


@pytest.fixture
def untrained_teacher(monkeypatch):
    """Trials begin with a network that nobody has trained."""
    monkeypatch.setattr(Experiment, "train_full", lambda self: self.build())


@pytest.mark.slow
def test_every_trial_is_a_row(finished):
    rows = sweeps.table(finished / "trials.csv")
    places = [(row["factor"], row["trial"]) for row in rows]
    assert places == [(2, 0), (2, 1)]
    for name, interval in tuning.INTERVALS.items():
        drawn = [row[name] for row in rows]
        assert len(set(drawn)) == len(rows)
        assert all(interval.least <= x <= interval.greatest for x in drawn)
    for row in rows:
        assert 0.9 / row["factor"] < row["volume"] <= 1 / row["factor"]


@pytest.mark.slow
def test_what_was_drawn_reaches_the_training(
    finished, pictures, tmp_path, monkeypatch
):
    """The last trial's values, when it is run again."""
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "search")
    (path,) = folder.glob("*-trial1-volume-2-seed0/report.json")
    drawn = json.loads(path.read_text())["drawn"]
    assert set(drawn) == set(tuning.INTERVALS)
    path.unlink()
    seen = {}

    def stop(experiment, teacher, **settings):
        tuned = experiment.options
        seen.update(settings, **{x: getattr(tuned, x) for x in sweep.DRAWN})
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep.bar, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(pictures, folder)
    assert seen == pytest.approx(drawn)


@pytest.mark.slow
def test_mean_and_deviation(finished):
    rows = sweeps.table(finished / "trials.csv")
    summary = sweeps.table(finished / "sensitivity.csv")
    assert [row["factor"] for row in summary] == [2]
    for row in summary:
        found = [x["accuracy"] for x in rows if x["factor"] == row["factor"]]
        assert row["accuracy"] == pytest.approx(statistics.mean(found))
        deviation = statistics.stdev(found)
        assert row["standard_deviation"] == pytest.approx(deviation)
    text = squeezed((finished / "sensitivity.md").read_text())
    # The supplement's numbers for CIFAR-10, which the table names.
    assert "| CIFAR-10, published: accuracy, % |" in text
    assert "| 92.71 | 0.19 |" in text
    for ending in ("png", "svg"):
        assert (finished / f"sensitivity.{ending}").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_what_is_done_is_not_done_again(finished, pictures, monkeypatch):
    monkeypatch.setattr(sweep.bar, "run", None)
    before = (finished / "trials.csv").read_text()
    sweeps.run(pictures, finished)
    assert (finished / "trials.csv").read_text() == before


@pytest.mark.slow
def test_interrupted_equals_uninterrupted(finished, pictures, tmp_path):
    sweeps.lend_teacher(finished, tmp_path)
    patch = pytest.MonkeyPatch()
    begin = runs.Progress.on_epoch_begin

    prunings = []

    def stop(self, epoch, logs=None):
        if self.name == "prune" and epoch == 1:
            prunings.append(epoch)
            if len(prunings) == 2:
                raise KeyboardInterrupt
        begin(self, epoch, logs)

    patch.setattr(runs.Progress, "on_epoch_begin", stop)
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(pictures, tmp_path)
    patch.undo()
    sweeps.run(pictures, tmp_path)
    sweeps.assert_same(tmp_path, finished)


@pytest.mark.slow
def test_another_sweep_needs_another_folder(finished, pictures, capsys):
    others = ["--seed", "1"], ["--factors", "4"], ["--metric", "flops"]
    for arguments in others:
        with pytest.raises(SystemExit):
            sweeps.run(pictures, finished, *arguments)
        assert "other settings" in capsys.readouterr().err


@pytest.mark.usefixtures("untrained_teacher")
def test_errors_of_a_trial_stop_the_sweep(pictures, tmp_path, monkeypatch):
    """They are not taken for bad hyperparameters."""

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(sweep.bar, "run", fail)
    with pytest.raises(OSError, match="no space left"):
        sweeps.run(pictures, tmp_path)


@pytest.mark.usefixtures("untrained_teacher", "undrawn")
def test_a_trial_that_diverges_does_not_end_the_sweep(
    pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "ENDINGS", ("png",))
    cells = []

    bar = sweep.bar.run

    def train(experiment, teacher, **settings):
        cells.append(str(experiment.key))
        if experiment.key.factor != 4:
            return teacher, {}
        experiment.options = dataclasses.replace(
            experiment.options, learning_rate=math.nan
        )
        return bar(experiment, teacher, **settings)

    monkeypatch.setattr(sweep.bar, "run", train)
    arguments = ("--trials", "1", "--factors", "2", "4")
    for _ in range(2):  # It would diverge again, so it is not tried again.
        sweeps.run(pictures, tmp_path, *arguments)
        assert len(cells) == 2
    rows = list(
        csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())
    )
    places = [(float(row["factor"]), int(row["trial"])) for row in rows]
    assert places == [(2, 0), (4, 0)]
    assert [row["accuracy"] == "" for row in rows] == [False, True]
    _, row = csv.DictReader(
        (tmp_path / "sensitivity.csv").read_text().splitlines()
    )
    assert (row["trials"], row["diverged"]) == ("1", "1")
    assert row["accuracy"] == ""
    text = squeezed((tmp_path / "sensitivity.md").read_text())
    assert "| 4 | 0 of 1 |" in text and "| 2 | 1 |" in text
    # Each factor's own numbers of the supplement stand beside.
    assert "| 92.71 | 0.19 |" in text and "| 92.76 | 0.17 |" in text


@pytest.mark.slow
def test_the_papers_penalty(finished, pictures, tmp_path):
    sweeps.lend_teacher(finished, tmp_path)
    sweeps.run(
        pictures, tmp_path, "--paper", *("--trials", "1"), *("--factors", "2")
    )
    (row,) = sweeps.table(tmp_path / "trials.csv")
    for name, interval in tuning.PAPER_INTERVALS.items():
        assert interval.least <= row[name] <= interval.greatest
    assert not {"initial_logit", "cost_exponent"} & row.keys()
    assert row["volume"] <= 0.5
    (figure,) = tmp_path.glob("*-trial0-volume-2-seed0/budget.png")
    assert figure.stat().st_size > 0


@pytest.mark.slow
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
        sweeps.run(pictures, folder)


def test_a_machine_that_knows_only_half(
    pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(SystemExit):
        sweeps.run(pictures, tmp_path)
    assert "Expected all of KERASTUNER_TUNER_ID" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "Expected an integer of 1 or more"),
        (["--strategy", "multiworker"], "A trial is for one host"),
    ],
)
def test_wrong_arguments(pictures, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        sweeps.run(pictures, tmp_path, *arguments)
    assert message in capsys.readouterr().err
