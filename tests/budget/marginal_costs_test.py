"""Marginal costs of channels, which follow the budget."""

import numpy as np
import pytest
from keras import ops

import keras_bar
from keras_bar import models
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.budget.marginal_costs import KEEP_PROBABILITIES
from keras_bar.budget.marginal_costs import MarginalCosts
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from tests.helpers import tiny

pytestmark = pytest.mark.core


def cost_model(model):
    return CostModel(ChannelAnalysis(trace(keras_bar.gate(model))))


def marginal_costs(made, share):
    share = ops.convert_to_tensor(share, "float32")
    full = made.cost_model.full[made.metric]
    return {
        gate: full * float(np.exp(ops.convert_to_numpy(x)))
        for gate, x in made.logarithms(share).items()
    }


@pytest.mark.parametrize("metric", METRICS)
def test_at_a_cost_and_between(metric):
    model = cost_model(tiny.network())
    made = MarginalCosts(model, metric)
    ends = [model.marginal_costs(metric, x) for x in KEEP_PROBABILITIES[8:10]]
    shares = [cost / model.full[metric] for cost, _ in ends]
    for share, (_, expected) in zip(shares, ends, strict=True):
        assert marginal_costs(made, share) == pytest.approx(expected, rel=1e-3)
    between = marginal_costs(made, np.sqrt(np.prod(shares)))
    for gate, cost in between.items():
        middle = np.sqrt(np.prod([found[gate] for _, found in ends]))
        assert cost == pytest.approx(middle, rel=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_beyond_the_ends(metric):
    """The moving budget begins above the full cost."""
    model = cost_model(tiny.network())
    made = MarginalCosts(model, metric)
    full = model.marginal_costs(metric, 1.0)[1]
    assert marginal_costs(made, 1.01) == pytest.approx(full, rel=1e-4)
    least = model.marginal_costs(metric, KEEP_PROBABILITIES[0])[1]
    assert marginal_costs(made, 1e-6) == pytest.approx(least, rel=1e-4)


def test_nothing_can_be_narrower():
    model = cost_model(tiny.network(width=1))
    found = marginal_costs(MarginalCosts(model, "flops"), 0.5)
    assert found == pytest.approx(
        model.marginal_costs("flops", 1.0)[1], rel=1e-4
    )


def test_volume_has_one_price():
    model = cost_model(models.WideResNet(10, 1, (16, 16, 3)))
    made = MarginalCosts(model, "volume")
    for share in (1.0, 0.25, 0.0625):
        expected = model.savings("volume")
        assert marginal_costs(made, share) == pytest.approx(expected, rel=1e-4)


def test_a_shortcut_is_not_cheap_where_little_is_left():
    """Or all 3x3 convolutions would be given up for it."""
    model = cost_model(models.WideResNet(10, 1, (16, 16, 3)))
    made = MarginalCosts(model, "flops")
    names = {gate.name: gate for gate in model.gates}
    pair = [names[f"group2_block1_{x}_gate"] for x in ("shortcut", "conv1")]

    def ratio(share):
        found = marginal_costs(made, share)
        return found[pair[0]] / found[pair[1]]

    assert ratio(1.0) < 1 / 20
    assert ratio(1 / 256) > 1 / 5
