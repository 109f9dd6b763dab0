"""Two replicas, on two logical CPU devices.

They must be configured before the backend starts, and one process can use one
strategy only: this file runs itself as a script and looks at what it found.
"""

import json
import os
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import devices
from keras_bar import multi_host
from tests.helpers import tiny
from tests.helpers.budgets import BudgetRegularizer

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="trains on one device"
)

EPOCHS = 5
# Epochs that are compared with those of one replica.
COMPARED = 3
MODES = {"tracking": None, "penalty": 1e-6}
DISTILLERS = "RecordedDistiller", "Distiller"


def network():
    """Without batch normalization, whose statistics replicas do not share."""
    x = inputs = keras.Input((6, 6, 2))
    for name in ("stem", "branch"):
        x = layers.Conv2D(tiny.WIDTH, 3, padding="same", name=name)(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


class FirstEpoch(keras.callbacks.Callback):
    """Keeps the values of all variables after the first epoch, as lists."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            _ = self.model  # On JAX this brings the variables up to date.
            values = [x.numpy().tolist() for x in self.student.variables]
            self.weights = values


class StopAfter(keras.callbacks.Callback):
    """Ends a training early, with the schedule of a longer one."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 >= self.epochs


def train(strength, distiller=None, epochs=EPOCHS, done=EPOCHS):
    """A short training. SGD does not blow up the rounding errors of small
    gradients, as Adam does.

    Args:
        strength: That of the penalty, or None.
        distiller: Name of a class of distillers, or None.
        epochs: Epochs along which the budget moves.
        done: Epochs after which the training ends.

    Returns:
        The student, the logs, and the weights after the first epoch.
    """
    keras.utils.set_random_seed(0)
    student = keras_bar.gate(network(), seed=0)
    model = student
    x, y = tiny.data()
    if distiller:
        teacher = network()
        model = getattr(keras_bar.distillation, distiller)(
            teacher, student, keras_bar.distillation.LogitsDistillation()
        )
    if distiller == "RecordedDistiller":
        y = {"labels": y, "teacher": keras.ops.convert_to_numpy(teacher(x))}
    tiny.prepare(model, keras.optimizers.SGD(0.1))
    first = FirstEpoch()
    first.student = student
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        regularizer = BudgetRegularizer(0.5, strength=strength)
        logs = model.fit(
            x,
            y,
            batch_size=8,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[regularizer, first, StopAfter(done)],
        )
    return student, logs.history, first.weights


def distill(distiller):
    return train(MODES["penalty"], distiller, epochs=COMPARED)


def measure(student, logs, weights):
    """What can be compared, as JSON knows it."""
    return {
        "logs": logs,
        "steps": tiny.steps_done(student),
        "volume": keras_bar.measure_cost(student).volume,
        "weights": weights,
    }


def replicas(strategy, model):
    """Name of every variable, and how much it differs between replicas."""
    result = {}
    for variable in model.variables:
        if keras.backend.backend() == "jax":
            parts = [x.data for x in variable.value.addressable_shards]
        else:
            parts = strategy.experimental_local_results(variable.value)
        values = [np.array(x).astype("float64") for x in parts]
        gap = np.max(np.abs(values[0] - values[-1]))
        result[variable.path] = [len(values), float(gap)]
    return result


def main(*names):
    """Prints what trainings of modes and distillers found, as JSON."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", 2)
    else:
        import tensorflow as tf

        from tests.helpers import unoptimized

        unoptimized.install()
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
    strategy = multi_host.find_strategy("mirrored")
    assert devices.replicas(strategy) == 2
    found = {}
    for name in names:
        with strategy.scope():
            done = train(MODES[name]) if name in MODES else distill(name)
        student, *seen = done
        found[name] = measure(student, *seen)
        found[name]["replicas"] = replicas(strategy, student)
    print(json.dumps(found))


def run(*names):
    root = pathlib.Path(__file__).parents[1]
    process = subprocess.run(
        [sys.executable, __file__, *names],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert process.returncode == 0, process.stderr[-5000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(
    scope="module",
    params=["tracking", pytest.param("penalty", marks=pytest.mark.slow)],
)
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def found(mode):
    return run(mode)[mode]


@pytest.fixture(scope="module")
def alone(mode):
    """The first epochs of the same training with one replica."""
    return measure(*train(MODES[mode], done=COMPARED))


def test_replicas_agree(found):
    assert found["steps"] == EPOCHS * tiny.BATCHES
    variables = found["replicas"]
    assert any("threshold" in name for name in variables)
    for name, (count, gap) in variables.items():
        assert count == 2, name
        assert gap == 0, name


def test_budget_is_kept(found, mode):
    assert 0.95 * 0.5 <= found["volume"] / tiny.VOLUME <= 0.5
    logs = found["logs"]
    assert logs["budget"][-1] == pytest.approx(0.5)
    if mode == "tracking":
        assert logs["expected"][-1] == pytest.approx(0.5, abs=0.1)


def assert_alike(found, expected, names):
    """In the first epochs, before rounding errors have grown."""
    for name in names:
        np.testing.assert_allclose(
            found["logs"][name][:COMPARED],
            expected["logs"][name],
            rtol=1e-2,
            err_msg=name,
        )


def test_two_replicas_train_like_one(found, alone):
    assert_alike(found, alone, alone["logs"])


def test_weights_after_an_epoch_are_those_of_one_replica(found, alone):
    pairs = zip(found["weights"], alone["weights"], strict=True)
    for values, expected in pairs:
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("distiller", DISTILLERS)
def test_distilled_penalty_is_that_of_one_replica(distiller):
    found = run(distiller)[distiller]
    one = measure(*distill(distiller))
    # Keras's metrics of the parts of the loss are those of one replica.
    names = {"loss", "penalty", "expected"}
    assert_alike(found, one, names)


def test_a_copy_on_one_device_predicts():
    """In the scope of a distribution, of which this process has one device."""
    model = network()
    x = tiny.data()[0][:3]
    expected = model.predict(x, verbose=0)
    with devices.on_one_device(model) as same:
        assert same is model
    if keras.backend.backend() == "jax":
        strategy = multi_host.find_strategy("mirrored")
        with strategy.scope():
            with devices.on_one_device(model) as alone:
                assert alone is not model
                assert keras.distribution.distribution() is None
                found = alone.predict(x, verbose=0)
            assert keras.distribution.distribution() is strategy
        np.testing.assert_allclose(found, expected, rtol=1e-5)


if __name__ == "__main__":
    main(*sys.argv[1:])
