"""The binary concrete distribution, which the hard concrete stretches.

The equations are those of the supplement of the BAR paper; see
`keras_bar.hard_concrete`, where these functions are public.
"""

from typing import Any
from typing import TypeAlias

from keras import ops

# A tensor of any backend, or anything that it converts: floats, lists, arrays.
Tensor: TypeAlias = Any

BETA = 2 / 3


def binary_concrete_pdf(
    s: Tensor,
    log_alpha: Tensor,
    beta: float = BETA,
) -> Tensor:
    """Density of the binary concrete distribution, equation (2).

    Args:
        s: Tensor of values in the open interval (0, 1).
        log_alpha: Tensor, the location, broadcastable to `s`.
        beta: Float, the temperature.

    Returns:
        Tensor of densities.

    Example:

    >>> density = keras_bar.hard_concrete.binary_concrete_pdf(0.5, 0.0)
    >>> round(float(density), 3)
    0.667
    """
    s = as_float32(s)
    # This is equation (2) as the derivative of (3): the powers of `s` in its
    # printed form overflow near 0 and 1, where their ratio does not.
    logit = beta * _logit(s) - as_float32(log_alpha)
    slope = ops.sigmoid(logit) * ops.sigmoid(-logit)
    return beta * slope / (s * (1 - s))


def binary_concrete_cdf(
    s: Tensor,
    log_alpha: Tensor,
    beta: float = BETA,
) -> Tensor:
    """Cumulative distribution of the binary concrete, equation (3).

    Args:
        s: Tensor of values in [0, 1].
        log_alpha: Tensor, the location, broadcastable to `s`.
        beta: Float, the temperature.

    Returns:
        Tensor of probabilities `P(S <= s)`.

    Example:

    >>> float(keras_bar.hard_concrete.binary_concrete_cdf(0.5, 0.0))
    0.5
    """
    return ops.sigmoid(beta * _logit(as_float32(s)) - as_float32(log_alpha))


def binary_concrete_inverse_cdf(
    u: Tensor,
    log_alpha: Tensor,
    beta: float = BETA,
) -> Tensor:
    """Quantile of the binary concrete, the inverse of equation (3).

    Args:
        u: Tensor of probabilities in [0, 1].
        log_alpha: Tensor, the location, broadcastable to `u`.
        beta: Float, the temperature.

    Returns:
        Tensor of values `s` in [0, 1].

    Example:

    >>> float(keras_bar.hard_concrete.binary_concrete_inverse_cdf(0.5, 0.0))
    0.5
    """
    return ops.sigmoid((_logit(as_float32(u)) + as_float32(log_alpha)) / beta)


def as_float32(x):
    return ops.convert_to_tensor(x, dtype="float32")


def _logit(x):
    return ops.log(x) - ops.log1p(-x)
