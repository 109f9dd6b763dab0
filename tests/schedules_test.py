import numpy as np
import pytest
from keras import ops

from keras_bar import schedules
from tests.helpers.gradients import finite_difference
from tests.helpers.gradients import gradient

pytestmark = pytest.mark.core

T = np.linspace(0, 1, 101, dtype="float32")


def numpy(x):
    return ops.convert_to_numpy(x)


def transition(t, d=10.0):
    return numpy(schedules.sigmoidal_transition(t, d))


def barrier(cost, lower, upper):
    return numpy(schedules.barrier(cost, lower, upper))


@pytest.mark.parametrize("d", [0.1, 1.0, 10.0, 30.0])
def test_transition_is_equation_1(d):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    delta = sigmoid(-0.5 * d)
    t = T.astype("float64")
    expected = (sigmoid(d * (t - 0.5)) - delta) / (1 - 2 * delta)
    np.testing.assert_allclose(transition(T, d), expected, atol=1e-6)


@pytest.mark.parametrize(
    "d", [0, 0.0, 1e-6, 1e-3, 0.1, 1, 10.0, 1e3, 1e300, float("inf")]
)
def test_transition_is_exact_at_the_ends(d):
    assert transition([0.0, 1.0], d).tolist() == [0, 1]
    assert transition(0, d) == 0
    assert transition(1, d) == 1
    assert transition([-0.5, 1.5], d).tolist() == [0, 1]


@pytest.mark.parametrize("d", [0.01, 1.0, 10.0, 1e3])
def test_transition_rises_and_is_symmetric(d):
    curve = transition(T, d)
    assert np.all(np.diff(curve) >= 0)
    np.testing.assert_allclose(curve + curve[::-1], 1, atol=1e-6)
    assert curve[50] == 0.5


def test_soft_transition_is_the_line():
    np.testing.assert_array_equal(transition(T, 0.0), T)
    for d in [1e-30, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2]:
        np.testing.assert_allclose(transition(T, d), T, atol=1e-5)


@pytest.mark.parametrize("d", [1e4, 1e30, 1e300, float("inf")])
def test_hard_transition_is_the_step(d):
    t = [0.0, 0.25, 0.49, 0.5, 0.51, 0.75, 1.0]
    np.testing.assert_allclose(transition(t, d), [0, 0, 0, 0.5, 1, 1, 1])


def test_transition_is_not_the_line():
    assert transition(0.25) < 0.1
    assert transition(0.75) > 0.9


@pytest.mark.parametrize("d", [-1.0, float("nan"), None, "soft"])
def test_transition_refuses_a_negative_hardness(d):
    with pytest.raises(ValueError, match="Expected a non-negative float"):
        schedules.sigmoidal_transition(0.5, d)


@pytest.mark.parametrize("d", [0.5, 10.0])
def test_transition_gradient(d):
    def fn(t):
        return schedules.sigmoidal_transition(t, d)

    t = [0.2, 0.5, 0.7]
    expected = finite_difference(fn, t, step=2e-3)
    np.testing.assert_allclose(gradient(fn, t), expected, atol=2e-3)


def test_moving_budget_ends():
    full_cost, budget = 3_112_960, 3_112_960 / 8
    result = numpy(schedules.moving_budget([0.0, 1.0], budget, full_cost))
    assert result[0] == pytest.approx(1.01 * full_cost, rel=1e-6)
    assert result[1] == np.float32(budget)


def test_moving_budget_by_hand():
    # Half-way the transition is 1/2, and on the line at 1/4 it is 1/4.
    half = schedules.moving_budget(0.5, 20.0, 100.0)
    assert numpy(half) == pytest.approx(0.5 * 101 + 0.5 * 20, rel=1e-6)
    quarter = schedules.moving_budget(0.25, 20.0, 100.0, d=0.0)
    assert numpy(quarter) == pytest.approx(0.75 * 101 + 0.25 * 20, rel=1e-6)


def test_moving_budget_falls():
    assert np.all(np.diff(numpy(schedules.moving_budget(T, 20, 100))) <= 0)


def test_barrier_by_hand():
    # r is 0, 1/4, 1/2, 3/4 and 9/10, and f is r^2 / (1 - r).
    cost = [100, 125, 150, 175, 190]
    expected = [0, 1 / 12, 1 / 2, 9 / 4, 8.1]
    np.testing.assert_allclose(barrier(cost, 100, 200), expected, rtol=1e-5)


def test_barrier_is_zero_up_to_lower():
    assert barrier([0.0, 50.0, 100.0], 100.0, 200.0).tolist() == [0, 0, 0]


def test_barrier_is_clipped_from_upper_on():
    maximum = np.float32(schedules.BARRIER_MAX)
    costs = [200.0, 200.1, 1e9, float("inf")]
    assert barrier(costs, 100.0, 200.0).tolist() == [maximum] * 4


@pytest.mark.parametrize("upper", [100.0, 50.0])
def test_barrier_of_an_empty_interval(upper):
    maximum = np.float32(schedules.BARRIER_MAX)
    costs = [0.0, upper, 100.0, 150.0]
    assert barrier(costs, 100.0, upper).tolist() == [maximum] * 4


def test_barrier_just_below_upper_is_finite():
    upper = np.float32(3e6)
    cost = np.nextafter(upper, np.float32(0))
    result = barrier(cost, 1e6, upper)
    assert 1e6 < result <= schedules.BARRIER_MAX


def test_barrier_broadcasts():
    cost = np.array([[110.0], [150.0]])
    result = barrier(cost, 100.0, np.array([120.0, 200.0]))
    maximum = schedules.BARRIER_MAX
    expected = [[0.5, 0.01 / 0.9], [maximum, 0.5]]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_barrier_takes_flops_beyond_32_bits():
    full = 15_087_796_224
    assert barrier(full // 2, 0, full) == pytest.approx(0.5, rel=1e-5)
    assert barrier(full, 0, full) == np.float32(schedules.BARRIER_MAX)
    result = numpy(schedules.moving_budget(1, full // 8, full))
    assert result == np.float32(full // 8)


def test_no_gradient_flows_through_the_cost():
    def penalty(cost):
        return schedules.barrier(cost, 100.0, 200.0)

    cost = [120.0, 150.0, 190.0]
    assert np.all(finite_difference(penalty, cost, step=1.0) > 1e-3)
    np.testing.assert_array_equal(gradient(penalty, cost), np.zeros(3))


def test_gradient_flows_through_what_the_barrier_weighs():
    # d/dx f(x) 3x is 3 f(x): the barrier is a weight, not a loss.
    result = gradient(lambda x: schedules.barrier(x, 100.0, 200.0) * 3 * x, 150)
    assert result == pytest.approx(1.5, rel=1e-5)
