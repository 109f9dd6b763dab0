"""Pruning to a budget: going on after an interruption, and again."""

import copy
import warnings

import keras
import numpy as np
import pytest

from keras_bar import schedules
from tests.helpers import tiny
from tests.helpers.budgets import LOGS
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.budgets import Interrupt
from tests.helpers.budgets import assert_finished
from tests.helpers.budgets import assert_same
from tests.helpers.budgets import assert_same_end
from tests.helpers.budgets import nothing
from tests.helpers.budgets import values

# --- Going on after an interruption ---------------------------------------


def run(*callbacks, strength=None):
    """Trains for 4 epochs. Returns the model and the logs."""
    model = tiny.student(optimizer=keras.optimizers.AdamW(1e-2))
    regularizer = BudgetRegularizer(0.4, strength=strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = tiny.fit(model, regularizer, *callbacks, epochs=4)
    return model, logs


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a training's checkpoints, its values and its logs."""
    folder = tmp_path_factory.mktemp("checkpoints")
    model, logs = run(keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras"))
    return folder, values(model), logs


@pytest.mark.parametrize(
    "strength", [None, pytest.param(1e-5, marks=pytest.mark.slow)]
)
def test_backup_and_restore_equals_the_uninterrupted(
    tmp_path, strength, uninterrupted
):
    _, expected, expected_logs = uninterrupted
    if strength:
        model, expected_logs = run(strength=strength)
        expected = values(model)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(InterruptedError):
        run(backup, Interrupt(2), strength=strength)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    model, logs = run(backup, strength=strength)
    assert len(logs["loss"]) == 2
    assert_same(model, expected)
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
def test_checkpoint_goes_on_as_the_uninterrupted(uninterrupted):
    folder, expected, expected_logs = uninterrupted
    model = keras.models.load_model(folder / "2.keras")
    assert not tiny.gates(model)[0].is_fixed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = tiny.fit(
            model, BudgetRegularizer(0.4), epochs=4, initial_epoch=2
        )
    assert_same(model, expected)
    assert_same_end(logs, expected_logs)
    assert_finished(model, 0.4)


@pytest.mark.core
def test_checkpoint_of_the_last_epoch_needs_no_more(uninterrupted):
    folder, expected, _ = uninterrupted
    last = keras.models.load_model(folder / "4.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(last, BudgetRegularizer(0.4), epochs=4, initial_epoch=4)
    assert_same(last, expected)


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
        model = tiny.student(**QUICK)
        options = {"epochs": 2, "steps_per_epoch": 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append(tiny.fit(model, callback, **options))
        assert_finished(model, 0.5, "flops")
    for logs in results[1:]:
        for name in LOGS:
            np.testing.assert_allclose(logs[name], results[0][name], rtol=1e-4)


@pytest.mark.parametrize("epoch", [0, 1])
def test_fits_anew_after_an_error(epoch):
    model = tiny.student(**QUICK)
    failing = BudgetRegularizer(0.3), Interrupt(epoch)
    with pytest.raises(InterruptedError):
        tiny.fit(model, *failing, epochs=2, steps_per_epoch=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"epochs": 4, "steps_per_epoch": 1}
        logs = tiny.fit(model, BudgetRegularizer(0.5), **options)
    assert logs["budget"][0] > 0.95
    assert tiny.steps_done(model) == 4
    assert_finished(model, 0.5)
