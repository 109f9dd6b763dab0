"""Pruning while training, on whichever backend runs."""

import keras
import numpy as np
import pytest

import keras_bar
from tests.helpers import pruning
from tests.helpers.budgets import BudgetRegularizer

pytestmark = pytest.mark.core


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 1)).astype("float32")
    return x, (x.mean((1, 2, 3)) > 0).astype("int32")


def network():
    return keras_bar.models.WideResNet(10, 1, (8, 8, 1), classes=2)


def fit(model, student, regularizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, jit_compile=False)
    x, y = data()
    history = model.fit(
        x, y, batch_size=16, epochs=3, verbose=0, callbacks=[regularizer]
    ).history
    full = keras_bar.measure_cost(network())
    cost = keras_bar.measure_cost(student)
    assert cost.volume <= 0.4 * full.volume
    assert all(gate.is_fixed for gate in pruning.gates_of(student))
    pruning.assert_invariants(student)
    return history


@pytest.mark.filterwarnings("ignore:The training was too short")
def test_tracking_with_distillation():
    student = keras_bar.gate(network(), seed=0)
    distiller = keras_bar.distillation.Distiller(
        network(), student, keras_bar.distillation.LogitsDistillation()
    )
    regularizer = BudgetRegularizer(0.4)
    history = fit(distiller, student, regularizer)
    assert history["expected"][-1] < 0.8
    assert history["budget"][-1] == pytest.approx(0.4)


@pytest.mark.filterwarnings("ignore:The training was too short")
def test_the_penalty_of_the_paper():
    student = keras_bar.gate(network(), seed=0)
    regularizer = BudgetRegularizer.paper(0.4)
    history = fit(student, student, regularizer)
    assert np.isfinite(history["loss"]).all() and history["penalty"][0] > 0
