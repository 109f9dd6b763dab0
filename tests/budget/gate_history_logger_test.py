"""The history of the gates' probabilities."""

import json

import keras
import pytest

import keras_bar
from keras_bar.callbacks import BudgetRegularizer
from keras_bar.callbacks import GateHistoryLogger
from tests.helpers import tiny

pytestmark = pytest.mark.core


def test_every_channel_is_counted(tmp_path):
    path = tmp_path / "gates.json"
    student = tiny.student()
    regularizer = BudgetRegularizer(0.5)
    tiny.fit(student, regularizer, GateHistoryLogger(path), epochs=6)
    epochs = json.loads(path.read_text())
    assert list(epochs) == [str(x) for x in range(1, 7)]
    for gates in epochs.values():
        assert set(gates) == {"stem_gate", "branch_gate"}
        for counts in gates.values():
            assert len(counts) == 20 and sum(counts) == tiny.WIDTH
    # Fixed at the end: alive or dead, and what the network says of them.
    for gate in tiny.gates(student):
        last, alive = epochs["6"][gate.name], int(gate.alive().sum())
        assert last[-1] == alive and last[0] == tiny.WIDTH - alive
    # At the start P(z > 0) is 0.95.
    assert all(x[18] + x[19] > 10 for x in epochs["1"].values())


def test_a_training_that_goes_on_adds_to_it(tmp_path):
    path = tmp_path / "gates.json"
    student = tiny.student()
    tiny.fit(student, GateHistoryLogger(path), epochs=2)
    tiny.fit(student, GateHistoryLogger(path), epochs=3, initial_epoch=2)
    assert list(json.loads(path.read_text())) == ["1", "2", "3"]


def test_a_distiller_is_looked_into(tmp_path):
    path = tmp_path / "gates.json"
    model = keras_bar.distillation.Distiller(
        tiny.network(),
        tiny.student(),
        keras_bar.distillation.LogitsDistillation(),
    )
    tiny.fit(tiny.prepare(model), GateHistoryLogger(path))
    assert set(json.loads(path.read_text())["1"]) == {
        "stem_gate",
        "branch_gate",
    }


def test_a_model_without_gates(tmp_path):
    model = tiny.prepare(tiny.network())
    with pytest.raises(ValueError, match="gate"):
        tiny.fit(model, GateHistoryLogger(tmp_path / "gates.json"))
    assert isinstance(model, keras.Model)


@pytest.mark.parametrize(
    "name", ["/nope/x.json", "text/x.json", "/proc/x.json", "folder"]
)
def test_a_file_that_cannot_be_written(tmp_path, name):
    (tmp_path / "text").write_text("no folder")
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    with pytest.raises(ValueError, match="cannot be written") as error:
        GateHistoryLogger(path)
    assert str(path) in str(error.value) and "Expected" in str(error.value)


def test_a_folder_that_vanishes_is_named_by_the_file(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    journal = GateHistoryLogger(folder / "gates.json")
    folder.rmdir()
    with pytest.raises(OSError) as error:
        tiny.fit(tiny.student(), journal, steps_per_epoch=1)
    assert error.value.filename == str(folder / "gates.json")


@pytest.mark.parametrize("content", ['{"loss": 1}', "[]", "text", ""])
def test_a_file_that_is_no_history(tmp_path, content):
    path = tmp_path / "gates.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="Expected") as error:
        GateHistoryLogger(path)
    assert "gates.json" in str(error.value)
    assert path.read_text() == content


@pytest.mark.parametrize("path", [5, None, ["gates.json"]])
def test_a_path_that_is_none(path):
    with pytest.raises(ValueError, match="Received: path="):
        GateHistoryLogger(path)
