"""L0 against the numbers of its authors' program.

The tables hold what the published program computed, unchanged, from the inputs
that stand beside them; nothing here is computed by hand.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_bar import baselines
from keras_bar import hard_concrete
from keras_bar.layers import HardConcreteGate
from tests.helpers.gradients import gradient
from tests.helpers.references import FLOAT32
from tests.helpers.references import assert_close
from tests.helpers.references import gated_convolution
from tests.helpers.references import loss_of
from tests.helpers.references import numpy
from tests.helpers.references import slope

pytestmark = pytest.mark.core

# github.com/AMLab-Amsterdam/L0_regularization, commit 39a5fe6, l0_layers.py, in
# double precision with PyTorch 2.14: L0Conv2d(2, 5, 3, bias=False,
# weight_decay=0, lamba=1), so 18 weights per channel, with the `qz_loga`:
LOG_ALPHA = [-6.0, -2.0, -0.5, 1.0, 6.0]
L0_WEIGHTS = 2 * 3 * 3
# 1 - cdf_qz(0)
L0_OPEN = [0.0121116349, 0.400975264, 0.749997105, 0.930771221, 0.999499097]
# The same for qz_loga = -20 and 20
L0_OPEN_FAR = [1e-6, 0.999999]
# -regularization(), and its gradient
L0_LOSS = 55.6803778
L0_SLOPE = [0.215368977, 4.32349383, 3.37502606, 1.1598508, 0.00901173963]
# quantile_concrete(L0_NOISE); sample_z(4, sample=True) with `get_eps` replaced
# by L0_NOISE; and the gradient of the sum of the latter
L0_NOISE = [
    [0.05, 0.05, 0.05, 0.05, 0.05],
    [0.2, 0.9, 0.35, 0.3, 0.01],
    [0.5, 0.5, 0.5, 0.5, 0.5],
    [0.93, 0.93, 0.93, 0.93, 0.93],
]
L0_QUANTILE = [
    [-0.0999982119, -0.0992790479, -0.0931945009, -0.0383965692, 1.08785926],
    [-0.0999814888, 0.588109388, 0.0887436802, 0.568417097, 0.969935159],
    [-0.0998519265, -0.0430889522, 0.284985561, 0.881089371, 1.09985193],
    [-0.0928711323, 0.748195124, 1.04973771, 1.09449616, 1.09999694],
]
L0_SAMPLE = [
    [0.0, 0.0, 0.0, 0.0, 1.0],
    [0.0, 0.588109388, 0.0887436802, 0.568417097, 0.969935159],
    [0.0, 0.0, 0.284985561, 0.881089371, 1.0],
    [0.0, 0.748195124, 1.0, 1.0, 1.0],
]
L0_SAMPLE_SLOPE = [0.0, 0.813294895, 0.630796288, 0.71261249, 0.173951183]
# sample_z(1, sample=False), for LOG_ALPHA and for further `qz_loga`
L0_TEST_GATE = [0.0, 0.0430435064, 0.353048803, 0.777270294, 1.0]
LOG_ALPHA_NEAR = [-2.5, -2.39, -2.0, -1.61, -1.59]
L0_TEST_GATE_NEAR = [
    0.0,
    0.000726118277,
    0.0430435064,
    0.0999063363,
    0.103260676,
]
# The same of sample_z(1, sample=True) with noise of 1/2
L0_MEDIAN_NEAR = [0.0, 0.0, 0.0, 0.0, 0.00118843571]
# The largest `qz_loga` at which these two are 0, by bisection
L0_TEST_GATE_CLOSES = -2.39789527
L0_MEDIAN_CLOSES = -1.59859685


def test_l0_probability_of_an_open_gate():
    assert_close(hard_concrete.probability_alive(LOG_ALPHA), L0_OPEN)


def test_l0_probability_is_not_clipped():
    """Theirs is clipped to [1e-6, 1 - 1e-6], with no gradient there."""
    found = numpy(hard_concrete.probability_alive([-20.0, 20.0]))
    assert found[0] == pytest.approx(1.02e-8, rel=1e-2)
    assert_close(np.clip(found, 1e-6, 1 - 1e-6), L0_OPEN_FAR)


def test_l0_quantile():
    noise = np.array(L0_NOISE)
    assert_close(hard_concrete.inverse_cdf(noise, LOG_ALPHA), L0_SAMPLE)
    s = hard_concrete.binary_concrete_inverse_cdf(noise, LOG_ALPHA)
    assert_close(1.2 * s - 0.1, L0_QUANTILE)
    result = gradient(lambda x: hard_concrete.inverse_cdf(noise, x), LOG_ALPHA)
    assert_close(result, L0_SAMPLE_SLOPE)


@pytest.mark.parametrize("draw", range(len(L0_NOISE)))
def test_l0_gate_with_the_same_noise(draw, monkeypatch):
    _, gate = gated_convolution(HardConcreteGate, (6, 6))
    gate.log_alpha.assign(LOG_ALPHA)

    def uniform(shape, **_):
        return ops.reshape(
            ops.convert_to_tensor(L0_NOISE[draw], "float32"), shape
        )

    monkeypatch.setattr(keras.random, "uniform", uniform)
    x = np.ones((3, 6, 6, 5), "float32")
    found = numpy(gate(x, training=True))
    assert_close(found, np.broadcast_to(L0_SAMPLE[draw], x.shape))


def test_l0_loss():
    """Theirs weights a channel with its 18 weights. `weight="params"` counts
    the 3 that read the channel, too."""
    model, gate = gated_convolution(HardConcreteGate, (6, 6))
    gate.log_alpha.assign(LOG_ALPHA)
    loss = loss_of(model, baselines.L0Regularizer(L0_WEIGHTS))
    assert_close(loss(), L0_LOSS)
    found = slope(loss, gate.log_alpha) / L0_WEIGHTS
    assert_close(found, np.array(L0_SLOPE) / L0_WEIGHTS, FLOAT32)
    readers = (L0_WEIGHTS + 3) / L0_WEIGHTS
    loss = loss_of(model, baselines.L0Regularizer(1.0, "params"))
    assert_close(loss(), L0_LOSS * readers)


def test_l0_gate_of_inference_is_another_one():
    """Theirs leaves out the division by beta, as if beta were 1; ours is the
    median of the gates of training, their quantile at 1/2."""
    for log_alpha, theirs, median in (
        (LOG_ALPHA, L0_TEST_GATE, L0_SAMPLE[2]),
        (LOG_ALPHA_NEAR, L0_TEST_GATE_NEAR, L0_MEDIAN_NEAR),
    ):
        assert_close(
            hard_concrete.deterministic(log_alpha, beta=1.0), theirs, FLOAT32
        )
        assert_close(hard_concrete.deterministic(log_alpha), median, FLOAT32)
        _, gate = gated_convolution(HardConcreteGate, (6, 6))
        gate.log_alpha.assign(log_alpha)
        assert_close(gate.deterministic(), median, FLOAT32)
        np.testing.assert_array_equal(gate.alive(), np.array(median) > 0)


def test_l0_gate_of_inference_closes_earlier_than_theirs():
    """At -1.60, theirs at -2.40: there it is open with a probability of 0.31
    only, where ours closes with one of 1/2."""
    assert L0_TEST_GATE_CLOSES == pytest.approx(-2.40, abs=5e-3)
    assert L0_MEDIAN_CLOSES == pytest.approx(-1.60, abs=5e-3)
    for closes, beta in (
        (L0_TEST_GATE_CLOSES, 1.0),
        (L0_MEDIAN_CLOSES, hard_concrete.BETA),
    ):
        around = closes + np.array([-1e-4, 1e-4])
        gates = numpy(hard_concrete.deterministic(around, beta))
        assert (gates > 0).tolist() == [False, True]
    closing = [L0_TEST_GATE_CLOSES, L0_MEDIAN_CLOSES]
    likely = numpy(hard_concrete.probability_alive(closing))
    np.testing.assert_allclose(likely, [0.31, 0.5], atol=5e-3)
