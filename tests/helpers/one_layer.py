"""A small model around one layer, with gates half closed at random.

Every layer is tested behind a gate, where dead channels are 0, and behind a
batch normalization of gated channels, where they hold other constants.
"""

import keras
from keras import layers

import keras_bar
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize
from tests.helpers.pruning import recalibrate

CHANNELS = 6


def before(x, zero, rank=2):
    """A gated convolution, whose dead channels are constants unless `zero`."""
    conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    x = conv(CHANNELS, 1, name="first")(x)
    return x if zero else layers.BatchNormalization()(layers.ReLU()(x))


def behind(x):
    """Readers of every channel: a 1x1 convolution where there is space."""
    rank = len(x.shape) - 2
    if rank:
        conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
        x = conv(3, 1, use_bias=False, name="last")(x)
        x = layers.Flatten()(layers.ReLU()(x))
    return layers.Dense(2, name="logits")(x)


def model_with(layer, zero, rank=2, size=6):
    inputs = keras.Input((size,) * rank + (3,))
    x = layer(before(inputs, zero, rank))
    return keras.Model(inputs, behind(x))


def prune(model, seed=0, recalibrated=False, **kwargs):
    """Asserts all invariants on a model whose gates are half closed, with
    statistics of batch normalization that are random or recalibrated."""
    gated = keras_bar.gate(randomize(model))
    x = inputs_for(model)
    assert difference(open_gates(gated), model, x) < 1e-5
    close_gates(gated, seed)
    if recalibrated:
        recalibrate(gated)
    hard, small = assert_invariants(gated, **kwargs)
    return gated, hard, small


def filters_of(model, name="first"):
    return model.get_layer(name).filters


def assert_removable(layer, zero):
    """Asserts that channels can be removed without changing the output."""
    gated, hard, small = prune(model_with(layer, zero))
    alive = int(gates_of(gated)[0].alive().sum())
    assert filters_of(small) <= alive < CHANNELS
    explanation = keras_bar.explain(small)
    assert explanation.gated[0] == "first"
    assert not explanation.boundaries
    assert not explanation.adjustments
