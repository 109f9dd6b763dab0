"""Which channels stay: within budget, connected, the strongest."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.budget import selection
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from tests.helpers import tiny
from tests.helpers.tiny import chain


def cost_model(network):
    """The cost model of a gated network, and its gates by name."""
    model = CostModel(ChannelAnalysis(trace(keras_bar.gate(network, seed=0))))
    return model, {gate.name: gate for gate in model.gates}


def two_outputs():
    """A branch to an output of its own."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    y = layers.Conv2D(5, 3, name="left")(x)
    z = layers.Conv2D(6, 3, name="right")(x)
    outputs = [
        layers.Dense(2)(layers.GlobalAveragePooling2D()(t)) for t in (y, z)
    ]
    return keras.Model(inputs, outputs)


def two_paths():
    """A long and a short path, either of which suffices."""
    inputs = keras.Input((6, 6, 2))
    y = layers.Conv2D(8, 3, padding="same", name="long")(inputs)
    y = layers.Conv2D(8, 3, padding="same", name="longer")(y)
    z = layers.Conv2D(4, 3, padding="same", name="short")(inputs)
    x = layers.Concatenate()([y, z])
    return keras.Model(
        inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    )


def long_detour():
    """A residual block of two convolutions, around which there is a way."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(4, 3, padding="same", name="first")(layers.ReLU()(x))
    y = layers.Conv2D(4, 3, padding="same", name="second")(layers.ReLU()(y))
    x = layers.Add()([x, y])
    return keras.Model(
        inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    )


@pytest.fixture(scope="module")
def wide():
    """The cost model of a network no channel of which is a large part."""
    return cost_model(tiny.network(32))[0]


def scores_of(model, seed=0):
    rng = np.random.default_rng(seed)
    return {g: rng.normal(size=g.log_alpha.shape) for g in model.gates}


@pytest.mark.parametrize(
    "network, expected",
    [
        (tiny.network, {"stem_gate"}),
        (lambda: chain(3, 4, 5), {"conv0_gate", "conv1_gate", "conv2_gate"}),
        (two_outputs, {"stem_gate", "left_gate", "right_gate"}),
        (two_paths, {"short_gate"}),
        (long_detour, {"stem_gate"}),
    ],
    ids=["block", "chain", "two outputs", "two paths", "detour"],
)
def test_required_gates(network, expected):
    model, _ = cost_model(network())
    for metric in METRICS:
        kept = selection.required_gates(model, metric)
        assert {gate.name for gate in kept} == expected
        assert set(kept.values()) == {1}


@pytest.mark.parametrize(
    "network",
    [tiny.network, lambda: chain(3, 4), two_outputs, two_paths, long_detour],
)
def test_smallest_is_connected_and_nothing_below_it_is(network):
    """Against every way to keep at most one channel per gate."""
    model, _ = cost_model(network())
    least = {}
    for metric in METRICS:
        smallest = selection.smallest(model, metric)
        assert model.analysis.is_connected(smallest)
        least[metric] = model.hard(smallest)[metric]
        assert least[metric] == selection.smallest_cost(model, metric)
    for open_ in itertools.product([False, True], repeat=len(model.gates)):
        masks = {
            gate: np.arange(gate.log_alpha.shape[0]) < x
            for gate, x in zip(model.gates, open_, strict=True)
        }
        if model.analysis.is_connected(masks):
            cost = model.hard(masks)
            assert all(cost[metric] >= least[metric] for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
def test_strongest_is_within_budget_and_uses_it(wide, metric, share):
    model = wide
    target = share * model.full[metric]
    for seed in range(3):
        masks = selection.strongest(
            model, metric, target, scores_of(model, seed)
        )
        assert model.analysis.is_connected(masks)
        used = model.hard(masks)[metric]
        assert used <= target
        # In a network this small one channel may be more than what is left.
        assert used >= 0.95 * target or next_cost(model, metric, masks) > target


def next_cost(model, metric, masks):
    """The least that the network costs with one more channel that counts."""
    used = model.hard(masks)[metric]
    costs = [
        model.hard({**masks, gate: mask | (np.arange(len(mask)) == i)})[metric]
        for gate, mask in masks.items()
        for i in np.flatnonzero(~mask)
    ]
    return min(cost for cost in costs if cost > used)


def test_strongest_are_those_above_a_score():
    model, _ = cost_model(tiny.network())
    scores = scores_of(model)
    target = model.full["volume"] / 4
    masks = selection.strongest(model, "volume", target, scores)
    everyone = np.concatenate([*scores.values()])
    chosen = np.concatenate([masks[gate] for gate in scores])
    count = len(everyone) // 4  # Channels of equal volume.
    expected = everyone >= np.sort(everyone)[-count]
    np.testing.assert_array_equal(chosen, expected)


def test_the_strongest_channel_of_a_lifeline_is_kept():
    model, gates = cost_model(tiny.network())
    scores = scores_of(model)
    stem = gates["stem_gate"]
    scores[stem] = scores[stem] - 100
    target = model.full["volume"] / 4
    masks = selection.strongest(model, "volume", target, scores)
    expected = np.arange(tiny.WIDTH) == np.argmax(scores[stem])
    np.testing.assert_array_equal(masks[stem], expected)
    assert model.hard(masks)["volume"] == target


@pytest.mark.parametrize(
    "network", [tiny.network, lambda: chain(3, 4), two_outputs, two_paths]
)
@pytest.mark.parametrize("metric", METRICS)
def test_least_budget_of_all_gives_a_connected_network(network, metric):
    model, _ = cost_model(network())
    least = selection.smallest_cost(model, metric)
    for seed in range(5):
        masks = selection.strongest(
            model, metric, least, scores_of(model, seed)
        )
        assert model.analysis.is_connected(masks)
        assert model.hard(masks)[metric] <= least


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_equal_and_invalid_scores_still_use_the_budget(value):
    model, _ = cost_model(tiny.network())
    scores = {g: np.full(g.log_alpha.shape, value) for g in model.gates}
    target = model.full["volume"] / 2
    masks = selection.strongest(model, "volume", target, scores)
    assert model.analysis.is_connected(masks)
    assert model.hard(masks)["volume"] == target


def test_channels_that_are_no_number_are_the_weakest():
    model, gates = cost_model(tiny.network())
    scores = scores_of(model)
    scores[gates["branch_gate"]][:] = np.nan
    target = model.full["volume"] / 2
    masks = selection.strongest(model, "volume", target, scores)
    assert masks[gates["stem_gate"]].all()
    assert not masks[gates["branch_gate"]].any()


def test_weaker_channels_fill_what_a_costly_one_leaves():
    """Two strong channels that are costly, and cheap ones that are weak."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", name="costly")(inputs)
    x = layers.Conv2D(40, 3, strides=4, padding="same", name="cheap")(x)
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model, gates = cost_model(keras.Model(inputs, x))
    costly, cheap = gates["costly_gate"], gates["cheap_gate"]
    scores = {
        costly: np.arange(4) + 100.0,
        cheap: np.where(np.arange(40) == 7, 200.0, np.arange(40) / 40),
    }
    target = 2 * 64 + 15 * 4  # A third costly one takes 64 of the 60.
    masks = selection.strongest(model, "volume", target, scores)
    np.testing.assert_array_equal(masks[costly], [False, False, True, True])
    # Only until the budget counts as used, so 13 of the 15 that would fit.
    assert masks[cheap].sum() == 13
    assert masks[cheap][[7, 39, 38, 37]].all()
    assert 0.95 * target <= model.hard(masks)["volume"] <= target


def test_wanted_channels_stay_as_they_are_if_they_use_the_budget():
    model, gates = cost_model(tiny.network())
    scores = scores_of(model)
    wanted = {gate: np.arange(tiny.WIDTH) % 2 == 0 for gate in model.gates}
    cost = model.hard(wanted)["volume"]
    for target in (cost, 1.04 * cost):  # More would fit into the second.
        masks = selection.completed(model, "volume", target, scores, wanted)
        for gate, mask in masks.items():
            np.testing.assert_array_equal(mask, wanted[gate])


def test_wanted_channels_are_completed_by_the_strongest():
    model, gates = cost_model(tiny.network())
    scores = scores_of(model)
    wanted = {gate: np.arange(tiny.WIDTH) % 2 == 0 for gate in model.gates}
    channel = model.full["volume"] / (2 * tiny.WIDTH)
    target = model.hard(wanted)["volume"] + 2 * channel
    masks = selection.completed(model, "volume", target, scores, wanted)
    added = {gate: masks[gate] & ~wanted[gate] for gate in masks}
    count = sum(x.sum() for x in added.values())
    assert count == 2  # 17 channels of 18 are less than 95 %.
    weakest = min(scores[gate][x].min() for gate, x in added.items() if x.any())
    closed = [scores[gate][~masks[gate]] for gate in masks]
    assert weakest > np.concatenate(closed).max()


def test_too_many_or_disconnected_wanted_channels_give_way():
    model, gates = cost_model(tiny.network())
    scores = scores_of(model)
    for wanted in (True, False):
        masks = selection.completed(
            model,
            "volume",
            model.full["volume"] / 2,
            scores,
            {gate: np.full(tiny.WIDTH, wanted) for gate in model.gates},
        )
        expected = selection.strongest(
            model, "volume", model.full["volume"] / 2, scores
        )
        for gate, mask in masks.items():
            np.testing.assert_array_equal(mask, expected[gate])
