"""Models with gates refuse to be exported."""

import keras
import pytest

import keras_bar
from tests.helpers import pruning
from tests.helpers import tiny


def gated():
    return pruning.close_gates(keras_bar.gate(tiny.network()))


def loaded(tmp_path):
    gated().save(tmp_path / "gated.keras")
    return keras.models.load_model(tmp_path / "gated.keras")


@pytest.mark.parametrize(
    "make",
    [
        lambda _: gated(),
        lambda _: keras_bar.gate(gated()),
        lambda _: keras_bar.hard_prune(gated()),
        lambda _: keras.models.clone_model(gated()),
        loaded,
    ],
    ids=["gated", "gated again", "hard-pruned", "cloned", "loaded"],
)
@pytest.mark.parametrize("format", ["tf_saved_model", "onnx", "litert"])
def test_export_is_refused(make, format, tmp_path):
    model = make(tmp_path)
    with pytest.raises(ValueError, match="Expected the compact model") as info:
        model.export(tmp_path / "exported", format=format)
    assert f"format={format!r}" in str(info.value)
    assert not (tmp_path / "exported").exists()


@pytest.mark.core
def test_the_compact_model_is_a_plain_one():
    small = keras_bar.compact(gated())
    assert type(small) is type(tiny.network())
    assert isinstance(gated(), type(small))
