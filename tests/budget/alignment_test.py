"""Widths that are multiples of a block."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import models
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.budget import alignment
from keras_bar.budget import selection
from keras_bar.callbacks import BudgetRegularizer
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from tests.helpers import pruning
from tests.helpers import tiny

SMALL = (16, 16, 3)
NETWORKS = {
    "vgg": lambda: models.VGG(SMALL, widths=(24, 40)),
    "wide_resnet": lambda: models.WideResNet(10, 2, SMALL),
    "resnet": lambda: models.ResNet50((32, 32, 3), narrow=2),
    "mobile": lambda: models.MobileNet(
        SMALL, blocks=((16, 32, 1), (16, 32, 1), (24, 48, 2))
    ),
}
# The large one takes a minute.
NAMES = [
    pytest.param(x, marks=[pytest.mark.slow] * (x == "resnet"))
    for x in NETWORKS
]


def cost_model_of(gated):
    return CostModel(ChannelAnalysis(trace(gated)))


def odd_widths(model, align, full):
    """Convolutions whose width is no multiple, though they were that wide.
    Those of groups, and depthwise ones, follow what they read."""
    return [
        x.name
        for x in model.layers
        if type(x) is layers.Conv2D
        and x.groups == 1
        and full.get_layer(x.name).filters >= align
        and x.filters % align
    ]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", NAMES)
def test_chosen_channels_are_blocks_within_the_budget(name, metric):
    model = NETWORKS[name]()
    gated = keras_bar.gate(model)
    cost_model = cost_model_of(gated)
    rng = np.random.default_rng(0)
    scores = {x: rng.normal(size=x.channels) for x in cost_model.gates}
    target = cost_model.full[metric] / 3
    wanted = selection.strongest(cost_model, metric, target, scores)
    goal = cost_model, metric, target, scores
    masks = alignment.align_within(*goal, wanted, 8)
    for gate, mask in masks.items():
        assert gate.channels < 8 or mask.sum() % 8 == 0
    cost = cost_model.hard(masks)[metric]
    assert 0.8 * target < cost <= target
    assert cost_model.analysis.is_connected(masks)
    # Channels that were wanted are closed from the weakest on.
    for gate, mask in masks.items():
        kept, lost = (scores[gate][wanted[gate] & x] for x in (mask, ~mask))
        assert not len(kept) or not len(lost) or kept.min() > lost.max()
    for gate, mask in masks.items():
        gate.set_alive(mask)
    small = keras_bar.compact(gated)
    assert getattr(keras_bar.measure_cost(small), metric) == cost
    assert odd_widths(small, 8, model) == []


def test_one_block_stays_where_a_path_needs_it():
    gated = keras_bar.gate(tiny.chain(16, 4, 16))
    cost_model = cost_model_of(gated)
    scores = {x: np.arange(x.channels) for x in cost_model.gates}
    wanted = {x: np.arange(x.channels) == 0 for x in cost_model.gates}
    target = cost_model.full["volume"] * 20 / 36
    goal = cost_model, "volume", target, scores
    masks = alignment.align_within(*goal, wanted, 8)
    # The layer of 4 channels is narrower than a block, and fills the budget
    # until it is well used.
    assert [x.sum() for x in masks.values()] == [8, 3, 8]
    for mask in masks.values():
        assert mask[0]


def test_a_block_goes_where_another_one_is_needed():
    """The budget does not pay for both the block that the required gate needs
    and all wanted channels of the branch."""
    gated = keras_bar.gate(tiny.network())
    cost_model = cost_model_of(gated)
    stem, branch = cost_model.gates
    scores = {stem: np.arange(16.0), branch: np.arange(16.0) + 100}
    wanted = {stem: np.arange(16) == 15, branch: np.ones(16, bool)}
    target = cost_model.full["volume"] * 17 / 32
    masks = alignment.align_within(
        cost_model, "volume", target, scores, wanted, 8
    )
    assert [masks[x].sum() for x in (stem, branch)] == [8, 8]


@pytest.mark.parametrize("strength", [None, 1e-5])
def test_training_leaves_blocks(strength):
    student = tiny.student(24)
    budget = BudgetRegularizer(0.7, align=8, strength=strength)
    history = tiny.fit(student, budget, epochs=4)
    assert history["volume"][-1] <= 0.7
    widths = [int(x.alive().sum()) for x in tiny.gates(student)]
    assert sum(widths) == 32 and all(x % 8 == 0 for x in widths)


def test_budgets_below_a_block_are_refused():
    student = tiny.student(16)
    budget = BudgetRegularizer(1 / 8, align=8)
    with pytest.raises(ValueError, match="too small for aligned widths"):
        tiny.fit(student, budget)


@pytest.mark.parametrize("align", [0, -8, 2.0, True, "8"])
def test_wrong_blocks_are_refused(align):
    with pytest.raises(ValueError, match="Expected an integer of 1 or more"):
        BudgetRegularizer(1 / 2, align=align)
    gated = pruning.close_gates(keras_bar.gate(tiny.network()))
    with pytest.raises(ValueError, match="Expected an integer of 1 or more"):
        keras_bar.compact(gated, align=align)


@pytest.mark.parametrize("name", NAMES)
def test_compaction_closes_the_weakest(name):
    model = NETWORKS[name]()
    gated = pruning.close_gates(keras_bar.gate(pruning.randomize(model)))
    before = {x.name: x.alive() for x in pruning.gates_of(gated)}
    small = keras_bar.compact(gated, align=4)
    explanation = keras_bar.explain(small)
    assert "Closed for aligned widths" in str(explanation)
    for gate in pruning.gates_of(gated):
        np.testing.assert_array_equal(gate.alive(), before[gate.name])
        alive, count = gate.alive(), int(gate.alive().sum())
        if count < 4 or count % 4 == 0:
            assert gate.name not in explanation.aligned
            continue
        assert explanation.aligned[gate.name] == (count, count - count % 4)
        order = np.argsort(gate.log_alpha.numpy())
        weakest = [x for x in order if alive[x]][: count % 4]
        alive[weakest] = False
        gate.set_alive(alive)
    # As if these had been closed from the beginning.
    expected = keras_bar.compact(gated)
    assert keras_bar.measure_cost(small) == keras_bar.measure_cost(expected)
    x = pruning.inputs_for(model)
    assert pruning.difference(small, expected, x) < 1e-6


def test_compaction_keeps_gates_of_other_kinds_aligned():
    gate = keras_bar.layers.GaussianGate
    gated = keras_bar.gate(models.VGG(SMALL, widths=(16, 16)), layer=gate)
    rng = np.random.default_rng(0)
    for x in pruning.gates_of(gated):
        x.set_alive(rng.random(16) < 0.7)
    small = keras_bar.compact(gated, align=8)
    widths = [x.filters for x in small.layers if type(x) is layers.Conv2D]
    assert widths and set(widths) <= {8, 16}
    assert keras_bar.measure_cost(small).volume == sum(
        x.output.shape[1] ** 2 * x.filters
        for x in small.layers
        if type(x) is layers.Conv2D
    )


def normalized():
    """A gated network whose normalization was adapted to other statistics."""
    rng = np.random.default_rng(0)
    norm = layers.Normalization()
    norm.adapt(rng.normal(2, 3, (64, 16)))
    inputs = keras.Input((6,))
    x = norm(layers.ReLU()(layers.Dense(16, name="hidden")(inputs)))
    gated = keras_bar.gate(keras.Model(inputs, layers.Dense(3)(x)))
    gated.get_layer("hidden_gate").set_alive(np.arange(16) < 9)
    return gated


@pytest.mark.parametrize("nested", [False, True])
def test_aligned_copies_have_the_state_of_all_layers(nested):
    gated = normalized()
    model = gated
    if nested:
        model = keras.Sequential(
            [keras.Input((6,)), layers.Rescaling(2.0), gated]
        )
    x = np.random.default_rng(1).normal(size=(20, 6)).astype("float32")
    small = keras_bar.compact(model, align=4)
    gate = gated.get_layer("hidden_gate")
    alive = gate.alive()
    alive[np.argmin(np.where(alive, gate.log_alpha.numpy(), np.inf))] = False
    gate.set_alive(alive)
    expected = model.predict(x, verbose=0)
    (hidden, _) = (x for x in small.layers if isinstance(x, layers.Dense))
    assert hidden.units == 8
    np.testing.assert_allclose(
        small.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5
    )


def test_unions_of_channels_are_not_aligned():
    gated = pruning.close_gates(keras_bar.gate(tiny.network()))
    with pytest.raises(ValueError, match="union of several gates"):
        keras_bar.compact(gated, align=4, connectivity="regular")
