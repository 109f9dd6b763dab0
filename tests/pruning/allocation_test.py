"""The same share of every layer, within a budget."""

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


def chain(*widths):
    """1x1 convolutions one after the other, on a single pixel."""
    x = inputs = keras.Input((1, 1, 1))
    for width in widths:
        x = layers.ReLU()(layers.Conv2D(width, 1, use_bias=False)(x))
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))


def allocate(model, metric, target):
    gated = keras_bar.gate(model, layer=MarkerGate)
    cost_model = CostModel(ChannelAnalysis(trace(gated)))
    rng = np.random.default_rng(0)
    scores = {x: rng.normal(size=x.channels) for x in cost_model.gates}
    masks = allocation.even(cost_model, metric, target, scores)
    return masks, scores, cost_model


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        # A share of 1/2 costs 4 + 8 exactly.
        (12, [4, 8]),
        # The share is 1/2 up to 5 / 8; one channel more goes to the first of
        # two gates that are on the share.
        (13, [5, 8]),
        (24, [8, 16]),
        # One channel each, whatever the share.
        (2, [1, 1]),
        (3, [1, 2]),
    ],
)
def test_volume_by_hand(target, kept):
    masks, _, _ = allocate(chain(8, 16), "volume", target)
    assert [x.sum() for x in masks.values()] == kept


def test_the_best_channels_of_each_layer_stay():
    masks, scores, _ = allocate(chain(8, 16), "volume", 12)
    for gate, mask in masks.items():
        assert scores[gate][mask].min() > scores[gate][~mask].max()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factor", [2, 5, 20])
def test_every_layer_is_within_a_channel_of_the_share(metric, factor):
    model = keras_bar.models.WideResNet(10, 1, (8, 8, 3))
    full = getattr(keras_bar.measure_cost(model), metric)
    masks, _, cost_model = allocate(model, metric, full / factor)
    assert cost_model.hard(masks)[metric] <= full / factor
    kept = np.array([x.sum() for x in masks.values()])
    sizes = np.array([x.size for x in masks.values()])
    # Some share explains them all, up to a channel.
    # A single channel stays of every layer, be the share ever so small.
    low = (np.where(kept > 1, kept - 1, 0) / sizes).max()
    high = ((kept + 1) / sizes).min()
    assert low <= high
