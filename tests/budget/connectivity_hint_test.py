"""Which connectivity suits a budget is told before the first step."""

import keras
import pytest

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.residual_groups import is_mixed
from keras_bar.analysis.trace import trace
from tests.helpers import tiny
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import BudgetRegularizer


@pytest.mark.filterwarnings("ignore:The training was too short")
@pytest.mark.parametrize(
    ("metric", "connectivity", "told"),
    [
        ("flops", "mixed", True),
        ("flops", "regular", False),
        ("volume", "mixed", False),
        ("params", "mixed", False),
    ],
)
def test_the_connectivity_that_suits_a_metric_is_told(
    capsys, metric, connectivity, told
):
    model = keras_bar.gate(tiny.network(), connectivity=connectivity, seed=0)
    model = tiny.prepare(model, **QUICK)
    with pytest.warns(UserWarning, match="too short"):
        tiny.fit(
            model, BudgetRegularizer(0.4, metric), steps_per_epoch=2, verbose=2
        )
    assert ('connectivity="regular"' in capsys.readouterr().out) == told


def test_regular_gates_of_a_stream_of_two_ranks_are_not_mixed():
    """A stream of images and of tokens has a gate for each."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(8, 1)(inputs)
    x = x + keras.layers.Conv2D(8, 1)(x)
    x = keras.layers.Reshape((16, 8))(x)
    x = x + keras.layers.Dense(8)(keras.layers.Dense(6, "relu")(x))
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))

    def mixed(connectivity):
        gated = keras_bar.gate(model, connectivity=connectivity)
        return is_mixed(ChannelAnalysis(trace(gated)))

    assert mixed("mixed") and not mixed("regular")
