"""The gate of the information bottleneck, and what the three kinds share."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.layers import GaussianGate
from keras_bar.layers import HardConcreteGate
from keras_bar.layers import MarkerGate
from tests.helpers import pruning

pytestmark = pytest.mark.core


def numpy(x):
    return ops.convert_to_numpy(x)


def gate_of(mu, log_sigma, **kwargs):
    layer = GaussianGate(seed=0, **kwargs)
    layer.build((None, 3, len(mu)))
    layer.scaled_mu.assign(np.array(mu, "float32") / layer.rate)
    layer.scaled_log_sigma.assign(np.array(log_sigma, "float32") / layer.rate)
    return layer


@pytest.mark.parametrize("rate", [1.0, 20.0])
def test_starts_as_in_the_supplement(rate):
    layer = GaussianGate(seed=3, rate=rate)
    layer.build((None, 5000))
    for found, mean in ((layer.mu, 1.0), (layer.log_sigma, -9.0)):
        assert np.mean(numpy(found)) == pytest.approx(mean, abs=1e-3)
        assert np.std(numpy(found)) == pytest.approx(0.01, rel=0.1)
    correlation = np.corrcoef(numpy(layer.mu), numpy(layer.log_sigma))[0, 1]
    assert abs(correlation) < 0.1


@pytest.mark.parametrize("rate", [1.0, 20.0])
def test_numbers_of_the_reference(rate):
    """What Dai et al.'s own implementation computes from `mu` and the
    logarithm of the variance, evaluated with NumPy in double precision."""
    mu = np.array([1.0, -0.3, 0.05, 2.0])
    log_variance = np.array([-9.0, -1.0, 0.5, -3.0])
    layer = gate_of(mu, log_variance / 2.0, rate=rate)
    log_alpha = log_variance - np.log(mu**2 + 1e-8)
    divergence = 0.5 * np.log(1.0 + mu**2 / (np.exp(log_variance) + 1e-8))
    np.testing.assert_allclose(
        numpy(layer.noise_to_signal()), log_alpha, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(numpy(layer.divergence()), divergence, rtol=1e-4)
    alive = log_alpha < 0.0
    assert alive.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(layer.alive(), alive)
    np.testing.assert_allclose(
        numpy(layer.deterministic()), np.where(alive, mu, 0.0), rtol=1e-5
    )
    np.testing.assert_array_equal(numpy(layer.probability()), alive)


def test_threshold_moves_who_is_dead():
    mu, log_sigma = [1.0, 1.0], [-2.0, -1.0]
    assert gate_of(mu, log_sigma, threshold=-3.0).alive().tolist() == [1, 0]


def test_every_sample_has_its_own_noise():
    layer = gate_of([2.0, -1.0], np.log([0.5, 0.1]))
    x = np.ones((4000, 3, 2), "float32")
    z = numpy(layer(x, training=True))
    assert np.all(z == z[:, :1])
    np.testing.assert_allclose(z[:, 0].mean(axis=0), [2.0, -1.0], atol=0.03)
    np.testing.assert_allclose(z[:, 0].std(axis=0), [0.5, 0.1], rtol=0.05)
    np.testing.assert_allclose(numpy(layer(x))[0, 0], [2.0, -1.0], rtol=1e-5)


def test_fixed_channels_have_no_noise_and_no_divergence():
    layer = gate_of([2.0, -1.0, 0.1], [-3.0, -3.0, 0.0])
    layer.fix()
    assert layer.is_fixed and layer.alive().tolist() == [True, True, False]
    x = np.ones((5, 3, 3), "float32")
    for training in (False, True):
        found = numpy(layer(x, training=training))
        np.testing.assert_allclose(found[0, 0], [2.0, -1.0, 0.0], rtol=1e-5)
    np.testing.assert_array_equal(numpy(layer.divergence()), 0.0)


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_wrong_rate(rate):
    with pytest.raises(ValueError, match="Expected a finite number above 0"):
        GaussianGate(rate=rate)


@pytest.mark.parametrize(
    "threshold", ["x", None, True, float("nan"), -float("inf"), [0.0]]
)
def test_wrong_threshold(threshold):
    with pytest.raises(
        ValueError, match="Expected a finite number, or infinity.*Received: thr"
    ):
        GaussianGate(threshold=threshold)


def test_with_an_infinite_threshold_noise_closes_no_channel():
    gate = gate_of([1.0, 0.1], [-9.0, 9.0], threshold=float("inf"))
    assert gate.alive().tolist() == [True, True]


KINDS = {
    "gaussian": functools.partial(GaussianGate, rate=2.0, threshold=-0.5),
    "hard_concrete": functools.partial(
        HardConcreteGate,
        initializer=keras.initializers.RandomNormal(0.0, 0.01),
    ),
    "marker": MarkerGate,
}


@pytest.mark.parametrize(
    ("kind", "connectivity"),
    [("gaussian", "mixed"), ("hard_concrete", "mixed"), ("marker", "regular")],
)
def test_models_of_every_kind_compact_and_are_saved(
    kind, connectivity, tmp_path
):
    """Invariants I1 and I2, with factors of both signs."""
    model = keras_bar.gate(
        pruning.randomize(keras_bar.models.WideResNet(10, 0.5, (8, 8, 3))),
        connectivity=connectivity,
        layer=KINDS[kind],
        seed=0,
    )
    rng = np.random.default_rng(1)
    for gate in pruning.gates_of(model):
        assert type(gate) is getattr(KINDS[kind], "func", KINDS[kind])
        if kind == "gaussian":
            gate.scaled_mu.assign(rng.normal(size=gate.channels))
            gate.scaled_log_sigma.assign(rng.normal(-1.0, 0.5, gate.channels))
        alive = gate.alive() & (rng.random(gate.channels) < 0.6)
        alive[0] = True
        gate.set_alive(alive)
    x = pruning.inputs_for(model)
    predicted = keras_bar.measure_cost(model)
    small = keras_bar.compact(model)
    assert pruning.difference(small, keras_bar.hard_prune(model), x) < 1e-4
    assert keras_bar.measure_cost(small).volume == predicted.volume
    assert keras_bar.measure_cost(small).params == predicted.params
    path = tmp_path / "gated.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert pruning.difference(loaded, model, x) < 1e-6
    for a, b in zip(
        pruning.gates_of(loaded), pruning.gates_of(model), strict=True
    ):
        assert a.get_config() == b.get_config()


def test_a_negative_factor_does_not_pass_an_activation():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model = keras_bar.gate(
        pruning.randomize(keras.Model(inputs, x)), layer=GaussianGate
    )
    (gate,) = pruning.gates_of(model)
    gate.scaled_mu.assign([-1.0, 0.5, -2.0, 0.0])
    gate.fix()
    small = keras_bar.compact(model)
    x = pruning.inputs_for(model)
    assert pruning.difference(small, keras_bar.hard_prune(model), x) < 1e-5
    assert small.get_layer("conv").filters == 3


@pytest.mark.parametrize(
    ("initializer", "mean", "spread"),
    [
        (None, 0.005, 0.01 / np.sqrt(12)),
        (keras.initializers.RandomNormal(0.0, 0.01), 0.0, 0.01),
        (
            keras.initializers.RandomUniform(0.0, 0.01),
            0.005,
            0.01 / np.sqrt(12),
        ),
    ],
)
def test_variants_of_the_start(initializer, mean, spread):
    """Supplement, section 4; every gate draws for itself, the same for the
    same seed."""
    x = inputs = keras.Input((2, 2, 3))
    for _ in range(4):
        x = keras.layers.Conv2D(400, 1)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    source = keras.Model(inputs, keras.layers.Dense(2)(x))

    def starts(seed):
        model = keras_bar.gate(
            source,
            seed=seed,
            layer=functools.partial(HardConcreteGate, initializer=initializer),
        )
        return [numpy(x.log_alpha) for x in pruning.gates_of(model)]

    first, again, other = starts(0), starts(0), starts(100)
    everything = np.concatenate(first)
    assert np.mean(everything) == pytest.approx(mean, abs=1e-3)
    assert np.std(everything) == pytest.approx(spread, rel=0.1)
    size = min(map(len, first))
    assert len({x[:size].tobytes() for x in first}) == len(first)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(first[0] != other[0])
