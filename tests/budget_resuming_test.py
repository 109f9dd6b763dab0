"""Pruning to a budget: going on after an interruption, and again."""

import copy
import warnings

import keras
import numpy as np
import pytest

from keras_bar import schedules
from tests import tiny
from tests.budgets import LOGS
from tests.budgets import QUICK
from tests.budgets import BudgetRegularizer
from tests.budgets import Interrupt
from tests.budgets import assert_finished
from tests.budgets import assert_same
from tests.budgets import assert_same_end
from tests.budgets import nothing
from tests.budgets import values

# --- Going on after an interruption ---------------------------------------


@pytest.mark.parametrize("strength", [None, 1e-5])
def test_backup_and_restore_equals_the_uninterrupted(tmp_path, strength):
    def run(*callbacks):
        model = tiny.student(optimizer=keras.optimizers.Adam(1e-2))
        regularizer = BudgetRegularizer(0.4, strength=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logs = tiny.fit(model, regularizer, *callbacks, epochs=4)
        return model, logs

    expected, expected_logs = run()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(InterruptedError):
        run(backup, Interrupt(2))
    model, logs = run(keras.callbacks.BackupAndRestore(tmp_path))
    assert len(logs["loss"]) == 2
    assert_same(model, values(expected))
    assert_same_end(logs, expected_logs)


def test_backup_listed_first_and_nothing_left_to_train(tmp_path):
    """As a script does that is started again after its last epoch."""

    def run():
        model = tiny.student()
        backup = keras.callbacks.BackupAndRestore(
            tmp_path, delete_checkpoint=False
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logs = tiny.fit(model, backup, BudgetRegularizer(0.4), epochs=4)
        return model, logs

    expected, _ = run()
    model, logs = run()
    assert not logs
    assert_same(model, values(expected))


@pytest.mark.core
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_checkpoint_goes_on_as_the_uninterrupted(tmp_path, optimizer):
    path = tmp_path / "{epoch}.keras"
    model = tiny.student(optimizer=keras.optimizers.get(optimizer))
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected_logs = tiny.fit(
            model, BudgetRegularizer(0.4), checkpoint, epochs=4
        )
        expected = values(model)
        model = keras.models.load_model(tmp_path / "2.keras")
        assert not tiny.gates(model)[0].is_fixed
        logs = tiny.fit(
            model, BudgetRegularizer(0.4), epochs=4, initial_epoch=2
        )
    assert_same(model, expected)
    assert_same_end(logs, expected_logs)
    assert_finished(model, 0.4)


@pytest.mark.core
def test_goes_on_after_it_has_settled(tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = tiny.student()
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.4, steps=0.3), checkpoint, epochs=4)
        expected = values(model)
        model = keras.models.load_model(tmp_path / "2.keras")
        assert tiny.gates(model)[0].is_fixed
        again = BudgetRegularizer(0.4, steps=0.3)
        tiny.fit(model, again, epochs=4, initial_epoch=2)
    assert_same(model, expected)
    assert_finished(model, 0.4)


def test_checkpoint_of_the_last_epoch_needs_no_more(tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = tiny.student()
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.4), checkpoint, epochs=4)
        last = keras.models.load_model(tmp_path / "4.keras")
        tiny.fit(last, BudgetRegularizer(0.4), epochs=4, initial_epoch=4)
    for gate, expected in zip(tiny.gates(last), tiny.gates(model), strict=True):
        np.testing.assert_array_equal(gate.alive(), expected.alive())


def test_initial_epoch_of_a_fresh_model_leaves_the_schedule_whole():
    """As after epochs of training without a budget."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = tiny.fit(
            tiny.student(**QUICK),
            BudgetRegularizer(0.4, steps=1.0),
            epochs=6,
            initial_epoch=2,
            steps_per_epoch=1,
        )
    first = schedules.moving_budget(1 / 4, 0.4, 1.0)
    assert logs["budget"][0] == pytest.approx(float(first), rel=1e-5)
    assert logs["budget"][-1] == pytest.approx(0.4)


# --- Before and after -----------------------------------------------------


@pytest.mark.core
def test_nothing_is_left_behind():
    model = tiny.student(optimizer=keras.optimizers.SGD(0.0), loss=nothing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        regularizer = BudgetRegularizer.paper(0.5, push=None)
        assert tiny.fit(model, regularizer)["loss"][0] > 0
    alive = [gate.alive() for gate in tiny.gates(model)]
    steps = tiny.steps_done(model)
    logs = tiny.fit(model)
    assert logs["loss"] == [0.0]
    assert not set(LOGS) & set(logs)
    assert tiny.steps_done(model) == steps
    for gate, mask in zip(tiny.gates(model), alive, strict=True):
        np.testing.assert_array_equal(gate.alive(), mask)


def test_copied_before_and_used_again_after():
    regularizer = BudgetRegularizer(0.5, "flops", hardness=5.0)
    results = []
    for callback in [copy.deepcopy(regularizer), regularizer, regularizer]:
        model = tiny.student()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append(tiny.fit(model, callback, epochs=2))
        assert_finished(model, 0.5, "flops")
    for logs in results[1:]:
        for name in LOGS:
            np.testing.assert_allclose(logs[name], results[0][name], rtol=1e-4)


@pytest.mark.parametrize("epoch", [0, 1])
def test_fits_anew_after_an_error(epoch):
    model = tiny.student()
    with pytest.raises(InterruptedError):
        tiny.fit(model, BudgetRegularizer(0.3), Interrupt(epoch), epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = tiny.fit(model, BudgetRegularizer(0.5), epochs=4)
    assert logs["budget"][0] > 0.95
    assert tiny.steps_done(model) == 4 * tiny.BATCHES
    assert_finished(model, 0.5)
