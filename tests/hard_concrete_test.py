import keras
import numpy as np
import pytest
from keras import ops

from keras_bar import hard_concrete
from tests.helpers.gradients import finite_difference
from tests.helpers.gradients import gradient

pytestmark = pytest.mark.core

LOG_ALPHAS = np.array([-3.0, -1.0, 0.0, 0.5, 2.0, 4.0], "float32")
TEMPERATURES = [0.3, hard_concrete.BETA, 1.0]
DRAWS = 200_000
# Five standard errors of a mean of DRAWS values in [0, 1].
MONTE_CARLO = 5 * 0.5 / DRAWS**0.5


def numpy(x):
    return ops.convert_to_numpy(x)


def midpoints(count):
    return (np.arange(count) + 0.5) / count


def quantile(u, log_alpha, beta=2 / 3, gamma=-0.1, zeta=1.1):
    """Equation (4) as printed, in float64."""
    logit = (np.log(u) - np.log(1 - u) + log_alpha) / beta
    return np.clip((zeta - gamma) / (1 + np.exp(-logit)) + gamma, 0, 1)


def test_constants():
    assert hard_concrete.BETA == pytest.approx(2 / 3)
    assert (hard_concrete.GAMMA, hard_concrete.ZETA) == (-0.1, 1.1)


@pytest.mark.parametrize("beta", TEMPERATURES)
@pytest.mark.parametrize("log_alpha", [-1.0, 0.0, 2.0])
def test_binary_concrete_pdf_is_equation_2(log_alpha, beta):
    s = np.linspace(0.01, 0.99, 25)
    alpha = np.exp(log_alpha)
    expected = (
        beta
        * alpha
        * s ** (-beta - 1)
        * (1 - s) ** (-beta - 1)
        / (alpha * s**-beta + (1 - s) ** -beta) ** 2
    )
    result = hard_concrete.binary_concrete_pdf(s, log_alpha, beta)
    np.testing.assert_allclose(numpy(result), expected, rtol=1e-4)


def test_binary_concrete_pdf_is_finite_near_the_ends():
    s = np.array([1e-30, 1e-10, 1 - 1e-6], "float32")
    result = numpy(hard_concrete.binary_concrete_pdf(s, LOG_ALPHAS[:, None]))
    assert np.all(np.isfinite(result))
    assert np.all(result > 0)


@pytest.mark.parametrize("beta", TEMPERATURES)
@pytest.mark.parametrize("log_alpha", [-1.0, 0.0, 2.0])
def test_binary_concrete_cdf_is_the_integral_of_the_pdf(log_alpha, beta):
    start, stop = 0.05, 0.9
    s = start + (stop - start) * midpoints(20_000)
    density = numpy(hard_concrete.binary_concrete_pdf(s, log_alpha, beta))
    ends = hard_concrete.binary_concrete_cdf([start, stop], log_alpha, beta)
    before, after = numpy(ends)
    integral = np.mean(density, dtype="float64") * (stop - start)
    assert integral == pytest.approx(after - before, rel=1e-4)


@pytest.mark.parametrize("beta", TEMPERATURES)
def test_binary_concrete_inverse_cdf_inverts_the_cdf(beta):
    u = np.linspace(0.05, 0.95, 19, dtype="float32")
    log_alpha = np.array([[-0.5], [0.0], [0.5]], "float32")
    s = hard_concrete.binary_concrete_inverse_cdf(u, log_alpha, beta)
    result = hard_concrete.binary_concrete_cdf(s, log_alpha, beta)
    expected = np.broadcast_to(u, (3, 19))
    np.testing.assert_allclose(numpy(result), expected, atol=2e-4)


def test_binary_concrete_ends():
    s = hard_concrete.binary_concrete_inverse_cdf([0.0, 1.0], 0.5)
    np.testing.assert_array_equal(numpy(s), [0, 1])
    u = hard_concrete.binary_concrete_cdf([0.0, 1.0], 0.5)
    np.testing.assert_array_equal(numpy(u), [0, 1])


@pytest.mark.parametrize("beta", TEMPERATURES)
def test_inverse_cdf_is_equation_4(beta):
    u = np.linspace(0.001, 0.999, 101)
    expected = quantile(u, LOG_ALPHAS[:, None], beta)
    result = hard_concrete.inverse_cdf(u, LOG_ALPHAS[:, None], beta)
    np.testing.assert_allclose(numpy(result), expected, atol=2e-5)


def test_inverse_cdf_with_other_ends():
    u = np.linspace(0.001, 0.999, 101)
    expected = quantile(u, 0.5, gamma=-0.3, zeta=1.2)
    result = hard_concrete.inverse_cdf(u, 0.5, gamma=-0.3, zeta=1.2)
    np.testing.assert_allclose(numpy(result), expected, atol=2e-5)


def test_cdf_inverts_the_inverse_cdf_between_the_atoms():
    u = np.linspace(0.2, 0.8, 13, dtype="float32")
    z = hard_concrete.inverse_cdf(u, 0.0)
    assert 0 < numpy(z).min() < numpy(z).max() < 1
    result = hard_concrete.cdf(z, 0.0)
    np.testing.assert_allclose(numpy(result), u, atol=2e-5)


def test_cdf_jumps_at_the_atoms():
    z = [-0.5, -1e-6, 0.0, 1.0, 2.0]
    result = numpy(hard_concrete.cdf(z, 0.3))
    zero = 1 - numpy(hard_concrete.probability_alive(0.3))
    np.testing.assert_allclose(result, [0, 0, zero, 1, 1], atol=1e-6)


def test_pdf_and_atoms_sum_to_one():
    z = midpoints(20_000).astype("float32")
    density = numpy(hard_concrete.pdf(z, LOG_ALPHAS[:, None]))
    continuous = density.mean(axis=-1, dtype="float64")
    zero = 1 - numpy(hard_concrete.probability_alive(LOG_ALPHAS))
    one = numpy(hard_concrete.probability_one(LOG_ALPHAS))
    np.testing.assert_allclose(continuous + zero + one, 1, atol=1e-4)


def test_pdf_is_zero_outside():
    result = hard_concrete.pdf([-0.05, 0.0, 1.0, 1.05], 0.0)
    np.testing.assert_array_equal(numpy(result), np.zeros(4))


@pytest.mark.parametrize("beta, zero", [(2 / 3, 0.168), (1 / 2, 0.232)])
def test_atom_at_zero_of_the_supplement_belongs_to_half_temperature(beta, zero):
    alive = numpy(hard_concrete.probability_alive(0.0, beta))
    one = numpy(hard_concrete.probability_one(0.0, beta))
    assert 1 - alive == pytest.approx(zero, abs=5e-4)
    assert one == pytest.approx(zero, abs=5e-4)


@pytest.mark.parametrize("beta", TEMPERATURES)
@pytest.mark.parametrize("log_alpha", LOG_ALPHAS)
def test_closed_forms_agree_with_samples(log_alpha, beta):
    location = np.full(DRAWS, log_alpha)
    z = numpy(hard_concrete.sample(location, seed=1337, beta=beta))
    assert z.shape == (DRAWS,)
    assert z.dtype == "float32"
    assert z.min() >= 0 and z.max() <= 1
    alive = numpy(hard_concrete.probability_alive(log_alpha, beta))
    one = numpy(hard_concrete.probability_one(log_alpha, beta))
    expected = numpy(hard_concrete.mean(log_alpha, beta))
    assert np.mean(z > 0) == pytest.approx(alive, abs=MONTE_CARLO)
    assert np.mean(z == 1) == pytest.approx(one, abs=MONTE_CARLO)
    assert np.mean(z) == pytest.approx(expected, abs=MONTE_CARLO)


@pytest.mark.parametrize("beta", TEMPERATURES)
def test_mean_is_the_integral_of_the_inverse_cdf(beta):
    log_alpha = np.linspace(-8, 8, 17)
    u = midpoints(100_000)
    expected = [quantile(u, location, beta).mean() for location in log_alpha]
    result = hard_concrete.mean(log_alpha, beta)
    np.testing.assert_allclose(numpy(result), expected, rtol=1e-4, atol=1e-6)


def test_mean_keeps_the_shape():
    log_alpha = np.zeros((2, 3), "float32")
    assert tuple(hard_concrete.mean(log_alpha).shape) == (2, 3)
    assert tuple(hard_concrete.mean(0.0).shape) == ()


def test_deterministic_is_the_median():
    expected = quantile(0.5, LOG_ALPHAS)
    result = hard_concrete.deterministic(LOG_ALPHAS)
    np.testing.assert_allclose(numpy(result), expected, atol=1e-6)


def test_deterministic_is_alive_where_that_is_likelier_than_not():
    threshold = 2 / 3 * np.log(0.1 / 1.1)
    log_alpha = threshold + np.array([-1e-3, 1e-3])
    alive = numpy(hard_concrete.deterministic(log_alpha)) > 0
    likely = numpy(hard_concrete.probability_alive(log_alpha)) > 0.5
    assert alive.tolist() == likely.tolist() == [False, True]


@pytest.mark.parametrize(
    "fn",
    [
        hard_concrete.probability_alive,
        hard_concrete.probability_one,
        hard_concrete.mean,
        lambda x: hard_concrete.inverse_cdf(0.4, x),
        lambda x: hard_concrete.binary_concrete_cdf(0.3, x),
        lambda x: hard_concrete.binary_concrete_pdf(0.3, x),
    ],
    ids=["alive", "one", "mean", "inverse_cdf", "cdf", "pdf"],
)
def test_gradients(fn):
    log_alpha = [-0.8, -0.2, 0.3, 1.0]
    expected = finite_difference(fn, log_alpha)
    assert np.all(np.abs(expected) > 1e-2)
    np.testing.assert_allclose(gradient(fn, log_alpha), expected, atol=1e-3)


def test_clipped_samples_have_no_gradient():
    result = gradient(lambda x: hard_concrete.inverse_cdf(0.5, x), [-4, 0, 4])
    assert result[0] == result[2] == 0
    assert result[1] > 0.1


@pytest.mark.parametrize("log_alpha", [-100.0, 100.0])
@pytest.mark.parametrize(
    "fn",
    [
        hard_concrete.probability_alive,
        hard_concrete.mean,
        lambda x: hard_concrete.inverse_cdf([0.0, 0.5, 1.0], x),
    ],
    ids=["alive", "mean", "inverse_cdf"],
)
def test_saturated_gates_stay_finite(fn, log_alpha):
    assert np.all(np.isfinite(numpy(fn(log_alpha))))
    assert np.isfinite(gradient(fn, log_alpha))


def test_sample_follows_its_seed():
    log_alpha = np.zeros(32)
    seeds = keras.random.SeedGenerator(7)
    first = numpy(hard_concrete.sample(log_alpha, seeds))
    second = numpy(hard_concrete.sample(log_alpha, seeds))
    assert not np.array_equal(first, second)
    again = keras.random.SeedGenerator(7)
    repeated = numpy(hard_concrete.sample(log_alpha, again))
    np.testing.assert_array_equal(first, repeated)
