"""Common parts of the tests of budgets."""

import keras
import numpy as np
from keras import ops

import keras_bar
from tests.helpers import tiny

LOGS = ["volume", "flops", "params", "memory", "budget", "expected"]
# Long enough for the tiny network to reach its budget by itself.
EPOCHS = 20

# Options of `fit` for a few steps, which take less time than compiling one.
QUICK = {"run_eagerly": True}


class BudgetRegularizer(keras_bar.callbacks.BudgetRegularizer):
    """The regularizer, with every entry of the logs."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"log_all": True, **kwargs})


class Interrupt(keras.callbacks.Callback):
    """Raises an error when an epoch begins."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedError


class Spy(keras.callbacks.Callback):
    """Keeps the logs that a user's callback sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(dict(logs))


def numpy(x):
    return ops.convert_to_numpy(ops.convert_to_tensor(x))


def used(model, metric="volume"):
    """Share of the full cost that the alive channels take."""
    width = tiny.gates(model)[0].log_alpha.shape[0]
    full = keras_bar.measure_cost(tiny.network(width))
    return getattr(keras_bar.measure_cost(model), metric) / getattr(
        full, metric
    )


def assert_connected(model):
    x = tiny.data()[0]
    outputs = numpy(keras_bar.compact(model)(x, training=False))
    assert np.all(np.isfinite(outputs))
    assert np.ptp(outputs, axis=0).max() > 0


def assert_finished(model, budget, metric="volume"):
    """Asserts that a trained model is within budget, connected and fixed."""
    assert used(model, metric) <= budget + 1e-9
    assert all(gate.is_fixed for gate in tiny.gates(model))
    assert_connected(model)


def nothing(y_true, y_pred):
    """A data loss of 0, so that the loss is the penalty."""
    return 0.0 * ops.sum(y_pred, axis=-1)


def assert_same(model, expected):
    for x, y in zip(model.variables, expected, strict=True):
        np.testing.assert_allclose(
            x.numpy(), y, rtol=1e-5, atol=1e-6, err_msg=x.path
        )


def assert_same_end(logs, expected):
    for name in ["loss", *LOGS]:
        end = expected[name][-len(logs[name]) :]
        np.testing.assert_allclose(logs[name], end, rtol=1e-4, err_msg=name)


def values(model):
    return [np.array(x.numpy()) for x in model.variables]
