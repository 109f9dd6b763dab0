"""Latency wherever a metric may stand."""

import json

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar import baselines
from tests.helpers import latencies
from tests.helpers import tiny
from tests.helpers.budgets import EPOCHS
from tests.helpers.budgets import BudgetRegularizer


@pytest.fixture(scope="module")
def latency():
    return latencies.latency_of(keras_bar.gate(tiny.network()))


@pytest.fixture(scope="module")
def pruned(latency):
    """A network pruned to half of its latency, and the logs of that."""
    model = tiny.student()
    regularizer = BudgetRegularizer(0.5, latency)
    return model, tiny.fit(model, regularizer, epochs=EPOCHS)


@pytest.mark.core
def test_the_budget_is_met_and_used(pruned, latency):
    model, logs = pruned
    cost = keras_bar.measure_cost(model, latency).latency
    full = keras_bar.measure_cost(tiny.network(), latency).latency
    assert 0.7 * full / 2 < cost <= full / 2
    assert logs["latency"][-1] == pytest.approx(cost / full)
    assert logs["budget"][-1] == pytest.approx(0.5, abs=1e-3)
    assert logs["latency"][0] > logs["latency"][-1]


def test_a_saved_network_knows_its_budget(pruned, latency, tmp_path):
    model, _ = pruned
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    (metric,) = loaded.get_layer("budget_state").limits
    assert metric == latency and hash(metric) == hash(latency)
    small = keras_bar.compact(loaded)
    full = keras_bar.measure_cost(tiny.network(), latency).latency
    cost = keras_bar.measure_cost(model, latency).latency
    assert cost <= full / 2
    assert small.count_params() == keras_bar.compact(model).count_params()


def test_weights_carry_the_budget(pruned, latency, tmp_path):
    model, _ = pruned
    model.save_weights(tmp_path / "some.weights.h5")
    other = tiny.student()
    other.load_weights(tmp_path / "some.weights.h5")
    limits = other.get_layer("budget_state").limits
    assert limits == model.get_layer("budget_state").limits
    assert list(limits) == [latency]


def test_a_network_above_its_budget_is_refused(latency):
    gated = keras_bar.gate(tiny.network())
    for x in tiny.gates(gated):
        x.fix()
    gated.get_layer("budget_state").limits = {latency: 1.0}
    with pytest.raises(ValueError, match="of the latency"):
        keras_bar.compact(gated)


def test_resumed_training_is_the_uninterrupted_one(latency, tmp_path):
    def begin():
        model = tiny.student()
        return model, BudgetRegularizer(0.6, latency, steps=4 * tiny.BATCHES)

    whole, regularizer = begin()
    expected = tiny.fit(whole, regularizer, epochs=4)
    first, regularizer = begin()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.fit(first, regularizer, backup, Stop(), epochs=4)
    second, regularizer = begin()
    found = tiny.fit(second, regularizer, backup, epochs=4)
    assert found["latency"][-1] == pytest.approx(expected["latency"][-1])
    for x, y in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_several_budgets_with_latency(latency):
    model = tiny.student()
    budgets = {"params": 0.7, latency: 0.6}
    logs = tiny.fit(model, BudgetRegularizer(budgets), epochs=EPOCHS)
    full = keras_bar.measure_cost(tiny.network(), latency)
    left = keras_bar.measure_cost(model, latency)
    assert left.params <= 0.7 * full.params
    assert left.latency <= 0.6 * full.latency
    assert logs["budget_latency"][-1] == pytest.approx(0.6, abs=1e-3)


def test_several_latencies_have_names(latency):
    other = keras_bar.Latency({**latency.to_json(), "batch_size": 8})
    with pytest.raises(ValueError, match="same name, .* latency, latency"):
        BudgetRegularizer({latency: 0.5, other: 0.6})
    phone = keras_bar.Latency(latency.to_json(), name="phone")
    assert str(phone) == "phone" and phone != latency
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(phone)
    )
    assert copy == phone
    model = tiny.student()
    regularizer = BudgetRegularizer({latency: 0.7, phone: 0.6})
    logs = tiny.fit(model, regularizer, epochs=EPOCHS)
    assert {"latency", "phone", "budget", "budget_phone"} <= set(logs)
    assert logs["phone"][-1] <= 0.6
    with pytest.raises(ValueError, match="name of a latency. Expected"):
        keras_bar.Latency(latency.to_json(), name="flops")


def test_one_cut_to_microseconds(latency):
    full = keras_bar.measure_cost(tiny.network(), latency).latency
    assert full > 2
    small = keras_bar.prune(tiny.network(), full / 2, latency)
    left = keras_bar.measure_cost(small, latency).latency
    assert 0.5 * full / 2 < left <= full / 2


def test_checks_of_budgets(latency):
    gated = keras_bar.gate(tiny.network())
    check = keras_bar.check_budget(gated, 0.5, latency)
    full = keras_bar.measure_cost(tiny.network(), latency).latency
    assert check.possible and check.full == pytest.approx(full)
    assert "of the full latency" in str(check)
    assert not keras_bar.check_budget(gated, 1e-4, latency).possible
    with pytest.raises(ValueError, match="too small for any"):
        tiny.fit(tiny.student(), BudgetRegularizer(1e-4, latency))


def test_the_papers_control_and_penalties(latency):
    model = tiny.student()
    paper = keras_bar.callbacks.BudgetRegularizer.paper(0.6, latency)
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(model, paper, epochs=1)
    cost = keras_bar.measure_cost(model, latency).latency
    full = keras_bar.measure_cost(tiny.network(), latency).latency
    assert cost <= 0.6 * full
    penalty = baselines.L0Regularizer(1e-3, weight=latency)
    tiny.fit(tiny.student(), penalty, epochs=1)


def test_what_is_no_latency_is_refused(latency):
    model = tiny.network()
    gated = keras_bar.gate(tiny.network())
    data = np.zeros((4, 6, 6, 2), "float32")
    for wrong in ("memory", "latency.json", keras_bar.Latency):
        with pytest.raises(ValueError, match="no measured latencies. Expected"):
            keras_bar.measure_cost(model, wrong)
    for wrong in (keras_bar.Latency, data, None, ["flops"]):
        with pytest.raises(ValueError, match=r"Unknown metric. .* Received: m"):
            keras_bar.check_budget(gated, 0.5, wrong)
    with pytest.raises(ValueError, match="Invalid budget.*metric=array of sh"):
        keras_bar.prune(model, {latency: 0.5}, data)
    for tables in ({"a": 3}, {"a": {"reads": [1]}}, {"a": {"reads": 1}}):
        with pytest.raises(ValueError, match="no measured latencies. Expected"):
            keras_bar.Latency({"tables": tables})


def test_files(latency, tmp_path):
    latency.save(tmp_path / "latency.json")
    loaded = keras_bar.Latency(tmp_path / "latency.json")
    assert loaded == latency and str(loaded) == "latency"
    model = tiny.network()
    expected = keras_bar.measure_cost(model, latency).latency
    assert keras_bar.measure_cost(model, loaded).latency == expected
    (tmp_path / "other.json").write_text(json.dumps({"volume": 1}))
    with pytest.raises(ValueError, match="no measured latencies. Expected"):
        keras_bar.Latency(tmp_path / "other.json")
    with pytest.raises(ValueError, match="no such file of latencies"):
        keras_bar.Latency(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="or a `keras_bar.Latency`"):
        keras_bar.callbacks.BudgetRegularizer(0.5, "latency")
