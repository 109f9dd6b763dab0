"""Teachers at chance are named, and the check leaves no trace."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_bar import distillation
from tests.helpers import tiny
from tests.helpers.budgets import QUICK

pytestmark = [
    pytest.mark.core,
    # Keras notices the same as these tests.
    pytest.mark.filterwarnings("ignore:.*received `from_logits=True`"),
]


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    x, y = tiny.data(256)
    teacher = tiny.prepare(tiny.network(), keras.optimizers.Adam(1e-2))
    teacher.fit(x, y, epochs=12, batch_size=32, verbose=0)
    return teacher, x, y


def broken(teacher):
    """A teacher that is wrong where it was right."""
    copy = keras.models.clone_model(teacher)
    copy.set_weights(teacher.get_weights())
    kernel = copy.get_layer("logits").kernel
    kernel.assign(-kernel)
    return copy


def distiller(teacher, kind=distillation.Distiller, weight=0.5):
    student = keras.models.clone_model(tiny.network())
    model = kind(
        teacher,
        student,
        distillation.LogitsDistillation(),
        student_loss_weight=weight,
    )
    return tiny.prepare(model, **QUICK)


def warnings_of(model, *args, **options):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.fit(*args, verbose=0, **{"steps_per_epoch": 1, **options})
    return [str(x.message) for x in found if "at chance" in str(x.message)]


def test_a_teacher_at_chance_is_named_once(trained):
    teacher, x, y = trained
    assert not warnings_of(distiller(teacher), x, y)
    model = distiller(broken(teacher))
    (message,) = warnings_of(model, x, y)
    assert "for 128 of the examples" in message and "Expected" in message
    assert not warnings_of(model, x, y)
    # Without a part in the loss it does no harm.
    assert not warnings_of(distiller(broken(teacher), weight=1.0), x, y)


def test_one_hot_labels_and_probabilities(trained):
    teacher, x, y = trained
    for network, count in ((teacher, 0), (broken(teacher), 1)):
        inputs = keras.Input((6, 6, 2))
        softmax = keras.Model(inputs, layers.Softmax()(network(inputs)))
        student = keras.models.clone_model(softmax)
        model = distillation.Distiller(
            softmax, student, distillation.LogitsDistillation()
        )
        model.compile("sgd", "categorical_crossentropy", **QUICK)
        assert len(warnings_of(model, x, np.eye(3)[y])) == count


def test_examples_sorted_by_class(trained):
    teacher, x, y = trained
    order = np.argsort(y)
    assert not warnings_of(distiller(teacher), x[order], y[order])
    # Nothing can be said about one class alone.
    assert not warnings_of(distiller(broken(teacher)), x[y == 0], y[y == 0])


def test_recorded_answers_are_looked_at(trained):
    teacher, x, y = trained
    kind = distillation.RecordedDistiller
    answers = ops.convert_to_numpy(teacher(x))
    for given, count in ((answers, 0), (np.roll(answers, 1, axis=1), 1)):
        targets = {"labels": y, "teacher": given}
        assert len(warnings_of(distiller(teacher, kind), x, targets)) == count


@pytest.mark.parametrize(
    "network, count, validation",
    [("good", 0, "arrays"), ("broken", 1, "arrays"), ("broken", 1, None)],
)
def test_a_generator_is_read_once(trained, network, count, validation):
    teacher, x, y = trained
    teacher = broken(teacher) if network == "broken" else teacher
    model = distiller(teacher)

    def batches():
        """As many as are needed: one less would be missed."""
        yield from [(x[:32], y[:32])] * 2

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        history = model.fit(
            batches(),
            steps_per_epoch=2,
            validation_data=(x, y) if validation else None,
            verbose=0,
        )
    found = [str(x.message) for x in found]
    assert sum("at chance" in x for x in found) == count
    examples = "128" if validation else "64"
    assert sum(f"for {examples} of the examples" in x for x in found) == count
    assert not any("ran out of data" in x for x in found)
    assert int(model.optimizer.iterations.numpy()) == 2
    # The check is no metric of the user's.
    assert not any("check" in name for name in history.history)


class Shuffled(keras.utils.PyDataset):
    """Batches in a new order each time they are read."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y
        self.random = np.random.default_rng(0)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        rows = self.random.permutation(len(self.x))[:32]
        return self.x[rows], self.y[rows]


def test_the_first_batches_decide(trained):
    """Data that changes when it is read: trained on as without the check."""
    teacher, x, y = trained
    assert not warnings_of(distiller(teacher), Shuffled(x, y), epochs=2)
    found = []
    for looked_at in (True, False):
        keras.utils.set_random_seed(0)
        model = distiller(broken(teacher))
        model._chance_checked = not looked_at
        model.train_on_batch(x[:32], y[:32])  # The step is compiled before.
        messages = warnings_of(
            model, Shuffled(x, y), epochs=2, steps_per_epoch=5
        )
        assert len(messages) == looked_at
        assert all("for 128 of the examples" in x for x in messages)
        assert not warnings_of(model, Shuffled(x, y), epochs=1)
        found.append(model.student.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_few_batches_and_validation_data_that_are_no_arrays(trained):
    teacher, x, y = trained
    data = Shuffled(x, y)
    (message,) = warnings_of(
        distiller(broken(teacher)), data, validation_data=data
    )
    assert "for 32 of the examples" in message


def test_a_list_of_callbacks_stays_the_users(trained):
    teacher, x, y = trained
    model = distiller(broken(teacher))
    callbacks = keras.callbacks.CallbackList(
        [keras.callbacks.LambdaCallback()], add_history=True, model=model
    )
    before = [*callbacks.callbacks]
    assert len(warnings_of(model, Shuffled(x, y), callbacks=callbacks)) == 1
    assert callbacks.callbacks == before


def test_targets_that_are_no_classes_are_not_judged(trained):
    teacher, x, y = trained
    targets = np.random.default_rng(0).normal(size=(256, 3)).astype("float32")
    for given in (targets, 2 * np.eye(3)[y]):
        model = distiller(broken(teacher))
        model.compile("sgd", "mse", **QUICK)
        assert not warnings_of(model, x, given)
        model = distiller(broken(teacher))
        model.compile("sgd", "mse", **QUICK)
        assert not warnings_of(model, Shuffled(x, given), steps_per_epoch=8)


def test_the_look_leaves_no_trace(trained):
    """Random numbers, variables and the training are the same without it."""
    teacher, x, y = trained
    inputs = keras.Input((6, 6, 2))
    noisy = layers.GaussianNoise(0.5, seed=3, name="noise")
    outputs = teacher(noisy(inputs, training=True))
    noisy_teacher = keras.Model(inputs, outputs)
    state = noisy.seed_generator.state
    found = []
    for looked_at in (True, False):
        keras.utils.set_random_seed(0)
        state.assign([3, 0])
        model = distiller(noisy_teacher)
        model._chance_checked = not looked_at
        model.fit(x, y, batch_size=64, verbose=0)
        found.append(
            [
                *model.student.get_weights(),
                ops.convert_to_numpy(state),
                np.random.random(3),
                keras.random.uniform((3,)),
            ]
        )
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
