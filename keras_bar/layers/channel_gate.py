"""The base class of gates, which multiply each channel by a factor."""

import keras
import numpy as np
from keras import ops

# Value of `fixed_value` for channels that still learn. No factor is this small.
LEARNING = -1e30

# Key of the saved state of the noise.
_SEED = "seed_generator_state"


class ChannelGate(keras.layers.Layer):
    """Multiplies each channel by a factor, which is random in training.

    Subclasses implement four methods: `add_parameters` adds the weights, `draw`
    and `inference_factors` return the factors, and `keep_probability` returns
    the probability that they are not 0. A channel whose inference factor is 0
    is dead and can be removed. `spread` may replace the factors that several
    tensors are multiplied by.

    Factors are computed in float32 under every dtype policy, and the noise is
    the same on all replicas of a `tf.distribute` strategy.

    Args:
        axis: Integer, the channel axis.
        return_factors: Whether to return `[inputs * z, z]`, so that one gate
            can serve several writers of a residual stream.
        seed: Integer seed of the noise.
        groups: Integer, the number of groups of channels, equally many in
            each, if these share factors, as those of a convolution in groups.
        whole_groups: Boolean; with several groups, True for one factor per
            group, False for one per place in a group, the same in all groups.

    Attributes:
        channels: Integer, the number of factors: that of the channels, unless
            these share factors. Then everything below is per factor.
        factor_index: Integers, the index of the factor of each channel.
        fixed_value: Variable `(channels,)`: the factor of a channel that no
            longer learns, or `LEARNING`.

    Call arguments:
        inputs: Tensor of any rank with a known channel dimension.
        training: Boolean, whether to draw `z`.

    Example:

    >>> class AlwaysOpen(keras_bar.layers.ChannelGate):
    ...     def add_parameters(self):
    ...         pass
    ...     def draw(self, batch_size):
    ...         return keras.ops.ones((self.channels,))
    ...     def inference_factors(self):
    ...         return keras.ops.ones((self.channels,))
    ...     def keep_probability(self):
    ...         return keras.ops.ones((self.channels,))
    >>> gate = AlwaysOpen()
    >>> gate(np.ones((1, 3))).shape[-1]
    3
    """

    # Whether each sample of a batch has its own factors.
    draws_per_sample = False

    def __init__(
        self,
        axis: int = -1,
        return_factors: bool = False,
        seed: int | None = None,
        groups: int = 1,
        whole_groups: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.axis = axis
        self.return_factors = return_factors
        self.groups = groups
        self.whole_groups = whole_groups
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
        if self.groups < 1 or channels % self.groups:
            raise ValueError(
                "The channels do not form groups of equal size. Expected a "
                f"divisor of their number, {channels}. "
                f"Received: groups={self.groups}"
            )
        each = channels // self.groups
        self.factor_index = np.arange(channels)
        if self.groups > 1:
            place = self.factor_index // each, self.factor_index % each
            self.factor_index = place[0 if self.whole_groups else 1]
        self.channels = int(self.factor_index.max(initial=-1)) + 1
        self.add_parameters()
        self.fixed_value = self.add_variable(
            "fixed_value", keras.initializers.Constant(LEARNING)
        )

    def add_parameters(self):
        """Adds the weights that determine the factors."""
        raise NotImplementedError

    def draw(self, batch_size):
        """Random factors of learning channels, tensor `(channels,)`, or
        `(batch_size, channels)` with `draws_per_sample`."""
        raise NotImplementedError

    def inference_factors(self):
        """Inference factors of learning channels, tensor `(channels,)`."""
        raise NotImplementedError

    def keep_probability(self):
        """`P(z != 0)` of learning channels, tensor `(channels,)`."""
        raise NotImplementedError

    def driven_variables(self):
        """List of the variables that a regularizer sets during training."""
        return []

    def reset_drive(self):
        """Resets the driven variables, so that only weights drive the gate."""

    def add_variable(self, name, initializer, trainable=False, **kwargs):
        """Adds a float32 variable, of shape `(channels,)` by default."""
        return self.add_weight(
            **{"shape": (self.channels,), **kwargs},
            initializer=initializer,
            dtype="float32",
            trainable=trainable,
            autocast=False,
            name=name,
        )

    def call(self, inputs, training=False):
        if training:
            z = self.sample(ops.shape(inputs)[0])
            if self.return_factors:
                z = self.spread(z, ops.shape(inputs)[0])
        else:
            z = self.deterministic()
        view = self._view(inputs)
        axis = self.factor_axis(len(view.shape))
        factors = self._shaped(z, view, axis)
        outputs = self.multiply(view, factors, training)
        if self.groups > 1:
            outputs = ops.reshape(outputs, ops.shape(inputs))
        if not self.return_factors:
            return outputs
        if self.groups > 1:
            z = ops.take(z, self.factor_index, axis=-1)
            factors = self._shaped(z, inputs, self.axis)
        return [outputs, factors]

    def spread(self, z, batch_size):
        """Factors of a training step that several tensors are multiplied by,
        like those of `sample`; a subclass may return them for every sample."""
        return z

    def _shaped(self, z, like, axis):
        """Factors along an axis of a tensor."""
        shape = [1] * len(like.shape)
        shape[axis] = z.shape[-1]
        if len(z.shape) == 2:
            shape[0] = -1
        return ops.cast(ops.reshape(z, shape), like.dtype)

    def _view(self, inputs):
        """The inputs with an axis whose entries have a factor each."""
        if self.groups == 1:
            return inputs
        axis = self.axis % len(inputs.shape)
        shape = list(ops.shape(inputs))
        shape[axis : axis + 1] = [self.groups, shape[axis] // self.groups]
        return ops.reshape(inputs, shape)

    def multiply(self, inputs, factors, training):
        """Returns the product, tensor like `inputs`. Where channels share
        factors, their axis has been split in two."""
        return inputs * factors

    def factor_axis(self, rank):
        """Index of the axis of the factors in what `multiply` gets, a tensor of
        `rank` dimensions."""
        if self.groups == 1:
            return self.axis % rank
        return self.axis % (rank - 1) + (not self.whole_groups)

    @property
    def shared_by(self) -> int:
        """How many channels share a factor."""
        return len(self.factor_index) // self.channels

    def sample(self, batch_size=1):
        """Draws the factors, tensor `(channels,)`, or `(batch_size, channels)`
        with `draws_per_sample`."""
        return self._unless_fixed(self.draw(batch_size))

    def deterministic(self):
        """The factors in inference, tensor `(channels,)`."""
        return self._unless_fixed(self.inference_factors())

    def probability(self):
        """`P(z != 0)`, tensor `(channels,)`; 0 or 1 where fixed."""
        fixed = ops.convert_to_tensor(self.fixed_value)
        alive = ops.cast(fixed != 0.0, "float32")
        return ops.where(fixed == LEARNING, self.keep_probability(), alive)

    def alive(self) -> np.ndarray:
        """Whether each channel is alive, NumPy booleans `(channels,)`."""
        return _is_alive(ops.convert_to_numpy(self.deterministic()))

    def set_alive(
        self, mask: np.ndarray, opened: float | np.ndarray = 1.0
    ) -> None:
        """Closes and opens channels permanently.

        An open channel keeps its deterministic factor.

        Args:
            mask: Booleans `(channels,)`, True for alive.
            opened: Float or floats `(channels,)`, the factor of reopened
                channels.
        """
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.channels,):
            raise ValueError(
                "The mask does not fit the gate. Expected booleans of shape "
                f"({self.channels},). Received: dtype={mask.dtype}, "
                f"shape={mask.shape}"
            )
        z = ops.convert_to_numpy(self.deterministic())
        factors = np.where(_is_alive(z), z, opened)
        self.fixed_value.assign(np.where(mask, factors, 0.0))

    def fix(self) -> None:
        """Fixes every channel at its deterministic factor."""
        self.fixed_value.assign(self.fixed_factors())

    def fixed_factors(self) -> np.ndarray:
        """The factors at which `fix` fixes the channels, NumPy floats
        `(channels,)`."""
        factors = ops.convert_to_numpy(self.deterministic())
        return np.where(_is_alive(factors), factors, 0.0)

    def channels_by_factor(self) -> np.ndarray:
        """The channels of each factor, integers `(channels, each)`."""
        order = np.argsort(self.factor_index, kind="stable")
        return order.reshape(self.channels, -1)

    def fixed_channel_factors(self) -> np.ndarray:
        """Like `fixed_factors`, for every channel of the input."""
        return self.fixed_factors()[self.factor_index]

    @property
    def is_fixed(self) -> bool:
        """Whether all channels are fixed."""
        return bool(np.all(self.fixed_value.numpy() != LEARNING))

    def is_learning(self):
        """Whether each channel still learns, boolean tensor `(channels,)`."""
        return ops.convert_to_tensor(self.fixed_value) == LEARNING

    def _unless_fixed(self, z):
        fixed = ops.convert_to_tensor(self.fixed_value)
        return ops.where(fixed == LEARNING, z, fixed)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Keras saves no seeds; a resumed training needs the state of the noise.
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
        # The factors have one entry along this axis, but with a 1 here Keras
        # would infer a batch size of 1 for every product with them.
        factors[0] = input_shape[0]
        return [input_shape, tuple(factors)]

    def get_config(self):
        return {
            **super().get_config(),
            "axis": self.axis,
            "return_factors": self.return_factors,
            "seed": self.seed,
            "groups": self.groups,
            "whole_groups": self.whole_groups,
        }


def _is_alive(factors):
    """Whether each factor is a finite number other than 0."""
    return np.isfinite(factors) & (factors != 0.0)


def check_rate(rate):
    """Returns the rate of a gate if it is a finite positive number."""
    if not 0 < rate < float("inf"):
        raise ValueError(
            "Invalid rate. Expected a finite number above 0. "
            f"Received: rate={rate!r}"
        )
    return rate


def seeded(initializer, seed):
    """Gives an initializer the seed `seed` if it has none, so that gates that
    share a user's initializer differ."""
    initializer = keras.initializers.get(initializer)
    config = initializer.get_config()
    if config.get("seed", seed) is not None:
        return initializer
    return type(initializer).from_config({**config, "seed": seed})
