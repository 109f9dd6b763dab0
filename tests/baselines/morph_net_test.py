"""MorphNet's loss, and the channels that it closes."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.baselines.neighbours import find_neighbours
from keras_bar.costs import CostModel
from keras_bar.layers import MarkerGate
from tests.helpers import pruning
from tests.helpers import tiny

pytestmark = pytest.mark.core
MorphNet = baselines.MorphNetRegularizer


def numpy(x):
    return ops.convert_to_numpy(x)


def student(model, rate=0.1, connectivity="regular"):
    gated = keras_bar.gate(model, connectivity=connectivity, layer=MarkerGate)
    return tiny.prepare(gated, keras.optimizers.SGD(rate))


def chain(*filters, size=6, channels=2, classes=3):
    """Convolutions `a`, `b`, ... with normalizations, then logits."""
    x = inputs = keras.Input((size, size, channels))
    for name, width in zip("abcd", filters, strict=False):
        x = layers.Conv2D(width, 3, padding="same", name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"{name}_norm")(x))
    return keras.Model(inputs, logits(x, classes))


def logits(x, classes=3):
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(classes, name="logits", dtype="float32")(x)


def assign(model, **gammas):
    """Gives normalizations scales; returns the model."""
    for name, gamma in gammas.items():
        model.get_layer(f"{name}_norm").gamma.assign(gamma)
    return model


# --- The loss, by hand ------------------------------------------------------


def gradients(model, regularizer, *names):
    """The gradients of the penalty with respect to the norms' scales, by
    Keras: one step of plain descent at rate 1, on no data loss."""
    gammas = [model.get_layer(f"{x}_norm").gamma for x in names]
    before = [numpy(x).copy() for x in gammas]

    class Nothing(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return 0.0 * ops.sum(y_pred)

    model.compile(keras.optimizers.SGD(1.0), Nothing(), jit_compile=False)
    x, y = pruning.inputs_for(model, 8), np.zeros(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y, batch_size=8, callbacks=[regularizer], verbose=0)
    return [b - numpy(x) for b, x in zip(before, gammas, strict=True)]


@pytest.mark.parametrize("metric", ["flops", "volume", "params"])
def test_gradient_by_hand(metric):
    """That of `C (sum|gamma_i| B + A sum|gamma_j|)` in a chain of
    convolutions, with channels above and below the threshold."""
    gammas = (
        np.array([0.5, -0.2, 0.05, 1.0, -0.01], "float32"),
        np.array([0.3, 0.04, -0.9, 2.0], "float32"),
    )
    model = assign(student(chain(5, 4)), a=gammas[0], b=gammas[1])
    alive = [np.sum(np.abs(x) > 0.1) for x in gammas]
    assert alive == [3, 3]
    taps = 2 * 36 * 9
    # Every weight of a convolution counts, with the bias, and four numbers of
    # the normalization.
    per_channel = {
        "volume": (36, 36),
        "flops": (taps * (2 + alive[1]), taps * alive[0] + 2 * 3),
        "params": (9 * (2 + alive[1]) + 1 + 4, 9 * alive[0] + 1 + 4 + 3),
    }[metric]
    strength = {"volume": 1e-4, "flops": 1e-5, "params": 1e-4}[metric]
    regularizer = MorphNet(strength, metric, threshold=0.1)
    found = gradients(model, regularizer, "a", "b")
    for gradient, gamma, cost in zip(found, gammas, per_channel, strict=True):
        np.testing.assert_allclose(
            gradient, strength * cost * np.sign(gamma), rtol=1e-4
        )


def test_value_by_hand():
    """Gordon et al. 2018, equation 3: the penalty is linear in the scales, so
    it is their product with the gradient. What is logged is the cost."""
    model = student(chain(2, 3, size=4, channels=1, classes=2))
    gammas = np.array([0.5, -0.25]), np.array([1.0, 0.001, -0.5])
    assign(model, a=gammas[0], b=gammas[1])
    regularizer = MorphNet(1e-4, "flops")
    control, state = pruning.control_of(model, regularizer)
    logged = control.logs(state)["penalty"]
    # A multiply-add is two; 16 places, 9 taps, 2 of 2 and 2 of 3 are alive.
    # `a` reads the image, whose one channel has no scale, `b` reads `a`, and
    # the two logits read `b`.
    c = 2 * 16 * 9
    assert logged == pytest.approx(1e-4 * (c * 2 + c * 2 * 2 + 2 * 2 * 2))
    by_hand = c * 0.75 + c * (0.75 * 2 + 2 * 1.501) + 2 * 2 * 1.501
    assert by_hand == pytest.approx(1518.58)
    found = gradients(model, regularizer, "a", "b")
    value = sum(np.sum(x * y) for x, y in zip(found, gammas, strict=True))
    assert value == pytest.approx(1e-4 * by_hand, rel=1e-4)


def test_writers_of_a_stream_are_one_group():
    """The largest scale of a channel counts for all, and is the one that is
    pushed."""
    model = student(tiny.network())
    stem, branch = np.linspace(0.1, 1.6, 16), np.full(16, 0.85)
    assign(model, stem=stem, branch=branch)
    regularizer = MorphNet(1e-4, "volume", threshold=0.7)
    found = gradients(model, regularizer, "stem", "branch")
    np.testing.assert_array_equal(found[0] != 0, stem > 0.85)
    np.testing.assert_array_equal(found[1] != 0, stem <= 0.85)
    (gate,) = pruning.gates_of(model)
    np.testing.assert_array_equal(gate.alive(), np.ones(16, bool))


def test_the_last_channel_of_a_lifeline_is_left_alone():
    """Nothing is saved by closing what the network would fall apart without,
    and what is behind it costs as much as before."""
    model = student(chain(3, 3))
    assign(model, a=[0.05, -0.07, 0.02], b=[0.5, -0.5, 0.01])
    first, second = gradients(model, MorphNet(1e-3, threshold=0.1), "a", "b")
    taps = 2 * 36 * 9
    slope = 1e-3 * (taps * 1 + 2 * 3)  # One of `a`, three logits.
    np.testing.assert_allclose(second, slope * np.array([1, -1, 1]), rtol=1e-4)
    slope = 1e-3 * taps * (2 + 2)  # The image, and `b`.
    np.testing.assert_allclose(first, slope * np.array([1, 0, 1]), rtol=1e-4)


# --- Training ---------------------------------------------------------------

REDUNDANT = {"a": np.isin(range(8), [1, 4, 6]), "b": np.isin(range(6), [0, 5])}
# A step moves a scale by 0.005: rate 0.1, 36 places per channel.
STRENGTH = 0.005 / (0.1 * 36)


@pytest.mark.parametrize("strength", [STRENGTH, 1e-9])
def test_loses_exactly_the_redundant_channels(strength, tmp_path):
    """Channels without a signal have nothing but the penalty to move their
    scale: from 0.05 below the threshold of 0.01 in 13 steps."""
    keras.utils.set_random_seed(0)
    model = chain(8, 6)
    for name, redundant in REDUNDANT.items():
        assign(model, **{name: np.where(redundant, 0.05, 1.0)})
        kernel = model.get_layer(name).kernel
        kernel.assign(numpy(kernel) * ~redundant)
    gated = student(model)
    tiny.fit(gated, MorphNet(strength, "volume"))
    lost = strength == STRENGTH
    for name, redundant in REDUNDANT.items():
        alive = gated.get_layer(f"{name}_gate").alive()
        np.testing.assert_array_equal(alive, ~(redundant & lost))
    _, small = pruning.assert_invariants(
        gated, pruning.BOTH, path=tmp_path / "small.keras"
    )
    filters = [small.get_layer(x).filters for x in REDUNDANT]
    assert filters == ([5, 4] if lost else [8, 6])


def test_stops_at_a_size():
    """All scales fall by 0.1 in an epoch, and so a channel of each layer
    closes in each."""
    gated = student(chain(8, 6), rate=0.1)
    falling = 0.1 * np.arange(1, 9) - 0.05
    assign(gated, a=falling, b=falling[:6])
    for layer in (gated.get_layer("a"), gated.get_layer("b")):
        layer.kernel.assign(0.0 * numpy(layer.kernel))  # No signal.
    strength = 0.1 / tiny.BATCHES / (0.1 * 36)
    pruner = MorphNet(strength, "volume", until=0.5)
    logs = tiny.fit(gated, pruner, epochs=7)
    sizes = [12 / 14, 10 / 14, 8 / 14, 6 / 14]
    np.testing.assert_allclose(logs["volume"], sizes, rtol=1e-6)
    assert keras_bar.measure_cost(gated).volume == 6 * 36


@pytest.mark.parametrize("before", [True, False])
def test_scales_behind_a_flattening(before, tmp_path):
    """The largest of a channel's positions counts."""
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="a")(x)
    x = layers.BatchNormalization(name="before_norm")(x) if before else x
    x = layers.Flatten()(layers.ReLU()(x))
    x = layers.BatchNormalization(name="behind_norm")(x)
    outputs = layers.Dense(3, dtype="float32")(x)
    gated = student(pruning.randomize(keras.Model(inputs, outputs)), rate=0.0)
    behind = np.full((36, 4), 1e-3)
    behind[20, 2] = -0.5
    assign(gated, behind=behind.reshape(-1))
    if before:
        assign(gated, before=[1e-3, 1.0, 1e-3, 1e-3])
    tiny.fit(gated, MorphNet(1e-9))
    (gate,) = pruning.gates_of(gated)
    np.testing.assert_array_equal(gate.alive(), [False, before, True, False])
    pruning.assert_invariants(gated, path=tmp_path / "small.keras")


# --- Scales on every path ---------------------------------------------------


def pre_activation(x, name, filters=4):
    """The branch of a pre-activation block."""
    x = layers.ReLU()(layers.BatchNormalization(name=f"{name}_norm")(x))
    return layers.Conv2D(filters, 3, padding="same", name=name)(x)


def conv(x, name):
    return layers.Conv2D(4, 3, padding="same", name=name)(x)


def read_twice(inputs):
    """`c` reads what no normalization scales."""
    x = conv(inputs, "a")
    return logits(layers.Concatenate()([pre_activation(x, "b"), conv(x, "c")]))


def bare_writer(inputs):
    """One of two that write a stream is normalized."""
    normed = layers.BatchNormalization()(conv(inputs, "a"))
    return logits(layers.Add()([normed, conv(inputs, "c")]))


def bare_output(inputs):
    x = conv(inputs, "a")
    return layers.Add()([x, pre_activation(x, "b")])


def no_norm(inputs):
    return logits(layers.ReLU()(conv(inputs, "a")))


def no_scale(inputs):
    x = layers.BatchNormalization(scale=False)(conv(inputs, "a"))
    return logits(layers.ReLU()(x))


@pytest.mark.parametrize(
    ("network", "reader"),
    [
        (read_twice, "'c'"),
        (bare_writer, "'logits'"),
        (bare_output, "the model's output"),
        (no_norm, "'logits'"),
        (no_scale, "'logits'"),
    ],
)
def test_needs_a_scale_in_front_of_every_reader(network, reader):
    inputs = keras.Input((6, 6, 2))
    model = student(keras.Model(inputs, network(inputs)))
    before = [numpy(x).copy() for x in model.weights]
    x, _ = tiny.data(8)
    y = np.zeros((8, *model.output_shape[1:-1]))
    match = f"scales of batch normalization.*'a_gate'.*in front of {reader}"
    with pytest.raises(ValueError, match=match):
        model.fit(x, y, callbacks=[MorphNet(1.0)], verbose=0)
    for value, x in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(value, numpy(x))


def norms(model):
    """Dict from the names of gates to those of the norms that scale them."""
    found = find_neighbours(CostModel(ChannelAnalysis(trace(model))))
    assert not any(around.unscaled for around in found.values())
    return {
        gate.name: {x.name for x in around.norms}
        for gate, around in found.items()
    }


def test_a_stream_that_is_read_and_added_to():
    """Every path through the additions ends in a normalization."""
    x = inputs = keras.Input((6, 6, 2))
    x = conv(x, "a")
    for name in "bc":
        x = layers.Add()([x, pre_activation(x, name)])
    x = layers.BatchNormalization(name="head_norm")(x)
    model = student(keras.Model(inputs, logits(layers.ReLU()(x))), rate=0.0)
    assert norms(model) == {"a_gate": {"b_norm", "c_norm", "head_norm"}}
    small = np.full(4, 1e-3)
    assign(model, b=small, c=small, head=[1.0, 1e-3, 1e-3, 1.0])
    tiny.fit(model, MorphNet(1e-9))
    (gate,) = pruning.gates_of(model)
    np.testing.assert_array_equal(gate.alive(), [True, False, False, True])


def test_wide_resnet():
    """A stream's scales are those that its blocks and the next group read."""
    found = norms(student(keras_bar.models.WideResNet(16, 1, (8, 8, 3))))
    assert found["stem_conv_gate"] == {"group1_block1_norm1"}
    assert found["group1_block1_shortcut_gate"] == {
        "group1_block2_norm1",
        "group2_block1_norm1",
    }
    assert found["group1_block1_conv1_gate"] == {"group1_block1_norm2"}
