"""MorphNet against the numbers of its authors' program.

The tables hold what the published program computed, unchanged, from the inputs
that stand beside them; nothing here is computed by hand.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import baselines
from keras_bar.layers import MarkerGate
from tests.helpers.references import assert_close
from tests.helpers.references import loss_of
from tests.helpers.references import numpy
from tests.helpers.references import slope

pytestmark = pytest.mark.core

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


def morph_student(kind):
    """A network whose norms have the scales GAMMAS, and their variables.

    It takes images (6, 6, 2), with 3x3 convolutions "same" without biases:
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
