"""LZR and IB: what they prune, and how layers are weighted."""

import functools

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar import baselines
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate
from keras_bar.layers import GaussianGate
from keras_bar.layers import HardConcreteGate
from tests.helpers import pruning
from tests.helpers import tiny

pytestmark = pytest.mark.core

# Every third channel of the stem and every second of the branch do something.
USEFUL = {
    "stem": np.arange(tiny.WIDTH) % 3 == 0,
    "branch": np.arange(tiny.WIDTH) % 2 == 0,
}


def redundant():
    """A network some of whose channels are 0 on every image."""
    model = pruning.randomize(tiny.network())
    for name, useful in USEFUL.items():
        norm = model.get_layer(f"{name}_norm")
        norm.gamma.assign(norm.gamma * useful)
        norm.beta.assign(norm.beta * useful)
    return model


def learn_gates_alone(model):
    for layer in model.layers:
        layer.trainable = isinstance(layer, (ChannelGate, BudgetState))
    return tiny.prepare(
        model, keras.optimizers.Adam(0.03), keras.losses.MeanSquaredError()
    )


@pytest.mark.parametrize(
    ("layer", "regularizer"),
    [
        (
            functools.partial(
                HardConcreteGate,
                rate=2.0,
                initializer=keras.initializers.Constant(3.0),
            ),
            baselines.L0Regularizer(1e-4),
        ),
        (
            functools.partial(GaussianGate, rate=5.0),
            baselines.InformationBottleneckRegularizer(1e-7),
        ),
    ],
    ids=["l0", "information_bottleneck"],
)
def test_exactly_the_redundant_channels_go(layer, regularizer, tmp_path):
    """Gates learn to return what the network returned without them."""
    original = redundant()
    x, _ = tiny.data()
    targets = keras.ops.convert_to_numpy(original(x))
    model = learn_gates_alone(keras_bar.gate(original, seed=0, layer=layer))
    model.fit(
        x,
        targets,
        batch_size=8,
        epochs=10,
        callbacks=[regularizer],
        shuffle=False,
        verbose=0,
    )
    for gate, useful in zip(tiny.gates(model), USEFUL.values(), strict=True):
        np.testing.assert_array_equal(gate.alive(), useful)
    path = tmp_path / "small.keras"
    _, small = pruning.assert_invariants(model, path=path)
    kept = sum(x.sum() for x in USEFUL.values())
    assert keras_bar.measure_cost(small).volume == tiny.POSITIONS * kept


@pytest.mark.parametrize("weight", [None, "volume"])
def test_a_factor_of_each_layers_own(weight):
    factors = {"stem_gate": 0.25, "branch_gate": 2.0}
    model = tiny.prepare(keras_bar.gate(tiny.network(), seed=0))
    regularizer = baselines.L0Regularizer(
        0.5, weight, factor=lambda gate: factors[gate.name]
    )
    control, state = pruning.control_of(model, regularizer)
    expected = sum(
        0.5 * factors[g.name] * float(keras.ops.sum(g.probability()))
        for g in tiny.gates(model)
    )
    if weight:
        expected *= tiny.POSITIONS
    assert float(control(state)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), None, "1"])
def test_wrong_factors(wrong):
    model = tiny.student()
    regularizer = baselines.L0Regularizer(0.5, factor=lambda gate: wrong)
    with pytest.raises(ValueError, match="Invalid factor of 'stem_gate'"):
        tiny.fit(model, regularizer)
    with pytest.raises(ValueError, match="Expected None or a function"):
        baselines.InformationBottleneckRegularizer(0.5, factor=0.5)
