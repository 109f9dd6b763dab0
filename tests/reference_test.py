"""L0, VIBNet and MorphNet against the numbers of their authors' programs.

The tables hold what the published programs computed, unchanged, from the inputs
that stand beside them; nothing here is computed by hand.
"""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from keras_bar import hard_concrete
from keras_bar.layers import GaussianGate
from keras_bar.layers import HardConcreteGate
from keras_bar.layers import MarkerGate
from tests import pruning
from tests.gradients import gradient

pytestmark = pytest.mark.core

# --- L0 -----------------------------------------------------------------------
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

# --- VIBNet -------------------------------------------------------------------
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

# --- MorphNet -----------------------------------------------------------------
# github.com/google-research/morph-net, commit d9286a1, run unchanged with
# TensorFlow 2.21: get_cost(), get_regularization_term() and the latter's
# gradients with respect to the scales GAMMAS, of GammaFlopsRegularizer,
# GammaModelSizeRegularizer and GammaActivationRegularizer with
# gamma_threshold=0.1. The networks are those of `morph_student`.
GAMMAS = {
    "chain": ([0.5, -0.2, 0.05, 1.0, -0.01], [0.3, 0.04, -0.9, 2.0]),
    "residual": ([0.5, -0.2, 0.05, 0.09, -0.01], [-0.3, 0.04, 0.08, 2.0, 0.6]),
}
MORPH_FLOPS = {
    "chain": (
        5364.0,
        4730.4,
        [1782.0, -1782.0, 1782.0, 1782.0, -1782.0],
        [492.0, 492.0, -492.0, 492.0],
    ),
    "residual": (
        15576.0,
        21922.68,
        [6486.0, -6486.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 6486.0, 6486.0, 6486.0],
    ),
}
MORPH_SIZE = {
    "chain": (
        144.0,
        176.4,
        [45.0, -45.0, 45.0, 45.0, -45.0],
        [30.0, 30.0, -30.0, 30.0],
    ),
    "residual": (
        228.0,
        314.34,
        [93.0, -93.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 93.0, 93.0, 93.0],
    ),
}
# GammaActivationRegularizer's cost of each convolution alone, and its gradients
MORPH_ACTIVATIONS = {
    "chain": (
        (3.0, 3.0),
        [1.0, -1.0, 1.0, 1.0, -1.0],
        [1.0, 1.0, -1.0, 1.0],
    ),
    "residual": (
        (4.0, 4.0),
        [2.0, -2.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 2.0, 2.0, 2.0],
    ),
}
# Output positions of both convolutions
POSITIONS = {"chain": (36, 9), "residual": (36, 36)}

# What is left of numbers of the size of 1 that almost cancel.
FLOAT32 = 1e-7


def numpy(x):
    return ops.convert_to_numpy(x)


def assert_close(found, expected, absolute=0.0):
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5, atol=absolute)


def gated(layer, size):
    """A convolution of 5 channels of 18 weights each, with a gate."""
    inputs = keras.Input((*size, 2))
    x = layers.Conv2D(5, 3, padding="same", use_bias=False)(inputs)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.Dense(3, use_bias=False)(x)
    model = keras_bar.gate(keras.Model(inputs, x), layer=layer)
    return model, *pruning.gates_of(model)


def loss_of(model, regularizer):
    """Function of nothing, the loss."""
    control, state = pruning.control_of(model, regularizer)
    return lambda: control(state)


def slope(loss, variable):
    """Gradient of a loss with respect to a variable."""

    def at(x):
        with keras.StatelessScope(state_mapping=[(variable, x)]):
            return loss()

    return gradient(at, numpy(variable))


# --- L0 -----------------------------------------------------------------------


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
    _, gate = gated(HardConcreteGate, (6, 6))
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
    model, gate = gated(HardConcreteGate, (6, 6))
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
        _, gate = gated(HardConcreteGate, (6, 6))
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


# --- VIBNet -------------------------------------------------------------------


def bottleneck(threshold=0.0):
    """The network and its gate: 4 x 6 positions, as in the reference."""

    def layer(**kwargs):
        return GaussianGate(threshold=threshold, **kwargs)

    model, gate = gated(layer, (4, 6))
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


# --- MorphNet -----------------------------------------------------------------


def morph_student(kind):
    """A network whose norms have the scales GAMMAS, and their variables.

    Of pictures (6, 6, 2), with 3x3 convolutions "same" without biases:
    convolution of 5, norm, ReLU, convolution, norm, ReLU, average, 3 logits
    without biases. The second convolution has 4 channels and stride 2 in
    "chain"; in "residual" 5, and the input of it is added before its ReLU.
    """
    residual = kind == "residual"
    conv = {"padding": "same", "use_bias": False}
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(5, 3, name="stem", **conv)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_norm")(x))
    filters, strides = (5, 1) if residual else (4, 2)
    y = layers.Conv2D(filters, 3, strides, name="branch", **conv)(x)
    y = layers.BatchNormalization(name="branch_norm")(y)
    y = layers.ReLU()(layers.Add()([x, y]) if residual else y)
    y = layers.GlobalAveragePooling2D()(y)
    y = layers.Dense(3, use_bias=False)(y)
    model = keras_bar.gate(
        keras.Model(inputs, y), connectivity="regular", layer=MarkerGate
    )
    scales = [model.get_layer(f"{x}_norm").gamma for x in ("stem", "branch")]
    for scale, value in zip(scales, GAMMAS[kind], strict=True):
        scale.assign(value)
    return model, scales


def morph_numbers(kind, metric):
    """Cost, penalty and its gradients of ours."""
    model, scales = morph_student(kind)
    regularizer = baselines.MorphNetRegularizer(1.0, metric, threshold=0.1)
    loss = loss_of(model, regularizer)
    slopes = [slope(loss, x) for x in scales]
    # Ours has the value of the cost and the gradient of the penalty. That one
    # is linear in the absolute scales.
    penalty = sum(
        np.sum(x * numpy(g)) for x, g in zip(slopes, scales, strict=True)
    )
    return float(numpy(loss())), penalty, slopes


@pytest.mark.parametrize("kind", GAMMAS)
def test_morph_net_flops(kind):
    cost, penalty, slopes = morph_numbers(kind, "flops")
    expected_cost, expected_penalty, *expected_slopes = MORPH_FLOPS[kind]
    assert_close(cost, expected_cost)
    assert_close(penalty, expected_penalty)
    for found, expected in zip(slopes, expected_slopes, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("kind", GAMMAS)
def test_morph_net_size_and_the_parameters_of_norms(kind):
    """Theirs counts kernels only; ours also the 4 numbers that each batch
    normalization has for a channel."""
    cost, penalty, slopes = morph_numbers(kind, "params")
    expected_cost, expected_penalty, *expected_slopes = MORPH_SIZE[kind]
    norms = {"chain": 1, "residual": 2}[kind]  # That a channel has.
    alive = sum(MORPH_ACTIVATIONS[kind][0])
    assert_close(cost, expected_cost + 4 * alive)
    extra = 0.0
    for found, expected, x in zip(
        slopes, expected_slopes, GAMMAS[kind], strict=True
    ):
        of_norms = 4 * norms * np.sign(expected)
        assert_close(found, expected + of_norms)
        extra += np.dot(of_norms, x)
    assert_close(penalty, expected_penalty + extra)


@pytest.mark.parametrize("kind", GAMMAS)
def test_morph_net_activations_and_volume(kind):
    """Theirs counts channels; ours their positions, too. (Theirs also counts
    the logits, which no gate can close.)"""
    cost, _, slopes = morph_numbers(kind, "volume")
    channels, *expected_slopes = MORPH_ACTIVATIONS[kind]
    assert_close(cost, np.dot(channels, POSITIONS[kind]))
    for found, expected, positions in zip(
        slopes, expected_slopes, POSITIONS[kind], strict=True
    ):
        assert_close(found, positions * np.array(expected))
