"""A learnable factor per channel that can become exactly zero."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bar import hard_concrete
from keras_bar.layers.channel_gate import ChannelGate
from keras_bar.layers.channel_gate import check_rate
from keras_bar.layers.channel_gate import seeded

# Functions of the inference factors, by name.
INFERENCE: dict[str, Callable] = {
    "median": hard_concrete.deterministic,
    "mean": hard_concrete.mean_where_open,
    "louizos": hard_concrete.without_temperature,
}


def check_inference(inference):
    """Raises a ValueError for an unknown inference factor."""
    if inference not in INFERENCE:
        raise ValueError(
            "Unknown inference factor. Expected one of "
            f"{', '.join(map(repr, INFERENCE))}. "
            f"Received: inference={inference!r}"
        )


def multiply_observed(x, z, axis, samples=None):
    """`x * z`, with a backward pass that also estimates channel importance.

    The importance of a channel in a batch is the sum over samples of
    `(sum over positions of x z dL/d(x z))^2`: with `L` a mean over samples it
    estimates, up to a factor common to all channels, the loss expected from
    closing it (the Fisher approximation: Molchanov et al. 2017, Theis et al.
    2018). It must be squared per sample: behind a gate that a batch
    normalization follows, the sum over the batch is 0, since scaling the whole
    channel changes nothing.

    The gradient for `x` is always exact. Those for `z` and the importance are a
    few numbers per channel, for which a part of a large batch suffices. Nothing
    else needs the activations in the backward pass: they are not kept.

    Args:
        x: Tensor `(batch, ...)` with channels along `axis`.
        z: Factors, of size 1 along all other axes.
        axis: Non-negative integer, the channel axis.
        samples: Integer, about how many samples of a batch of more than four
            times as many the gradient for `z` and the importance see; or None
            for all.

    Returns:
        The product; and its gradient function for `x`, `z` and the observed
        importance `(channels,)`, as `keras.ops.custom_gradient` expects.
    """
    positions = [i for i in range(1, len(x.shape)) if i != axis]
    size, stride, seen = ops.shape(x)[0], 1, x
    if samples is not None:
        stride = stride_of(size, samples)
        seen = _every(stride, x)
    if seen is not x:
        seen = _computed_now(seen)

    def gradients(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        # Half precision would overflow, or lose small gradients to 0.
        products = ops.cast(seen, "float32") * ops.cast(
            _every(stride, upstream), "float32"
        )
        slopes = ops.sum(products, axis=positions) if positions else products
        slope, importance = _observe(z, slopes, size, samples)
        return (
            upstream * z,
            ops.cast(ops.reshape(slope, z.shape), z.dtype),
            importance,
        )

    return x * z, gradients


def spread_observed(z, size, samples=None):
    """Factors repeated for every sample, with a backward pass that estimates
    channel importance like that of `multiply_observed`.

    All tensors that are multiplied by them count together, such as those that
    are added to a residual stream: closing a channel closes it in all of them.
    The sums over positions are those of ordinary products, in the precision of
    these tensors, which are kept for the backward pass.

    Args:
        z: Tensor `(channels,)`.
        size: Integer or integer tensor, the number of samples.
        samples: See `multiply_observed`.

    Returns:
        Tensor `(size, channels)`; and its gradient function for `z` and the
        observed importance `(channels,)`.
    """

    def gradients(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        slopes = upstream
        if samples is not None:
            slopes = _every(stride_of(size, samples), upstream)
        return _observe(z, slopes, size, samples)

    return ops.broadcast_to(z, (size, z.shape[0])), gradients


def stride_of(size, samples):
    """The stride at which about a number of samples of a batch are seen."""
    # Odd, because the first axis may be that of the windows of images, whose
    # number is even: not all seen are at the same place.
    return 4 * ((size - 1) // (4 * samples)) + 1


def _observe(z, slopes, size, samples):
    """The gradient for factors and the importance of their channels.

    Args:
        z: Tensor with `channels` entries.
        slopes: Tensor `(seen, channels)`, the derivative for the factors in
            every sample that is seen.
        size: The number of samples of the batch.
        samples: See `multiply_observed`.

    Returns:
        Two tensors `(channels,)`.
    """
    if samples is not None:
        # As if these samples were the batch, of which the loss is a mean.
        count = ops.cast(ops.shape(slopes)[0], "float32")
        slopes = slopes * (ops.cast(size, "float32") / count)
    flat = ops.cast(ops.reshape(z, (-1,)), "float32")
    # One sum for both: XLA would merge a sum of the slopes with that over the
    # positions, and read the activations twice.
    terms = ops.stack([slopes, ops.square(flat * slopes)])
    slope, importance = ops.unstack(ops.sum(terms, axis=1), num=2)
    return slope, importance


def _every(stride, x):
    """Every `stride`-th entry of a tensor's first axis."""
    if isinstance(stride, int) and stride == 1:
        return x
    # TensorFlow forgets the rank if the stride is a tensor.
    return ops.reshape(x[::stride], (-1, *ops.shape(x)[1:]))


def _computed_now(x):
    """Returns `x`. XLA would slice it in the backward pass, and until then keep
    the tensor that it is a slice of."""
    if keras.backend.backend() != "jax":
        return x
    import jax

    return jax.lax.optimization_barrier(x)


@keras.saving.register_keras_serializable("keras_bar")
class HardConcreteGate(ChannelGate):
    """Multiplies every channel by a Hard Concrete random variable.

    In training one factor `z` per channel is drawn for the whole batch
    (supplement, eq. 4); it is exactly 0 or exactly 1 with positive
    probability. The inference factor is by default the same formula at
    `u = 1/2`. A channel whose inference factor is 0 is dead and can be removed.

    Everything is computed in float32 under every dtype policy, and the noise
    is the same on all replicas of a `tf.distribute` strategy.

    Args:
        axis: Integer, the channel axis.
        initializer: Initializer of `log alpha`. By default uniform in
            [0, 0.01] (supplement, section 4).
        return_factors: Whether to return `[inputs * z, z]`, so that one gate
            can serve several writers of a residual stream, whose channels it
            observes in all of them. In training `z` then has a row for every
            sample, all of which are equal.
        seed: Integer seed of the noise, and of an initializer without one.
        rate: Float above 0, the speed of the gate relative to the optimizer's
            steps, for trainings that are too short for these. A
            `BudgetRegularizer` sets the slope itself and needs no rate.
        inference: String, the inference factor. `"median"` is the formula at
            `u = 1/2`, which is near 0 just above the point where the gate
            closes. `"mean"` is `E[z]`, the mean that batch normalization has
            seen, and 0 where the median is 0. `"louizos"` is the factor of
            Louizos et al., 2018, `clip(1.2 sigmoid(log_alpha) - 0.1, 0, 1)`,
            which closes later. Defaults to `"median"`.
        **kwargs: Further arguments of `ChannelGate`, such as `groups`, and of
            `keras.layers.Layer`.

    Attributes:
        log_alpha: Trainable variable `(channels,)`, float32.
        slope: Scalar variable, by which a budget sharpens the gate: the Hard
            Concrete's parameter is `slope * log_alpha + offset`. It is `rate`
            unless a `BudgetRegularizer` drives it.
        offset: Variable `(channels,)`, by which a budget pushes the gate. It
            is 0 unless a `BudgetRegularizer` drives it.
        observation: Variable `(channels,)`: the importance of the channels
            seen in the last training step, 0 where `z` was 0; see
            `multiply_observed`.
        importance: Variable `(channels,)`: its running mean, kept by a
            `BudgetRegularizer`.
        observed_samples: Integer, about how many samples of a batch of more
            than four times as many `log_alpha` learns from and the importance
            is estimated from; or None for all. A `BudgetRegularizer` sets it.
        channels: See `ChannelGate`.
        fixed_value: Variable `(channels,)`: the factor of a channel that no
            longer learns, `channel_gate.LEARNING` for one that does.

    Call arguments:
        inputs: Tensor of any rank with a known channel dimension.
        training: Boolean, whether to draw `z`.

    Example:

    >>> gate = keras_bar.layers.HardConcreteGate(seed=0)
    >>> outputs = gate(np.ones((2, 8, 8, 4)))
    >>> _ = gate.log_alpha.assign([-3.0, 0.0, 0.0, 3.0])
    >>> gate.alive().tolist()
    [False, True, True, True]
    >>> gate.set_alive(np.array([False, False, True, True]))  # For good.
    >>> keras.ops.convert_to_numpy(gate.probability()).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        axis: int = -1,
        initializer: Any = None,
        return_factors: bool = False,
        seed: int | None = None,
        rate: float = 1.0,
        inference: str = "median",
        **kwargs,
    ):
        super().__init__(axis, return_factors, seed, **kwargs)
        self.rate = check_rate(rate)
        check_inference(inference)
        self.inference = inference
        self.observed_samples = None
        self.initializer = seeded(
            initializer or keras.initializers.RandomUniform(0.0, 0.01), seed
        )

    def add_parameters(self):
        self.log_alpha = self.add_variable(
            "log_alpha",
            lambda shape, dtype: self.initializer(shape, dtype) / self.rate,
            trainable=True,
        )
        slope = keras.initializers.Constant(self.rate)
        self.slope = self.add_variable("slope", slope, shape=())
        self.offset = self.add_variable("offset", "zeros")
        self.importance = self.add_variable("importance", "zeros")
        # The backward pass hands its observation over as a "gradient" that the
        # optimizer stores, as it does for the scales of float8 training. The
        # sum over the replicas is stored, as on one device.
        self.observation = self.add_variable(
            "observation",
            "zeros",
            trainable=True,
            overwrite_with_gradient=True,
            aggregation="sum",
        )

    def multiply(self, inputs, factors, training):
        # Factors that several tensors are multiplied by are observed at once.
        if not training or self.return_factors:
            return inputs * factors
        axis = self.factor_axis(len(inputs.shape))
        multiply = ops.custom_gradient(
            lambda x, z, observation: multiply_observed(
                x, z, axis, self.observed_samples
            )
        )
        return multiply(
            inputs, factors, ops.convert_to_tensor(self.observation)
        )

    def spread(self, z, batch_size):
        spread = ops.custom_gradient(
            lambda z, observation: spread_observed(
                z, batch_size, self.observed_samples
            )
        )
        return spread(z, ops.convert_to_tensor(self.observation))

    def driven_variables(self):
        return [self.slope, self.offset, self.importance]

    def reset_drive(self):
        self.slope.assign(self.rate)
        self.offset.assign(ops.zeros((self.channels,)))
        self.observed_samples = None

    def location(self):
        """The Hard Concrete's `log alpha` in force, tensor `(channels,)`."""
        # A copy, because PyTorch's backward pass uses the value read here after
        # a budget has assigned the next step's slope in place.
        return ops.copy(self.slope) * self.log_alpha + self.offset

    def draw(self, batch_size):
        return hard_concrete.sample(self.location(), seed=self.seed_generator)

    def inference_factors(self):
        return INFERENCE[self.inference](self.location())

    def keep_probability(self):
        return hard_concrete.probability_alive(self.location())

    def mean(self) -> np.ndarray:
        """Expected factors under the noise: NumPy floats `(channels,)`."""
        return ops.convert_to_numpy(
            self._unless_fixed(hard_concrete.mean(self.location()))
        )

    def get_config(self):
        return {
            **super().get_config(),
            "initializer": keras.initializers.serialize(self.initializer),
            "rate": self.rate,
            "inference": self.inference,
        }
