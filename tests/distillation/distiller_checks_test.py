"""Networks and options that a distiller refuses."""

import keras
import pytest
from keras import layers

from keras_bar import distillation
from tests.helpers.distillers import classifier

pytestmark = pytest.mark.core


def test_a_teacher_that_is_its_student():
    model = classifier()
    with pytest.raises(ValueError, match="its own student.*keras_bar.gate"):
        distillation.Distiller(model, model, distillation.LogitsDistillation())


def test_a_teacher_that_shares_weights_with_its_student():
    teacher = classifier()
    student = keras.Model(
        teacher.inputs,
        layers.Dense(3)(teacher.get_layer("conv").output[:, 0, 0]),
    )
    with pytest.raises(ValueError, match="share weights.*2 shared.*conv"):
        distillation.Distiller(
            teacher, student, distillation.LogitsDistillation()
        )
    # Frozen, they are a feature extractor of both.
    teacher.get_layer("conv").trainable = False
    distillation.Distiller(teacher, student, distillation.LogitsDistillation())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: distillation.LogitsDistillation(0.0), "temperature=0.0"),
        (lambda: distillation.LogitsDistillation(True), "temperature=True"),
        (
            lambda: distillation.Distiller("t", classifier(), None),
            "teacher is not a model.*'t'",
        ),
        (
            lambda: distillation.Distiller(classifier(), classifier(), "mse"),
            "nothing to distil with.*'mse'",
        ),
        (
            lambda: distillation.Distiller(classifier(), classifier(), []),
            "nothing to distil with",
        ),
        (
            lambda: distillation.Distiller(
                classifier(), classifier(), distillation.LogitsDistillation()
            ).compile("sgd"),
            "no loss of its own.*loss=None",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "Expected" in str(error.value) and "Received" in str(error.value)
