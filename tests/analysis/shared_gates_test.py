"""Training, pruning and measuring networks whose layers are called more than
once."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import baselines
from tests.helpers import latencies
from tests.helpers import shared_networks
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.pruning import difference
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import outputs_of
from tests.helpers.pruning import randomize
from tests.helpers.shared_networks import called
from tests.helpers.shared_networks import detector

core = pytest.mark.core
IMAGES = np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype("float32")


def shares(model, small, metric="flops"):
    costs = [keras_bar.measure_cost(x) for x in (small, model)]
    return getattr(costs[0], metric) / getattr(costs[1], metric)


@core
@pytest.mark.parametrize("connectivity", ["mixed", "regular"])
def test_a_budget_is_met(connectivity):
    model = randomize(detector("shared", 2))
    student = keras_bar.gate(model, connectivity=connectivity, seed=0)
    student.compile(keras.optimizers.Adam(1e-3), "mse")
    targets = np.zeros((32, *model.output_shape[1:]))
    budget = BudgetRegularizer(1 / 2, "flops")
    student.fit(IMAGES, targets, 8, epochs=6, callbacks=[budget], verbose=0)
    small = keras_bar.compact(student, connectivity=connectivity)
    assert 0.3 < shares(model, small) <= 0.5
    gate = student.get_layer("tower0_gate")
    assert np.any(keras.ops.convert_to_numpy(gate.importance))


@core
@pytest.mark.parametrize("name", ["detector", "siamese", "tied residual"])
def test_one_cut(name):
    model = randomize(shared_networks.NETWORKS[name]())
    shapes = [(64, *x.shape[1:]) for x in model.inputs]
    rng = np.random.default_rng(0)
    data = [rng.normal(size=x).astype("float32") for x in shapes]
    data = data if len(data) > 1 else data[0]
    plain = keras_bar.prune(model, 0.7, "flops")
    small = keras_bar.prune(model, 0.7, "flops", data)
    assert shares(model, plain) <= 0.7 and shares(model, small) <= 0.7
    errors = [difference(model, x, data) for x in (plain, small)]
    assert errors[1] < errors[0]


@core
@pytest.mark.parametrize("norm", [False, True])
def test_redundant_channels_of_a_shared_layer_leave_without_a_trace(norm):
    """Half of the channels are five times the others, which a ReLU keeps so."""
    x = inputs = keras.Input((16, 16, 3))
    made = [
        layers.Conv2D(8, 3, padding="same", name="first"),
        layers.ReLU(),
        layers.Conv2D(5, 3, padding="same", use_bias=not norm, name="second"),
        *([layers.BatchNormalization()] if norm else []),
        layers.ReLU(),
    ]
    y = [called(z, *made) for z in (x, layers.AveragePooling2D(2)(x))]
    y = layers.Concatenate()([layers.GlobalAveragePooling2D()(z) for z in y])
    model = randomize(keras.Model(inputs, layers.Dense(3)(y)))
    for weight in model.get_layer("first").weights:
        half = keras.ops.convert_to_numpy(weight)[..., :4]
        weight.assign(np.concatenate([half, 5 * half], axis=-1))
    volumes = {x.name: x.volume for x in keras_bar.measure_cost(model).layers}
    half = (volumes["first"] + volumes["first_1"]) / 2
    budget = half + volumes["second"] + volumes["second_1"]
    small = keras_bar.prune(model, budget, "volume", IMAGES, skip=["second"])
    assert small.get_layer("first").filters == 4
    assert difference(small, model, IMAGES) < 1e-3


@core
def test_expansion():
    model = detector("shared", 2)
    full = keras_bar.measure_cost(model).flops
    wider = baselines.expand(model, 3 * full)
    assert 0.8 < keras_bar.measure_cost(wider).flops / (3 * full) <= 1
    assert wider.get_layer("tower0").filters > 8
    assert all(np.isfinite(x).all() for x in outputs_of(wider, IMAGES[:2]))


@core
def test_expansion_refuses_a_call_whose_input_is_fixed():
    inputs = keras.Input((8, 8, 4))
    tied = layers.Conv2D(4, 3, padding="same", activation="relu", name="tied")
    x = called(inputs, tied, tied, layers.GlobalAveragePooling2D())
    model = keras.Model(inputs, layers.Dense(3)(x))
    with pytest.raises(ValueError, match="cannot be widened"):
        baselines.expand(model, 3 * keras_bar.measure_cost(model).flops)


@core
def test_aligned_widths():
    student = keras_bar.gate(randomize(detector("shared", 2)), seed=0)
    for gate in gates_of(student):
        gate.set_alive(np.arange(gate.channels) < 5)
    small = keras_bar.compact(student, align=4)
    assert small.get_layer("tower0").filters == 4
    assert small.get_layer("tower1").kernel.shape[2:] == (4, 4)


@core
def test_latency_of_the_compact_network_is_predicted():
    student = keras_bar.gate(randomize(detector("shared", 2)), seed=0)
    latency = latencies.latency_of(student)
    for i, gate in enumerate(gates_of(student)):
        gate.set_alive(np.arange(gate.channels) != i)
    small = keras_bar.compact(student)
    found = keras_bar.measure_cost(student, latency).latency
    full = keras_bar.measure_cost(detector("shared", 2), latency).latency
    assert found < full
    assert small.count_params() == keras_bar.measure_cost(student).params


@core
def test_criteria_that_merge_filters_leave_shared_layers_alone():
    pytest.importorskip("sklearn")
    model = randomize(detector("shared", 2))
    quantized = baselines.prune(
        model, baselines.VectorQuantization(), 0.6, "flops"
    )
    assert shares(model, quantized) <= 0.6


@core
def test_networks_without_shared_layers_keep_a_gate_per_layer():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same")(x)
    x = layers.Add()([x, layers.Conv2D(6, 3, padding="same")(x)])
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    student = keras_bar.gate(keras.Model(inputs, x))
    assert len(gates_of(student)) == 2
