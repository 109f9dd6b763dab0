"""LZR, IB and MorphNet: their losses, and what they leave."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from keras_bar.layers import GaussianGate
from keras_bar.layers import HardConcreteGate
from keras_bar.layers import MarkerGate
from tests.helpers import pruning
from tests.helpers import tiny

core = pytest.mark.core
slow = pytest.mark.slow
L0 = baselines.L0Regularizer
Bottleneck = baselines.InformationBottleneckRegularizer
MorphNet = baselines.MorphNetRegularizer
FAST_GAUSSIAN = functools.partial(GaussianGate, rate=30.0)


def numpy(x):
    return ops.convert_to_numpy(x)


def student(layer=HardConcreteGate, rate=0.01, model=None, **options):
    keras.utils.set_random_seed(0)
    model = model or tiny.network()
    gated = keras_bar.gate(model, seed=0, layer=layer, **options)
    return tiny.prepare(gated, keras.optimizers.Adam(rate))


def volume(model):
    return keras_bar.measure_cost(model).volume / tiny.VOLUME


# --- The losses, by hand ----------------------------------------------------


@core
@pytest.mark.parametrize("weight", [None, "volume", "flops", "params"])
def test_l0_is_the_expected_number_of_open_gates(weight):
    model = student()
    rng = np.random.default_rng(0)
    expected = 0.0
    # What a channel of the stem, of the branch saves: its own positions and
    # weights, and the branch's kernel or the logits' that read it. Behind the
    # addition the logits read a channel as long as either is alive.
    saved = {
        None: (1.0, 1.0),
        "volume": (36, 36),
        "flops": (2 * 36 * 9 * 2 + 2 * 36 * 9 * 16, 2 * 36 * 9 * 16),
        "params": (9 * 2 + 4 + 9 * 16, 9 * 16 + 4),
    }[weight]
    for gate, w in zip(tiny.gates(model), saved, strict=True):
        log_alpha = rng.normal(size=gate.channels)
        gate.log_alpha.assign(log_alpha)
        shift = 2.0 / 3.0 * np.log(0.1 / 1.1)
        expected += w * np.sum(1.0 / (1.0 + np.exp(shift - log_alpha)))
    control, state = pruning.control_of(model, L0(0.3, weight))
    assert float(numpy(control(state))) == pytest.approx(
        0.3 * expected, rel=1e-5
    )
    assert control.logs(state)["penalty"] == pytest.approx(
        0.3 * expected, rel=1e-5
    )


@core
def test_divergence_is_weighted_with_the_positions():
    model = student(GaussianGate)
    expected = 0.0
    for gate in tiny.gates(model):
        mu, log_sigma = numpy(gate.mu), numpy(gate.log_sigma)
        ratio = mu**2 / (np.exp(2 * log_sigma) + 1e-8)
        expected += 36 * np.sum(0.5 * np.log1p(ratio))
    for regularizer in (
        Bottleneck(0.1),
        Bottleneck(3.6, weight=None),
    ):
        control, state = pruning.control_of(model, regularizer)
        assert float(numpy(control(state))) == pytest.approx(
            0.1 * expected, rel=1e-4
        )


# --- Training ---------------------------------------------------------------


@core
@pytest.mark.parametrize(
    ("layer", "regularizer", "options"),
    [
        (HardConcreteGate, L0(0.1, log_all=True), {}),
        (FAST_GAUSSIAN, Bottleneck(1e-3, log_all=True), {}),
        (
            MarkerGate,
            MorphNet(2e-4, "volume", threshold=0.8, log_all=True),
            {"connectivity": "regular"},
        ),
    ],
    ids=["l0", "information_bottleneck", "morph_net"],
)
def test_prunes_and_compacts(layer, regularizer, options):
    model = student(layer, rate=0.03, **options)
    logs = tiny.fit(model, regularizer, epochs=5)
    assert volume(model) < 1.0
    assert all(gate.is_fixed for gate in pruning.gates_of(model))
    x = tiny.data()[0]
    small = keras_bar.compact(model)
    assert pruning.difference(small, keras_bar.hard_prune(model), x) < 1e-4
    assert keras_bar.measure_cost(small).volume == (
        keras_bar.measure_cost(model).volume
    )
    assert logs["volume"][-1] == pytest.approx(volume(model))
    assert {"volume", "flops", "params", "penalty"} <= set(logs)
    assert np.all(np.isfinite(logs["penalty"]))


@core
@pytest.mark.parametrize(
    ("layer", "regularizer"),
    [
        (HardConcreteGate, L0(1e3)),
        pytest.param(FAST_GAUSSIAN, Bottleneck(1e3), marks=slow),
        pytest.param(MarkerGate, MorphNet(1e3, threshold=0.5), marks=slow),
    ],
    ids=["l0", "information_bottleneck", "morph_net"],
)
def test_any_strength_leaves_the_network_connected(layer, regularizer):
    """A strength that closes everything leaves a path."""
    model = student(layer, rate=0.05)
    tiny.fit(model, regularizer, epochs=4)
    assert 0 < volume(model) <= 2 / 16
    x = tiny.data()[0]
    small = keras_bar.compact(model)  # Refuses what is not connected.
    assert pruning.difference(small, keras_bar.hard_prune(model), x) < 1e-4


def test_a_stronger_penalty_leaves_less():
    def left(strength):
        model = student(rate=0.03)
        tiny.fit(model, L0(strength), epochs=6)
        return volume(model)

    assert left(0.05) > left(1.0)


@slow
def test_information_bottleneck_goes_on_as_the_uninterrupted(tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = student(FAST_GAUSSIAN)
    make = functools.partial(Bottleneck, 1e-4)
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    tiny.fit(model, make(), checkpoint, epochs=4)
    resumed = keras.models.load_model(tmp_path / "2.keras")
    tiny.fit(resumed, make(), epochs=4, initial_epoch=2)
    for a, b in zip(model.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-5, atol=1e-6)


# --- What is refused --------------------------------------------------------


def refused(match, model, regularizer):
    # All but the state of the budget, which is reset with every start.
    weights = [x for x in model.weights if "budget_state" not in x.path]
    before = [numpy(x).copy() for x in weights]
    with pytest.raises(ValueError, match=match):
        tiny.fit(model, regularizer)
    for value, x in zip(before, weights, strict=True):
        np.testing.assert_array_equal(value, numpy(x))


def test_gates_of_another_kind():
    l0 = L0(1.0)
    refused("layer=HardConcreteGate.*GaussianGate", student(GaussianGate), l0)
    bottleneck = Bottleneck(1.0)
    refused("layer=GaussianGate.*HardConcreteGate", student(), bottleneck)
    refused("layer=MarkerGate", student(), MorphNet(1.0))
    refused(
        "layer=HardConcreteGate.*GaussianGate",
        student(GaussianGate),
        keras_bar.callbacks.BudgetRegularizer(0.5),
    )


@pytest.mark.parametrize("layer", ["gaussian", None])
def test_what_makes_no_gate(layer):
    with pytest.raises(ValueError, match="Expected a class of gates"):
        keras_bar.gate(tiny.network(), layer=layer)


def test_what_is_no_gate():
    def make(name, **_):
        return layers.Identity(name=name)

    with pytest.raises(ValueError, match="did not create a `ChannelGate`"):
        keras_bar.gate(tiny.network(), layer=make)


def test_what_cannot_share_factors():
    """A convolution in groups asks for a gate whose channels do."""

    def make(axis, return_factors, seed, name, dtype):
        return GaussianGate(axis, return_factors, seed, name=name, dtype=dtype)

    inputs = keras.Input((6, 6, 8))
    x = layers.Conv2D(8, 3, groups=2)(inputs)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="whole_groups.* unexpected keyword"):
        keras_bar.gate(model, layer=make)


def test_images_of_any_size_have_no_volume():
    model = student(FAST_GAUSSIAN, model=tiny.network(size=None))
    bottleneck = Bottleneck(1.0)
    refused("depends on the size of its input", model, bottleneck)
    tiny.fit(model, Bottleneck(1e-3, None))
    assert all(gate.is_fixed for gate in pruning.gates_of(model))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_of_unknown_length():
    model = student(rate=0.03)
    x, y = tiny.data()
    batches = ((x[i : i + 8], y[i : i + 8]) for i in range(0, 80, 8))
    model.fit(batches, callbacks=[L0(0.1)], shuffle=False, verbose=0)
    assert all(gate.is_fixed for gate in pruning.gates_of(model))


def test_keras_distiller_would_lose_the_penalty():
    model = student()
    distiller = keras.distillation.Distiller(
        teacher=tiny.network(),
        student=model,
        distillation_losses=keras.distillation.LogitsDistillation(),
        student_loss_weight=0.5,
    )
    tiny.prepare(distiller)
    refused("losses that layers add out", distiller, L0(1.0))


@pytest.mark.parametrize(
    "kind",
    [
        L0,
        Bottleneck,
        MorphNet,
    ],
)
@pytest.mark.parametrize("strength", [0.0, -1.0, float("inf"), "1", True])
def test_wrong_strength(kind, strength):
    with pytest.raises(ValueError, match="Expected a positive number"):
        kind(strength)


def test_wrong_weight_metric_and_threshold():
    with pytest.raises(ValueError, match="Unknown weight"):
        L0(1.0, "latency")
    with pytest.raises(ValueError, match="Unknown metric"):
        MorphNet(1.0, "latency")
    with pytest.raises(ValueError, match="Invalid threshold"):
        MorphNet(1.0, threshold=0.0)
    for until in (0.0, 1.0, "half", True):
        with pytest.raises(ValueError, match="size at which to stop"):
            MorphNet(1.0, until=until)
