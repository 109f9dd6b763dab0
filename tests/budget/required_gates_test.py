"""Networks stay connected, also behind layers that cannot be pruned."""

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.budget import selection
from keras_bar.callbacks import BudgetRegularizer
from keras_bar.costs import CostModel
from keras_bar.layers.hard_concrete_gate import multiply_observed
from tests.helpers import tiny
from tests.helpers.budgets import QUICK


def network():
    """Two gated convolutions, a boundary, and one more."""
    x = inputs = keras.Input((8, 8, 3))
    for width in (6, 8):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(8, 1)(x)
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.Conv2D(8, 1)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8, 8, 3)).astype("float32"), np.arange(32) % 2


def test_a_boundary_does_not_hide_a_closed_stem():
    student = keras_bar.gate(network())
    model = CostModel(ChannelAnalysis(trace(student)))
    kept = selection.required_gates(model)
    assert len(kept) == len(model.gates)
    for gate in model.gates:
        masks = {g: np.ones(g.log_alpha.shape, bool) for g in model.gates}
        masks[gate][:] = False
        assert not model.analysis.is_connected(masks)


def test_fit_returns_a_connected_network_behind_a_boundary():
    student = tiny.prepare(keras_bar.gate(network(), seed=0), **QUICK)
    x, y = data()
    with pytest.warns(UserWarning, match="too short"):
        student.fit(
            x, y, epochs=1, verbose=0, callbacks=[BudgetRegularizer(0.4)]
        )
    outputs = keras.ops.convert_to_numpy(keras_bar.compact(student)(x))
    assert np.ptp(outputs, axis=0).max() > 0


def test_weights_restored_after_pruning_are_refused():
    student = tiny.prepare(keras_bar.gate(network(), seed=0), **QUICK)
    x, y = data()
    before = student.get_weights()
    with pytest.warns(UserWarning, match="too short"):
        student.fit(
            x, y, epochs=1, verbose=0, callbacks=[BudgetRegularizer(0.5)]
        )
    student.set_weights(before)
    with pytest.raises(ValueError, match="still learn.*budget 0.5"):
        keras_bar.hard_prune(student)


def test_importance_survives_half_precision():
    x = keras.ops.cast(np.full((4, 2, 2, 3), 200.0), "float16")
    z = keras.ops.ones((1, 1, 1, 3), "float16")
    upstream = keras.ops.cast(np.full((4, 2, 2, 3), 400.0), "float16")
    _, gradients = multiply_observed(x, z, axis=3)
    seen = keras.ops.convert_to_numpy(gradients(upstream)[2])
    np.testing.assert_allclose(seen, 4 * (4 * 200.0 * 400.0) ** 2, rtol=1e-5)


def test_importance_by_hand():
    rng = np.random.default_rng(0)
    x, upstream = rng.normal(size=(2, 5, 3, 3, 4)).astype("float32")
    z = rng.uniform(size=4).astype("float32")
    _, gradients = multiply_observed(
        keras.ops.convert_to_tensor(x),
        keras.ops.convert_to_tensor(z.reshape(1, 1, 1, 4)),
        axis=3,
    )
    slope = (x * upstream).sum(axis=(1, 2))
    dx, dz, seen = map(
        keras.ops.convert_to_numpy,
        gradients(keras.ops.convert_to_tensor(upstream)),
    )
    np.testing.assert_allclose(dx, upstream * z, rtol=1e-5)
    np.testing.assert_allclose(dz.reshape(-1), slope.sum(0), rtol=1e-4)
    np.testing.assert_allclose(seen, z**2 * (slope**2).sum(0), rtol=1e-4)


def test_a_part_of_the_samples_stands_for_the_batch():
    rng = np.random.default_rng(0)
    x, upstream = rng.normal(size=(2, 40, 3, 3, 4)).astype("float32")
    z = rng.uniform(size=4).astype("float32")
    # 39 // (4 * 8) = 1, so every fifth sample is seen.
    _, gradients = multiply_observed(
        keras.ops.convert_to_tensor(x),
        keras.ops.convert_to_tensor(z.reshape(1, 1, 1, 4)),
        axis=3,
        samples=8,
    )
    slope = 5 * (x * upstream).sum(axis=(1, 2))[::5]
    dx, dz, seen = map(
        keras.ops.convert_to_numpy,
        gradients(keras.ops.convert_to_tensor(upstream)),
    )
    np.testing.assert_allclose(dx, upstream * z, rtol=1e-5)
    np.testing.assert_allclose(dz.reshape(-1), slope.sum(0), rtol=1e-4)
    np.testing.assert_allclose(seen, z**2 * (slope**2).sum(0), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 64, 65, 128, 256])
def test_about_as_many_samples_are_seen_as_asked_for(size):
    x = keras.ops.ones((size, 2, 2, 3))
    _, gradients = multiply_observed(
        x, keras.ops.ones((1, 1, 1, 3)), axis=3, samples=16
    )
    _, slope, seen = map(keras.ops.convert_to_numpy, gradients(x))
    # Of equal samples any number gives the gradient of the whole batch.
    np.testing.assert_allclose(slope.reshape(-1), 4.0 * size, rtol=1e-5)
    count = np.round((4.0 * size) ** 2 / seen[0])
    assert count == size if size <= 64 else 13 <= count <= 26


@pytest.mark.parametrize("options", [QUICK, {"jit_compile": True}])
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="inductor")
def test_parts_of_batches_are_seen_in_training(options):
    """Also where the size of a batch is unknown when the step is compiled."""
    student = tiny.prepare(keras_bar.gate(network(), seed=0), **options)
    x, y = data()
    x, y = np.tile(x, (3, 1, 1, 1)), np.tile(y, 3)
    with pytest.warns(UserWarning, match="too short"):
        student.fit(
            x,
            y,
            batch_size=80,  # The last one has 16, which are all seen.
            epochs=1,
            verbose=0,
            callbacks=[BudgetRegularizer(0.4)],
        )
    for gate in CostModel(ChannelAnalysis(trace(student))).gates:
        assert gate.observed_samples == 16
        seen = keras.ops.convert_to_numpy(gate.observation)
        assert np.all(np.isfinite(seen)) and np.any(seen > 0)
        gate.reset_drive()
        assert gate.observed_samples is None
