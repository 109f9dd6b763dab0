"""What a budget leaves is told before any training."""

import pytest

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.callbacks import BudgetRegularizer
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from tests.helpers import tiny
from tests.helpers.tiny import chain


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
