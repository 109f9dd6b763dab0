"""Deterministic values of the distribution, for inference without sampling."""

import numpy as np
from keras import ops

from keras_bar.binary_concrete import BETA
from keras_bar.binary_concrete import Tensor
from keras_bar.binary_concrete import as_float32
from keras_bar.hard_concrete.distribution import GAMMA
from keras_bar.hard_concrete.distribution import ZETA
from keras_bar.hard_concrete.distribution import inverse_cdf

# Gauss-Legendre on [0, 1]: 16 nodes are exact to float32 for `beta` up to 2.
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(16)
_NODES = (1 + _NODES) / 2
_NODE_WEIGHTS = _NODE_WEIGHTS / 2


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
        `P(z > 0)` is at most 1/2, and at least 0.19 elsewhere.

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
    """The inference factor of Louizos et al., 2018, equation (13).

    This is equation (4) at `u = 1/2` without the temperature. It is positive
    where `log_alpha` exceeds `log(-gamma / zeta)`, which is -2.398; `P(z > 0)`
    then exceeds 0.31.

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
