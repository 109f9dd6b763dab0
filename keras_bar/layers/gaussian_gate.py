"""The gate of the variational information bottleneck."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bar.layers.channel_gate import ChannelGate
from keras_bar.layers.channel_gate import check_rate
from keras_bar.layers.channel_gate import seeded

# Keeps the logarithms finite; the value of the published implementation.
EPSILON = 1e-8


@keras.saving.register_keras_serializable("keras_bar")
class GaussianGate(ChannelGate):
    """Multiplies every channel by a Gaussian random variable.

    In training a factor `z ~ N(mu, sigma^2)` is drawn per sample and channel
    (Dai et al. 2018, eq. 8). In inference the factor is `mu`, or 0 if the noise
    is stronger than the signal:

        log alpha = log(sigma^2 / mu^2) >= threshold.

    Such a channel is dead and can be removed.

    Args:
        axis: Integer, the channel axis.
        threshold: Float, the smallest `log alpha` of a dead channel; infinity
            keeps all channels alive.
        rate: Float, the speed of `mu` and `log_sigma` relative to the other
            weights. The trainable variables are `mu / rate` and
            `log_sigma / rate`, so an optimizer that normalises gradients, such
            as Adam, moves `mu` and `log_sigma` `rate` times as far. In short
            trainings they need this to get from -9 to the threshold.
        initializers: Initializers of `mu` and `log_sigma`. By default
            `N(1, 0.01^2)` and `N(-9, 0.01^2)` (supplement, section 4).
        return_factors: Whether to return `[inputs * z, z]`.
        seed: Integer seed of the noise and of initializers without one.

    Raises:
        ValueError: If the threshold or the rate is wrong.

    Attributes:
        scaled_mu: Trainable variable `(channels,)`, float32: `mu / rate`.
        scaled_log_sigma: Trainable variable `(channels,)`, float32:
            `log_sigma / rate`.
        channels: See `ChannelGate`.
        fixed_value: See `ChannelGate`.

    Call arguments:
        inputs: Tensor of any rank with a known channel dimension.
        training: Boolean, whether to draw `z`.

    Example:

    >>> gate = keras_bar.layers.GaussianGate(seed=0)
    >>> gate(np.ones((2, 8, 8, 4))).shape[-1]
    4
    >>> gate.alive().tolist()
    [True, True, True, True]
    """

    draws_per_sample = True

    def __init__(
        self,
        axis: int = -1,
        threshold: float = 0.0,
        rate: float = 1.0,
        initializers: Any = None,
        return_factors: bool = False,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(axis, return_factors, seed, **kwargs)
        self.threshold = _check_threshold(threshold)
        self.rate = check_rate(rate)
        other_seed = None if seed is None else seed + 1
        mu, log_sigma = initializers or [
            keras.initializers.RandomNormal(mean, 0.01) for mean in (1.0, -9.0)
        ]
        self.initializers = [seeded(mu, seed), seeded(log_sigma, other_seed)]

    def add_parameters(self):
        self.scaled_mu, self.scaled_log_sigma = (
            self.add_variable(name, self._scaled(initializer), trainable=True)
            for name, initializer in zip(
                ("scaled_mu", "scaled_log_sigma"),
                self.initializers,
                strict=True,
            )
        )

    def _scaled(self, initializer):
        return lambda shape, dtype: initializer(shape, dtype) / self.rate

    @property
    def mu(self):
        """Mean of the factors, tensor `(channels,)`."""
        return self.rate * self.scaled_mu

    @property
    def log_sigma(self):
        """Logarithm of their standard deviation, tensor `(channels,)`."""
        return self.rate * self.scaled_log_sigma

    def noise_to_signal(self):
        """`log alpha = log(sigma^2 / mu^2)`, tensor `(channels,)`."""
        return 2.0 * self.log_sigma - ops.log(ops.square(self.mu) + EPSILON)

    def divergence(self):
        """Upper bound of the information that each channel passes, in nats,
        tensor `(channels,)`: `log(1 + mu^2 / sigma^2) / 2` (Dai et al. 2018,
        eq. 10), 0 where fixed."""
        ratio = ops.square(self.mu) / (ops.exp(2.0 * self.log_sigma) + EPSILON)
        learning = ops.cast(self.is_learning(), "float32")
        return learning * 0.5 * ops.log1p(ratio)

    def draw(self, batch_size):
        noise = keras.random.normal(
            (batch_size, self.channels), seed=self.seed_generator
        )
        return self.mu + noise * ops.exp(self.log_sigma)

    def inference_factors(self):
        return ops.where(self.noise_to_signal() < self.threshold, self.mu, 0.0)

    def keep_probability(self):
        """1 for alive channels and 0 for dead ones: noise closes no channel."""
        return ops.cast(self.noise_to_signal() < self.threshold, "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "rate": self.rate,
            "initializers": [
                keras.initializers.serialize(x) for x in self.initializers
            ],
        }


def _check_threshold(threshold):
    """Returns the threshold if it is a number above minus infinity."""
    number = isinstance(threshold, int | float | np.number)
    if not number or isinstance(threshold, bool) or not threshold > -np.inf:
        raise ValueError(
            "Invalid threshold. Expected a finite number, or infinity for "
            f"channels that never die. Received: threshold={threshold!r}"
        )
    return threshold
