"""Steps are those of the optimizer, whatever a training step looks like."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_bar
from keras_bar import schedules
from keras_bar.layers import BudgetState
from tests.helpers import tiny
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.budgets import Interrupt
from tests.helpers.budgets import assert_finished
from tests.helpers.budgets import numpy

backend = keras.backend.backend()
slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("ignore:.*too short")


class TwoViews(keras.Model):
    """Runs its network twice per step, on an image and on its mirror image."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, inputs, training=False):
        views = [inputs, ops.flip(inputs, axis=2)]
        return sum(self.network(x, training=training) for x in views) / 2


@pytest.mark.core
def test_two_forward_passes_are_one_step():
    model = tiny.student()
    views = tiny.prepare(TwoViews(model))
    logs = tiny.fit(views, BudgetRegularizer(0.4), epochs=4)
    assert tiny.steps_done(model) == 4 * tiny.BATCHES
    steps = round(0.9 * 4 * tiny.BATCHES)
    done = tiny.BATCHES * np.arange(1, 5) / steps
    budget = [schedules.moving_budget(float(t), 0.4, 1.0) for t in done]
    np.testing.assert_allclose(logs["budget"], budget, rtol=1e-5)
    assert_finished(model, 0.4)


@pytest.mark.core
def test_accumulated_gradients_are_one_step():
    adam = keras.optimizers.Adam(1e-2, gradient_accumulation_steps=2)
    model = tiny.student(optimizer=adam)
    logs = tiny.fit(model, BudgetRegularizer(0.4), epochs=4)
    assert tiny.steps_done(model) == 4 * tiny.BATCHES // 2
    assert logs["budget"][-1] == pytest.approx(0.4)
    assert_finished(model, 0.4)


class SharpnessAware(keras.Model):
    """SAM (Foret et al. 2021): the gradient of the step is that of weights
    which were moved uphill by `rho`."""

    def __init__(self, network, rho):
        super().__init__()
        self.network = network
        self.rho = rho

    def call(self, inputs, training=False):
        return self.network(inputs, training=training)

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        variables = self.trainable_variables

        def slopes():
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            return loss, tape.gradient(loss, variables)

        loss, first = slopes()
        norm = tf.linalg.global_norm(first)
        moves = [self.rho * g / norm for g in first]
        for variable, move in zip(variables, moves, strict=True):
            variable.assign_add(move)
        _, second = slopes()
        for variable, move in zip(variables, moves, strict=True):
            variable.assign_sub(move)
        self.optimizer.apply(second, variables)
        return {"loss": loss}


@pytest.mark.skipif(backend != "tensorflow", reason="a step of TensorFlow's")
@pytest.mark.parametrize(  # Below and above the norm.
    "rho", [pytest.param(0.05, marks=slow), 5.0]
)
def test_sharpness_aware_minimization_takes_one_step_per_batch(rho):
    model = tiny.student()
    aware = tiny.prepare(SharpnessAware(model, rho))
    tiny.fit(aware, BudgetRegularizer(0.4), epochs=2)
    assert tiny.steps_done(model) == 2 * tiny.BATCHES
    assert_finished(model, 0.4)


@pytest.mark.core
def test_the_loss_stays_what_it_is():
    x, y = tiny.data()
    model = tiny.student(optimizer=keras.optimizers.SGD(0.0), **QUICK)
    for gate in tiny.gates(model):
        gate.set_alive(np.ones(tiny.WIDTH, bool))  # No noise.
    expected = model.loss(y[:8], model(x[:8], training=True))
    found = model.train_on_batch(x[:8], y[:8])
    assert float(numpy(found)) == pytest.approx(float(numpy(expected)))


class Careless(keras.Model):
    """Leaves out the losses that layers add."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, inputs, training=False):
        return self.network(inputs, training=training)

    def compute_loss(self, x, y, y_pred, *args, **kwargs):
        return self._compile_loss(y, y_pred)


def test_a_loss_that_hides_the_steps_is_told_of():
    careless = tiny.prepare(Careless(tiny.student()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras: no gradient for the signal.
        with pytest.raises(RuntimeError, match="saw none.*model.losses"):
            tiny.fit(careless, BudgetRegularizer(0.4), epochs=2)


@pytest.mark.parametrize("frozen", ["budget_state", "stem_gate"])
def test_frozen_gates_are_refused(frozen):
    model = tiny.student()
    model.get_layer(frozen).trainable = False
    with pytest.raises(ValueError, match=f"(?s)Frozen gates.*'{frozen}'"):
        tiny.fit(tiny.prepare(model), BudgetRegularizer(0.4))


# --- Averages of the weights, and loss scales -------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("frequency", "swap"),
    [
        pytest.param(None, False, marks=slow),
        (None, True),
        pytest.param(3, False, marks=slow),
    ],
)
def test_moving_averages_of_the_weights(frequency, swap):
    adam = keras.optimizers.Adam(
        1e-2, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=frequency
    )
    model = tiny.student(optimizer=adam)
    callbacks = [keras.callbacks.SwapEMAWeights()] if swap else []
    logs = tiny.fit(
        model,
        BudgetRegularizer(0.4),
        *callbacks,
        epochs=4,
        # For which the averages are swapped in.
        validation_data=tiny.data(8) if swap else None,
    )
    assert tiny.steps_done(model) == 4 * tiny.BATCHES
    assert logs["budget"][-1] == pytest.approx(0.4)
    assert np.all(np.isfinite(logs["loss"]))
    assert_finished(model, 0.4)


def importances(scale):
    """Those of all channels, after some steps with a loss scale."""
    # A power of two scales without rounding.
    sgd = keras.optimizers.SGD(0.0)
    if scale == "dynamic":
        sgd = keras.optimizers.LossScaleOptimizer(
            sgd, initial_scale=2.0**4, dynamic_growth_steps=3
        )
    else:
        sgd.loss_scale_factor = scale
    model = tiny.student(optimizer=sgd, **QUICK)
    tiny.fit(model, BudgetRegularizer(0.4), steps_per_epoch=2)
    return np.stack([numpy(gate.importance) for gate in tiny.gates(model)])


@pytest.mark.core
def test_importance_does_not_depend_on_the_loss_scale():
    expected = importances(None)
    assert np.mean(expected > 0) > 0.9
    for scale in (2.0**10, "dynamic"):
        np.testing.assert_allclose(importances(scale), expected, rtol=1e-4)


@pytest.mark.core
def test_loss_scale_is_that_of_the_step():
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.0), initial_scale=2.0**5, dynamic_growth_steps=2
    )
    model = tiny.student(optimizer=scaled)
    (state,) = (x for x in model.layers if isinstance(x, BudgetState))
    x, y = tiny.data()
    scales = []
    for _ in range(4):
        model.train_on_batch(x[:8], y[:8])
        scales.append(float(numpy(state.loss_scale())))
    assert scales == pytest.approx([32, 32, 64, 64])


# --- Losses that are no numbers ---------------------------------------------


@pytest.mark.core
def test_nan_stops_the_training_and_fixes_no_gate():
    x, y = tiny.data()
    # XLA's maximum may drop a NaN, and then a finite loss hides it.
    model = tiny.student(jit_compile=False)
    with pytest.raises(FloatingPointError, match="loss of epoch 1 is NaN"):
        model.fit(
            np.full_like(x, np.nan),
            y,
            batch_size=8,
            epochs=3,
            verbose=0,
            callbacks=[BudgetRegularizer(0.4)],
        )
    assert not any(gate.is_fixed for gate in tiny.gates(model))
    with pytest.raises(ValueError, match="gates still learn"):
        keras_bar.compact(model)


def test_weights_that_are_nan_fix_no_gate():
    model = tiny.student(**QUICK)

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                kernel = model.get_layer("stem").kernel
                kernel.assign(np.full(kernel.shape, np.nan))

    with pytest.raises(FloatingPointError, match="stem/kernel"):
        tiny.fit(model, Spoil(), BudgetRegularizer(0.4, steps=2))
    assert not any(gate.is_fixed for gate in tiny.gates(model))


# --- What is said before the first step -------------------------------------


def test_the_length_of_the_schedule_is_said_before_the_first_step(capsys):
    class Read(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            said.append(capsys.readouterr().out)
            self.model.stop_training = True

    def fit(verbose):
        said.clear()
        capsys.readouterr()
        options = {"steps_per_epoch": 5, "epochs": 2, "verbose": verbose}
        with pytest.warns(UserWarning, match="within 9 steps.*too short"):
            regularizer = BudgetRegularizer(0.4)
            tiny.fit(tiny.student(**QUICK), regularizer, Read(), **options)
        return said[0]

    said: list = []
    expected = "Pruning to 0.4 of the volume in 9 steps; 1 more to settle."
    assert expected in fit(verbose=2)
    assert not fit(verbose=0)


def test_more_steps_than_fit_has_are_told_of():
    regularizer = BudgetRegularizer(0.4, steps=1000)
    with pytest.warns(UserWarning, match="1000 steps, but `fit` only has 5"):
        tiny.fit(tiny.student(**QUICK), regularizer, steps_per_epoch=5)


@pytest.mark.parametrize("combined", [False, True])
def test_paper_reads_the_rate_of_schedules_and_of_combined_optimizers(combined):
    decay = keras.optimizers.schedules.CosineDecay(
        1e-6, 10, warmup_target=1e-3, warmup_steps=2
    )
    adam = keras.optimizers.Adam(1e-3 if combined else decay)
    if combined:
        adam = keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(
                keras.optimizers.SGD(0.1), {".*log_alpha": adam}
            )
        )
    model = tiny.student(optimizer=adam, **QUICK)
    regularizer = BudgetRegularizer.paper(0.4, rate=1.0)
    options = {"steps_per_epoch": 5, "epochs": 2}
    with (
        pytest.warns(UserWarning, match="Expected 1[67][0-9][0-9] steps or"),
        pytest.raises(InterruptedError),
    ):
        tiny.fit(model, regularizer, Interrupt(0), **options)


@pytest.mark.parametrize("rate, steps", [(1.0, "16[01][0-9]"), (None, "8[01]")])
def test_paper_needs_the_steps_that_adam_takes_to_close_a_gate(rate, steps):
    model = tiny.student(optimizer=keras.optimizers.Adam(1e-3), **QUICK)
    regularizer = BudgetRegularizer.paper(0.4, rate=rate)
    # From 0.005 to -1.6 by 0.001 at a time, or by 0.02.
    with pytest.warns(UserWarning, match=f"Expected {steps} steps or more"):
        tiny.fit(model, regularizer, steps_per_epoch=1)


def test_logs_are_short_unless_asked_for():
    brief = keras_bar.callbacks.BudgetRegularizer(0.4, "flops")
    logs = tiny.fit(tiny.student(**QUICK), brief, steps_per_epoch=1)
    assert set(logs) == {"loss", "flops", "budget"}
    every = keras_bar.callbacks.BudgetRegularizer(0.4, log_all=True)
    logs = tiny.fit(tiny.student(**QUICK), every, steps_per_epoch=1)
    assert {"volume", "flops", "params", "expected", "threshold"} < set(logs)
    assert "penalty" not in logs
