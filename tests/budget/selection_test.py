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
from keras_bar.callbacks import BudgetRegularizer
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from tests.helpers import tiny


def cost_model(network):
    """The cost model of a gated network, and its gates by name."""
    model = CostModel(ChannelAnalysis(trace(keras_bar.gate(network, seed=0))))
    return model, {gate.name: gate for gate in model.gates}


def chain(*widths):
    """Convolutions one after the other: each is a lifeline."""
    x = inputs = keras.Input((6, 6, 2))
    for i, width in enumerate(widths):
        x = layers.Conv2D(width, 3, padding="same", name=f"conv{i}")(x)
        x = layers.ReLU()(x)
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


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


# --- Before any training ----------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_a_budget_is_checked(metric):
    network = keras_bar.gate(chain(3, 4), seed=0)
    full = getattr(keras_bar.measure_cost(network), metric)
    first = keras_bar.check_budget(network, 0.5, metric)
    assert (first.possible, first.metric, first.full) == (True, metric, full)
    assert first.target == full / 2
    # What it names as the least is possible, and nothing below it is.
    for budget, possible in (
        (first.least, True),
        (first.least - 0.5, False),
        (full, True),
        (full + 1, False),
    ):
        check = keras_bar.check_budget(network, budget, metric)
        assert check.possible == possible and check.least == first.least
        regularizer = BudgetRegularizer(budget, metric, steps=1)
        model = CostModel(ChannelAnalysis(trace(network)))
        if possible:
            regularizer.check_model(model, "network")
        else:
            with pytest.raises(ValueError):
                regularizer.check_model(model, "network")


def test_the_layers_that_hold_the_least():
    network = keras_bar.gate(chain(3, 4), seed=0)
    check = keras_bar.check_budget(network, 1.0, "flops")
    # 1 of 3 channels from 2, 1 of 4 from 1, and 2 classes from 1.
    expected = [("conv0", 2 * 36 * 9 * 2), ("conv1", 2 * 36 * 9), ("dense", 4)]
    found = [(x.name.split("_")[0], x.flops) for x in check.largest]
    assert found == expected
    assert check.least == sum(flops for _, flops in expected)
    shown = str(check)
    assert "is possible" in shown and "1,948" in shown
    assert shown.index("conv0") < shown.index("conv1")
    assert "too small" in str(keras_bar.check_budget(network, 1e-4, "flops"))
    assert "more than" in str(keras_bar.check_budget(network, 1e9, "flops"))


def test_only_so_many_layers_are_listed():
    network = keras_bar.gate(chain(*[2] * 12), seed=0)
    check = keras_bar.check_budget(network, 1.0)
    assert len(check.largest) == 8 and check.least == 12 * 36
    assert "all layers" in str(check) and "432" in str(check)


@pytest.mark.parametrize(
    "network, budget, metric, message",
    [
        (tiny.network, 0.5, "volume", "no gates"),
        (tiny.network, "1/8", "volume", "Invalid budget"),
        (tiny.network, 0.5, "latency", "Unknown metric"),
        (
            lambda: keras_bar.gate(tiny.network(size=None)),
            0.5,
            "volume",
            "size of its input",
        ),
    ],
)
def test_budgets_that_cannot_be_checked(network, budget, metric, message):
    with pytest.raises(ValueError, match=message) as error:
        keras_bar.check_budget(network(), budget, metric)
    assert "Expected" in str(error.value) and "Received" in str(error.value)


def test_explain_tells_the_least_of_every_metric():
    network = keras_bar.gate(chain(3, 4), seed=0)
    found = keras_bar.explain(network)
    for metric in METRICS:
        check = keras_bar.check_budget(network, 1.0, metric)
        assert found.least[metric] == (check.least, check.full)
        assert f"{metric}: {check.least:,} of {check.full:,}" in str(found)
    # Before there are gates, too.
    assert keras_bar.explain(chain(3, 4)).least == found.least
    # Where the size of the input is not known, what does not depend on it.
    unsized = keras_bar.gate(tiny.network(size=None))
    assert set(keras_bar.explain(unsized).least) == {"params"}
