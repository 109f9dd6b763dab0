"""The invariants on every model of `keras.applications`."""

import keras
import pytest

from benchmarks import applications

# Tried with every change: depthwise convolutions, squeeze-and-excitation.
FAST = "MobileNetV3Small"
SLOW = ("DenseNet121", "EfficientNetB0", "Xception")


def check(name):
    row = applications.measure(name)
    assert row["difference"] < 1e-4
    assert row["exact"]
    assert row["graph_flops"] == pytest.approx(1.0, rel=0.01)
    assert row["gated"] > 0
    assert row["params_after"] < row["params_before"]


@pytest.mark.parametrize(
    "name", [FAST, *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW)]
)
def test_some(name):
    check(name)


@pytest.mark.all_applications
@pytest.mark.parametrize("name", applications.names())
def test_all(name):
    keras.backend.clear_session()
    check(name)
