"""The recipe that compares all methods, on a small network."""

import csv

import keras
import pytest

import keras_bar
from recipes import compare
from recipes import datasets
from recipes import phases
from recipes import searching
from recipes import tables
from tests import fashion

BUDGETED = ["bar", "morphnet", "random", "vq", "id", "wm"]
CELL = "vgg-teacher-{}-volume-2-seed{}"


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
    assert set(rows) == set(tables.TITLES)
    for method in BUDGETED:
        assert 0.45 < float(rows[method]["volume"]) <= 0.5
    assert 0.2 < float(rows["bar-flops"]["flops"]) <= 0.25
    for method in ("lzr", "ib"):
        assert 0 < float(rows[method]["volume"]) <= 1
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
    finished, pictures, monkeypatch
):
    monkeypatch.setattr(searching, "TRIALS", 0)  # Any more would fail.
    run(pictures, finished, "--methods", "lzr", "--seeds", "0", "1")
    with open(finished / "results.csv", newline="") as file:
        rows = [x for x in csv.DictReader(file) if x["method"] == "lzr"]
    assert len(rows) == 2 and rows[0]["strength"] == rows[1]["strength"]
    # Each is what its own seed led to.
    assert rows[0]["accuracy"] != rows[1]["accuracy"]


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


def test_digits_need_no_file(tmp_path, capsys):
    arguments = ["--dataset", "digits", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--data", "digits.npz"])
    assert "Expected no file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--pictures", "5000"])
    assert "at most 1347" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--network", "vgg"])
    assert "one of wide_resnet" in capsys.readouterr().err
    known = datasets.DATASETS["digits"]
    digits = known.load(None, 128)
    assert digits.x.shape[1:] == known.networks["wide_resnet"]().input_shape[1:]
    assert len(digits.x) == len(digits.y) == 128


def test_the_supplement_beside():
    # Section 6.1: one of WM's rows, the nearest of LZR's, FLOPs as a budget.
    assert compare.nearest("cifar10", "WM", 16) == ["16.0", "255.8", "86.33"]
    assert compare.nearest("cifar10", "LZR", 4) == ["4.3", "38.1", "92.10"]
    assert compare.nearest("cifar10", "LZR", 16)[0] == "15.8"
    title = tables.TITLES["bar-flops"]
    assert compare.nearest("cifar10", title, 8) == ["4.4", "63.9", "92.17"]
    assert compare.nearest("cifar10", "narrowed", 8) == ["", "", ""]
    assert compare.nearest("cifar10", "WM", 64) == ["", "", ""]


def test_published_curves_stand_in_the_same_panel(monkeypatch):
    known = datasets.DATASETS["digits"]
    monkeypatch.setitem(datasets.DATASETS, "cifar10", known)
    row = {
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
    (panel,) = compare.make_panels({"cifar10": [row]}, "flops")
    measured, *published = panel.curves
    assert measured.points == {8.0: [0.5]} and not measured.published
    assert panel.full == 0.75
    bar = next(x for x in published if x.method == "BAR")
    assert bar.published and bar.points[15.9] == [0.9278]
    # Without numbers of its own, in a panel of their own.
    ours, theirs = compare.make_panels({"digits": [row]}, "volume")
    assert [x.published for x in ours.curves] == [False]
    assert all(x.published for x in theirs.curves)
