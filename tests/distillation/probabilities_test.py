"""Teachers and students whose last layer makes probabilities."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import distillation
from keras_bar.distillation import probabilities
from tests.helpers import tiny
from tests.helpers.budgets import QUICK
from tests.helpers.distillers import CROSSENTROPY
from tests.helpers.distillers import classifier

pytestmark = [
    pytest.mark.core,
    # Keras notices the same as these tests.
    pytest.mark.filterwarnings("ignore:.*received `from_logits=True`"),
]


def copied(source, end=None):
    target = classifier(end)
    target.set_weights(source.get_weights())
    return target


class Hidden(keras.Model):
    """A model that shows no graph of layers."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x, training=None):
        return self.inner(x, training=training)


def average(x):
    return layers.Average()([layers.Softmax()(x), layers.Softmax()(x)])


def dense_softmax(x):
    return layers.Dense(
        3, "softmax", kernel_initializer="identity", name="end"
    )(x)


ENDS = {
    "layer": layers.Softmax(),
    "activation": layers.Activation("softmax"),
    "operation": ops.softmax,
    "average": average,  # An ensemble: only the numbers tell.
    "passed on": lambda x: layers.Identity()(layers.Softmax()(x)),
}


def distillation_loss(teacher, student, x, y):
    model = distillation.Distiller(
        teacher, student, distillation.LogitsDistillation(4.0)
    )
    model.compile("sgd", CROSSENTROPY, **QUICK)
    logs = model.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
    return logs["distillation_loss"]


@pytest.fixture(scope="module")
def logits():
    """Two networks of logits, data, and their distillation loss."""
    keras.utils.set_random_seed(0)
    teacher, student = classifier(), classifier()
    x, y = tiny.data(32)
    return teacher, student, x, y, distillation_loss(teacher, student, x, y)


@pytest.mark.parametrize("end", ENDS)
def test_probabilities_distil_like_the_logits(logits, end):
    teacher, student, x, y, expected = logits
    assert expected > 1e-2
    other = copied(teacher, ENDS[end])
    assert distillation_loss(other, copied(student), x, y) == pytest.approx(
        expected, rel=1e-3
    )
    both = distillation_loss(other, copied(student, ENDS[end]), x, y)
    assert both == pytest.approx(expected, rel=1e-3)


def test_models_without_a_graph_show_their_numbers(logits):
    teacher, student, x, y, expected = logits
    for end in (None, layers.Softmax()):
        teacher, student = (
            Hidden(copied(m, end)) for m in (logits[0], logits[1])
        )
        teacher(x[:1]), student(x[:1])
        found = distillation_loss(teacher, student, x, y)
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_gated_student_of_a_softmax_learns_like_one_of_logits():
    """Both trainings are the same, step by step."""
    found = []
    x, y = tiny.data(32)
    for end in (None, layers.Softmax()):
        keras.utils.set_random_seed(0)
        teacher = classifier(end)
        student = keras_bar.gate(teacher, seed=0)
        student.get_layer("logits").bias.assign([1.0, -1.0, 0.5])
        model = distillation.Distiller(
            teacher,
            student,
            distillation.LogitsDistillation(),
            student_loss_weight=0.0,
        )
        tiny.prepare(model, keras.optimizers.SGD(0.01))
        model.fit(x, y, batch_size=8, shuffle=False, epochs=3, verbose=0)
        found.append(student.get_layer("logits").get_weights())
        assert probabilities.kinds_of(student) != [probabilities.UNKNOWN] or (
            end is None
        )
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        teacher, student = classifier(average), classifier(average)
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = tiny.data(32)
    expected = distillation_loss(classifier(), copied(student), x, y)
    assert np.isfinite(expected)
    found = distillation_loss(teacher, student, x, y)
    assert 0.01 < found < 100


@pytest.mark.parametrize(
    "end, kind",
    [
        (None, "unknown"),  # Five times what a dense layer returns.
        (layers.Softmax(), "softmax"),
        (layers.Softmax(axis=1), "unknown"),
        (layers.Activation("sigmoid"), "sigmoid"),
        (ops.sigmoid, "sigmoid"),
        (ops.log_softmax, "logits"),
        (layers.Dense(4), "logits"),
        (layers.Activation("relu"), "unknown"),
        (lambda x: layers.Activation("linear")(layers.Dense(2)(x)), "logits"),
    ],
)
def test_how_networks_end(end, kind):
    assert probabilities.kinds_of(classifier(end)) == [kind]
    assert probabilities.kinds_of(Hidden(classifier(end))) is None


@pytest.mark.parametrize(
    "end, units, message",
    [
        (None, 1, "a single number"),
        (ops.sigmoid, 1, "a single number"),
        (ops.sigmoid, 3, "a sigmoid of each class"),
    ],
)
def test_a_sigmoid_is_refused_with_what_to_do(end, units, message):
    teacher, student = classifier(end, units), classifier(end, units)
    with pytest.raises(ValueError, match=message) as error:
        distillation.Distiller(
            teacher, student, distillation.LogitsDistillation()
        )
    assert "FeatureDistillation" in str(error.value)
    if end:  # What the message says works.
        mended = distillation.FeatureDistillation(loss="binary_crossentropy")
        model = distillation.Distiller(teacher, student, mended)
        model.compile("sgd", "binary_crossentropy", **QUICK)
        x, y = tiny.data(16)
        targets = np.eye(3)[y][:, :units]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(x, targets, verbose=0)
