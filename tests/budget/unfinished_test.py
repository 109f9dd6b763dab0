"""What is unfinished or over its budget is not compacted without a word."""

import warnings

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar.__main__ import main
from keras_bar.callbacks import AfterPruning
from tests.helpers import tiny
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.budgets import Interrupt
from tests.helpers.budgets import used

pytestmark = pytest.mark.filterwarnings("ignore:.*too short")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A file of a model whose pruning was interrupted, and its volume."""
    path = tmp_path_factory.mktemp("interrupted") / "gated.keras"
    model = tiny.student()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InterruptedError):
            tiny.fit(model, BudgetRegularizer(0.25), Interrupt(2), epochs=4)
    model.save(path)
    return path, used(model)


@pytest.mark.parametrize("prune", [keras_bar.compact, keras_bar.hard_prune])
def test_unfinished_model_is_refused_with_both_numbers(interrupted, prune):
    path, volume = interrupted
    model = keras.models.load_model(path)
    assert volume > 0.3
    with pytest.raises(ValueError, match="2 of 2 gates still learn") as error:
        prune(model)
    assert f"{volume:.4g} of the volume" in str(error.value)
    assert "budget 0.25 (288)" in str(error.value)
    assert "allow_unfinished=True" in str(error.value)
    pruned = prune(model, allow_unfinished=True)
    assert keras_bar.measure_cost(pruned).volume == volume * tiny.VOLUME


def test_command_line_refuses_what_is_unfinished(interrupted, tmp_path, capsys):
    path, _ = interrupted
    command = ["compact", str(path), "-o", str(tmp_path / "small.keras")]
    with pytest.raises(SystemExit) as error:
        main(command)
    assert error.value.code == 2
    assert "budget 0.25" in capsys.readouterr().err
    assert not (tmp_path / "small.keras").exists()
    main([*command, "--allow-unfinished"])
    assert (tmp_path / "small.keras").exists()


def test_untrained_gates_are_unfinished():
    with pytest.raises(ValueError, match="gates still learn.*no budget"):
        keras_bar.compact(keras_bar.gate(tiny.network()))


def test_finished_model_is_compacted_after_loading(tmp_path):
    model = tiny.student()
    tiny.fit(model, BudgetRegularizer(0.25), epochs=0)
    model.save(tmp_path / "gated.keras")
    loaded = keras.models.load_model(tmp_path / "gated.keras")
    assert loaded.get_layer("budget_state").limits == {"volume": 288.0}
    cost = keras_bar.measure_cost(keras_bar.compact(loaded))
    assert 0 < cost.volume <= 288


def test_gates_changed_after_the_pruning_are_refused():
    model = tiny.student()
    tiny.fit(model, BudgetRegularizer(0.25), epochs=0)
    for gate in tiny.gates(model):
        gate.set_alive(np.ones(tiny.WIDTH, bool))
    with pytest.raises(ValueError, match="above the budget.*1 of the volume"):
        keras_bar.compact(model)


def best_of(folder, *callbacks):
    """A training whose early epochs are the best, as those with the full
    network are: `score` falls from epoch to epoch."""

    class Score(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = -float(epoch)

    model = tiny.student()
    regularizer = BudgetRegularizer(0.25, steps=0.5)
    tiny.fit(model, regularizer, Score(), *callbacks, epochs=6)
    return model


def checkpoint(path):
    return keras.callbacks.ModelCheckpoint(
        path, monitor="score", mode="max", save_best_only=True
    )


@pytest.mark.core
def test_best_finished_epoch_is_kept(tmp_path):
    plain, wrapped = tmp_path / "plain.keras", tmp_path / "wrapped.keras"
    stopping = keras.callbacks.EarlyStopping(
        "score", mode="max", patience=1, restore_best_weights=True
    )
    model = best_of(
        tmp_path,
        checkpoint(plain),
        AfterPruning(checkpoint(wrapped)),
        AfterPruning(stopping),
    )
    # Keras's own takes the first epoch, in which hardly anything was pruned.
    assert used(keras.models.load_model(plain)) > 0.25
    best = keras.models.load_model(wrapped)
    assert used(best) <= 0.25
    keras_bar.compact(best)
    assert len(model.history.epoch) < 6  # The best was followed by a worse one.
    assert stopping.best == max(-e for e in model.history.epoch if e >= 2)
    assert used(model) <= 0.25
    keras_bar.compact(model)


@pytest.mark.parametrize("callback", [None, keras.callbacks.ModelCheckpoint])
def test_after_pruning_wants_a_callback(callback):
    with pytest.raises(ValueError, match="Expected a `keras.callbacks.Callb"):
        AfterPruning(callback)


def test_a_callback_that_sees_no_finished_network_is_told_of(tmp_path):
    path = tmp_path / "never.keras"
    regularizer = BudgetRegularizer(0.25, steps=1.0)
    kept = AfterPruning(checkpoint(path))
    with pytest.warns(UserWarning, match="`ModelCheckpoint` saw no epoch"):
        tiny.fit(tiny.student(**QUICK), regularizer, kept, steps_per_epoch=2)
    assert not path.exists()


def test_a_budget_is_saved_with_weights_alone(tmp_path):
    model = tiny.student()
    tiny.fit(model, BudgetRegularizer(0.25), epochs=0)
    model.save_weights(tmp_path / "gated.weights.h5")
    again = keras_bar.gate(tiny.network())
    again.load_weights(tmp_path / "gated.weights.h5")
    for gate in tiny.gates(again):
        gate.set_alive(np.ones(tiny.WIDTH, bool))
    with pytest.raises(ValueError, match="above the budget"):
        keras_bar.compact(again)
