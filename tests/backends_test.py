"""Pruning while training, on whichever backend runs."""

import keras
import numpy as np
import pytest

import keras_bar
from tests.helpers import pruning
from tests.helpers import tiny
from tests.helpers.budgets import BudgetRegularizer

pytestmark = pytest.mark.core


def fit(model, student, regularizer):
    tiny.prepare(model, keras.optimizers.Adam())
    history = tiny.fit(model, regularizer, epochs=2)
    assert keras_bar.measure_cost(student).volume <= 0.4 * tiny.VOLUME
    assert all(gate.is_fixed for gate in pruning.gates_of(student))
    pruning.assert_invariants(student)
    return history


def test_tracking_with_distillation():
    student = tiny.student()
    distiller = keras_bar.distillation.Distiller(
        tiny.network(), student, keras_bar.distillation.LogitsDistillation()
    )
    history = fit(distiller, student, BudgetRegularizer(0.4))
    assert history["expected"][-1] < 0.8
    assert history["budget"][-1] == pytest.approx(0.4)


def test_the_penalty_of_the_paper():
    student = tiny.student()
    history = fit(student, student, BudgetRegularizer.paper(0.4))
    assert np.isfinite(history["loss"]).all() and history["penalty"][0] > 0
