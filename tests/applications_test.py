"""The invariants on every model of `keras.applications`."""

import keras
import pytest

from benchmarks import applications

# Their kinds of blocks are tried with every change, in small networks.
SOME = ("MobileNetV3Small", "DenseNet121", "EfficientNetB0", "Xception")


def check(name):
    row = applications.measure(name)
    assert row["difference"] < 1e-4
    assert row["exact"]
    assert row["restored"]
    assert row["graph_flops"] == pytest.approx(1.0, rel=0.01)
    assert row["gated"] > 0
    assert row["params_after"] < row["params_before"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_some(name):
    check(name)


@pytest.mark.all_applications
@pytest.mark.parametrize("name", applications.names())
def test_all(name):
    keras.backend.clear_session()
    check(name)
