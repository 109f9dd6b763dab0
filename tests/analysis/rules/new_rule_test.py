"""A kind of layer is one rule, and nothing about it elsewhere."""

import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis.rules import base
from keras_bar.analysis.rules import channel_selection
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune


class Reversed(layers.Layer):
    """A kind of layer that the package does not know: channels, last first."""

    __module__ = "keras_bar.layers"  # Only layers of the package have rules.

    def call(self, x):
        return ops.flip(x, axis=-1)


@pytest.mark.parametrize("zero", (False, True))
def test_a_kind_of_layer_is_one_rule(zero):
    model = model_with(Reversed(), zero)
    assert "no rule knows" in keras_bar.explain(model).ungated["first"]

    class ReversedRule(channel_selection.Selection):
        layers = "Reversed"

        def chosen(self, node, axis):
            return np.arange(node.output.shape[axis])[::-1]

    try:
        assert keras_bar.explain(model).gated == ["first", "last"]
        prune(model)
    finally:
        del base._REGISTRY[True, "Reversed"]
