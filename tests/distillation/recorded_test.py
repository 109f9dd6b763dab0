"""Distillation from answers that a teacher has given beforehand."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import distillation
from keras_bar.in_memory import InMemoryData
from tests.helpers import tiny
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import BudgetRegularizer

pytestmark = pytest.mark.core


@keras.saving.register_keras_serializable("tests")
class Counted(layers.Layer):
    """Counts the images that pass."""

    def build(self, shape):
        self.seen = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="seen"
        )

    def call(self, x):
        self.seen.assign_add(ops.cast(ops.shape(x)[0], self.seen.dtype))
        return x


def teacher_that_counts():
    keras.utils.set_random_seed(3)
    network = tiny.network()
    kernel = network.get_layer("logits").kernel
    kernel.assign(30 * kernel)  # Answers that matter.
    inputs = keras.Input(network.input_shape[1:])
    return keras.Model(inputs, network(Counted(name="counted")(inputs)))


def distiller(kind, teacher, **options):
    student = keras_bar.gate(tiny.network(), seed=0)
    keras.utils.set_random_seed(0)
    student.set_weights(
        [
            np.random.default_rng(i).normal(size=x.shape, scale=0.2)
            if "kernel" in x.path
            else x
            for i, x in enumerate(student.weights)
        ]
    )
    model = kind(
        teacher,
        student,
        distillation.LogitsDistillation(),
        student_loss_weight=0.1,
    )
    return tiny.prepare(model, metrics=["accuracy"], **options)


def fit(model, y, validation):
    x, _ = tiny.data()
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        shuffle=False,
        verbose=0,
        validation_data=(x, validation),
        callbacks=[BudgetRegularizer(0.5)],
    )
    return history.history


def asked(teacher):
    """How many images a teacher has been asked about."""
    return float(ops.convert_to_numpy(teacher.get_layer("counted").seen))


@pytest.fixture(scope="module")
def recorded():
    """A training with recorded answers: its teacher, the targets, the trained
    model and the logs."""
    x, y = tiny.data()
    teacher = teacher_that_counts()
    answers = {"labels": y, "teacher": teacher.predict(x, verbose=0)}
    model = distiller(distillation.RecordedDistiller, teacher)
    logs = fit(model, answers, answers)
    assert asked(teacher) == len(x)  # By `predict` alone.
    return teacher, answers, model, logs


def test_the_same_training_as_with_a_teacher_that_answers_every_time(recorded):
    teacher, answers, model, logs = recorded
    y = answers["labels"]
    plain = distiller(distillation.Distiller, teacher)
    before = asked(teacher)
    expected = fit(plain, y, y)
    assert asked(teacher) > before + len(y)  # In every step.
    assert logs.keys() == expected.keys()
    for name in logs:
        np.testing.assert_allclose(logs[name], expected[name], rtol=1e-4)
    for a, b in zip(
        model.student.get_weights(),
        plain.student.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_other_answers_lead_elsewhere(recorded):
    """That they are read at all; the teacher is asked where none are."""
    teacher, answers, _, logs = recorded
    y = answers["labels"]
    model = distiller(distillation.RecordedDistiller, teacher)
    other = fit(model, {"labels": y, "teacher": -answers["teacher"]}, y)
    assert abs(logs["loss"][-1] - other["loss"][-1]) > 1e-2
    asked_for = model.evaluate(tiny.data()[0], y, verbose=0, return_dict=True)
    told = model.evaluate(tiny.data()[0], answers, verbose=0, return_dict=True)
    assert asked_for == pytest.approx(told, rel=1e-4)


def test_features_have_no_record():
    features = keras.distillation.FeatureDistillation(
        "mse", teacher_layer_name="branch", student_layer_name="branch"
    )
    with pytest.raises(ValueError, match="Received: .*'branch'"):
        distillation.RecordedDistiller(tiny.network(), tiny.network(), features)


@pytest.mark.parametrize("named", [True, False])
def test_several_outputs(named):
    """Lists come as tuples on TensorFlow."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    a, b = layers.Dense(3)(x), layers.Dense(2)(x)
    teacher = keras.Model(inputs, {"a": a, "b": b} if named else [a, b])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = {"a": loss, "b": loss} if named else [loss, loss]
    images, y = tiny.data(16)
    labels = {"a": y, "b": y % 2} if named else (y, y % 2)
    answers = teacher.predict(images, verbose=0)
    recorded = {"labels": labels, "teacher": answers}
    # Made now: a distiller freezes its teacher, and so what is cloned of it.
    students = [keras.models.clone_model(teacher) for _ in range(2)]
    found = []
    for student, kind, targets in zip(
        students,
        (distillation.Distiller, distillation.RecordedDistiller),
        (labels, recorded),
        strict=True,
    ):
        student.set_weights([x + 0.1 for x in teacher.get_weights()])
        model = kind(teacher, student, distillation.LogitsDistillation())
        tiny.prepare(model, loss=losses, **QUICK)
        options = {"batch_size": 16, "verbose": 0, "shuffle": False}
        model.fit(images, targets, epochs=2, **options)
        found.append(student.get_weights())
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "policy",
    ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)],
)
def test_saved_and_in_half_precision(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        teacher = tiny.network()
        model = distiller(distillation.RecordedDistiller, teacher, **QUICK)
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = tiny.data(32)
    answers = {"labels": y, "teacher": ops.convert_to_numpy(teacher(x))}
    logs = model.fit(x, answers, 16, verbose=0).history
    assert np.all(np.isfinite(logs["loss"]))
    path = tmp_path / "distiller.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert isinstance(loaded, distillation.RecordedDistiller)
    ours, theirs = (
        m.evaluate(x, answers, verbose=0, return_dict=True)
        for m in (model, loaded)
    )
    assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3)


def test_answers_and_something_else():
    x, y = tiny.data()
    model = distiller(distillation.RecordedDistiller, tiny.network())
    targets = {"label": y, "teacher": np.zeros((len(x), 3), "float32")}
    with pytest.raises(ValueError, match="Received: .*'label', 'teacher'"):
        model.fit(x, targets, verbose=0)


@pytest.mark.parametrize("shift", [0, 1])
def test_images_with_the_answers_beside(shift):
    x, y = tiny.data()
    teacher = tiny.network()
    images = InMemoryData(x, y, x[:9], y[:9], batch_size=8, shift=shift)
    assert images.repeats
    answered = images.answered(teacher)
    plain, told = (x.batches(1).dataset[2] for x in (images, answered))
    np.testing.assert_array_equal(told[0], plain[0])
    np.testing.assert_array_equal(told[1]["labels"], plain[1])
    logits = teacher.predict(told[0], verbose=0)
    np.testing.assert_allclose(told[1]["teacher"], logits, rtol=1e-4, atol=1e-5)
    again = images.answered(teacher, images.ask(teacher))
    np.testing.assert_array_equal(
        again.batches(1).dataset[2][1]["teacher"], told[1]["teacher"]
    )
    x_test, y_test = answered.validation
    assert len(x_test) == len(y_test["teacher"]) == 9


def test_accuracy_of_images_with_answers():
    x, y = tiny.data()
    teacher = tiny.network()
    images = InMemoryData(x, y, x[:9], y[:9], batch_size=8, shift=1)
    answered = images.answered(teacher)
    for split in ("train", "validation", "test"):
        expected = images.accuracy(teacher, split)
        assert answered.accuracy(teacher, split) == expected > 0
    with pytest.raises(ValueError, match="answers of a teacher already"):
        answered.answered(teacher)
    with pytest.raises(ValueError, match="for other images"):
        images.answered(teacher, images.ask(teacher)[:, :1])
