import copy
import csv
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_bar
from keras_bar import schedules
from keras_bar.callbacks import BudgetRegularizer
from keras_bar.callbacks import control
from keras_bar.layers import BudgetState
from tests import tiny
from tests.gradients import gradient

LOGS = ["volume", "flops", "params", "budget", "expected", "penalty"]
# Long enough for the tiny network to reach its budget by itself.
EPOCHS = 20

# For a few steps, faster than to compile one.
QUICK = {"run_eagerly": True}

backend = keras.backend.backend()
not_torch = pytest.mark.skipif(backend == "torch", reason="not in Keras")


class Interrupt(keras.callbacks.Callback):
    """Raises an error when an epoch begins."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedError


class Spy(keras.callbacks.Callback):
    """Keeps the logs that a callback of the user sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(dict(logs))


def numpy(x):
    return ops.convert_to_numpy(ops.convert_to_tensor(x))


def used(model, metric="volume"):
    """Share of the full cost that the alive channels take."""
    width = tiny.gates(model)[0].log_alpha.shape[0]
    full = keras_bar.measure_cost(tiny.network(width))
    return getattr(keras_bar.measure_cost(model), metric) / getattr(
        full, metric
    )


def assert_connected(model):
    x = tiny.data()[0]
    outputs = keras_bar.compact(model).predict(x, verbose=0)
    assert np.all(np.isfinite(outputs))
    assert np.ptp(outputs, axis=0).max() > 0


def assert_finished(model, budget, metric="volume"):
    """What leaves `fit` is within budget, connected, and fixed."""
    assert used(model, metric) <= budget + 1e-9
    assert all(gate.is_fixed for gate in tiny.gates(model))
    assert_connected(model)


# --- The guarantees -------------------------------------------------------


@pytest.mark.parametrize("metric", ["volume", "flops", "params"])
def test_reaches_the_budget_and_uses_it(metric):
    model = tiny.student(width=32)  # No channel is a large part of it.
    logs = tiny.fit(model, BudgetRegularizer(0.375, metric), epochs=EPOCHS)
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
    gap = np.subtract(logs["expected"], logs["budget"])
    assert np.abs(gap[EPOCHS // 3 :]).max() < 0.12
    assert logs["loss"][-1] < logs["loss"][0]


class Masks(keras.callbacks.Callback):
    """Remembers, after every batch, what lives and whether that is fixed."""

    def __init__(self):
        super().__init__()
        self.alive, self.fixed = [], []

    def on_train_batch_end(self, batch, logs=None):
        gates = tiny.gates(self.model)
        self.alive.append(np.concatenate([gate.alive() for gate in gates]))
        self.fixed.append(all(gate.is_fixed for gate in gates))


@pytest.mark.core
@pytest.mark.parametrize("steps_per_execution", [1, 3])
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
    assert first >= (steps - 1) // steps_per_execution
    assert first <= steps // steps_per_execution + 1
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
    tiny.fit(model, BudgetRegularizer(budget), Look(), epochs=15)
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


def test_budget_in_units_of_the_metric():
    model = tiny.student()
    budget = round(0.5 * tiny.VOLUME)
    logs = tiny.fit(model, BudgetRegularizer(budget), epochs=EPOCHS)
    assert keras_bar.measure_cost(model).volume <= budget
    assert logs["budget"][-1] == pytest.approx(0.5)


@pytest.mark.core
def test_too_short_a_training_closes_the_weakest_and_warns():
    model = tiny.student()
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(model, BudgetRegularizer(0.25), steps_per_epoch=2)
    assert_finished(model, 0.25)
    assert used(model) >= 0.95 * 0.25


def test_the_whole_budget_prunes_nothing():
    model = tiny.student()
    tiny.fit(model, BudgetRegularizer(1.0), epochs=2)
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


def test_weights_that_are_no_numbers_leave_a_network_within_budget():
    model = tiny.student(optimizer=keras.optimizers.SGD(1e30), **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.3), steps_per_epoch=4)
    assert np.isnan(numpy(tiny.gates(model)[0].log_alpha)).any()
    assert used(model) <= 0.3
    assert tiny.gates(model)[0].alive().any()


def test_stopping_early_stays_within_budget_and_warns():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    model = tiny.student()
    with pytest.warns(UserWarning, match="too short"):
        logs = tiny.fit(model, BudgetRegularizer(0.3), Stop(), epochs=10)
    assert len(logs["loss"]) == 2
    assert_finished(model, 0.3)


def test_early_stopping_that_restores_weights_before_the_budget_acts():
    stopping = keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=1, restore_best_weights=True
    )
    model = tiny.student()
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(model, stopping, BudgetRegularizer(0.3), epochs=10)
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


@pytest.mark.parametrize("steps", [2 * tiny.BATCHES, 2 / 3])
def test_schedule_of_its_own_length_and_hardness(steps):
    regularizer = BudgetRegularizer(0.5, steps=steps, hardness=0.0)
    logs = tiny.fit(tiny.student(), regularizer, epochs=3)
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
    model = tiny.student()
    logs = tiny.fit(
        model,
        BudgetRegularizer(0.5),
        epochs=2,
        validation_data=tiny.data(),
    )
    assert len(logs["val_loss"]) == 2
    assert tiny.steps_done(model) == 2 * tiny.BATCHES


# --- The paper's penalty --------------------------------------------------


def nothing(y_true, y_pred):
    """A data loss of 0, which leaves the penalty."""
    return 0.0 * ops.sum(y_pred, axis=-1)


def by_hand(log_alphas, target, step, steps, strength):
    """`strength * f(V, a, b) * L_S` in float64."""
    location = np.concatenate(log_alphas).astype("float64")
    p = 1 / (1 + np.exp(-(location - 2 / 3 * np.log(0.1 / 1.1))))
    area = tiny.POSITIONS
    cost, soft = area * np.sum(p > 0.5), area * np.sum(p)
    lower = target - 1e-4 * tiny.VOLUME
    t = step / steps
    delta = 1 / (1 + np.exp(5))
    done = (1 / (1 + np.exp(-10 * (t - 0.5))) - delta) / (1 - 2 * delta)
    upper = (1 - done) * 1.01 * tiny.VOLUME + done * target
    r = max(0.0, (cost - lower) / (upper - lower))
    barrier = min(r * r / (1 - r), 1e10) if cost < upper else 1e10
    return strength * barrier * soft


@pytest.mark.core
@pytest.mark.parametrize("closed, free", [(0, False), (9, False), (20, True)])
def test_paper_penalty_is_strength_times_barrier_times_cost(closed, free):
    model = tiny.student(optimizer=keras.optimizers.SGD(0.0), loss=nothing)
    rng = np.random.default_rng(1)
    log_alphas = rng.uniform(-1, 3, (2, tiny.WIDTH)).astype("float32")
    log_alphas.flat[1 : closed + 1] = -4.0
    for gate, values in zip(tiny.gates(model), log_alphas, strict=True):
        gate.log_alpha.assign(values)
    regularizer = BudgetRegularizer.paper(0.5, strength=1e-3, steps=10)
    logs = tiny.fit(model, regularizer, steps_per_epoch=1, epochs=5)
    full, target = tiny.VOLUME, 0.5 * tiny.VOLUME
    for step, loss in enumerate(logs["loss"]):
        expected = by_hand(log_alphas, target, step, 10, 1e-3)
        assert loss == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert (loss == 0) == free
        later = by_hand(log_alphas, target, step + 1, 10, 1e-3)
        assert logs["penalty"][step] == pytest.approx(later, rel=1e-3, abs=1e-6)
    assert full == keras_bar.measure_cost(tiny.network()).volume


@pytest.mark.core
def test_paper_penalty_has_the_gradient_of_its_finite_differences():
    model = tiny.student()
    regularizer = BudgetRegularizer.paper(0.5, "flops", strength=1e-3, steps=10)
    regularizer.set_model(model)
    gate = tiny.gates(model)[0]
    (state,) = (x for x in model.layers if isinstance(x, BudgetState))
    state.step.assign(4)
    penalty = regularizer.make_control(steps=10)

    def at(log_alpha):
        with keras.StatelessScope(state_mapping=[(gate.log_alpha, log_alpha)]):
            return penalty(state)

    x = np.linspace(-1.2, 2, tiny.WIDTH).astype("float32")
    expected = []
    for i in range(tiny.WIDTH):
        step = 0.05 * np.eye(tiny.WIDTH, dtype="float32")[i]
        ends = [
            float(numpy(at(ops.convert_to_tensor(x + sign * step))))
            for sign in (1, -1)
        ]
        expected.append((ends[0] - ends[1]) / 0.1)
    result = gradient(at, x)
    assert np.all(result > 0)
    np.testing.assert_allclose(result, expected, rtol=2e-2)


@pytest.mark.core
def test_paper_penalty_prunes():
    model = tiny.student(optimizer=keras.optimizers.Adam(5e-2))
    logs = tiny.fit(model, BudgetRegularizer.paper(0.5), epochs=EPOCHS)
    assert_finished(model, 0.5)
    assert logs["expected"][-1] < 0.6 < logs["expected"][0]
    assert np.all(np.isfinite(logs["loss"]))


def test_paper_starts_as_the_paper_does():
    model = tiny.student()
    before = [numpy(gate.log_alpha) for gate in tiny.gates(model)]
    assert all(np.all((0 <= x) & (x <= 0.01)) for x in before)
    with pytest.raises(InterruptedError):
        tiny.fit(model, BudgetRegularizer(0.5), Interrupt(1), epochs=2)
    regularizer = BudgetRegularizer.paper(0.5)
    regularizer.set_model(model)
    for gate in tiny.gates(model):
        location, log_alpha = numpy(gate.location()), numpy(gate.log_alpha)
        np.testing.assert_array_equal(location, log_alpha)


# --- Ways to train --------------------------------------------------------


@not_torch
@pytest.mark.core
@pytest.mark.parametrize("strength", [None, 1e-5])
@pytest.mark.parametrize(
    "options",
    [{"steps_per_execution": 8}, {"jit_compile": True}],
    ids=["steps_per_execution", "jit_compile"],
)
def test_ways_to_compile(options, strength):
    model = tiny.student(**options)
    regularizer = BudgetRegularizer(0.5, strength=strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = tiny.fit(model, regularizer, epochs=4)
    assert_finished(model, 0.5)
    assert tiny.steps_done(model) == 4 * tiny.BATCHES
    assert logs["budget"][-1] == pytest.approx(0.5)
    assert np.all(np.isfinite([logs[name] for name in LOGS]))


def test_eager_steps():
    model = tiny.student(run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), epochs=2, steps_per_epoch=2)
    assert_finished(model, 0.5)
    assert tiny.steps_done(model) == 4


@pytest.mark.parametrize("strength", [None, 1e-5])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy, strength):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny.student()
        regularizer = BudgetRegularizer(0.5, strength=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logs = tiny.fit(model, regularizer, epochs=4)
        scaled = hasattr(model.optimizer, "inner_optimizer")
    finally:
        keras.config.set_dtype_policy(before)
    assert scaled == (policy == "mixed_float16")
    assert model.get_layer("stem").compute_dtype == policy.split("_")[1]
    for gate in tiny.gates(model):
        assert gate.log_alpha.dtype == "float32"
    assert_finished(model, 0.5)
    assert tiny.steps_done(model) == 4 * tiny.BATCHES
    assert np.all(np.isfinite([logs[name] for name in ["loss", *LOGS]]))
    if strength is None:
        assert logs["expected"][-1] == pytest.approx(0.5, abs=0.1)


def test_gated_model_within_a_model():
    student = tiny.student()
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), keras.layers.GaussianNoise(0.1), student]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.prepare(model, **QUICK)
        tiny.fit(model, BudgetRegularizer(0.5), steps_per_epoch=2)
    assert_finished(student, 0.5)
    assert tiny.steps_done(student) == 2


def test_params_of_a_network_for_pictures_of_any_size():
    teacher = tiny.network(size=None)
    model = tiny.prepare(keras_bar.gate(teacher, seed=0), **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5, "params"), steps_per_epoch=2)
    params = keras_bar.compact(model).count_params()
    assert 0.95 * 0.5 <= params / teacher.count_params() <= 0.5


# --- Going on after an interruption ---------------------------------------


def assert_same(model, expected):
    for x, y in zip(model.variables, expected, strict=True):
        np.testing.assert_allclose(
            x.numpy(), y, rtol=1e-5, atol=1e-6, err_msg=x.path
        )


def assert_same_end(logs, expected):
    for name in ["loss", *LOGS]:
        end = expected[name][-len(logs[name]) :]
        np.testing.assert_allclose(logs[name], end, rtol=1e-4, err_msg=name)


def values(model):
    return [np.array(x.numpy()) for x in model.variables]


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
        regularizer = BudgetRegularizer.paper(0.5)
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


# --- Weight decay ---------------------------------------------------------


def decayed(optimizer, model):
    return {
        x.path
        for x in model.trainable_variables
        if optimizer._use_weight_decay(x)
    }


@pytest.mark.parametrize("scaled", [False, True])
def test_gates_are_exempt_from_weight_decay(scaled):
    adamw = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    model = tiny.student()
    kept_by_user = model.get_layer("stem").kernel
    adamw.exclude_from_weight_decay([kept_by_user], ["bias"])
    tiny.prepare(
        model,
        keras.optimizers.LossScaleOptimizer(adamw) if scaled else adamw,
        **QUICK,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), steps_per_epoch=2)
    paths = decayed(adamw, model)
    assert not any("log_alpha" in path for path in paths)
    assert kept_by_user.path not in paths
    assert model.get_layer("logits").bias.path not in paths
    assert model.get_layer("branch").kernel.path in paths


def test_weight_decay_of_several_optimizers():
    adamw = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1), {".*log_alpha": adamw}
        )
    )
    model = tiny.student(optimizer=several, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), steps_per_epoch=2)
    assert not any("log_alpha" in x for x in decayed(adamw, model))


# --- Errors ---------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"metric": "latency"}, "Unknown metric.*'flops'.*'latency'"),
        ({"budget": 0}, "Invalid budget.*budget=0"),
        ({"budget": -0.5}, "Invalid budget.*budget=-0.5"),
        ({"budget": float("nan")}, "Invalid budget.*nan"),
        ({"budget": "1/8"}, "Invalid budget.*'1/8'"),
        ({"budget": True}, "Invalid budget.*True"),
        ({"steps": 0}, "number of pruning steps.*steps=0"),
        ({"steps": 1.5}, "number of pruning steps.*steps=1.5"),
        ({"steps": 0.0}, "number of pruning steps.*steps=0.0"),
        ({"hardness": -1}, "hardness.*hardness=-1"),
        ({"strength": 0.0}, "strength.*strength=0.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        BudgetRegularizer(**{"budget": 0.5, **arguments})
    assert_three_beats(error)


def assert_three_beats(error):
    what, rest = str(error.value).split("Expected", 1)
    assert what.strip().endswith(".")
    assert "Received: " in rest


class NoStep(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        raise AssertionError("A step was taken.")


def assert_refused(message, model, *regularizers, **options):
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        tiny.fit(model, *regularizers, NoStep(), **options)
    assert_three_beats(error)


def test_no_gates():
    model = tiny.prepare(tiny.network())
    assert_refused("no gates", model, BudgetRegularizer(0.5))


def test_already_compact():
    model = tiny.student()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), epochs=0)
    small = tiny.prepare(keras_bar.compact(model))
    assert_refused("no gates.*compact", small, BudgetRegularizer(0.5))


def test_every_gate_fixed():
    model = tiny.student()
    for gate in tiny.gates(model):
        gate.fix()
    assert_refused("every gate is fixed", model, BudgetRegularizer(0.5))


@pytest.mark.parametrize("budget", [tiny.VOLUME + 1, 1e12, float("inf")])
def test_budget_above_the_full_cost(budget):
    regularizer = BudgetRegularizer(budget)
    assert_refused(f"at most {tiny.VOLUME}", tiny.student(), regularizer)


def test_budget_below_what_a_connected_network_needs():
    regularizer = BudgetRegularizer(0.9 * tiny.POSITIONS)
    message = f"at least {tiny.POSITIONS} \\(0.03125"
    assert_refused(message, tiny.student(), regularizer)


def test_two_regularizers():
    regularizers = BudgetRegularizer(0.5), BudgetRegularizer(0.4)
    assert_refused("Two budgets", tiny.student(), *regularizers)


def test_unknown_number_of_steps():
    x, y = tiny.data()

    def batches():
        while True:
            yield x[:8], y[:8]

    model = tiny.student(**QUICK)
    with pytest.raises(ValueError, match="length of the training") as error:
        model.fit(batches(), callbacks=[BudgetRegularizer(0.5), NoStep()])
    assert_three_beats(error)
    with pytest.warns(UserWarning, match="too short"):
        model.fit(
            batches(),
            steps_per_epoch=2,
            callbacks=[BudgetRegularizer(0.5)],
            verbose=0,
        )
    assert_finished(model, 0.5)


@pytest.mark.parametrize("metric", ["volume", "flops"])
def test_unknown_size_of_the_input(metric):
    model = tiny.prepare(keras_bar.gate(tiny.network(size=None)))
    regularizer = BudgetRegularizer(0.5, metric)
    assert_refused("size of its input", model, regularizer)


def test_penalty_in_a_distiller_that_leaves_it_out():
    distiller = keras.distillation.Distiller(
        tiny.network(), tiny.student(), keras.distillation.LogitsDistillation()
    )
    tiny.prepare(distiller)
    message = "leaves the penalty out"
    assert_refused(message, distiller, BudgetRegularizer.paper(0.5))


def test_control_needs_no_state_of_its_own():
    """What a control remembers is in variables, or it would not resume."""
    model = tiny.student()
    regularizer = BudgetRegularizer(0.5)
    regularizer.set_model(model)
    tracking = regularizer.make_control(steps=10)
    assert isinstance(tracking, control.ThresholdTracking)
    before = dict(vars(tracking))
    tracking(model.get_layer("budget_state"))
    assert vars(tracking) == before
