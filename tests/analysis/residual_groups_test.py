"""Regular connectivity: all writers of a residual stream share a gate."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.plain import head
from tests.helpers.plain import residual_net
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import numbers
from tests.helpers.pruning import randomize
from tests.helpers.pruning import squeezed

pytestmark = pytest.mark.core


def test_regular_connectivity_shares_a_gate_per_stream():
    model = randomize(residual_net())
    gated = keras_bar.gate(model, connectivity="regular", seed=0)
    assert [x.name for x in gates_of(gated)] == ["stem_gate", "inner_gate"]
    assert keras_bar.explain(gated).gated == ["stem", "inner", "outer"]
    close_gates(gated)
    cost = keras_bar.measure_cost(gated)
    assert numbers(cost) == numbers(cost.regular)
    hard, small = assert_invariants(gated, ("mixed", "regular"))
    assert not keras_bar.explain(small).mixed
    filters = {x.name: x.filters for x in small.layers if hasattr(x, "filters")}
    assert filters["stem"] == filters["outer"]


def test_regular_gates_cost_what_they_say_behind_squeeze_and_excitation():
    gated = close_gates(keras_bar.gate(squeezed(), connectivity="regular"))
    cost = keras_bar.measure_cost(gated)
    assert numbers(cost) == numbers(cost.regular)
    assert_invariants(gated, ("mixed", "regular"))
    mixed = close_gates(keras_bar.gate(squeezed()))
    _, small = assert_invariants(mixed, ("mixed", "regular"))
    assert not keras_bar.explain(small).mixed


def test_shared_factors_are_one_sample():
    """In training, too, all writers of a stream are closed together."""
    gated = keras_bar.gate(residual_net(), connectivity="regular")
    (shared,) = (x for x in gated.layers if x.name.endswith("shared_gate"))
    probe = keras.Model(
        gated.inputs, [gated.get_layer("stem_gate").output[1], shared.output]
    )
    factors, output = probe([np.ones((1, 6, 6, 3), "float32")], training=True)
    factors = ops.convert_to_numpy(factors).reshape(-1)
    closed = np.all(ops.convert_to_numpy(output) == 0.0, axis=(0, 1, 2))
    np.testing.assert_array_equal(closed[factors == 0.0], True)


def test_regular_connectivity_gates_a_stream_as_a_whole_or_not():
    model = residual_net()
    gated = keras_bar.gate(model, connectivity="regular", skip=["stem"])
    explanation = keras_bar.explain(gated)
    assert explanation.gated == ["inner"]
    assert "'stem' writes the same stream" in explanation.ungated["outer"]
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(3, 1, name="one")(inputs)
    x = layers.Conv2D(4, 1, name="two")(layers.Add()([inputs, x]))
    model = keras.Model(inputs, head(x))
    gated = keras_bar.gate(model, connectivity="regular")
    reasons = keras_bar.explain(gated).ungated
    assert "the model's input writes" in reasons["one"]
