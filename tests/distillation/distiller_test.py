"""A distiller: what its student adds, how often it runs, what is saved."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import distillation
from tests.helpers import tiny
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.budgets import Interrupt
from tests.helpers.budgets import numpy
from tests.helpers.distillers import STEPS
from tests.helpers.distillers import distiller
from tests.helpers.distillers import features
from tests.helpers.distillers import fit

slow = pytest.mark.slow

# --- What the student adds to the loss -------------------------------------


class Penalized(layers.Layer):
    """Adds a loss of 5, also in a teacher."""

    def call(self, inputs):
        self.add_loss(5.0 + 0.0 * ops.sum(inputs))
        return inputs


def penalized(regularizer=None):
    inputs = keras.Input((6, 6, 2))
    x = Penalized()(layers.Flatten()(inputs))
    x = layers.Dense(3, kernel_regularizer=regularizer, name="logits")(x)
    return keras.Model(inputs, x)


@pytest.mark.core
@pytest.mark.parametrize(
    "weight",
    [pytest.param(0.0, marks=slow), 0.1, pytest.param(1.0, marks=slow)],
)
def test_losses_of_the_student_count_and_those_of_the_teacher_do_not(weight):
    keras.utils.set_random_seed(0)
    student = penalized(keras.regularizers.L2(0.5))
    teacher = penalized(keras.regularizers.L2(7.0))
    model = distiller(None, student, teacher, weight)
    x, y = tiny.data()
    logs = model.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
    kernel = numpy(student.get_layer("logits").kernel)
    added = 5 + 0.5 * np.sum(kernel.astype("float64") ** 2)
    assert logs["loss"] == pytest.approx(logs["total_loss"] + added, rel=1e-4)


@pytest.mark.core
def test_penalty_of_the_budget_counts():
    model = distiller(optimizer=keras.optimizers.SGD(0.0), **QUICK)
    regularizer = BudgetRegularizer.paper(
        0.5, strength=1e-3, steps=10, push=None, samples=1
    )
    logs = fit(model, regularizer, steps_per_epoch=1, epochs=4)
    added = np.subtract(logs["loss"], logs["total_loss"])
    # What is logged after one step is the penalty of the next.
    np.testing.assert_allclose(added[1:], logs["penalty"][:-1], rtol=1e-3)
    assert np.all(added > 1)


def test_keras_own_leaves_them_out():
    """When it does not any more, ours has less to do."""
    keras.utils.set_random_seed(0)
    model = keras.distillation.Distiller(
        penalized(), penalized(), distillation.LogitsDistillation()
    )
    x, y = tiny.data()
    tiny.prepare(model)
    logs = model.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["total_loss"], rel=1e-5)


def test_penalty_prunes_the_student():
    model = distiller(optimizer=keras.optimizers.Adam(5e-2))
    before = [numpy(g.log_alpha) for g in tiny.gates(model.student)]
    regularizer = BudgetRegularizer.paper(0.5, push=None)
    fit(model, regularizer, epochs=4, steps_per_epoch=None)
    for gate, earlier in zip(tiny.gates(model.student), before, strict=True):
        fell = numpy(gate.log_alpha) < earlier - 0.5
        assert np.sum(~fell) <= 1  # The channel that is kept.


# --- The student runs once ------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("losses", "options"),
    [
        (lambda: [distillation.LogitsDistillation(), features()], {}),
        (lambda: [features("stem"), features("branch")], QUICK),
        (lambda: distillation.LogitsDistillation(), QUICK),
    ],
    ids=["both", "two features", "logits"],
)
def test_student_runs_once_per_step(losses, options):
    model = distiller(losses(), **options)
    fit(model, BudgetRegularizer(0.5))
    assert tiny.steps_done(model.student) == STEPS
    gate = tiny.gates(model.student)[0]
    # Two numbers of noise state: the seed, and how often it was drawn from.
    assert numpy(gate.seed_generator.state)[1] == STEPS * draws_per_step()


def draws_per_step():
    """How far one draw moves a seed generator."""
    generator = keras.random.SeedGenerator(0)
    before = numpy(generator.state)[1]
    generator.next()
    return numpy(generator.state)[1] - before


def test_features_come_from_the_pass_that_predicts():
    """One with other noise would give other features."""
    seen = []

    class Spy(keras.distillation.FeatureDistillation):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            seen.append(numpy(student_outputs))
            return super().compute_loss(teacher_outputs, student_outputs)

    inputs = keras.Input((6, 6, 2))
    x = layers.Dropout(0.5, seed=0, name="noise")(layers.Flatten()(inputs))
    student = keras.Model(inputs, layers.Activation("linear", name="end")(x))
    teacher = keras.models.clone_model(student)
    model = distiller(
        Spy("mse", teacher_layer_name="noise", student_layer_name="noise"),
        student,
        teacher,
        weight=0.0,
        **QUICK,
    )
    x = tiny.data()[0]
    y_pred = model(x, training=True)
    model.compute_loss(x, y_pred, y_pred)
    np.testing.assert_array_equal(seen[0], numpy(y_pred))
    model.compute_loss(x, y_pred)  # Without: it predicts by itself, once.
    assert not np.array_equal(seen[1], seen[0])


def test_evaluation_with_features_draws_no_noise():
    losses = [distillation.LogitsDistillation(), features()]
    model = distiller(losses, **QUICK)
    x, y = tiny.data(32)
    first = model.evaluate(x, y, verbose=0)
    assert first == model.evaluate(x, y, verbose=0)
    assert tiny.steps_done(model.student) == 0
    np.testing.assert_allclose(
        model.predict(x, verbose=0),
        numpy(model.student(x, training=False)),
        rtol=1e-5,
    )


# --- Pruning --------------------------------------------------------------


@pytest.mark.core
def test_student_is_pruned_within_budget():
    model = distiller(metrics=["accuracy"])
    logs = fit(
        model,
        BudgetRegularizer(0.5),
        epochs=5,
        steps_per_epoch=None,
        validation_data=tiny.data(),
    )
    assert logs["expected"][-1] == pytest.approx(0.5, abs=0.1)
    assert {"accuracy", "val_loss", "val_accuracy"} < set(logs)
    cost = keras_bar.measure_cost(model.student)
    assert 0.95 * 0.5 <= cost.volume / tiny.VOLUME <= 0.5
    small = keras_bar.compact(model.student)
    assert keras_bar.measure_cost(small).volume == cost.volume


@pytest.mark.parametrize(
    "gated_teacher", [pytest.param(False, marks=slow), True]
)
def test_features_and_a_gated_teacher_do_not_confuse(gated_teacher):
    """The budget counts the student, not what extracts its features."""
    teacher = tiny.network()
    if gated_teacher:
        teacher = keras_bar.gate(teacher, seed=1)
        for gate in tiny.gates(teacher):
            gate.fix()
    student = keras_bar.gate(tiny.network(), seed=0)
    losses = [distillation.LogitsDistillation(), features()]
    model = distiller(losses, student, teacher, **QUICK)
    fit(model, BudgetRegularizer(0.25))
    assert keras_bar.measure_cost(student).volume == 0.25 * tiny.VOLUME


@pytest.mark.parametrize(
    "policy", [pytest.param("mixed_bfloat16", marks=slow), "mixed_float16"]
)
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        losses = [distillation.LogitsDistillation(), features()]
        model = distiller(losses, **QUICK)
        logs = fit(model, BudgetRegularizer.paper(0.5))
    finally:
        keras.config.set_dtype_policy(before)
    assert np.all(np.isfinite(logs["loss"]))
    assert tiny.steps_done(model.student) == STEPS


# --- Files ----------------------------------------------------------------


def same(first, second, atol=1e-6):
    """Asserts that two models have equal variables."""
    for x, y in zip(first.variables, second.variables, strict=True):
        np.testing.assert_allclose(
            x.numpy(), y.numpy(), rtol=1e-5, atol=atol, err_msg=x.path
        )


@pytest.mark.core
def test_saved_and_loaded(tmp_path):
    model = distiller(
        [distillation.LogitsDistillation(2.0), features()],
        optimizer=keras.optimizers.AdamW(1e-3),
        metrics=["accuracy"],
        **QUICK,
    )
    fit(model)
    model.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert type(loaded) is distillation.Distiller
    assert (
        type(loaded.distillation_losses[0]) is distillation.LogitsDistillation
    )
    assert loaded.distillation_losses[0].temperature == 2.0
    assert loaded.student_loss_weight == 0.1
    same(loaded, model)
    same(loaded.optimizer, model.optimizer)
    x, y = tiny.data()
    logs = loaded.evaluate(x, y, verbose=0, return_dict=True)
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs == pytest.approx(expected, rel=1e-5)
    assert "accuracy" in logs


def test_loss_by_name_is_saved(tmp_path):
    model = distiller(loss="sparse_categorical_crossentropy", **QUICK)
    model.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    x, y = tiny.data()
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(
        model.evaluate(x, y, verbose=0), rel=1e-5
    )


def pruned(model, *callbacks, **options):
    options = {"epochs": 4, "steps_per_epoch": None, **options}
    return fit(model, BudgetRegularizer(0.4), *callbacks, **options)


def trained(*callbacks):
    model = distiller(
        [distillation.LogitsDistillation(), features()],
        optimizer=keras.optimizers.Adam(1e-2),
    )
    return model, pruned(model, *callbacks)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A training's model, its logs and the checkpoint of its second epoch."""
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoint = keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras")
    return *trained(checkpoint), folder / "2.keras"


def assert_same_end(model, logs, uninterrupted):
    expected, expected_logs, _ = uninterrupted
    same(model, expected)
    for name, values in logs.items():
        np.testing.assert_allclose(
            values, expected_logs[name][-2:], rtol=1e-4, err_msg=name
        )


@slow
def test_checkpoint_goes_on_as_the_uninterrupted(uninterrupted):
    model = keras.models.load_model(uninterrupted[-1])
    logs = pruned(model, initial_epoch=2)
    assert_same_end(model, logs, uninterrupted)


@slow
def test_backup_goes_on_as_the_uninterrupted(uninterrupted, tmp_path):
    backup = keras.callbacks.BackupAndRestore
    with pytest.raises(InterruptedError):
        trained(backup(tmp_path), Interrupt(2))
    model, logs = trained(backup(tmp_path))
    assert_same_end(model, logs, uninterrupted)
