"""The distribution itself: density, quantiles, atoms and samples."""

import math

import keras
from keras import ops
from keras import random

from keras_bar.binary_concrete import BETA
from keras_bar.binary_concrete import Tensor
from keras_bar.binary_concrete import as_float32
from keras_bar.binary_concrete import binary_concrete_cdf
from keras_bar.binary_concrete import binary_concrete_inverse_cdf
from keras_bar.binary_concrete import binary_concrete_pdf

GAMMA = -0.1
ZETA = 1.1

# Keeps the logit of the noise, and hence its gradient, finite.
_NOISE_MARGIN = 1e-6


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
