"""The mixed residual connection against the supplement's Algorithm 1."""

import keras
import numpy as np
import pytest

from keras_bar.layers import MixedResidual

pytestmark = pytest.mark.core

RNG = np.random.default_rng(0)


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def algorithm_1(x_in, branch, i_in, i_delta, residual=None, i_res=(), n_res=0):
    """The supplement's listing, line by line, channels last."""
    x_alive = x_in[..., i_in]
    if residual is None:
        x_out = x_in.copy()
    else:
        x_res = residual(x_alive)
        x_out = np.zeros((*x_res.shape[:-1], n_res), "float32")
        x_out[..., i_res] = x_res
    x_out[..., i_delta] += branch(x_alive)
    return x_out


def linear(inputs, outputs):
    matrix = RNG.normal(size=(inputs, outputs)).astype("float32")
    return lambda x: x @ matrix


@pytest.mark.parametrize(
    "i_delta", [[0, 1, 2], [3, 4], [1, 4], [4, 0, 2], [5], list(range(6))]
)
def test_identity(i_delta):
    x = RNG.normal(size=(2, 4, 4, 6)).astype("float32")
    i_in = [0, 2, 5]
    branch = linear(3, len(i_delta))
    expected = algorithm_1(x, branch, i_in, i_delta)
    x_alive = keras.ops.take(x, i_in, axis=-1)
    delta = branch(numpy(x_alive))
    found = MixedResidual([None, i_delta])([x, delta])
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "i_res, i_delta",
    [([0, 1], [1, 2, 3]), ([0, 2, 6], [1, 5]), ([6, 1], [6]), ([3], [4])],
)
def test_residual_convolution(i_res, i_delta):
    x = RNG.normal(size=(2, 4, 4, 6)).astype("float32")
    i_in, n_res = [1, 2, 4, 5], 7
    residual, branch = linear(4, len(i_res)), linear(4, len(i_delta))
    expected = algorithm_1(x, branch, i_in, i_delta, residual, i_res, n_res)
    x_alive = x[..., i_in]
    layer = MixedResidual([i_res, i_delta], channels=n_res)
    found = layer([residual(x_alive), branch(x_alive)])
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("axis", [-1, 1])
def test_any_rank_and_axis(rank, axis):
    """Scattered channels, runs and a constant, along any axis."""
    sizes = [3, 5, 4, 2][: rank - 2]
    inputs, expected = [], np.zeros((2, *sizes, 6), "float32") + np.arange(6)
    indices = [[0, 3, 4], [1, 2], [5, 0]]
    for i in indices:
        x = RNG.normal(size=(2, *sizes, len(i))).astype("float32")
        expected[..., i] += x
        inputs.append(np.ascontiguousarray(np.moveaxis(x, -1, axis)))
    layer = MixedResidual(indices, 6, constant=range(6), axis=axis)
    found = np.moveaxis(numpy(layer(inputs)), axis, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_symbolic_call_and_file_round_trip(tmp_path):
    a, b = keras.Input((4, 4, 3)), keras.Input((4, 4, 2))
    layer = MixedResidual([[0, 2, 4], [1, 4]], channels=5, constant=[1] * 5)
    model = keras.Model([a, b], layer([a, b]))
    assert model.output.shape == (None, 4, 4, 5)
    model.save(tmp_path / "mixed.keras")
    loaded = keras.models.load_model(tmp_path / "mixed.keras")
    x = [np.ones((1, 4, 4, n), "float32") for n in (3, 2)]
    np.testing.assert_array_equal(numpy(loaded(x)), numpy(model(x)))
    np.testing.assert_array_equal(numpy(model(x))[0, 0, 0], [2, 2, 2, 1, 3])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_dtype(policy):
    layer = MixedResidual([None, [1]], constant=[0.5] * 3, dtype=policy)
    x = [np.ones((1, 2, 2, n)) for n in (3, 1)]
    dtype = keras.backend.standardize_dtype(layer(x).dtype)
    assert dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MixedResidual([[0, 0]], 3), "distinct integers"),
        (lambda: MixedResidual([[-1]], 3), "distinct integers"),
        (lambda: MixedResidual([[3]], 3), "distinct integers"),
        (lambda: MixedResidual([[0]], 3, constant=[1.0]), "constant does not"),
        (lambda: MixedResidual([[0]]).build([(1, 2, 1)]), "is unknown"),
        (
            lambda: MixedResidual([None]).build([(1, 2), (1, 2)]),
            "number of inp",
        ),
        (lambda: MixedResidual([[0]], 3).build([(1, 2)]), "does not fit its"),
        (
            lambda: MixedResidual([None, [5]]).build([(1, 3), (1, 1)]),
            "distinct integers",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        make()
