"""Shares of the layers under a budget."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from keras_bar.layers import MarkerGate
from keras_bar.pruning import allocation
from keras_bar.pruning.shares import balanced_shares


def chain(*widths):
    """1x1 convolutions one after the other, on a single pixel."""
    x = inputs = keras.Input((1, 1, 1))
    for width in widths:
        x = layers.ReLU()(layers.Conv2D(width, 1, use_bias=False)(x))
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))


def cost_model_of(model):
    gated = keras_bar.gate(model, connectivity="regular", layer=MarkerGate)
    return CostModel(ChannelAnalysis(trace(gated)))


def allocate(model, metric, target, align=1):
    cost_model = cost_model_of(model)
    rng = np.random.default_rng(0)
    scores = {x: rng.normal(size=x.channels) for x in cost_model.gates}
    masks = allocation.allocate(cost_model, metric, target, scores, align)
    return masks, scores, cost_model


def shares_of(cost_model, metric, target):
    gates = cost_model.gates
    return balanced_shares(cost_model, metric, target, gates).shares


def test_shares_by_hand():
    # The channels take part in 2 (8 + 128) and 2 (128 + 16) FLOPs, and cost 8
    # and 16 activations: k ** 1.5 is as 272 / 8 to 288 / 16.
    shares = shares_of(cost_model_of(chain(8, 16)), "volume", 12)
    first, second = 34 ** (2 / 3), 18 ** (2 / 3)
    scale = 12 / (8 * first + 16 * second)
    expected = [scale * first, scale * second]
    assert list(shares.values()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        # 5.20 and 6.80 channels.
        (12, [5, 7]),
        (13, [6, 7]),
        (24, [8, 16]),
        # One channel each, whatever the share.
        (2, [1, 1]),
        (3, [1, 2]),
    ],
)
def test_channels_by_hand(target, kept):
    masks, _, _ = allocate(chain(8, 16), "volume", target)
    assert [x.sum() for x in masks.values()] == kept


@pytest.mark.parametrize("metric", ["volume", "flops", "params"])
@pytest.mark.parametrize("factor", [2, 5, 20])
def test_losses_and_costs_balance(metric, factor):
    """`w / sqrt(k)` over `k dC/dk` is the same for all gates between their
    bounds, larger for whole ones and smaller for single channels."""
    cost_model = cost_model_of(keras_bar.models.WideResNet(10, 2, (16, 16, 3)))
    target = cost_model.full[metric] / factor
    shares = shares_of(cost_model, metric, target)

    def slopes(metric, shares):
        """Derivatives of the cost by the logarithm of a share."""
        others = {
            x: max((share * x.channels - 1) / (x.channels - 1), 1e-6)
            for x, share in shares.items()
        }
        cost, marginal = cost_model.marginal_costs(metric, others)
        return cost, {
            x: marginal[x] * share * x.channels for x, share in shares.items()
        }

    _, weights = slopes("flops", dict.fromkeys(cost_model.gates, 1.0))
    cost, found = slopes(metric, shares)
    assert cost == pytest.approx(target, rel=1e-2)
    free = [
        weights[x] / share**0.5 / found[x]
        for x, share in shares.items()
        if 1 / x.channels < share < 1
    ]
    assert len(free) >= 3
    assert free == pytest.approx([np.mean(free)] * len(free), rel=1e-2)
    for x, share in shares.items():
        if share == 1:
            assert weights[x] / found[x] >= 0.99 * np.mean(free)
        elif share * x.channels <= 1:
            assert weights[x] / share**0.5 / found[x] <= 1.01 * np.mean(free)


def test_flops_keep_equal_shares():
    """Products of two shares balance where all are equal; the first and the
    last layer are products of one."""
    cost_model = cost_model_of(keras_bar.models.WideResNet(10, 2, (16, 16, 3)))
    shares = shares_of(cost_model, "flops", cost_model.full["flops"] / 9)
    _, *shares = shares.values()
    assert shares == pytest.approx([1 / 3] * len(shares), rel=0.05)


def test_volume_goes_to_small_images_and_parameters_to_large_ones():
    cost_model = cost_model_of(keras_bar.models.WideResNet(10, 2, (16, 16, 3)))

    def late_over_early(metric):
        target = cost_model.full[metric] / 8
        shares = shares_of(cost_model, metric, target)
        by_name = {gate.name: share for gate, share in shares.items()}
        late = by_name["group3_block1_conv1_gate"]
        return late / by_name["group1_block1_conv1_gate"]

    assert late_over_early("volume") > 1.5
    assert late_over_early("params") < 1 / 1.5


def test_the_best_channels_of_each_layer_stay():
    masks, scores, _ = allocate(chain(8, 16), "volume", 12)
    for gate, mask in masks.items():
        assert scores[gate][mask].min() > scores[gate][~mask].max()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_the_budget_is_spent(metric, factor):
    """No gate has room for another channel."""
    model = keras_bar.models.WideResNet(10, 1, (8, 8, 3))
    full = getattr(keras_bar.measure_cost(model), metric)
    if metric == "memory":  # The input alone takes 1/16.
        factor = min(factor, 10)
    masks, _, cost_model = allocate(model, metric, full / factor)
    assert cost_model.hard(masks)[metric] <= full / factor
    for gate, mask in masks.items():
        if not mask.all():
            grown = mask.copy()
            grown[np.flatnonzero(~mask)[0]] = True
            cost = cost_model.hard({**masks, gate: grown})[metric]
            assert cost > full / factor


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_no_layer_has_less_than_its_share_by_more_than_a_channel(
    metric, factor
):
    model = keras_bar.models.WideResNet(10, 1, (8, 8, 3))
    full = getattr(keras_bar.measure_cost(model), metric)
    masks, _, cost_model = allocate(model, metric, full / factor)
    shares = shares_of(cost_model, metric, full / factor)
    wanted = np.array([share * x.channels for x, share in shares.items()])
    kept = np.array([masks[x].sum() for x in shares])
    # One channel each, which the shares do not ask for, is paid by the others.
    factor = (kept / wanted)[kept > 1].min()
    assert (kept > factor * wanted - 1).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_aligned_widths(metric, factor):
    """Multiples of 8, and no room for another block."""
    model = keras_bar.models.WideResNet(10, 4, (8, 8, 3))
    full = getattr(keras_bar.measure_cost(model), metric)
    masks, _, cost_model = allocate(model, metric, full / factor, align=8)
    assert cost_model.hard(masks)[metric] <= full / factor
    for gate, mask in masks.items():
        assert mask.sum() % 8 == 0 and mask.any()
        if not mask.all():
            grown = mask.copy()
            grown[np.flatnonzero(~mask)[:8]] = True
            cost = cost_model.hard({**masks, gate: grown})[metric]
            assert cost > full / factor


def test_a_block_everywhere_is_too_much():
    """What need not stay vanishes, and the rest is aligned."""
    model = keras_bar.models.WideResNet(10, 1, (8, 8, 3))
    least = allocate(model, "volume", 1e9, align=8)[2]
    blocks = {x: np.arange(x.channels) < 8 for x in least.gates}
    target = least.hard(blocks)["volume"] - 1
    masks, _, cost_model = allocate(model, "volume", target, align=8)
    assert cost_model.hard(masks)["volume"] <= target
    assert {mask.sum() % 8 for mask in masks.values()} == {0}
    assert not all(mask.any() for mask in masks.values())
