"""Weights of samples and classes in distillation, as in plain Keras."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_bar
from keras_bar import distillation
from tests.helpers import tiny
from tests.helpers.weighting import CLASS_WEIGHT
from tests.helpers.weighting import CROSSENTROPY
from tests.helpers.weighting import compiled
from tests.helpers.weighting import data
from tests.helpers.weighting import distiller
from tests.helpers.weighting import fit
from tests.helpers.weighting import network
from tests.helpers.weighting import recorded

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    "kind, weighted",
    [("Distiller", "class_weight"), ("RecordedDistiller", "sample_weight")],
)
def test_the_supervised_loss_is_weighted_as_in_keras(kind, weighted):
    """With this loss alone the training is the very same one."""
    keras.utils.set_random_seed(0)
    student = network()
    plain = keras.models.clone_model(student)
    plain.set_weights(student.get_weights())
    x, y, weights = data()
    options = {"class_weight": CLASS_WEIGHT, "sample_weight": weights}
    options = {weighted: options[weighted]}
    ways = {"run_eagerly": False, "jit_compile": False}
    ways |= {"metrics": ["accuracy"], "weighted_metrics": ["accuracy"]}
    expected = fit(compiled(plain, **ways), x, y, **options)
    model = distiller(student, kind=getattr(distillation, kind), **ways)
    if kind == "RecordedDistiller":
        y = {"labels": y, "teacher": np.zeros((len(x), 3), "float32")}
    logs = fit(model, x, y, **options)
    assert expected.keys() < logs.keys()
    for name in expected:
        np.testing.assert_allclose(logs[name], expected[name], rtol=1e-5)
    assert logs["accuracy"] != logs["weighted_accuracy"]
    np.testing.assert_allclose(logs["student_loss"], logs["loss"], rtol=1e-5)
    for a, b in zip(student.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("outputs", ["list", "dict"])
def test_several_outputs_are_weighted_as_in_keras(outputs):
    keras.utils.set_random_seed(0)
    student = network(outputs)
    plain = keras.models.clone_model(student)
    plain.set_weights(student.get_weights())
    x, y, weights = data(outputs)
    factors = {"list": [1.0, 0.25], "dict": {"a": 1.0, "b": 0.25}}[outputs]
    options = {
        "loss": keras.tree.map_structure(
            lambda _: CROSSENTROPY(from_logits=True), factors
        ),
        "loss_weights": factors,
    }
    expected = fit(compiled(plain, **options), x, y, sample_weight=weights)
    logs = fit(distiller(student, **options), x, y, sample_weight=weights)
    assert {"loss", "a_loss", "b_loss"} == set(expected)
    for name in expected:
        np.testing.assert_allclose(logs[name], expected[name], rtol=1e-5)
    for a, b in zip(student.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def divergences(teacher, student, temperature=2.0):
    """`T^2 KL` of each sample."""

    def softmax(x):
        e = np.exp(x / temperature)
        return e / e.sum(-1, keepdims=True)

    p, q = softmax(teacher), softmax(student)
    return temperature**2 * np.sum(p * np.log(p / q), axis=-1)


def loss_of(model, x, y, weights):
    """The distillation loss of one batch."""
    logs = model.evaluate(
        x,
        y,
        batch_size=len(x),
        sample_weight=weights,
        verbose=0,
        return_dict=True,
    )
    return logs["distillation_loss"]


@pytest.mark.parametrize("outputs", ["one", "list", "dict"])
def test_the_teachers_answers_are_weighted_per_sample(outputs):
    keras.utils.set_random_seed(0)
    teacher, student = network(outputs), network(outputs)
    x, y, weights = data(outputs)
    losses = keras.tree.map_structure(
        lambda _: CROSSENTROPY(from_logits=True), y
    )
    losses = list(losses) if outputs == "list" else losses
    model = distiller(student, teacher, share=0.5, loss=losses)
    expected = sum(
        np.mean(w * divergences(t, s))
        for t, s, w in zip(
            map(ops.convert_to_numpy, keras.tree.flatten(teacher(x))),
            map(ops.convert_to_numpy, keras.tree.flatten(student(x))),
            keras.tree.flatten(weights),
            strict=True,
        )
    )
    found = loss_of(model, x, y, weights)
    assert found == pytest.approx(expected, rel=1e-4)
    assert abs(found - loss_of(model, x, y, None)) > 1e-2


def test_an_example_of_weight_two_is_two_examples():
    keras.utils.set_random_seed(0)
    student, teacher = network(), network()
    features = keras.distillation.FeatureDistillation(
        "mse", teacher_layer_name="a", student_layer_name="a"
    )
    losses = [distillation.LogitsDistillation(), features]
    model = distiller(student, teacher, losses, share=0.5)
    x, y, _ = data()
    weights = np.full(len(x), 1.0, "float32")
    weights[:16] = 2.0
    twice = np.concatenate([np.arange(32), np.arange(16)])
    weighted = model.evaluate(
        x, y, sample_weight=weights, batch_size=48, verbose=0
    )
    repeated = model.evaluate(x[twice], y[twice], batch_size=48, verbose=0)
    # Keras divides by the number of examples, not by their weight.
    np.testing.assert_allclose(
        np.multiply(weighted, 32), np.multiply(repeated, 48), rtol=1e-4
    )


def test_features_of_places_are_weighted():
    """An example's weight counts for all of its places."""
    keras.utils.set_random_seed(0)
    teacher, student = tiny.network(), tiny.network()
    for loss in ("mse", keras.losses.MeanSquaredError()):
        features = keras.distillation.FeatureDistillation(
            loss, teacher_layer_name="branch", student_layer_name="branch"
        )
        model = distiller(student, teacher, features, share=0.5)
        x, y, weights = data()
        squares = (
            _layer(teacher, "branch", x) - _layer(student, "branch", x)
        ) ** 2
        expected = np.mean(weights * squares.mean(axis=(1, 2, 3)))
        found = loss_of(model, x, y, weights)
        assert found == pytest.approx(expected, rel=1e-4)


def _layer(model, name, x):
    part = keras.Model(model.input, model.get_layer(name).output)
    return ops.convert_to_numpy(part(x))


class Unweighted(keras.distillation.DistillationLoss):
    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return ops.mean(ops.square(teacher_outputs - student_outputs))


class Weighted(Unweighted):
    def compute_loss(
        self, teacher_outputs, student_outputs, sample_weight=None
    ):
        squares = ops.mean(ops.square(teacher_outputs - student_outputs), -1)
        return ops.mean(squares * sample_weight)


def test_a_loss_of_ones_own_takes_part_or_is_named():
    keras.utils.set_random_seed(0)
    student, teacher = network(), network()
    x, y, weights = data()
    model = distiller(student, teacher, Unweighted(), share=0.5)
    with pytest.warns(UserWarning, match="`Unweighted` cannot weigh samples"):
        loss_of(model, x, y, weights)
    squares = np.mean(
        (ops.convert_to_numpy(teacher(x)) - ops.convert_to_numpy(student(x)))
        ** 2,
        axis=-1,
    )
    model = distiller(student, teacher, Weighted(), share=0.5)
    assert loss_of(model, x, y, weights) == pytest.approx(
        np.mean(weights * squares), rel=1e-4
    )


def test_recorded_answers_are_weighted_like_asked_ones():
    x, y, weights = data()
    keras.utils.set_random_seed(0)
    student, teacher = network(), network()
    expected = fit(
        distiller(student, teacher, share=0.5), x, y, sample_weight=weights
    )
    for given in (weights, {"labels": weights, "teacher": weights}):
        _, logs = recorded(x, y, sample_weight=given)
        for name in expected:
            np.testing.assert_allclose(logs[name], expected[name], rtol=1e-4)
    # And apart: without the one, the other.
    _, logs = recorded(
        x, y, sample_weight={"labels": weights, "teacher": 0 * weights}
    )
    assert logs["distillation_loss"] == [0.0]
    assert logs["student_loss"][0] == pytest.approx(
        expected["student_loss"][0], rel=0.1
    )


def test_weights_reach_a_gated_student():
    """The budget's step counts once, weighted or not."""
    model = distiller(
        keras_bar.gate(tiny.network(), seed=0), tiny.network(), share=0.5
    )
    x, y, weights = data()
    regularizer = keras_bar.callbacks.BudgetRegularizer(0.5, steps=100)
    with pytest.warns(UserWarning, match="too short"):
        fit(model, x, y, sample_weight=weights, callbacks=[regularizer])
    assert tiny.steps_done(model.student) == 4
