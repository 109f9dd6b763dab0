import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import distillation
from tests import tiny
from tests.budgets import BudgetRegularizer

STEPS = 2
# For a few steps, faster than to compile one.
QUICK = {"run_eagerly": True}


def numpy(x):
    return ops.convert_to_numpy(ops.convert_to_tensor(x))


def features(layer="branch"):
    return keras.distillation.FeatureDistillation(
        "mse", teacher_layer_name=layer, student_layer_name=layer
    )


def distiller(losses=None, student=None, teacher=None, weight=0.1, **options):
    """A distiller of the tiny network, the same every time, compiled."""
    keras.utils.set_random_seed(0)
    teacher = teacher or tiny.network()
    student = student or keras_bar.gate(teacher, seed=0)
    model = distillation.Distiller(
        teacher,
        student,
        losses or distillation.LogitsDistillation(),
        student_loss_weight=weight,
    )
    return tiny.prepare(model, **options)


def fit(model, *callbacks, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tiny.fit(
            model, *callbacks, **{"steps_per_epoch": STEPS, **options}
        )


# --- The divergence -------------------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(teacher, student, temperature):
    """`T^2 KL`, averaged over samples, in float64."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))


@pytest.mark.core
@pytest.mark.parametrize(
    "make, temperature",
    [
        (distillation.LogitsDistillation, 4.0),
        (lambda: distillation.LogitsDistillation(2.0), 2.0),
        (lambda: distillation.LogitsDistillation(loss="kl_divergence"), 4.0),
        (
            lambda: distillation.LogitsDistillation.mend(
                keras.distillation.LogitsDistillation()
            ),
            3.0,
        ),
    ],
    ids=["default", "temperature", "string", "mended"],
)
def test_logits_distillation_is_the_divergence(make, temperature):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 5, 7)) * 3
    expected = divergence(teacher, student, temperature)
    result = make().compute_loss(
        ops.convert_to_tensor(teacher.astype("float32")),
        ops.convert_to_tensor(student.astype("float32")),
    )
    assert float(numpy(result)) == pytest.approx(expected, rel=1e-4)


def test_several_outputs_are_mended_each():
    keras_own = keras.distillation.LogitsDistillation(
        loss={
            "a": "kl_divergence",
            "b": None,
            "c": keras.losses.mean_squared_error,
        }
    )
    loss = distillation.LogitsDistillation.mend(keras_own).loss
    assert isinstance(loss["a"], keras.losses.KLDivergence)
    assert (loss["b"], loss["c"]) == (None, keras.losses.mean_squared_error)


def test_other_distillation_losses_stay_what_they_are():
    other = features()
    assert distillation.LogitsDistillation.mend(other) is other
    own = distillation.LogitsDistillation(2.0)
    assert distillation.LogitsDistillation.mend(own) is own


def test_keras_default_is_mended_in_the_distiller():
    keras_own = keras.distillation.LogitsDistillation(temperature=2.0)
    for given in (keras_own, [keras_own, features()]):
        model = distiller(given)
        mended = model.distillation_losses[0]
        assert isinstance(mended, distillation.LogitsDistillation)
        assert mended.temperature == 2.0


def test_a_copy_of_the_teacher_has_nothing_to_learn_from_it():
    """With Keras's default its loss is far from 0."""
    keras.utils.set_random_seed(0)
    teacher = tiny.network()
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    model = distiller(
        keras.distillation.LogitsDistillation(),
        student,
        teacher,
        weight=0.0,
        **QUICK,
    )
    x, y = tiny.data()
    assert model.evaluate(x, y, verbose=0)[0] == pytest.approx(0, abs=1e-6)


def two_headed(named):
    """Two logits of the same pictures, as a list or by name."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="stem")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    a, b = layers.Dense(3, name="a")(x), layers.Dense(2, name="b")(x)
    return keras.Model(inputs, {"a": a, "b": b} if named else [a, b])


@pytest.mark.parametrize("named", [True, False])
def test_student_of_several_outputs(named, tmp_path):
    keras.utils.set_random_seed(0)
    teacher = two_headed(named)
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = distillation.Distiller(
        teacher,
        student,
        distillation.LogitsDistillation(),
        student_loss_weight=0.5,
    )
    model.compile(
        keras.optimizers.SGD(0.01),
        {"a": loss, "b": loss} if named else [loss, loss],
        jit_compile=False,
    )
    x, y = tiny.data()
    targets = {"a": y, "b": y % 2} if named else (y, y % 2)
    found = model.evaluate(x, targets, verbose=0, batch_size=len(x))
    found = found[0] if isinstance(found, list) else found
    outputs = keras.tree.flatten(model.student(x))
    pairs = zip((y, y % 2), outputs, strict=True)
    expected = sum(float(loss(target, output)) for target, output in pairs)
    # A copy has nothing to learn from its teacher: half of its own loss.
    assert found == pytest.approx(expected / 2, rel=1e-4)
    model.fit(x, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(x, targets, verbose=0)


@pytest.mark.core
def test_one_distillation_loss_serves_all_outputs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2, 5, 7)).astype("float32") * 3
    expected = divergence(*a, 4.0) + divergence(*b, 4.0)
    for left, right in (
        ({"a": a[0], "b": b[0]}, {"a": a[1], "b": b[1]}),
        ([a[0], b[0]], [a[1], b[1]]),
    ):
        left, right = (
            keras.tree.map_structure(ops.convert_to_tensor, x)
            for x in (left, right)
        )
        loss = distillation.LogitsDistillation(4.0).compute_loss(left, right)
        assert float(numpy(loss)) == pytest.approx(expected, rel=1e-4)


def test_losses_that_do_not_match_the_outputs():
    model = distillation.Distiller(
        two_headed(False),
        two_headed(False),
        distillation.LogitsDistillation(),
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for wrong in ({"a": loss, "c": loss}, [loss], [loss, loss, loss]):
        with pytest.raises(ValueError, match="losses do not match") as error:
            model.compile("sgd", wrong)
        assert "Expected" in str(error.value)
        assert "Received" in str(error.value)


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
@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
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
    model = distiller(optimizer=keras.optimizers.SGD(0.0))
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
    "losses",
    [
        lambda: [distillation.LogitsDistillation(), features()],
        lambda: [features("stem"), features("branch")],
        lambda: distillation.LogitsDistillation(),
    ],
    ids=["both", "two features", "logits"],
)
def test_student_runs_once_per_step(losses):
    model = distiller(losses())
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
    model = distiller([distillation.LogitsDistillation(), features()])
    x, y = tiny.data()
    first = model.evaluate(x, y, verbose=0)
    assert first == model.evaluate(x, y, verbose=0)
    assert tiny.steps_done(model.student) == 0
    np.testing.assert_allclose(
        model.predict(x, verbose=0),
        model.student.predict(x, verbose=0),
        rtol=1e-5,
    )


# --- Pruning --------------------------------------------------------------


@pytest.mark.core
def test_student_is_pruned_within_budget():
    model = distiller(metrics=["accuracy"])
    logs = fit(
        model,
        BudgetRegularizer(0.5),
        epochs=12,
        steps_per_epoch=None,
        validation_data=tiny.data(),
    )
    assert logs["expected"][-1] == pytest.approx(0.5, abs=0.1)
    assert {"accuracy", "val_loss", "val_accuracy"} < set(logs)
    cost = keras_bar.measure_cost(model.student)
    assert 0.95 * 0.5 <= cost.volume / tiny.VOLUME <= 0.5
    small = keras_bar.compact(model.student)
    assert keras_bar.measure_cost(small).volume == cost.volume


@pytest.mark.parametrize("gated_teacher", [False, True])
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


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = distiller([distillation.LogitsDistillation(), features()])
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


@pytest.mark.parametrize("kind", ["checkpoint", "backup"])
def test_goes_on_as_the_uninterrupted(tmp_path, kind):
    def whole(model, *callbacks, **options):
        options = {"epochs": 4, "steps_per_epoch": None, **options}
        return fit(model, BudgetRegularizer(0.4), *callbacks, **options)

    def run(*callbacks):
        model = distiller(
            [distillation.LogitsDistillation(), features()],
            optimizer=keras.optimizers.Adam(1e-2),
        )
        return model, whole(model, *callbacks)

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2 and kind == "backup":
                raise InterruptedError

    if kind == "checkpoint":
        path = tmp_path / "{epoch}.keras"
        expected, expected_logs = run(keras.callbacks.ModelCheckpoint(path))
        model = keras.models.load_model(tmp_path / "2.keras")
        logs = whole(model, initial_epoch=2)
    else:
        expected, expected_logs = run()
        with pytest.raises(InterruptedError):
            run(keras.callbacks.BackupAndRestore(tmp_path), Stop())
        model, logs = run(keras.callbacks.BackupAndRestore(tmp_path))
    same(model, expected)
    for name, values in logs.items():
        np.testing.assert_allclose(
            values, expected_logs[name][-2:], rtol=1e-4, err_msg=name
        )
