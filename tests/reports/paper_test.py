"""The supplement's numbers, as figures and tables ask for them."""

import keras
import pytest

import keras_bar
from keras_bar.reports import paper
from keras_bar.reports import timing
from tests.helpers import tiny


def test_curves_are_those_of_the_supplement():
    curves = {x.method: x for x in paper.curves("cifar10", "flops")}
    assert curves["WM"].points[16.0] == [0.9120]
    assert all(x.published for x in curves.values())
    # The same accuracies, at other places.
    volumes = {x.method: x for x in paper.curves("cifar10", "volume")}
    for name, curve in curves.items():
        both = [
            sorted(y for part in x.points.values() for y in part)
            for x in (curve, volumes[name])
        ]
        assert both[0] == both[1]
    assert paper.curves("digits", "flops") == []


@pytest.mark.parametrize(
    "method, factor, metric, accuracy",
    [
        ("WM", 16, "volume", 0.8633),
        ("WM", 16, "flops", 0.9120),
        ("WM", 15, "volume", 0.8633),
        ("BAR (F-trained)", 4, "volume", 0.9350),
        ("WM", 1000, "volume", None),
        ("narrowed", 4, "volume", None),
    ],
)
def test_the_nearest_row(method, factor, metric, accuracy):
    row = paper.nearest("cifar10", method, factor, metric)
    assert (row and row["test_accuracy"]) == accuracy


def test_files_are_measured(tmp_path):
    model = tiny.network()
    path = tmp_path / "model.keras"
    model.save(path)
    ((label, found),) = timing.measure_files({"model": path}).items()
    cost = keras_bar.measure_cost(keras.models.load_model(path))
    assert label == "model" and found["flops"] == cost.flops
    assert found["file_bytes"] == path.stat().st_size
    assert 0 < found["latency_ms_batch_1"] < found["latency_ms_batch_128"] * 10
