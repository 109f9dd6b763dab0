"""The hard concrete distribution, as pure functions on `keras.ops`.

A binary concrete variable `s` in (0, 1) is stretched to (gamma, zeta) and
clipped to [0, 1], which gives `z = 0` and `z = 1` a probability of their own
and keeps `z` differentiable in `log_alpha` in between.

The equations are those of section 9 of the supplement of "Structured Pruning of
Neural Networks with Budget-Aware Regularization" (CVPR 2019), after
[Louizos et al., 2018](https://arxiv.org/abs/1712.01312). Equation (3) is the
integral of (2), and (4) its inverse, stretched and clipped. All functions
broadcast their arguments and compute in float32. `beta`, `gamma` and `zeta`
are Python floats with `beta > 0`, `gamma < 0` and `zeta > 1`.
"""

import math

import keras
import numpy as np
from keras import ops
from keras import random

from keras_bar.binary_concrete import BETA
from keras_bar.binary_concrete import Tensor
from keras_bar.binary_concrete import as_float32
from keras_bar.binary_concrete import binary_concrete_cdf
from keras_bar.binary_concrete import binary_concrete_inverse_cdf
from keras_bar.binary_concrete import binary_concrete_pdf

__all__ = [
    "BETA",
    "GAMMA",
    "ZETA",
    "binary_concrete_cdf",
    "binary_concrete_inverse_cdf",
    "binary_concrete_pdf",
    "cdf",
    "deterministic",
    "inverse_cdf",
    "mean",
    "mean_where_open",
    "pdf",
    "probability_alive",
    "probability_one",
    "sample",
    "without_temperature",
]

GAMMA = -0.1
ZETA = 1.1

# Keeps the logit of the noise, and hence its gradient, finite.
_NOISE_MARGIN = 1e-6

# Gauss-Legendre on [0, 1]: 16 nodes are exact to float32 for `beta` up to 2.
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(16)
_NODES = (1 + _NODES) / 2
_NODE_WEIGHTS = _NODE_WEIGHTS / 2


def pdf(
    z: Tensor,
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Density of the hard concrete distribution between its two atoms.

    It integrates to `1 - P(z=0) - P(z=1)` over (0, 1); `probability_alive` and
    `probability_one` give the atoms. At `log_alpha = 0`, `P(z=0)` is 0.168
    with `beta = 2/3`; the supplement's value of about 0.23 holds for
    `beta = 1/2`.

    Args:
        z: Tensor of values in (0, 1). Outside, the density is 0.
        log_alpha: Tensor, the location, broadcastable to `z`.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of densities.

    Example:

    >>> density = keras_bar.hard_concrete.pdf([0.5, 2.0], 0.0)
    >>> print(keras.ops.convert_to_numpy(density).round(3))
    [0.556 0.   ]
    """
    z = as_float32(z)
    inside = ops.logical_and(z > 0, z < 1)
    s = (ops.clip(z, 0.0, 1.0) - gamma) / (zeta - gamma)
    density = binary_concrete_pdf(s, log_alpha, beta) / (zeta - gamma)
    return ops.where(inside, density, 0.0)


def cdf(
    z: Tensor,
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Cumulative distribution of the hard concrete: equation (3), stretched.

    It jumps at 0 by `P(z=0)` and at 1 by `P(z=1)`.

    Args:
        z: Tensor of values.
        log_alpha: Tensor, the location, broadcastable to `z`.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of probabilities `P(Z <= z)`.

    Example:

    >>> below = keras_bar.hard_concrete.cdf([-0.1, 0.0, 1.0], 0.0)
    >>> print(keras.ops.convert_to_numpy(below).round(3))
    [0.    0.168 1.   ]
    """
    z = as_float32(z)
    s = (ops.clip(z, 0.0, 1.0) - gamma) / (zeta - gamma)
    below_one = ops.where(z < 0, 0.0, binary_concrete_cdf(s, log_alpha, beta))
    return ops.where(z < 1, below_one, 1.0)


def inverse_cdf(
    u: Tensor,
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Quantile of the hard concrete distribution, equation (4).

    Args:
        u: Tensor of probabilities in [0, 1].
        log_alpha: Tensor, the location, broadcastable to `u`.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of values `z` in [0, 1].

    Example:

    >>> z = keras_bar.hard_concrete.inverse_cdf([0.1, 0.5, 0.9], 0.0)
    >>> print(keras.ops.convert_to_numpy(z).round(3))
    [0.  0.5 1. ]
    """
    s = binary_concrete_inverse_cdf(u, log_alpha, beta)
    return ops.clip(s * (zeta - gamma) + gamma, 0.0, 1.0)


def probability_alive(
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Probability of a non-zero value, `P(z > 0)`, equation (5).

    Args:
        log_alpha: Tensor, the location.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of probabilities with the shape of `log_alpha`. At
        `log_alpha = 0` it is 0.832, so `P(z=0)` is 0.168; the supplement's
        0.23 holds for `beta = 1/2`.

    Example:

    >>> round(float(keras_bar.hard_concrete.probability_alive(0.0)), 3)
    0.832
    """
    return ops.sigmoid(as_float32(log_alpha) - beta * math.log(-gamma / zeta))


def probability_one(
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Probability of a fully open gate, `P(z = 1)`.

    Args:
        log_alpha: Tensor, the location.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of probabilities with the shape of `log_alpha`.

    Example:

    >>> round(float(keras_bar.hard_concrete.probability_one(0.0)), 3)
    0.168
    """
    logit = math.log((1 - gamma) / (zeta - 1))
    return ops.sigmoid(as_float32(log_alpha) - beta * logit)


def deterministic(
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Median of the hard concrete: equation (4) at `u = 1/2`.

    It is positive exactly where `P(z > 0)` exceeds 1/2.

    Args:
        log_alpha: Tensor, the location.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of values in [0, 1] with the shape of `log_alpha`.

    Example:

    >>> z = keras_bar.hard_concrete.deterministic([-2.0, 0.0, 2.0])
    >>> print(keras.ops.convert_to_numpy(z).round(3))
    [0.  0.5 1. ]
    """
    return inverse_cdf(0.5, log_alpha, beta, gamma, zeta)


def mean_where_open(
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Expected value `E[z]`, and 0 where the median is 0.

    Args:
        log_alpha: Tensor, the location.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of values in [0, 1) with the shape of `log_alpha`: 0 where
        `P(z > 0)` is at most 1/2, 0.19 and more where it is above.

    Example:

    >>> factors = keras_bar.hard_concrete.mean_where_open([-3.0, 0.0, 5.0])
    >>> print(keras.ops.convert_to_numpy(factors).round(2))
    [0.   0.5  0.99]
    """
    is_open = deterministic(log_alpha, beta, gamma, zeta) > 0.0
    return ops.where(is_open, mean(log_alpha, beta, gamma, zeta), 0.0)


def without_temperature(
    log_alpha: Tensor, gamma: float = GAMMA, zeta: float = ZETA
) -> Tensor:
    """The factor of inference of Louizos et al., 2018, equation (13).

    It is equation (4) at `u = 1/2` but for the temperature: positive where
    `log_alpha` exceeds `log(-gamma / zeta)`, which is -2.398, or `P(z > 0)`
    0.31.

    Args:
        log_alpha: Tensor, the location.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of values in [0, 1] with the shape of `log_alpha`.

    Example:

    >>> f = keras_bar.hard_concrete.without_temperature([-3.0, 0.0, 5.0])
    >>> print(keras.ops.convert_to_numpy(f).round(2))
    [0.  0.5 1. ]
    """
    s = ops.sigmoid(as_float32(log_alpha))
    return ops.clip(s * (zeta - gamma) + gamma, 0.0, 1.0)


def mean(
    log_alpha: Tensor,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Expected value `E[z]`, to the precision of float32.

    The integral of `P(z > x)` over `x` in (0, 1) equals `E[z]`. Unlike the
    quantile, the integrand has no kinks where `z` is clipped, so few nodes
    suffice. Unlike the median, the mean is never exactly 0.

    Args:
        log_alpha: Tensor, the location.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of values in (0, 1) with the shape of `log_alpha`.

    Example:

    >>> round(float(keras_bar.hard_concrete.mean(0.0)), 3)
    0.5
    """
    log_alpha = ops.expand_dims(as_float32(log_alpha), -1)
    logits = as_float32(np.log((_NODES - gamma) / (zeta - _NODES)))
    survival = ops.sigmoid(log_alpha - beta * logits)
    return ops.sum(as_float32(_NODE_WEIGHTS) * survival, axis=-1)


def sample(
    log_alpha: Tensor,
    seed: int | keras.random.SeedGenerator | None = None,
    beta: float = BETA,
    gamma: float = GAMMA,
    zeta: float = ZETA,
) -> Tensor:
    """Draws one value per element: equation (4) with `u ~ U(0, 1)`.

    Args:
        log_alpha: Tensor, the location.
        seed: Integer or `keras.random.SeedGenerator`.
        beta: Float, the temperature.
        gamma: Float, the lower end of the stretched interval.
        zeta: Float, the upper end of the stretched interval.

    Returns:
        Tensor of values in [0, 1] with the shape of `log_alpha`,
        differentiable with respect to it.

    Example:

    >>> z = keras_bar.hard_concrete.sample(np.zeros(1000), seed=0)
    >>> dead = keras.ops.convert_to_numpy(z) == 0
    >>> bool(0.1 < dead.mean() < 0.25)
    True
    """
    log_alpha = as_float32(log_alpha)
    u = random.uniform(
        ops.shape(log_alpha),
        minval=_NOISE_MARGIN,
        maxval=1 - _NOISE_MARGIN,
        dtype="float32",
        seed=seed,
    )
    return inverse_cdf(u, log_alpha, beta, gamma, zeta)
