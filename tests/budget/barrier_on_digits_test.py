"""The paper's control prunes a residual network for real digits."""

import warnings

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar import in_memory
from tests.helpers.budgets import BudgetRegularizer

# `controls_test` asserts the same of a tiny network with every change. Of the
# warnings, those of the package are not what is tested here.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

EPOCHS = 24


def network():
    """A residual network of two blocks, in the order of the first ones."""
    inputs = keras.Input((8, 8, 1))
    x = norm_relu(conv(24, 3)(inputs))
    for width, stride in ((24, 1), (48, 2)):
        y = norm_relu(conv(width, 3, stride)(x))
        y = keras.layers.BatchNormalization(momentum=0.9)(conv(width, 3)(y))
        x = conv(width, 1, stride)(x) if stride > 1 else x
        x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def conv(width, size, stride=1):
    return keras.layers.Conv2D(
        width, size, stride, padding="same", use_bias=False
    )


def norm_relu(x):
    norm = keras.layers.BatchNormalization(momentum=0.9)
    return keras.layers.ReLU()(norm(x))


@pytest.fixture(scope="module")
def pruned():
    """Logs of pruning to 1/8, the compact network, and held-out digits."""
    keras.utils.set_random_seed(0)
    digits = in_memory.load_digits()
    # The digits that recipes test on are left out.
    held_out = digits.x[:300], digits.y[:300]
    x, y = digits.x[300:], digits.y[300:]
    teacher = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"jit_compile": False, "metrics": ["accuracy"]}
    teacher.compile("adam", loss, **options)
    teacher.fit(x, y, batch_size=16, epochs=8, verbose=0)
    student = keras_bar.gate(teacher, seed=0)
    model = keras_bar.distillation.RecordedDistiller(
        teacher,
        student,
        keras_bar.distillation.LogitsDistillation(temperature=4.0),
        student_loss_weight=0.1,
    )
    model.compile("adam", loss, **options)
    answers = teacher.predict(x, verbose=0)
    targets = {"labels": y, "teacher": answers}
    regularizer = BudgetRegularizer.paper(1 / 8)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logs = model.fit(
            x,
            targets,
            batch_size=16,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[regularizer],
        ).history
    return logs, keras_bar.compact(student), held_out


def test_volume_follows_the_budget(pruned):
    logs, small, _ = pruned
    volume, budget = np.array(logs["volume"]), np.array(logs["budget"])
    late = slice(EPOCHS // 10, None)
    assert np.all(volume[late] <= budget[late] + 1e-6)
    assert volume[-1] > 0.9 / 8
    # Most of the way it is near the budget, too, and comes down gradually.
    assert np.all(np.diff(volume) > -0.2)


def test_pruned_network_works_before_fine_tuning(pruned):
    logs, small, (x, y) = pruned
    accuracy = np.mean(np.argmax(small.predict(x, verbose=0), -1) == y)
    assert accuracy > 0.8
