"""Tables and figures of comparisons, beside the supplement's numbers."""

import argparse
import csv
import json

import pandas

from keras_bar.reports import paper
from recipes.data import registry
from recipes.results import figures
from recipes.results import tables
from tests.recipes.fashion import lines_of

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
    "params": 0.125,
    "full_volume": 1000,
    "full_flops": 10_000,
    "regular_volume": 300,
    "regular_flops": 1500,
}


def test_the_supplement_beside():
    # Section 6.1: one of WM's rows, the nearest of LZR's, FLOPs as a budget.
    def nearest(title, factor, metric="volume"):
        return tables.nearest("cifar10", title, factor, metric)

    assert nearest("WM", 16) == ["16.0", "255.8", "86.33"]
    assert nearest("LZR", 4) == ["4.3", "38.1", "92.10"]
    assert nearest("BAR (F-trained)", 8) == ["4.4", "63.9", "92.17"]
    assert nearest("BAR (F-trained)", 16, "flops") == ["2.9", "16.0", "93.50"]
    assert nearest("WM", 16, "flops") == ["4.0", "16.0", "91.20"]
    # What stands beside a search that ended far from where it should.
    row = {**ROW, "dataset": "cifar10", "method": "lzr", "factor": 16.0}
    rows = pandas.DataFrame([{**row, "volume": 0.24}])
    text = tables.markdown_of(tables.compare(rows, "volume", "cifar10"))
    (line,) = lines_of(text, "LZR")
    assert line.endswith("| 4.3 | 38.1 | 92.10 |")
    for none in (("narrowed", 8), ("WM", 64), ("WM", 4, "params")):
        assert nearest(*none) == ["", "", ""]


def test_supplement_without_an_accuracy():
    """Its row for IB on Mio-TCD at 11.5."""
    for metric in ("volume", "flops"):
        for curve in paper.curves("mio_tcd", metric):
            assert None not in sum(curve.points.values(), [])
    # Two of CIFAR-10's rows for IB are at 1.3.
    (ib,) = (x for x in paper.curves("cifar10", "volume") if x.method == "IB")
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
            dataset="digits",
            network="wide_resnet",
            start="teacher",
            metric=metric,
            output=tmp_path,
            folders={"digits": tmp_path / "digits"},
        )
        tables.write(settings)
        with open(tmp_path / "results.csv", newline="") as file:
            assert {x["metric"] for x in csv.DictReader(file)} == {
                "volume",
                "flops",
            }
        (line,) = lines_of((tmp_path / "tables.md").read_text(), "BAR")
        assert f"| 4.0 | 8.0 | {shown} |" in line


def test_published_curves_stand_in_the_same_panel(monkeypatch):
    known = registry.DATASETS["digits"]
    monkeypatch.setitem(registry.DATASETS, "cifar10", known)
    rows = pandas.DataFrame([{"dataset": "cifar10", **ROW}])
    (panel,) = figures.make_panels(rows, "flops")
    measured, *published = panel.curves
    assert measured.points == {8.0: [0.5]} and not measured.published
    assert panel.full == 0.75
    bar = next(x for x in published if x.method == "BAR")
    assert bar.published and bar.points[15.9] == [0.9278]
    # Without numbers of its own, in a panel of their own.
    rows["dataset"] = "digits"
    ours, theirs = figures.make_panels(rows, "volume")
    assert [x.published for x in ours.curves] == [False]
    assert all(x.published for x in theirs.curves)
