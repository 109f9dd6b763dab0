"""A learnable factor per channel that can become exactly zero."""

import keras
import numpy as np
from keras import ops

from keras_bar import hard_concrete

# Marks, in `fixed_value`, a channel that still learns.
LEARNING = -1.0

# Where the state of the noise is saved.
_SEED = "seed_generator_state"


def multiply_observed(x, z, axis):
    """`x * z`, with a backward pass that also tells how important channels are.

    The importance of a channel in a batch is the sum over samples of
    `(sum over positions of x z dL/d(x z))^2`: with `L` a mean over samples it
    estimates, up to a factor common to all channels, the loss expected from
    closing it (the Fisher approximation: Molchanov et al. 2017, Theis et al.
    2018). It must be squared per sample: behind a gate that a batch
    normalization follows, the sum over the batch is 0, since scaling the whole
    channel changes nothing.

    Args:
        x: Tensor `(batch, ...)` with channels along `axis`.
        z: Factors, of size 1 along all other axes.
        axis: Non-negative integer, the channel axis.

    Returns:
        The product; and its gradient function for `x`, `z` and the observed
        importance `(channels,)`, as `keras.ops.custom_gradient` expects.
    """
    positions = [i for i in range(1, len(x.shape)) if i != axis]

    def gradients(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        # Half precision would overflow, or lose small gradients to 0.
        products = ops.cast(upstream, "float32") * ops.cast(x, "float32")
        per_sample = (
            ops.sum(products, axis=positions) if positions else products
        )
        slopes = ops.sum(per_sample, axis=0)
        flat = ops.cast(ops.reshape(z, (-1,)), "float32")
        seen = ops.square(flat) * ops.sum(ops.square(per_sample), axis=0)
        return (
            upstream * z,
            ops.cast(ops.reshape(slopes, z.shape), z.dtype),
            seen,
        )

    return x * z, gradients


@keras.saving.register_keras_serializable("keras_bar")
class HardConcreteGate(keras.layers.Layer):
    """Multiplies every channel by a Hard Concrete random variable.

    In training one factor `z` per channel is drawn for the whole batch
    (supplement, eq. 4); it is exactly 0 or exactly 1 with positive
    probability. In inference the factor is the same formula at `u = 1/2`. A
    channel whose factor is 0 then is dead and can be removed.

    Everything is computed in float32 under every dtype policy, and the noise
    is the same on all replicas of a `tf.distribute` strategy.

    Args:
        axis: Integer, the channel axis.
        initializer: Initializer of `log_alpha`. By default uniform in
            [0, 0.01] (supplement, section 4).
        return_factors: Whether to return `[inputs * z, z]`, so that one gate
            can serve several writers of a residual stream.
        seed: Integer seed of the noise.

    Attributes:
        log_alpha: Trainable variable `(channels,)`, float32.
        slope, offset: Variables, a scalar and `(channels,)`, by which a budget
            sharpens and pushes the gate: the Hard Concrete's parameter is
            `slope * log_alpha + offset`. 1 and 0 unless a
            `BudgetRegularizer` drives them.
        observation: Variable `(channels,)`: the importance of the channels
            seen in the last training step, 0 where `z` was 0; see
            `multiply_observed`.
        importance: Variable `(channels,)`: its running mean, kept by a
            `BudgetRegularizer`.
        fixed_value: Variable `(channels,)`: the factor of a channel that no
            longer learns, -1 for one that does.

    Call arguments:
        inputs: Tensor of any rank with a known channel dimension.
        training: Boolean, whether to draw `z`.
    """

    def __init__(
        self,
        axis=-1,
        initializer=None,
        return_factors=False,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.axis = axis
        self.initializer = keras.initializers.get(
            initializer
            or keras.initializers.RandomUniform(0.0, 0.01, seed=seed)
        )
        self.return_factors = return_factors
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape):
        if not -len(input_shape) <= self.axis < len(input_shape):
            raise ValueError(
                "The channel axis lies outside of the input. "
                f"Expected an axis of a tensor of shape {tuple(input_shape)}. "
                f"Received: axis={self.axis}"
            )
        channels = input_shape[self.axis]
        if channels is None:
            raise ValueError(
                "A gate needs to know its number of channels. Expected an "
                f"input with a known size along axis {self.axis}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.log_alpha = self._add(
            "log_alpha", (channels,), self.initializer, trainable=True
        )
        self.slope = self._add("slope", (), "ones")
        self.offset = self._add("offset", (channels,), "zeros")
        self.importance = self._add("importance", (channels,), "zeros")
        # What the backward pass sees is handed over as a "gradient" that the
        # optimizer stores, as it does for the scales of float8 training.
        # Replicas store the mean of theirs.
        self.observation = self._add(
            "observation",
            (channels,),
            "zeros",
            trainable=True,
            overwrite_with_gradient=True,
            aggregation="mean",
        )
        self.fixed_value = self._add(
            "fixed_value",
            (channels,),
            keras.initializers.Constant(LEARNING),
        )

    def _add(self, name, shape, initializer, trainable=False, **kwargs):
        return self.add_weight(
            shape=shape,
            initializer=initializer,
            dtype="float32",
            trainable=trainable,
            autocast=False,
            name=name,
            **kwargs,
        )

    def call(self, inputs, training=False):
        z = self.sample() if training else self.deterministic()
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        factors = ops.cast(ops.reshape(z, shape), inputs.dtype)
        if training:
            outputs = self._multiply_observed(inputs, factors)
        else:
            outputs = inputs * factors
        return [outputs, factors] if self.return_factors else outputs

    def _multiply_observed(self, inputs, factors):
        axis = self.axis % len(inputs.shape)
        multiply = ops.custom_gradient(
            lambda x, z, observation: multiply_observed(x, z, axis)
        )
        return multiply(
            inputs, factors, ops.convert_to_tensor(self.observation)
        )

    def location(self):
        """The Hard Concrete's `log alpha` in force, tensor `(channels,)`."""
        # A copy, since PyTorch differentiates with what was read here, after
        # a budget has assigned the next step's slope in place.
        return ops.copy(self.slope) * self.log_alpha + self.offset

    def sample(self):
        """Draws the factors, tensor `(channels,)` in [0, 1]."""
        z = hard_concrete.sample(self.location(), seed=self.seed_generator)
        return self._unless_fixed(z)

    def deterministic(self):
        """The factors of inference, tensor `(channels,)` in [0, 1]."""
        return self._unless_fixed(hard_concrete.deterministic(self.location()))

    def probability(self):
        """`P(z > 0)`, tensor `(channels,)`; 0 or 1 where fixed."""
        fixed = ops.convert_to_tensor(self.fixed_value)
        p = hard_concrete.probability_alive(self.location())
        return ops.where(fixed >= 0.0, ops.cast(fixed > 0.0, "float32"), p)

    def alive(self):
        """Which channels live: NumPy booleans `(channels,)`."""
        return ops.convert_to_numpy(self.deterministic()) > 0.0

    def mean(self):
        """Expected factors under the noise: NumPy floats `(channels,)`."""
        return ops.convert_to_numpy(
            self._unless_fixed(hard_concrete.mean(self.location()))
        )

    def set_alive(self, mask, opened=1.0):
        """Closes and opens channels for good.

        An open channel keeps its deterministic factor.

        Args:
            mask: Booleans `(channels,)`, True for alive.
            opened: Float or floats `(channels,)`, the factor at which one that
                was dead is opened.
        """
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != tuple(self.log_alpha.shape):
            raise ValueError(
                "The mask does not fit the gate. Expected booleans of shape "
                f"{tuple(self.log_alpha.shape)}. Received: dtype={mask.dtype}, "
                f"shape={mask.shape}"
            )
        z = ops.convert_to_numpy(self.deterministic())
        self.fixed_value.assign(np.where(mask, np.where(z > 0, z, opened), 0.0))

    def fix(self):
        """Fixes every channel at its deterministic factor."""
        self.set_alive(self.alive())

    @property
    def is_fixed(self):
        """Whether no channel learns any more."""
        return bool(np.all(self.fixed_value.numpy() >= 0.0))

    def _unless_fixed(self, z):
        fixed = ops.convert_to_tensor(self.fixed_value)
        return ops.where(fixed >= 0.0, fixed, z)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Keras saves no seeds; a resumed training needs the noise to go on.
        store[_SEED] = self.seed_generator.state.numpy()

    def load_own_variables(self, store):
        weights = {x: store[x] for x in set(store.keys()) - {_SEED}}
        super().load_own_variables(weights)
        if len(weights) < len(store.keys()):
            self.seed_generator.state.assign(store[_SEED])

    def compute_output_shape(self, input_shape):
        if not self.return_factors:
            return input_shape
        factors = [1] * len(input_shape)
        factors[self.axis] = input_shape[self.axis]
        return [input_shape, tuple(factors)]

    def get_config(self):
        return {
            **super().get_config(),
            "axis": self.axis,
            "initializer": keras.initializers.serialize(self.initializer),
            "return_factors": self.return_factors,
            "seed": self.seed,
        }
