"""The recipe of the small budgets, on a small network and synthetic images."""

import argparse
import json

import keras
import numpy as np
import pandas
import pytest

import keras_bar
from keras_bar import in_memory
from keras_bar import runs
from keras_bar.in_memory import garments
from recipes import fashion_mnist
from recipes.data import registry
from recipes.experiment.training import Experiment
from recipes.methods import bar
from recipes.results import figures
from recipes.results import tables
from tests.recipes import fashion
from tests.recipes.fashion import lend_teacher
from tests.recipes.fashion import rows_of
from tests.recipes.fashion import squeezed

SPLITS = ("train", "validation", "test")


def run(*arguments):
    fashion.run(fashion_mnist.main, *arguments)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    train = Experiment.distill

    def distill(experiment, part, teacher, student, *args, **options):
        if part == "round1":  # One round is trained, the second.
            return student
        return train(experiment, part, teacher, student, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "distill", distill)
        fashion.finish(fashion_mnist.main, pictures, folder)
    return folder


@pytest.mark.slow
def test_a_row_per_method_within_the_budget(finished):
    rows = rows_of(finished)
    assert set(rows) == {"bar", "narrow", "wm"}
    for row in rows.values():
        assert 0.2 < float(row["volume"]) <= 0.25
    for name in ("accuracy", "channels", "flops_of_layers"):
        for ending in ("png", "svg"):
            assert (finished / f"{name}.{ending}").stat().st_size > 0
    text = squeezed((finished / "tables.md").read_text())
    for title in ("BAR", "narrowed", "WM"):
        assert text.count(f"\n| {title} | 4 | 1 | 4.") == 1
    assert text.count("\n| fashion_mnist | wide_resnet |") == 3


@pytest.mark.slow
def test_compact_networks_are_those_of_the_row(finished, pictures):
    data = in_memory.load_fashion_mnist(pictures, 256, tests=100, held_out=44)
    for method, row in rows_of(finished).items():
        cell = finished / f"wide_resnet-teacher-{method}-volume-4-seed0"
        small = keras.models.load_model(cell / "compact.keras", compile=False)
        found = data.accuracy(small)
        assert found == float(row["accuracy"])


@pytest.mark.slow
def test_costs_in_the_pictures_are_those_of_the_rows(finished):
    report = "wide_resnet-teacher-bar-volume-4-seed0/report.json"
    row = json.loads((finished / report).read_text())
    rows = tables.find_rows({"fashion_mnist": finished})
    rows = rows[rows.method == "bar"]
    ((label, cost),) = figures.find_costs(rows).items()
    assert label == "1/4"
    assert cost.volume == row["volume"] * row["full_volume"]


@pytest.mark.slow
def test_wm_halves_the_volume_in_each_round(finished):
    cell = finished / "wide_resnet-teacher-wm-volume-4-seed0"
    first = keras.models.load_model(cell / "round1.keras", compile=False)
    full = registry.DATASETS["fashion_mnist"].networks["wide_resnet"]()
    volumes = [keras_bar.measure_cost(x).volume for x in (first, full)]
    assert volumes[0] * 2 == volumes[1]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_what_is_done_is_not_done_again(finished, pictures, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trains again")

    monkeypatch.setattr(keras.Model, "fit", refuse)
    before = (finished / "results.csv").read_text()
    run(pictures, finished)
    assert (finished / "results.csv").read_text() == before


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_cell_does_not_depend_on_who_trained_the_teacher(
    finished, pictures, tmp_path
):
    lend_teacher(finished, tmp_path)
    run(pictures, tmp_path, "--methods", "narrow")
    assert (
        rows_of(tmp_path)["narrow"]["accuracy"]
        == (rows_of(finished)["narrow"]["accuracy"])
    )


@pytest.mark.slow
def test_interrupted_equals_uninterrupted(finished, pictures, tmp_path):
    class Stop(KeyboardInterrupt):
        pass

    lend_teacher(finished, tmp_path)
    patch = pytest.MonkeyPatch()
    write = runs.Progress.on_epoch_end

    def stop(self, epoch, logs=None):
        write(self, epoch, logs)
        if self.name == "prune" and epoch == 2:
            raise Stop

    patch.setattr(runs.Progress, "on_epoch_end", stop)
    with pytest.raises(Stop):
        run(pictures, tmp_path, "--methods", "bar")
    patch.undo()
    run(pictures, tmp_path, "--methods", "bar")
    for name, value in rows_of(tmp_path)["bar"].items():
        expected = rows_of(finished)["bar"][name]
        if name not in (*tables.KEYS, "teacher_folder"):
            value, expected = float(value), pytest.approx(float(expected))
        assert value == expected, name


@pytest.mark.slow
def test_other_settings_need_another_folder(finished, pictures):
    with pytest.raises(SystemExit):
        run(pictures, finished, "--scale", "2")


def test_rows_of_pruning():
    history = {
        "accuracy": [0.9, 0.8],
        "val_accuracy": [0.7, 0.6],
        "volume": [0.9, 0.3],
        "budget": [0.85, 0.25],
        "expected": [0.9, 0.35],
    }
    data = in_memory.InMemoryData(
        np.zeros((1, 14, 14, 1)), [0], np.zeros((1, 14, 14, 1)), [0]
    )
    model = registry.DATASETS["fashion_mnist"].networks["wide_resnet"]()
    row = bar.describe(history, "volume", model, data)
    assert row["stochastic"] == 0.8 and row["validation"] == 0.6
    assert row["worst_drop"] == pytest.approx(0.6)
    # The first epoch is within the first tenth, rounded up.
    assert row["worst_excess"] == pytest.approx(0.05)


def row(**changes):
    return {
        "dataset": "fashion_mnist",
        "network": "wide_resnet",
        "start": "teacher",
        "metric": "volume",
        "method": "bar",
        "factor": 16.0,
        "seed": 0,
        "accuracy": 0.8,
        "teacher": 0.9,
        "volume": 0.06,
        "flops": 0.01,
        "params": 0.02,
        "full_volume": 1000,
        "full_flops": 10_000,
        "regular_volume": 120,
        "regular_flops": 125,
        **changes,
    }


def test_seeds_share_a_line_of_the_table():
    rows = [row(), row(seed=1, accuracy=0.82), row(method="wm")]
    table = tables.summarize(pandas.DataFrame(rows))
    text = squeezed(tables.markdown_of(table))
    _, _, both, single = text.splitlines()
    assert "| 2 | 81.00 ± 1.41 | -9.00 | | 1/16.7 | 1/100.0 |" in both
    assert "| 1 | 80.00 | -10.00 |" in single


def test_regular_and_mixed_stand_beside_the_supplement():
    rows = pandas.DataFrame([row(), row(method="wm"), row(network="vgg")])
    settings = argparse.Namespace(
        dataset="fashion_mnist",
        network="wide_resnet",
        start="teacher",
        metric="volume",
    )
    rows = tables.alike(rows, settings)
    text = tables.markdown_of(tables.connectivity(rows, "cifar10"))
    _, _, line = squeezed(text).splitlines()
    # Half of the volume, 20 % fewer FLOPs; the supplement's section 5.1.
    assert line.startswith("| 16 | 1 | 0.1200 | 0.0600 | -50% |")
    assert "| 0.0125 | 0.0100 | -20% | -58%, -48% |" in line


def test_pictures_are_halved_and_normalised(pictures):
    data = in_memory.load_fashion_mnist(pictures, 256, tests=100, held_out=44)
    with np.load(pictures) as arrays:
        mean = arrays["images"][0, :2, :2].mean() / 255
    assert data.x.shape == (256, 14, 14, 1)
    assert len(data.x_test) == 100
    # No image is in two of the three splits.
    images = np.concatenate([data.split(x)[0] for x in SPLITS])
    assert len(np.unique(images.reshape(400, -1), axis=0)) == 400
    normalised = (mean - garments.MEAN) / garments.DEVIATION
    assert data.x[0, 0, 0, 0] == pytest.approx(normalised, rel=1e-5)


def test_every_picture_once_per_epoch_and_each_epoch_anew(pictures):
    data = in_memory.load_fashion_mnist(pictures, 256, tests=100, held_out=44)
    batches = data.batches([0])
    epochs = []
    for epoch in (0, 1, 0):
        batches.epoch = epoch
        epochs.append(np.concatenate([batches.dataset[i][1] for i in range(4)]))
    np.testing.assert_array_equal(epochs[0], epochs[2])
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(np.sort(epochs[1]), np.sort(data.y))


def test_wrong_files_are_refused(tmp_path, pictures, capsys):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "empty.npz").write_text("")
    (tmp_path / "cut.npz").write_bytes(pictures.read_bytes()[:9999])
    np.save(tmp_path / "one.npy", np.zeros(3))
    for path, why in (
        (tmp_path / "other.npz", "lacks an array"),
        (tmp_path / "text.npz", "holds no arrays. Expected an .npz file"),
        (tmp_path / "empty.npz", "holds no arrays. Expected an .npz file"),
        (tmp_path / "cut.npz", "holds no arrays. Expected an .npz file"),
        (tmp_path / "one.npy", "holds no arrays. Expected an .npz file"),
        (tmp_path / "absent.npz", "No such file"),
    ):
        with pytest.raises(SystemExit) as error:
            run(path, tmp_path / "out")
        assert error.value.code == 2
        message = capsys.readouterr().err
        assert why in message and "pickled" not in message
    with pytest.raises(SystemExit):
        run(pictures, tmp_path / "out", "--factors", "0.5")
    assert "factors of 1 or more" in capsys.readouterr().err
    for wrong in (("--scale", "-1"), ("--seeds", "-1"), ("--factors", "1e9")):
        with pytest.raises(SystemExit):
            run(pictures, tmp_path / "out", *wrong)
        message = capsys.readouterr().err
        assert "Expected" in message and "Received" in message
    assert not (tmp_path / "out").exists()
