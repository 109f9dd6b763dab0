"""A cost is what the backend does: FLOPs of the graph that it runs."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from benchmarks.backend_flops import backend_flops
from tests.helpers import block_networks
from tests.helpers import pruning

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(
        keras.backend.backend() == "torch", reason="torch has no graph"
    ),
]


def grouped():
    """Grouped convolutions in a residual block, as ResNeXt has them."""
    x = inputs = keras.Input((8, 8, 3))
    x = pruning.conv_norm_relu(x, 12)
    for _ in range(2):
        y = layers.Conv2D(12, 3, padding="same", groups=3)(x)
        x = layers.Add()([x, layers.Conv2D(12, 1)(y)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def attention(attend):
    """Attention behind convolutions."""
    x = inputs = keras.Input((8, 8, 3))
    x = pruning.conv_norm_relu(x, 6)
    x = layers.Reshape((64, 6))(pruning.conv_norm_relu(x, 6))
    return keras.Model(inputs, layers.Dense(3)(attend(x)))


MIXED = (
    lambda: block_networks.long_stream(post=True),
    lambda: block_networks.long_stream(post=False),
    block_networks.bottlenecks,
    block_networks.inverted_residuals,
    block_networks.sequential,
)


@pytest.mark.parametrize("network", MIXED)
def test_flops_are_those_of_the_graph(network):
    model = pruning.randomize(network())
    gated = pruning.close_gates(keras_bar.gate(model), share=0.6)
    for net in (model, keras_bar.compact(gated)):
        cost = keras_bar.measure_cost(net)
        assert not cost.uncounted
        assert backend_flops(net) == pytest.approx(cost.flops, rel=0.01)


def test_grouped_convolutions():
    model = grouped()
    cost = keras_bar.measure_cost(model)
    assert backend_flops(model) == pytest.approx(cost.flops, rel=0.01)


def test_attention():
    model = attention(lambda x: layers.MultiHeadAttention(2, 3)(x, x))
    cost = keras_bar.measure_cost(model)
    assert not cost.uncounted
    assert backend_flops(model) == pytest.approx(cost.flops, rel=0.01)


def test_what_is_left_out_is_named():
    """The graph needs more than the cost says, and the cost says of which
    layer."""
    model = attention(lambda x: layers.Attention(name="attention")([x, x]))
    cost = keras_bar.measure_cost(model)
    assert cost.uncounted == {"attention": "Attention"}
    scores = 2 * 64 * 64 * 6
    assert backend_flops(model) == cost.flops + 2 * scores


def test_what_nobody_reads_is_computed_without_gates():
    """A model that is not gated costs what it does, and one that is gated
    what its compact model will do."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3)(x)[..., :5]
    x = ops.pad(x, [[0, 0]] * 3 + [[0, 3]])
    model = keras.Model(inputs, layers.Conv2D(4, 3)(x))
    cost = keras_bar.measure_cost(model)
    assert backend_flops(model) == cost.flops
    assert cost.params == model.count_params()
    gated = pruning.open_gates(keras_bar.gate(model))
    small = keras_bar.compact(gated)
    assert small.layers[1].filters == 5
    predicted = pruning.numbers(keras_bar.measure_cost(gated))
    assert predicted == pruning.numbers(keras_bar.measure_cost(small))
    assert backend_flops(small) == predicted["flops"] < cost.flops
    x = np.ones((1, 8, 8, 3), "float32")
    assert pruning.difference(small, model, x) < 1e-5
