import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar import reports
from keras_bar import runs
from recipes import digits
from recipes.data import in_memory_data
from recipes.data import registry
from recipes.experiment import options
from tests.recipes import fashion

EPOCHS = 8  # 2 for the teacher, 4 of pruning, 2 of fine-tuning.
RECIPE = pathlib.Path(digits.__file__)
TEACHER = "wide_resnet-scratch-teacher-volume-1-seed0"
CELL = "wide_resnet-teacher-bar-volume-4-seed0"


@pytest.fixture(scope="module", autouse=True)
def small_network():
    """A network that is trained quickly, with fewer batches per epoch."""
    known = registry.DATASETS["digits"]
    small = dataclasses.replace(
        known,
        networks={
            "wide_resnet": functools.partial(fashion.residual, (8, 8, 1), 10)
        },
    )
    batch = options.TABLE["training"]["batch-size"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.DATASETS, "digits", small)
        patch.setitem(batch, "default", 256)
        yield


def run(folder, *more):
    digits.main(
        ["--epochs", str(EPOCHS), "--budget", "1/4", "--output", str(folder)]
        + list(more)
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    run(folder)
    return folder


def load(folder, name):
    place = folder / (TEACHER if name == "teacher" else CELL)
    return keras.models.load_model(place / f"{name}.keras", compile=False)


def report_of(folder):
    return json.loads((folder / CELL / "report.json").read_text())


def histories(folder):
    """Dict from parts to their logs, one per epoch."""
    places = {"teacher": TEACHER, "prune": CELL, "finetune": CELL}
    return {
        part: reports.read_history(folder / place / f"{part}.json")
        for part, place in places.items()
    }


def test_leaves_its_results(finished):
    names = {x.name for x in finished.iterdir() if x.suffix != ".svg"}
    assert names == {
        CELL,
        TEACHER,
        ".lock-host0",
        "settings.json",
        "results.csv",
        "tables.md",
        *(f"{x}.png" for x in ("accuracy", "volume", "flops")),
        *(f"{x}.png" for x in ("channels", "flops_of_layers")),
    }
    assert {x.name for x in (finished / TEACHER).iterdir()} == {
        "answers.npy",
        "settings.json",
        "teacher.json",
        "teacher.keras",
        "tensorboard",
        "unfinished",
    }
    assert {x.name for x in (finished / CELL).iterdir()} == {
        "budget.png",
        "budget.svg",
        "channels.png",
        "channels.svg",
        "compact.keras",
        "finetune.json",
        "flops.png",
        "flops.svg",
        "gated.keras",
        "gates.json",
        "gates.png",
        "gates.svg",
        "prune.json",
        "report.json",
        "settings.json",
        "tensorboard",
    }


def test_report_tells_what_the_files_hold(finished):
    report = report_of(finished)
    data = in_memory_data.load_digits(None, 1347, False)
    for name in ("teacher", "compact"):
        model, result = load(finished, name), report["results"][name]
        cost = keras_bar.measure_cost(model)
        assert result["volume"] == cost.volume
        assert result["flops"] == cost.flops
        assert result["params"] == cost.params == model.count_params()
        assert result["accuracy"] == data.accuracy(model)
        assert result["file_bytes"] > 0
        assert result["latency_ms_batch_1"] > 0
        assert result["latency_ms_batch_128"] > 0
    assert report["factor"] == 4
    assert len(histories(finished)["prune"]["volume"]) == EPOCHS // 2


def test_keeps_the_budget(finished):
    results = report_of(finished)["results"]
    used = results["compact"]["volume"] / results["teacher"]["volume"]
    assert report_of(finished)["used"] == used
    assert used <= 0.25


def test_finished_run_is_shown_again(finished, capsys, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", None)
    run(finished)
    shown = capsys.readouterr().out
    assert "accuracy" in shown
    assert "compact.keras" in shown


def test_exports_a_finished_run(finished, capsys, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", None)
    run(finished, "--export", "keras", "litert_int8")
    shown = capsys.readouterr().out
    table = (finished / CELL / "exported.md").read_text().splitlines()[1:-1]
    assert "\n".join(table) in shown
    formats = ["keras", "keras", "litert_int8", "litert_int8"]
    assert [x.split()[0] for x in table[2:]] == formats
    assert [x.split()[1] for x in table[2:4]] == ["teacher", "compact"]
    for place in (TEACHER, CELL):
        names = {x.name for x in (finished / place / "exported").iterdir()}
        assert names == {"model.keras", "model_int8.tflite"}
        shutil.rmtree(finished / place / "exported")
    (finished / CELL / "exported.md").unlink()
    # The recipe's report and the file that it wrote agree.
    accuracy = report_of(finished)["results"]["compact"]["accuracy"]
    assert table[3].endswith(f"{accuracy:.2%}")


def interrupt_once(patch, name, epoch):
    """Makes the next run end where an epoch of a part would begin."""
    on_epoch_begin = runs.Progress.on_epoch_begin

    def interrupt(progress, now, logs=None):
        if (progress.name, now) == (name, epoch):
            patch.setattr(runs.Progress, "on_epoch_begin", on_epoch_begin)
            raise KeyboardInterrupt
        on_epoch_begin(progress, now, logs)

    patch.setattr(runs.Progress, "on_epoch_begin", interrupt)


@pytest.fixture(scope="module")
def resumed(finished, tmp_path_factory):
    """Folder and output of a run that was interrupted twice."""
    folder = tmp_path_factory.mktemp("resumed")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        fashion.undraw(patch, "draw", "draw_networks")
        for name, epoch in (("prune", 2), ("finetune", 1)):
            interrupt_once(patch, name, epoch)
            with pytest.raises(KeyboardInterrupt):
                run(folder)
            keras.utils.set_random_seed(99)  # Another process, other state.
        with contextlib.redirect_stdout(output):
            run(folder)
    return folder, output.getvalue()


@pytest.mark.slow
def test_goes_on_where_it_was(finished, resumed):
    folder, output = resumed
    assert "teacher: done before" in output
    assert "gated: done before" in output
    assert "finetune, resumed after epoch 1" in output
    for part, history in histories(finished).items():
        lengths = {len(x) for x in histories(folder)[part].values()}
        assert lengths == {len(history["loss"])}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher", "gated", "compact"])
def test_resumed_run_equals_an_uninterrupted_one(finished, resumed, name):
    one, other = load(finished, name), load(resumed[0], name)
    for x, y in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_unfinished_files_are_not_taken_for_finished(tmp_path):
    run_ = runs.Run(tmp_path, {})
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])

    def save(path):
        pathlib.Path(path).write_text("half a network")
        raise KeyboardInterrupt

    model.save = save
    with pytest.raises(KeyboardInterrupt):
        run_.once("teacher", lambda: model)
    assert not run_.path("teacher").exists()


def test_other_settings_are_refused(finished, capsys):
    with pytest.raises(SystemExit):
        run(finished, "--epochs", "9")
    assert "holds a run with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0"], "Expected a fraction of the full cost"),
        (["--budget", "3/2"], "argument --budget: Invalid value"),
        (["--budget", "an eighth"], "argument --budget: Invalid value"),
        (["--budget", "1/0"], "argument --budget: Invalid value"),
        (["--budget", "0.0001"], "too small for any connected network"),
        (["--epochs", "1"], "Expected at least 4"),
        (["--seed", "-1"], "argument --seed: Invalid value"),
        (["--metric", "joules"], "--metric"),
    ],
)
def test_bad_arguments_fail_at_once(
    tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.setattr(keras.Model, "fit", None)
    with pytest.raises(SystemExit):
        run(tmp_path / "new", *arguments)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_output_that_cannot_be_written_fails_at_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        run(tmp_path / "file" / "below")
    assert "file" in capsys.readouterr().err


def test_batches_depend_on_seed_and_epoch_only():
    data = in_memory_data.load_digits(None, 1347, False)
    one, other = (data.batches(3) for _ in range(2))
    one.epoch = other.epoch = 5
    first = one.dataset[2]
    for i in range(len(other.dataset)):
        other.dataset[i]
    np.testing.assert_array_equal(first[0], other.dataset[2][0])
    np.testing.assert_array_equal(first[1], other.dataset[2][1])
    other.epoch = 6
    assert not np.array_equal(first[0], other.dataset[2][0])


def test_every_image_is_used_once_per_epoch():
    data = in_memory_data.load_digits(None, 1347, False)
    data.y = np.arange(len(data.y))
    batches = data.batches(0).dataset
    seen = np.concatenate([batches[i][1] for i in range(len(batches))])
    assert len(np.unique(seen)) == len(seen)
    assert len(data.y) - len(seen) < data.batch_size


def test_images_are_shifted_by_up_to_one_pixel():
    data = in_memory_data.load_digits(None, 1347, False)
    data.y = np.arange(len(data.y))
    batches = data.batches(0).dataset
    seen = set()
    for x, label in zip(*batches[0], strict=True):
        padded = np.pad(data.x[label], ((1, 1), (1, 1), (0, 0)))
        seen |= {
            (i, j)
            for i in range(3)
            for j in range(3)
            if np.array_equal(padded[i : i + 8, j : j + 8], x)
        }
    assert len(seen) == 9


def test_help_in_a_process_of_its_own(tmp_path):
    process = subprocess.run(
        [sys.executable, str(RECIPE), "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0
    assert "--budget" in process.stdout
