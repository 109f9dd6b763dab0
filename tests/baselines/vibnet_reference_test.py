"""VIBNet against the numbers of its authors' program.

The tables hold what the published program computed, unchanged, from the inputs
that stand beside them; nothing here is computed by hand.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_bar import baselines
from keras_bar.layers import GaussianGate
from tests.helpers.references import assert_close
from tests.helpers.references import gated_convolution
from tests.helpers.references import loss_of
from tests.helpers.references import numpy
from tests.helpers.references import slope

pytestmark = pytest.mark.core

# github.com/zhuchen03/VIBNet, commit 2ebc51c, ib_layers.py, in double precision
# with PyTorch 2.14: InformationBottleneck(5) with the `post_z_mu` and the
# `post_z_logD`, which is the logarithm of the variance:
MU = [1.0, -0.3, 0.05, 2.0, 1e-4]
LOG_VARIANCE = [-9.0, -1.0, 0.5, -3.0, -9.0]
# get_logalpha()
IB_LOG_ALPHA = [-9.00000001, 1.4079455, 6.49146055, -4.38629436, 8.72753356]
# get_mask_hard(threshold); eval(), then forward(ones) = get_mask_weighted(0)
IB_MASKS = {
    -5.0: [1.0, 0.0, 0.0, 0.0, 0.0],
    0.0: [1.0, 0.0, 0.0, 1.0, 0.0],
    2.0: [1.0, 1.0, 0.0, 1.0, 0.0],
}
IB_TEST_GATE = [1.0, 0.0, 0.0, 2.0, 0.0]
# kl_closed_form(x) for x of shape (3, 1), of a layer for each channel alone
IB_DIVERGENCE = [
    4.50002119,
    0.109425318,
    0.000757589089,
    2.19933205,
    4.05104958e-05,
]
# kl_closed_form(x) for x of shape (3, 5, 4, 6), and its gradients with respect
# to `post_z_mu` and `post_z_logD`
IB_LOSS = 163.42984
IB_MU_SLOPE = [23.9970383, -15.7246629, 0.72673482, 11.852475, 19.4442503]
IB_LOG_VARIANCE_SLOPE = [
    -11.997547,
    -2.35869936,
    -0.0181683704,
    -11.8524726,
    -0.00097213374,
]
# train(), then forward(ones), with IB_NOISE in place of normal_()
IB_NOISE = [
    [0.5, -1.0, 2.0, 0.0, -0.25],
    [-1.5, 0.75, 0.1, 1.0, 3.0],
    [0.0, 0.0, 0.0, 0.0, 0.0],
]
IB_SAMPLE = [
    [1.0055545, -0.90653066, 2.61805083, 2.0, -0.00267724913],
    [0.983336505, 0.154897995, 0.178402542, 2.22313016, 0.0334269896],
    [1.0, -0.3, 0.05, 2.0, 0.0001],
]


def bottleneck(threshold=0.0):
    """The network and its gate: 4 x 6 positions, as in the reference."""

    def layer(**kwargs):
        return GaussianGate(threshold=threshold, **kwargs)

    model, gate = gated_convolution(layer, (4, 6))
    gate.scaled_mu.assign(MU)
    gate.scaled_log_sigma.assign(np.array(LOG_VARIANCE) / 2.0)
    return model, gate


@pytest.mark.parametrize("threshold", IB_MASKS)
def test_ib_noise_to_signal_and_mask(threshold):
    """With their epsilon, 1e-8, which for mu = 1e-4 is as large as mu^2."""
    _, gate = bottleneck(threshold)
    assert_close(gate.noise_to_signal(), IB_LOG_ALPHA)
    mask = np.array(IB_MASKS[threshold])
    assert_close(gate.probability(), mask)
    np.testing.assert_array_equal(gate.alive(), mask == 1.0)
    assert_close(gate.deterministic(), mask * MU)


def test_ib_gate_of_inference():
    assert_close(bottleneck()[1].deterministic(), IB_TEST_GATE)


def test_ib_divergence():
    assert_close(bottleneck()[1].divergence(), IB_DIVERGENCE)


def test_ib_loss_and_its_gradients():
    """Ours learns `log sigma`, half of theirs, so its gradient is twice as
    large. Both count the positions."""
    model, gate = bottleneck()
    loss = loss_of(model, baselines.InformationBottleneckRegularizer(1.0))
    assert_close(loss(), IB_LOSS)
    assert_close(slope(loss, gate.scaled_mu), IB_MU_SLOPE)
    assert_close(
        slope(loss, gate.scaled_log_sigma),
        2.0 * np.array(IB_LOG_VARIANCE_SLOPE),
    )


def test_ib_gate_with_the_same_noise(monkeypatch):
    _, gate = bottleneck()

    def normal(shape, **_):
        return ops.reshape(ops.convert_to_tensor(IB_NOISE, "float32"), shape)

    monkeypatch.setattr(keras.random, "normal", normal)
    found = numpy(gate(np.ones((3, 4, 6, 5), "float32"), training=True))
    assert_close(found[:, 0, 0], IB_SAMPLE)
    assert_close(found, np.broadcast_to(found[:, :1, :1], found.shape))
