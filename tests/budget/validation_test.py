"""Pruning to a budget: what is refused, before any training."""

import warnings

import keras
import pytest

import keras_bar
from keras_bar.budget import controls
from keras_bar.callbacks import BudgetRegularizer
from tests.helpers import tiny
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import assert_finished


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"metric": "latency"}, "Unknown metric.*'flops'.*'latency'"),
        ({"budget": 0}, "Invalid budget.*budget=0"),
        ({"budget": -0.5}, "Invalid budget.*budget=-0.5"),
        ({"budget": float("nan")}, "Invalid budget.*nan"),
        ({"budget": "1/8"}, "Invalid budget.*'1/8'"),
        ({"budget": True}, "Invalid budget.*True"),
        ({"steps": 0}, "number of pruning steps.*steps=0"),
        ({"steps": 1.5}, "number of pruning steps.*steps=1.5"),
        ({"steps": 0.0}, "number of pruning steps.*steps=0.0"),
        ({"steps": 2.0}, "number of pruning steps.*steps=2.0.*float"),
        ({"steps": "10"}, "number of pruning steps.*steps='10'"),
        ({"steps": True}, "number of pruning steps.*steps=True"),
        ({"steps": float("nan")}, "number of pruning steps.*steps=nan"),
        (
            {"undecided_fraction": 0.1},
            "pair of numbers.*undecided_fraction=0.1",
        ),
        (
            {"undecided_fraction": (0.1,)},
            "pair of numbers.*undecided_fraction=",
        ),
        (
            {"undecided_fraction": "ab"},
            "pair of numbers.*undecided_fraction='ab'",
        ),
        ({"hardness": -1}, "hardness.*hardness=-1"),
        ({"strength": 0.0}, "strength.*strength=0.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        BudgetRegularizer(**{"budget": 0.5, **arguments})
    assert_three_beats(error)


def assert_three_beats(error):
    what, rest = str(error.value).split("Expected", 1)
    assert what.strip().endswith(".")
    assert "Received: " in rest


class NoStep(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        raise AssertionError("A step was taken.")


def assert_refused(message, model, *regularizers, **options):
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        tiny.fit(model, *regularizers, NoStep(), **options)
    assert_three_beats(error)


def test_no_gates():
    model = tiny.prepare(tiny.network())
    assert_refused("no gates", model, BudgetRegularizer(0.5))


def test_already_compact():
    model = tiny.student()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), epochs=0)
    small = tiny.prepare(keras_bar.compact(model))
    assert_refused("no gates.*compact", small, BudgetRegularizer(0.5))


def test_every_gate_fixed():
    model = tiny.student()
    for gate in tiny.gates(model):
        gate.fix()
    assert_refused("every gate is fixed", model, BudgetRegularizer(0.5))


@pytest.mark.parametrize("budget", [tiny.VOLUME + 1, 1e12, float("inf")])
def test_budget_above_the_full_cost(budget):
    regularizer = BudgetRegularizer(budget)
    assert_refused(f"at most {tiny.VOLUME}", tiny.student(), regularizer)


def test_budget_below_what_a_connected_network_needs():
    regularizer = BudgetRegularizer(0.9 * tiny.POSITIONS)
    message = f"at least {tiny.POSITIONS} \\(0.03125"
    assert_refused(message, tiny.student(), regularizer)
    # It says which layer holds it.
    row = f"stem +Conv2D +1 of {tiny.WIDTH} +{tiny.POSITIONS} +100.0%"
    assert_refused(f"{message}.*{row}", tiny.student(), regularizer)


def test_two_regularizers():
    regularizers = BudgetRegularizer(0.5), BudgetRegularizer(0.4)
    assert_refused("Two regularizers", tiny.student(), *regularizers)


def test_unknown_number_of_steps():
    x, y = tiny.data()

    def batches():
        while True:
            yield x[:8], y[:8]

    model = tiny.student(**QUICK)
    with pytest.raises(ValueError, match="length of the training") as error:
        model.fit(
            batches(),
            callbacks=[BudgetRegularizer(0.5), NoStep()],
            shuffle=False,
        )
    assert_three_beats(error)
    with pytest.warns(UserWarning, match="too short"):
        model.fit(
            batches(),
            steps_per_epoch=2,
            callbacks=[BudgetRegularizer(0.5)],
            shuffle=False,
            verbose=0,
        )
    assert_finished(model, 0.5)


@pytest.mark.parametrize("metric", ["volume", "flops"])
def test_unknown_size_of_the_input(metric):
    model = tiny.prepare(keras_bar.gate(tiny.network(size=None)))
    regularizer = BudgetRegularizer(0.5, metric)
    assert_refused("size of its input", model, regularizer)


def test_penalty_in_a_distiller_that_leaves_it_out():
    distiller = keras.distillation.Distiller(
        tiny.network(), tiny.student(), keras.distillation.LogitsDistillation()
    )
    tiny.prepare(distiller)
    message = "leaves the losses that layers add out"
    assert_refused(message, distiller, BudgetRegularizer.paper(0.5))


def test_control_needs_no_state_of_its_own():
    """What a control remembers is in variables, or it would not resume."""
    model = tiny.student()
    regularizer = BudgetRegularizer(0.5)
    regularizer.set_model(model)
    tracking = regularizer.make_control(steps=10)
    assert isinstance(tracking, controls.ThresholdControl)
    before = dict(vars(tracking))
    tracking(model.get_layer("budget_state"))
    assert vars(tracking) == before


def test_a_smaller_budget_on_a_pruned_model():
    model = tiny.student(**QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), epochs=2, steps_per_epoch=2)
    with pytest.raises(ValueError, match="pruned already"):
        tiny.fit(
            model,
            BudgetRegularizer(0.25),
            epochs=4,
            initial_epoch=2,
            steps_per_epoch=2,
        )
