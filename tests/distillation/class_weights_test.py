"""Weights of classes where the teacher's answers are recorded."""

import keras
import numpy as np
import pytest

from keras_bar import distillation
from tests.helpers.weighting import CLASS_WEIGHT
from tests.helpers.weighting import data
from tests.helpers.weighting import distiller
from tests.helpers.weighting import fit
from tests.helpers.weighting import network
from tests.helpers.weighting import recorded

pytestmark = pytest.mark.core


def test_class_weights_of_recorded_answers():
    x, y, _ = data()
    weights = np.array([CLASS_WEIGHT[i] for i in y], "float32")
    first, logs = recorded(x, y, class_weight=CLASS_WEIGHT)
    other, expected = recorded(x, y, sample_weight=weights)
    for name in expected:
        np.testing.assert_allclose(logs[name], expected[name], rtol=1e-5)
    for a, b in zip(first.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    # One-hot labels, and a class that has no weight of its own.
    weights = np.where(y == 1, 3.0, 1.0).astype("float32")
    kind = distillation.RecordedDistiller
    found = []
    for options in ({"class_weight": {1: 3.0}}, {"sample_weight": weights}):
        keras.utils.set_random_seed(0)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model = distiller(network(), kind=kind, loss=loss, share=0.5)
        targets = {"labels": np.eye(3)[y], "teacher": np.eye(3)[y]}
        found.append(fit(model, x, targets, **options)["loss"])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_class_weights_end_with_their_training():
    x, y, _ = data()
    keras.utils.set_random_seed(0)
    model = distiller(network(), kind=distillation.RecordedDistiller)
    targets = {"labels": y, "teacher": np.zeros((len(x), 3), "float32")}
    options = {"batch_size": 32, "verbose": 0}
    model.optimizer.learning_rate = 0.0
    first = model.fit(x, targets, **options).history["loss"]
    weighted = model.fit(
        x,
        targets,
        class_weight={0: 5.0},
        validation_data=(x, targets),
        **options,
    ).history
    assert weighted["loss"][0] > 1.2 * first[0]
    assert weighted["val_loss"][0] == pytest.approx(first[0], rel=1e-5)
    again = model.fit(x, targets, **options).history["loss"]
    assert again == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"class_weight": {"cat": 2.0}}, "Invalid class weights.*cat"),
        (
            {"class_weight": {0: 1.0}, "sample_weight": np.ones(32)},
            "Expected one of them",
        ),
    ],
)
def test_wrong_class_weights(options, message):
    x, y, _ = data()
    model = distiller(network(), kind=distillation.RecordedDistiller)
    targets = {"labels": y, "teacher": np.zeros((len(x), 3), "float32")}
    with pytest.raises(ValueError, match=message):
        model.fit(x, targets, verbose=0, **options)


def test_class_weights_of_several_outputs():
    x, y, _ = data("list")
    model = distiller(network("list"), kind=distillation.RecordedDistiller)
    zeros = np.zeros((len(x), 3)), np.zeros((len(x), 2))
    with pytest.raises(ValueError, match="classes of one output"):
        model.fit(
            x,
            {"labels": y, "teacher": zeros},
            class_weight=CLASS_WEIGHT,
            verbose=0,
        )
