"""Pruning to a budget: what leaves `fit`, and what the logs say."""

import csv
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_bar
from keras_bar import schedules
from tests.helpers import tiny
from tests.helpers.budgets import EPOCHS
from tests.helpers.budgets import LOGS
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.budgets import Interrupt
from tests.helpers.budgets import Spy
from tests.helpers.budgets import assert_connected
from tests.helpers.budgets import assert_finished
from tests.helpers.budgets import assert_same
from tests.helpers.budgets import numpy
from tests.helpers.budgets import used
from tests.helpers.budgets import values

# --- The guarantees -------------------------------------------------------


@pytest.mark.parametrize(
    "metric", ["flops", pytest.param("params", marks=pytest.mark.slow)]
)
def test_reaches_the_budget_and_uses_it(metric):
    """Also one in units of the metric; the volume's is below."""
    width = 32  # No channel is a large part of it.
    model = tiny.student(width)
    budget = 0.375
    if metric == "flops":
        budget *= keras_bar.measure_cost(tiny.network(width)).flops
    logs = tiny.fit(model, BudgetRegularizer(budget, metric), epochs=12)
    assert_finished(model, 0.375, metric)
    assert used(model, metric) >= 0.95 * 0.375
    assert logs["budget"][-1] == pytest.approx(0.375)
    assert logs["expected"][-1] == pytest.approx(0.375, abs=0.05)
    assert np.all(np.isfinite([logs[name] for name in LOGS]))


@pytest.mark.core
def test_tracking_follows_the_budget_and_learns():
    model = tiny.student()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # It got there by itself.
        logs = tiny.fit(model, BudgetRegularizer(0.5), epochs=EPOCHS)
    assert_finished(model, 0.5)
    assert used(model) >= 0.95 * 0.5
    assert logs["budget"][-1] == pytest.approx(0.5)
    assert logs["expected"][-1] == pytest.approx(0.5, abs=0.05)
    assert np.all(np.isfinite([logs[name] for name in LOGS]))
    gap = np.subtract(logs["expected"], logs["budget"])
    assert np.abs(gap[EPOCHS // 3 :]).max() < 0.12
    assert logs["loss"][-1] < logs["loss"][0]


class Masks(keras.callbacks.Callback):
    """Remembers, after every batch, what lives and whether that is fixed."""

    def __init__(self):
        super().__init__()
        self.alive, self.fixed, self.steps = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        gates = tiny.gates(self.model)
        self.alive.append(np.concatenate([gate.alive() for gate in gates]))
        self.fixed.append(all(gate.is_fixed for gate in gates))
        self.steps.append(tiny.steps_done(self.model))


@pytest.mark.core
@pytest.mark.parametrize(
    "steps_per_execution", [1, pytest.param(3, marks=pytest.mark.slow)]
)
def test_settles_when_the_budget_has_arrived(steps_per_execution):
    if steps_per_execution > 1 and keras.backend.backend() == "torch":
        pytest.skip("Keras has no steps_per_execution on torch")
    model = tiny.student(steps_per_execution=steps_per_execution)
    masks, per_epoch = Masks(), tiny.BATCHES
    steps = int(2.5 * per_epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = tiny.fit(
            model, BudgetRegularizer(0.4, steps=steps), masks, epochs=4
        )
    first = masks.fixed.index(True)
    # The first call that trains with fixed gates begins after `steps`.
    assert masks.steps[first - 1] < steps + steps_per_execution
    assert masks.steps[first - 1] >= steps
    assert all(np.all(x == masks.alive[-1]) for x in masks.alive[first:])
    assert not np.all(masks.alive[0] == masks.alive[-1])
    assert logs["expected"][-1] == pytest.approx(logs["volume"][-1], rel=1e-5)
    assert_finished(model, 0.4)


def test_what_uses_the_budget_is_left_as_it_is():
    """Channels that nobody trained are not opened to fill the budget."""
    seen = {}

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen["alive"] = [gate.alive() for gate in tiny.gates(model)]
            seen["factors"] = [
                ops.convert_to_numpy(gate.deterministic())
                for gate in tiny.gates(model)
            ]

    model = tiny.student()
    # A budget of 15.5 channels, of which 15 are well within 95 %.
    budget = 15.5 / (2 * tiny.WIDTH)
    # The gates are fixed when `fit` ends, after the last look.
    tiny.fit(model, BudgetRegularizer(budget, steps=1.0), Look(), epochs=15)
    used = sum(x.sum() for x in seen["alive"]) / 15.5
    for gate, alive, factors in zip(
        tiny.gates(model), seen["alive"], seen["factors"], strict=True
    ):
        if 0.95 <= used <= 1:
            np.testing.assert_array_equal(gate.alive(), alive)
        kept = alive & gate.alive()
        found = ops.convert_to_numpy(gate.deterministic())
        np.testing.assert_allclose(found[kept], factors[kept], rtol=1e-5)
        opened = gate.alive() & ~alive
        assert np.all(found[opened] < 0.6)


@pytest.mark.core
def test_too_short_a_training_closes_the_weakest_and_warns():
    model = tiny.student(**QUICK)
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(model, BudgetRegularizer(0.25), steps_per_epoch=2)
    assert_finished(model, 0.25)
    assert used(model) >= 0.95 * 0.25


def test_the_whole_budget_prunes_nothing():
    model = tiny.student(**QUICK)
    tiny.fit(model, BudgetRegularizer(1.0), epochs=2, steps_per_epoch=3)
    assert used(model) >= 0.95


@pytest.mark.parametrize("strength", [None, 1e-6])
def test_never_returns_a_disconnected_network(strength):
    model = tiny.student(optimizer=keras.optimizers.SGD(0.0), **QUICK)
    stem, branch = tiny.gates(model)
    # The stem is the only way through, and the weakest by far.
    stem.log_alpha.assign(np.linspace(-60, -50, tiny.WIDTH))
    branch.log_alpha.assign(np.full(tiny.WIDTH, 50.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        regularizer = BudgetRegularizer(0.3, strength=strength)
        tiny.fit(model, regularizer, steps_per_epoch=2)
    assert_finished(model, 0.3)
    assert stem.alive()[-1]  # Its strongest.


def test_least_budget_of_all_is_kept():
    model = tiny.student(**QUICK)
    least = tiny.POSITIONS  # One channel of the stem.
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(model, BudgetRegularizer(least), steps_per_epoch=2)
    assert keras_bar.measure_cost(model).volume == least
    assert_connected(model)


def test_stopping_early_stays_within_budget_and_warns():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    model = tiny.student(**QUICK)
    options = {"epochs": 10, "steps_per_epoch": 2}
    with pytest.warns(UserWarning, match="too short"):
        logs = tiny.fit(model, BudgetRegularizer(0.3), Stop(), **options)
    assert len(logs["loss"]) == 2
    assert_finished(model, 0.3)


def test_early_stopping_that_restores_weights_before_the_budget_acts():
    stopping = keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=1, restore_best_weights=True
    )
    model = tiny.student(**QUICK)
    options = {"epochs": 10, "steps_per_epoch": 2}
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(model, stopping, BudgetRegularizer(0.3), **options)
    assert_finished(model, 0.3)


def test_no_epochs_at_all():
    model = tiny.student()
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(model, BudgetRegularizer(0.25), epochs=0)
    assert_finished(model, 0.25)
    assert used(model) >= 0.95 * 0.25


# --- The logs -------------------------------------------------------------


def test_everyone_after_it_sees_the_logs(tmp_path, capsys):
    path = tmp_path / "log.csv"
    spy = Spy()
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras",
        monitor="volume",
        mode="min",
        save_best_only=True,
    )
    logs = tiny.fit(
        tiny.student(),
        BudgetRegularizer(0.5),
        spy,
        keras.callbacks.CSVLogger(path),
        keras.callbacks.TensorBoard(tmp_path),
        checkpoint,
        epochs=2,
        verbose=2,
        validation_data=tiny.data(),
    )
    printed = capsys.readouterr().out
    assert set(LOGS) < set(spy.seen[0])
    assert set(LOGS) < set(logs)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name in LOGS:
        assert float(rows[1][name]) == pytest.approx(logs[name][1])
        assert f"{name}: " in printed
    assert (tmp_path / "best.keras").exists()
    assert {"val_loss"} < set(logs)


def test_logs_say_what_the_gates_say():
    epochs, steps = 3, round(0.9 * 3 * tiny.BATCHES)
    model = tiny.student()
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            cost = keras_bar.measure_cost(self.model)
            soft = sum(
                numpy(gate.probability()).sum()
                for gate in tiny.gates(self.model)
            )
            seen.append((cost, soft * tiny.POSITIONS))

    logs = tiny.fit(model, BudgetRegularizer(0.5), Look(), epochs=epochs)
    full = keras_bar.measure_cost(tiny.network())
    for epoch, (cost, soft) in enumerate(seen):
        for metric in ("volume", "flops", "params"):
            share = getattr(cost, metric) / getattr(full, metric)
            assert logs[metric][epoch] == pytest.approx(share)
        expected = logs["expected"][epoch] * tiny.VOLUME
        assert expected == pytest.approx(soft, rel=1e-3)
        t = (epoch + 1) * tiny.BATCHES / steps
        budget = schedules.moving_budget(t, 0.5, 1.0)
        assert logs["budget"][epoch] == pytest.approx(float(budget), rel=1e-5)


@pytest.mark.parametrize("steps", [4, 2 / 3])
def test_schedule_of_its_own_length_and_hardness(steps):
    regularizer = BudgetRegularizer(0.5, steps=steps, hardness=0.0)
    options = {"epochs": 3, "steps_per_epoch": 2}
    logs = tiny.fit(tiny.student(**QUICK), regularizer, **options)
    expected = [(1.01 + 0.5) / 2, 0.5, 0.5]
    assert logs["budget"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_among_the_callbacks_of_another_method_it_changes_nothing(method):
    x, y = tiny.data()
    model = tiny.student(**QUICK)
    with pytest.raises(InterruptedError):
        regularizer = BudgetRegularizer(0.5)
        tiny.fit(model, regularizer, Interrupt(1), epochs=2, steps_per_epoch=2)
    expected = values(model)
    data = {"x": x, "y": y} if method == "evaluate" else {"x": x}
    getattr(model, method)(**data, verbose=0, callbacks=[regularizer])
    assert tiny.steps_done(model) == 2
    assert_same(model, expected)


def test_validation_within_fit_takes_no_step():
    model = tiny.student(**QUICK)
    logs = tiny.fit(
        model,
        BudgetRegularizer(0.5),
        epochs=2,
        steps_per_epoch=3,
        validation_data=tiny.data(16),
    )
    assert len(logs["val_loss"]) == 2
    assert tiny.steps_done(model) == 2 * 3


def test_weights_restored_after_it_has_settled_are_pruned_again():
    """`EarlyStopping(restore_best_weights=True)` brings back the best epoch,
    which may be one from before the gates were fixed."""
    first = keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=99, restore_best_weights=True
    )
    model = tiny.student(**QUICK)
    regularizer = BudgetRegularizer(0.4, steps=0.5)
    tiny.fit(model, first, regularizer, epochs=4, steps_per_epoch=2)
    assert_finished(model, 0.4)
