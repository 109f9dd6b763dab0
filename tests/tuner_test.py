"""KerasTuner drives the budget, and sees what it costs."""

import keras
import pytest

import keras_bar
from keras_bar.callbacks import BudgetRegularizer
from tests import tiny

keras_tuner = pytest.importorskip("keras_tuner")


def build(hp):
    """A gated network with a learning rate to be found."""
    model = keras_bar.gate(tiny.network(), seed=0)
    rate = hp.Choice("rate", [0.03, 0.3])
    return tiny.prepare(model, keras.optimizers.SGD(rate))


def search(folder, objective):
    tuner = keras_tuner.RandomSearch(
        build,
        objective=keras_tuner.Objective(objective, "min"),
        max_trials=2,
        seed=0,
        directory=folder,
    )
    x, y = tiny.data()
    tuner.search(
        x,
        y,
        batch_size=8,
        epochs=8,
        verbose=0,
        validation_data=(x, y),
        callbacks=[BudgetRegularizer(0.5)],
    )
    return tuner


@pytest.mark.parametrize("objective", ["volume", "val_loss"])
def test_random_search(tmp_path, objective):
    tuner = search(tmp_path, objective)
    trials = tuner.oracle.get_best_trials(2)
    assert {x.hyperparameters.get("rate") for x in trials} == {0.03, 0.3}
    for trial in trials:
        for name in ("volume", "flops", "params", "budget", "expected"):
            assert trial.metrics.exists(name)
    scores = [x.score for x in trials]
    assert scores == sorted(scores)
    if objective == "volume":
        # The callback is copied for every trial, and starts anew in each.
        assert all(0.4 < x <= 0.6 for x in scores)
        for trial in trials:
            (best,) = trial.metrics.get_history("budget")[-1].value
            assert best == pytest.approx(0.5, abs=0.1)
