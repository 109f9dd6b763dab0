"""The gate as a layer: shapes, files, precision, closing for good."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_bar import hard_concrete
from keras_bar.layers import HardConcreteGate
from keras_bar.layers import SharedGate

pytestmark = pytest.mark.core


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def gate_of(log_alpha, **kwargs):
    layer = HardConcreteGate(seed=0, **kwargs)
    layer.build((None, 4, len(log_alpha)))
    layer.log_alpha.assign(np.array(log_alpha, "float32"))
    return layer


def test_starts_as_in_the_supplement():
    layer = HardConcreteGate(seed=0)
    layer.build((None, 1000))
    start = layer.log_alpha.numpy()
    assert 0 <= start.min() and start.max() <= 0.01 and np.ptp(start) > 0.005
    assert layer.log_alpha.dtype == "float32" and layer.log_alpha.trainable


@pytest.mark.parametrize("rate", [1.0, 8.0])
def test_moves_as_many_times_faster_from_the_same_start(rate):
    layer = HardConcreteGate(seed=0, rate=rate)
    model = keras.Sequential([keras.Input((1000,)), layer])
    start = numpy(layer.location())
    assert 0 <= start.min() and start.max() <= 0.01 and np.ptp(start) > 0.005
    model.compile(
        keras.optimizers.Adam(1e-3),
        lambda y, x: ops.sum(x - y, -1),
        jit_compile=False,
    )
    x = np.ones((4, 1000), "float32")
    model.fit(x, np.zeros_like(x), epochs=1, verbose=0)
    moved = start - numpy(layer.location())
    # Adam's first step; gates that are cut off at 0 or 1 get none.
    assert np.median(moved) == pytest.approx(1e-3 * rate, rel=1e-3)
    layer.slope.assign(3.0)
    layer.reset_drive()
    assert float(layer.slope) == rate
    copy = HardConcreteGate.from_config(layer.get_config())
    assert copy.rate == rate


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf")])
def test_wrong_rate(rate):
    with pytest.raises(ValueError, match="Expected a finite number above 0"):
        HardConcreteGate(rate=rate)


def test_inference_multiplies_by_the_value_at_one_half():
    layer = gate_of([-5.0, 0.0, 0.5, 5.0])
    x = np.random.default_rng(0).normal(size=(2, 4, 4)).astype("float32")
    z = numpy(hard_concrete.deterministic(layer.log_alpha))
    assert z[0] == 0 and z[3] == 1 and 0 < z[1] < z[2] < 1
    np.testing.assert_allclose(numpy(layer(x)), x * z, rtol=1e-6)
    np.testing.assert_array_equal(layer.alive(), z > 0)


def test_training_draws_one_factor_per_channel_for_the_batch():
    layer = gate_of([0.0] * 64)
    x = np.ones((8, 4, 64), "float32")
    first, second = (numpy(layer(x, training=True)) for _ in range(2))
    assert np.all(first == first[:1, :1])
    assert np.any(first != second)
    assert np.any(first == 0) and np.any(first == 1)


def test_training_factors_have_the_closed_form_mean():
    layer = gate_of([0.7] * 20_000)
    z = numpy(layer(np.ones((1, 4, 20_000), "float32"), training=True))[0, 0]
    p = float(layer.probability()[0])
    assert np.mean(z > 0) == pytest.approx(p, abs=0.015)
    mean = float(hard_concrete.mean(keras.ops.convert_to_tensor([0.7]))[0])
    assert np.mean(z) == pytest.approx(mean, abs=0.015)


def test_slope_and_offset_move_the_location():
    layer = gate_of([1.0, 2.0])
    layer.slope.assign(3.0)
    layer.offset.assign([0.5, -0.5])
    np.testing.assert_allclose(numpy(layer.location()), [3.5, 5.5])


def test_set_alive_is_for_good():
    layer = gate_of([-5.0, -5.0, 0.2, 5.0])
    kept = numpy(layer.deterministic())[2]
    layer.set_alive(np.array([False, True, True, False]))
    expected = np.array([0.0, 1.0, kept, 0.0], "float32")
    x = np.ones((1, 4, 4), "float32")
    for training in (False, True):
        found = numpy(layer(x, training=training))[0, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    layer.log_alpha.assign(np.full(4, 9.0))
    np.testing.assert_allclose(numpy(layer(x))[0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(numpy(layer.probability()), expected > 0)
    assert layer.is_fixed


@pytest.mark.parametrize("mask", [[True] * 3, [1.0] * 4, [[True] * 4]])
def test_a_mask_that_does_not_fit(mask):
    with pytest.raises(ValueError, match="mask does not fit.*Received"):
        gate_of([0.0] * 4).set_alive(np.array(mask))


@pytest.mark.parametrize(
    "axis, shape", [(-1, (2, 5, 6, 3)), (1, (2, 3, 5, 6)), (1, (2, 3))]
)
def test_axis(axis, shape):
    layer = HardConcreteGate(axis=axis)
    outputs = layer(keras.KerasTensor(shape))
    assert tuple(outputs.shape) == shape
    layer.set_alive(np.array([True, False, True]))
    y = np.moveaxis(numpy(layer(np.ones(shape, "float32"))), axis, -1)
    assert np.all(y[..., 1] == 0) and np.all(y[..., 0] > 0)


def test_shared_factors():
    layer = HardConcreteGate(return_factors=True)
    x = np.ones((2, 4, 4, 3), "float32")
    outputs, factors = layer(x, training=True)
    assert tuple(factors.shape) == (2, 1, 1, 3)
    np.testing.assert_array_equal(*numpy(factors))
    np.testing.assert_allclose(numpy(outputs), x * numpy(factors))
    symbolic = layer(keras.KerasTensor((None, 4, 4, 3)))
    # Keras would take a 1 for the size of the batch that they multiply.
    assert tuple(symbolic[1].shape) == (None, 1, 1, 3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_float32_under_every_policy(policy):
    layer = gate_of([0.1, 0.2, 0.3, 5.0], dtype=policy)
    assert {x.dtype for x in layer.weights} == {"float32"}
    assert keras.backend.standardize_dtype(layer.location().dtype) == "float32"
    outputs = layer(np.ones((1, 4, 4), "float32"))
    dtype = keras.backend.standardize_dtype(outputs.dtype)
    assert dtype == policy.removeprefix("mixed_")


def test_file_round_trip(tmp_path):
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, HardConcreteGate(seed=3, name="g")(inputs))
    gate = model.get_layer("g")
    gate.log_alpha.assign([-5.0, 0.3, 5.0])
    gate.set_alive(np.array([True, True, False]))
    model.save(tmp_path / "gate.keras")
    loaded = keras.models.load_model(tmp_path / "gate.keras")
    assert loaded.get_layer("g").get_config() == gate.get_config()
    x = np.ones((1, 4, 3), "float32")
    np.testing.assert_array_equal(numpy(loaded(x)), numpy(model(x)))


@pytest.mark.parametrize(
    "axis, shape, message",
    [
        (4, (None, 3), "axis lies outside"),
        (1, (None, None, 3), "needs to know"),
    ],
)
def test_wrong_inputs(axis, shape, message):
    with pytest.raises(ValueError, match=message):
        HardConcreteGate(axis=axis).build(shape)


@pytest.mark.core
def test_channels_are_opened_at_a_factor_of_choice():
    gate = gate_of([-9.0, -9.0, 9.0, 0.0])
    alive = gate.deterministic()
    gate.set_alive(np.array([True, False, True, True]), opened=0.25)
    found = ops.convert_to_numpy(gate.deterministic())
    expected = ops.convert_to_numpy(alive).copy()
    expected[0] = 0.25
    np.testing.assert_allclose(found, expected)


@pytest.mark.core
def test_mean_factor_is_that_of_many_samples():
    """For many channels alike, at once."""
    gate = gate_of(np.repeat([-2.0, 0.0, 1.5], 4000))
    means = np.reshape(ops.convert_to_numpy(gate.sample()), (3, 4000)).mean(1)
    found = ops.convert_to_numpy(gate.mean())
    np.testing.assert_allclose(found[::4000], means, atol=0.03)
    gate.set_alive(np.repeat([False, True, True], 4000))
    fixed = ops.convert_to_numpy(gate.deterministic())
    np.testing.assert_allclose(gate.mean(), fixed)


@pytest.mark.parametrize("axis, shape", [(-1, (2, 5, 6)), (1, (2, 6, 5))])
@pytest.mark.parametrize(
    "whole, expected", [(True, [1, 1, 0, 0, 1, 1]), (False, [1, 0, 1, 0, 1, 0])]
)
def test_channels_that_share_factors(axis, shape, whole, expected):
    """Three groups of two channels."""
    layer = HardConcreteGate(
        axis=axis, groups=3, whole_groups=whole, return_factors=True
    )
    assert tuple(layer(keras.KerasTensor(shape))[0].shape) == shape
    assert layer.channels == (3 if whole else 2)
    layer.set_alive(np.array([True, False, True])[: layer.channels])
    outputs, factors = map(numpy, layer(np.ones(shape, "float32")))
    assert tuple(np.squeeze(factors != 0)) == tuple(map(bool, expected))
    assert np.all((np.moveaxis(outputs, axis, -1) != 0) == expected)
    np.testing.assert_array_equal(outputs, np.broadcast_to(factors, shape))


@pytest.mark.parametrize("whole", (True, False))
def test_importance_of_channels_that_share_a_factor(whole):
    """The square of the sum over the channels, summed over samples."""
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(2, 5, 4, 6)).astype("float32")
    inputs = keras.Input((4, 6))
    gate = HardConcreteGate(groups=3, whole_groups=whole, seed=0)
    model = keras.Model(inputs, gate(inputs))
    gate.set_alive(np.ones(gate.channels, bool))
    z = gate.fixed_channel_factors()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(x, target, batch_size=5, verbose=0)
    products = x * z * 2 * (x * z - target) / x.size
    terms = products.sum(1).reshape(5, 3, 2).sum(2 if whole else 1)
    np.testing.assert_allclose(
        numpy(gate.observation), np.square(terms).sum(0), rtol=1e-4
    )


@pytest.mark.parametrize("samples", [None, 1])
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("windows", [False, True])
def test_importance_in_all_tensors_of_a_shared_gate(samples, silent, windows):
    """It is that of the sum, as if the gate multiplied the sum itself, even if
    the first of the tensors is 0."""
    rng = np.random.default_rng(0)
    x, y, target = rng.normal(size=(3, 5, 4, 6)).astype("float32")
    x *= not silent
    first, second = keras.Input((4, 6)), keras.Input((4, 6))

    def trained(build):
        gate = HardConcreteGate(seed=0, return_factors=build is shared)
        model = keras.Model([first, second], build(gate))
        gate.observed_samples = samples
        gate.log_alpha.assign(np.ones(6))
        model.compile(keras.optimizers.SGD(1.0), "mse")
        model.fit([x, y], target, batch_size=5, shuffle=False, verbose=0)
        return numpy(gate.observation), numpy(gate.log_alpha)

    def shared(gate):
        output, factors = gate(first)
        if not windows:
            return output + keras.layers.Multiply()([second, factors])
        halves = ops.reshape(second, (-1, 2, 6))
        halves = SharedGate()([halves, factors])
        return output + ops.reshape(halves, (-1, 4, 6))

    found, moved = trained(shared)
    expected, moved_too = trained(lambda gate: gate(first + second))
    assert np.all(expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(moved, moved_too, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_a_shared_gate_of_more_or_fewer_rows(rows):
    factors = np.arange(4, dtype="float32").reshape(4, 1, 1) * np.ones(3)
    x = np.ones((rows, 5, 3), "float32")
    found = numpy(SharedGate()([x, factors]))[:, 0, 0]
    np.testing.assert_array_equal(found, np.arange(rows) * 4 // rows)


def test_groups_of_unequal_size():
    with pytest.raises(ValueError, match=r"divisor of their number, 8.*=3"):
        HardConcreteGate(groups=3).build((None, 8))
