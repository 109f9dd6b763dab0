"""The journal of the gates' probabilities."""

import json

import keras
import pytest

import keras_bar
from keras_bar.callbacks import BudgetRegularizer
from keras_bar.callbacks import GateJournal
from tests import tiny

pytestmark = pytest.mark.core


def test_every_channel_is_counted(tmp_path):
    path = tmp_path / "gates.json"
    student = tiny.student()
    regularizer = BudgetRegularizer(0.5)
    tiny.fit(student, regularizer, GateJournal(path), epochs=6)
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
    tiny.fit(student, GateJournal(path), epochs=2)
    tiny.fit(student, GateJournal(path), epochs=3, initial_epoch=2)
    assert list(json.loads(path.read_text())) == ["1", "2", "3"]


def test_a_distiller_is_looked_into(tmp_path):
    path = tmp_path / "gates.json"
    model = keras_bar.distillation.Distiller(
        tiny.network(),
        tiny.student(),
        keras_bar.distillation.LogitsDistillation(),
    )
    tiny.fit(tiny.prepare(model), GateJournal(path))
    assert set(json.loads(path.read_text())["1"]) == {
        "stem_gate",
        "branch_gate",
    }


def test_a_model_without_gates(tmp_path):
    model = tiny.prepare(tiny.network())
    with pytest.raises(ValueError, match="gate"):
        tiny.fit(model, GateJournal(tmp_path / "gates.json"))
    assert isinstance(model, keras.Model)
