"""The recipe that compares all methods, on a small network."""

import argparse
import csv
import json
import shutil

import keras
import numpy as np
import pytest

import keras_bar
from recipes import compare
from recipes.data import networks
from recipes.data import registry as datasets
from recipes.experiment import distilling as training
from recipes.experiment import phases
from recipes.experiment.training import Cell
from recipes.experiment.training import Manner
from recipes.experiment.training import Work
from recipes.methods import bar as methods
from recipes.methods import strength_search as searching
from recipes.results import comparison
from tests.recipes import fashion

BUDGETED = ["bar", "morphnet", "random", "vq", "id", "wm"]
CELL = "vgg-teacher-{}-volume-2-seed{}"


ROW = {
    "network": "wide_resnet",
    "start": "teacher",
    "metric": "volume",
    "method": "bar",
    "factor": 4.0,
    "seed": 0,
    "accuracy": 0.5,
    "teacher": 0.75,
    "volume": 0.25,
    "flops": 0.125,
}


def run(*arguments):
    fashion.run(compare.main, *arguments, "--network", "vgg", "--factors", "2")


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """All methods of the paper."""
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "TRIALS", 1)
        run(pictures, folder)
    return folder


def test_a_row_per_method(finished):
    rows = fashion.rows_of(finished)
    assert set(rows) == set(compare.COMPARED)
    for method in BUDGETED:
        assert 0.45 < float(rows[method]["volume"]) <= 0.5
    assert 0.2 < float(rows["bar-flops"]["flops"]) <= 0.25
    for method, row in rows.items():
        path = finished / "fashion_mnist" / CELL.format(method, 0)
        small = keras.models.load_model(path / "compact.keras", compile=False)
        assert row["dataset"] == "fashion_mnist"
        volume = keras_bar.measure_cost(small).volume
        full = float(row["full_volume"])
        assert volume / full == pytest.approx(float(row["volume"]))


def test_pictures_and_tables_of_the_supplement(finished):
    lines = (finished / "tables.md").read_text().splitlines()
    (wm,) = (x for x in lines if x.startswith("| WM |"))
    # The supplement's row for CIFAR-10.
    assert wm.endswith("| 2.0 | 4.0 | 91.11 |")
    for name in ("volume.png", "volume.svg", "flops.png", "flops.svg"):
        assert (finished / name).stat().st_size > 0


def test_a_strength_is_searched_for_with_one_seed(
    finished, pictures, tmp_path, monkeypatch
):
    def refuse(*_):
        raise AssertionError("searches again")

    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    monkeypatch.setattr(searching, "search", refuse)
    run(pictures, folder, "--methods", "lzr", "--seeds", "1")
    with open(folder / "results.csv", newline="") as file:
        rows = [x for x in csv.DictReader(file) if x["method"] == "lzr"]
    assert len(rows) == 2 and rows[0]["strength"] == rows[1]["strength"]
    shrunk = folder / "fashion_mnist/vgg-teacher-lzr-shrunk-volume-1-seed"
    name = f"gated-{float(rows[0]['strength']):g}.keras"
    weights = [
        keras.models.load_model(f"{shrunk}{seed}/{name}", compile=False)
        .get_layer("group1_conv1")
        .kernel
        for seed in (0, 1)
    ]
    assert not np.array_equal(*map(keras.ops.convert_to_numpy, weights))


def test_expanded_networks_start_anew_with_every_seed(monkeypatch, tmp_path):
    """And the same way, whatever was done before in this process."""
    teacher = networks.vgg((14, 14, 1), 10)
    gated = keras_bar.gate(
        teacher, layer=keras_bar.layers.MarkerGate, connectivity="regular"
    )
    monkeypatch.setattr(methods, "find_strength", lambda *_: 1.0)
    monkeypatch.setattr(methods, "shrink", lambda *_: gated)
    monkeypatch.setattr(methods, "epochs_left", lambda *_: 0)
    monkeypatch.setattr(Work, "finetune", lambda self, _, small, *more: small)
    data = argparse.Namespace(accuracy=lambda *_: 0.0)

    def kernel(seed):
        cell = Cell("morphnet", 2, seed, "vgg", "volume", "teacher")
        work = Work(cell, "fashion_mnist", data, Manner(), tmp_path)
        small, _ = methods.by_penalty(work, teacher, "morphnet")
        layer = small.get_layer("group1_conv1")
        return keras.ops.convert_to_numpy(layer.kernel)

    first, other, again = map(kernel, (0, 1, 0))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_network_that_has_taught_can_be_pruned(tmp_path):
    """As when a second strength is tried."""
    cell = Cell("lzr", 2, 0, "vgg", "volume", "teacher")
    work = Work(cell, "fashion_mnist", None, Manner(), tmp_path)
    teacher = networks.vgg((14, 14, 1), 10)
    expected = len(keras_bar.gate(teacher).trainable_variables)
    training.distiller(teacher, networks.vgg((14, 14, 1), 10), 1e-3)
    assert not teacher.trainable_variables
    student = keras_bar.gate(work.source(teacher))
    assert len(student.trainable_variables) == expected


def test_rounds_of_the_supplement_serve_all_factors(
    pictures, tmp_path, monkeypatch
):
    """Phases for every halving: 4x goes on from 2x."""
    load = phases.load
    monkeypatch.setattr(
        phases,
        "load",
        lambda dataset, kind, scale: (
            phases.Phases(high=1, low=1)
            if kind == "halving"
            else load(dataset, kind, scale)
        ),
    )
    run(pictures, tmp_path, "--methods", "wm")
    place = tmp_path / "fashion_mnist/vgg-teacher-wm-halved-volume-2"
    first = place.with_name(f"{place.name}-seed0") / "round1.keras"
    written = first.stat().st_mtime_ns
    arguments = ("--network", "vgg", "--factors", "4", "--methods", "wm")
    fashion.run(compare.main, pictures, tmp_path, *arguments)
    assert first.stat().st_mtime_ns == written
    assert first.with_name("round2.keras").exists()
    lines = (tmp_path / "tables.md").read_text().splitlines()
    assert [x for x in lines if x.startswith("| WM | 2 | 1 | 2.0 |")]
    assert [x for x in lines if x.startswith("| WM | 4 | 1 | 4.0 |")]


def test_halvings_begin_with_a_network_of_their_own(monkeypatch, tmp_path):
    """As in the supplement's section 3.2, where the full network of the other
    methods is trained longer; the methods share it."""
    plan = phases.Phases(high=40, low=10, anew=True)
    monkeypatch.setattr(phases, "load", lambda *_: plan)
    trained = []

    def train(work, part, kind):
        trained.append((work.cell.method, part, kind))
        return networks.vgg((14, 14, 1), 10)

    monkeypatch.setattr(methods, "train_full", train)
    began = []
    monkeypatch.setattr(
        methods.baselines,
        "prune",
        lambda model, *_, **__: began.append(model.get_weights()) or model,
    )
    monkeypatch.setattr(Work, "distill", lambda self, _, __, small, *___: small)
    teacher = networks.vgg((14, 14, 1), 10)
    for method in ("wm", "random"):
        cell = Cell(method, 2, 0, "vgg", "volume", "scratch")
        work = Work(cell, "cifar10", None, Manner(), tmp_path)
        methods.METHODS[method](work, teacher)
    assert trained == [("initial", "initial", "halving")]
    for own, other in zip(*began, strict=True):
        np.testing.assert_array_equal(own, other)
    assert not np.array_equal(began[0][0], teacher.get_weights()[0])


def test_a_missing_package_is_told_of_at_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(methods.REQUIRED, "vq", "not_installed")
    arguments = ["--dataset", "digits", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--methods", "wm", "vq"])
    assert "Received: no not_installed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_digits_need_no_file(tmp_path, capsys):
    arguments = ["--dataset", "digits", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--data", "digits.npz"])
    assert "Expected no file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--pictures", "5000"])
    assert "at most 1347" in capsys.readouterr().err
    for wrong, why in (
        (["--network", "vgg"], "one of wide_resnet"),
        (["--factors", "4", "4.0000001"], "Expected different"),
        (["--metric", "flops"], "Expected --metric volume"),
        (["--methods", "morphnet", "--factors", "200"], "Expected"),
    ):
        with pytest.raises(SystemExit):
            compare.main([*arguments, *wrong])
        assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_supplement_beside():
    # Section 6.1: one of WM's rows, the nearest of LZR's, FLOPs as a budget.
    def nearest(title, factor, metric="volume"):
        return comparison.nearest("cifar10", title, factor, metric)

    assert nearest("WM", 16) == ["16.0", "255.8", "86.33"]
    assert nearest("LZR", 4) == ["4.3", "38.1", "92.10"]
    assert nearest("BAR (F-trained)", 8) == ["4.4", "63.9", "92.17"]
    assert nearest("BAR (F-trained)", 16, "flops") == ["2.9", "16.0", "93.50"]
    assert nearest("WM", 16, "flops") == ["4.0", "16.0", "91.20"]
    # What stands beside a search that ended far from where it should.
    row = {**ROW, "dataset": "cifar10", "method": "lzr", "factor": 16.0}
    text = comparison.markdown("cifar10", [{**row, "volume": 0.24}], "volume")
    (line,) = (x for x in text.splitlines() if x.startswith("| LZR |"))
    assert line.endswith("| 4.3 | 38.1 | 92.10 |")
    for none in (("narrowed", 8), ("WM", 64), ("WM", 4, "params")):
        assert nearest(*none) == ["", "", ""]


def test_supplement_without_an_accuracy():
    """Its row for IB on Mio-TCD at 11.5."""
    for metric in ("volume", "flops"):
        for curve in comparison.published("mio_tcd", metric):
            assert None not in sum(curve.points.values(), [])
    # Two of CIFAR-10's rows for IB are at 1.3.
    (ib,) = (
        x for x in comparison.published("cifar10", "volume") if x.method == "IB"
    )
    assert ib.points[1.3] == [0.9085, 0.9128]


def write_reports(folder, *rows):
    for i, row in enumerate(rows):
        path = folder / "digits" / str(i) / "report.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(row))


def test_cells_of_another_kind_stay_in_the_csv(tmp_path):
    rows = [ROW, {**ROW, "metric": "flops", "accuracy": 0.625}]
    write_reports(tmp_path, *rows)
    for metric, shown in (("volume", "50.00"), ("flops", "62.50")):
        settings = argparse.Namespace(
            network="wide_resnet", start="teacher", metric=metric
        )
        found = comparison.find({"digits": tmp_path / "digits"})
        comparison.write(found, "digits", settings, tmp_path)
        with open(tmp_path / "results.csv", newline="") as file:
            assert {x["metric"] for x in csv.DictReader(file)} == {
                "volume",
                "flops",
            }
        lines = (tmp_path / "tables.md").read_text().splitlines()
        (line,) = (x for x in lines if x.startswith("| BAR |"))
        assert f"| 4.0 | 8.0 | {shown} |" in line


def test_published_curves_stand_in_the_same_panel(monkeypatch):
    known = datasets.DATASETS["digits"]
    monkeypatch.setitem(datasets.DATASETS, "cifar10", known)
    (panel,) = comparison.make_panels({"cifar10": [ROW]}, "flops")
    measured, *published = panel.curves
    assert measured.points == {8.0: [0.5]} and not measured.published
    assert panel.full == 0.75
    bar = next(x for x in published if x.method == "BAR")
    assert bar.published and bar.points[15.9] == [0.9278]
    # Without numbers of its own, in a panel of their own.
    ours, theirs = comparison.make_panels({"digits": [ROW]}, "volume")
    assert [x.published for x in ours.curves] == [False]
    assert all(x.published for x in theirs.curves)
