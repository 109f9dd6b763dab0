"""The distillation losses: the divergence, in one or several outputs."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_bar import distillation
from tests.helpers import tiny
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import numpy
from tests.helpers.distillers import CROSSENTROPY
from tests.helpers.distillers import classifier
from tests.helpers.distillers import distiller
from tests.helpers.distillers import features


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
    """Two logits of the same images, as a list or by name."""
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
        **QUICK,
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


def test_the_weight_of_a_single_loss_counts():
    """Keras's distiller reads those of a list only."""
    x, y = tiny.data(16)
    found = []
    for weights in (None, [3.0], 3.0):
        keras.utils.set_random_seed(0)
        model = distillation.Distiller(
            classifier(),
            classifier(),
            distillation.LogitsDistillation(),
            distillation_loss_weights=weights,
        )
        model.compile("sgd", CROSSENTROPY, **QUICK)
        logs = model.evaluate(x, y, verbose=0, return_dict=True)
        found.append(logs["distillation_loss"])
    assert found[1:] == pytest.approx([3 * found[0]] * 2, rel=1e-5)
