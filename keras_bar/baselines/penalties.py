"""LZR and IB: pruning by a constant penalty on each channel."""

from collections.abc import Callable

from keras import ops

from keras_bar.budget import selection
from keras_bar.budget.controls import Penalty
from keras_bar.budget.gate_regularizer import GateRegularizer
from keras_bar.budget.validation import check_gates
from keras_bar.costs import METRICS
from keras_bar.costs import is_object
from keras_bar.layers import ChannelGate
from keras_bar.layers import GaussianGate
from keras_bar.layers import HardConcreteGate

# Steps in which gates of LZR and IB get anywhere at their own pace, half of the
# paper's; and how much faster they move at most where there are fewer.
ENOUGH, FASTEST = 31_250, 10.0


def gate_rate(steps: int) -> float:
    """Returns how much faster gates should move in a short training.

    Adam moves gates by 1e-3 in each step, and those of IB begin 9 away from
    where they close. The paper trains for 62,500 steps; with less than half of
    that most gates do not find their place, whatever the strength.

    Args:
        steps: Integer, training steps of the pruning.

    Returns:
        Float in [1, 10], the `rate` of gates.

    Example:

    >>> from keras_bar import baselines
    >>> rate = baselines.gate_rate(6250)
    >>> rate
    5.0
    >>> layer = keras_bar.layers.GaussianGate(rate=rate)
    """
    return min(max(ENOUGH / steps, 1.0), FASTEST)


class ChannelRegularizer(GateRegularizer):
    """Prunes a gated model by a penalty on each channel.

    The loss is `strength * sum(w f)` over the channels, where `channel_penalty`
    defines `f`. There is no budget: the strength determines the size of the
    network. When `fit` ends, channels whose factor in inference is 0 are closed
    permanently; the network stays connected.

    Each epoch logs `volume`, the cost of the network if it were compacted now,
    as a fraction of the full cost; and `penalty`, the added loss. With
    `log_all=True` it also logs `flops` and `params`.

    Args:
        strength: Positive float, the factor of the loss.
        weight: Weight `w` of a channel: None for 1; or a metric, `"volume"`,
            `"flops"` or `"params"`, for the cost in its units that closing the
            channel saves in the full network.
        factor: Function from a gate to a positive factor of the weight of its
            channels; or None. A gate is named after the layer that it gates,
            such as `conv1_gate`, and has an attribute `channels`.
        log_all: Boolean, whether to log all entries. Defaults to False.

    Raises:
        ValueError: If an argument is wrong, or the model has no gates of this
            kind that can learn.
    """

    gate_class: type

    def __init__(
        self,
        strength: float,
        weight: str | None = None,
        factor: Callable[[ChannelGate], float] | None = None,
        log_all: bool = False,
    ):
        super().__init__(steps=None, log_all=log_all)
        check_strength(strength)
        known = weight in (None, *METRICS) or is_object(weight)
        if not known:
            raise ValueError(
                "Unknown weight. Expected None, one of "
                f"{', '.join(map(repr, METRICS))}, or a `keras_bar.Latency`. "
                f"Received: weight={weight!r}"
            )
        if factor is not None and not callable(factor):
            raise ValueError(
                "Invalid factor. Expected None or a function of a gate. "
                f"Received: factor={factor!r}"
            )
        self.strength = strength
        self.weight = weight
        self.factor = factor

    def channel_penalty(self, gate):
        """The penalty `f` of each channel, tensor `(channels,)`."""
        raise NotImplementedError

    def check_model(self, cost_model, name):
        if self.weight is not None:
            selection.check_known_size(cost_model, self.weight, name)

    def make_control(self, steps):
        model = self._cost_model
        check_gates(model.gates, self.gate_class, type(self).__name__)
        weights = dict.fromkeys(model.gates, 1.0)
        if self.weight is not None:
            weights = model.savings(self.weight)
        factor = self.factor
        if factor is not None:
            weights = {
                g: _checked_factor(factor(g), g) * w for g, w in weights.items()
            }
        return _Penalty(weights, self.strength, self.channel_penalty)


class L0Regularizer(ChannelRegularizer):
    """LZR: a penalty on the number of open gates (Louizos et al. 2018).

    `f = P(z > 0)` (supplement, eq. 5), for a model with Hard Concrete gates:
    `keras_bar.gate(model)`. Louizos et al. weight a channel by the number of
    its weights and divide by the number of training samples. Here the weight
    `"params"` also counts the weights that read the channel, and `strength`
    must include the division.

    Args:
        strength: Positive float, the factor of the loss.
        weight: See `ChannelRegularizer`.
        factor: See `ChannelRegularizer`.
        log_all: See `ChannelRegularizer`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.BatchNormalization(),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model, seed=0)
    >>> student.compile("adam", "mse")
    >>> x, y = np.ones((16, 8, 8, 1)), np.zeros((16, 2))
    >>> regularizer = keras_bar.baselines.L0Regularizer(strength=0.01)
    >>> history = student.fit(x, y, verbose=0, callbacks=[regularizer])
    >>> small = keras_bar.compact(student)
    """

    gate_class = HardConcreteGate

    def channel_penalty(self, gate):
        return gate.probability()


class InformationBottleneckRegularizer(ChannelRegularizer):
    """IB: a penalty on the information that a channel passes (Dai et al. 2018).

    `f = log(1 + mu^2 / sigma^2) / 2`, an upper bound of it in nats, for a
    model with Gaussian gates:
    `keras_bar.gate(model, layer=keras_bar.layers.GaussianGate)`. Dai et al.'s
    layer weights it by the number of positions, which is the weight `"volume"`.
    Most of their experiments also have a factor per layer, the reciprocal width
    of the image at that layer.

    Args:
        strength: Positive float, the factor of the loss.
        weight: See `ChannelRegularizer`.
        factor: See `ChannelRegularizer`.
        log_all: See `ChannelRegularizer`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.BatchNormalization(),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model, layer=keras_bar.layers.GaussianGate)
    >>> student.compile("adam", "mse")
    >>> x, y = np.ones((16, 8, 8, 1)), np.zeros((16, 2))
    >>> regularizer = keras_bar.baselines.InformationBottleneckRegularizer(1e-3)
    >>> history = student.fit(x, y, verbose=0, callbacks=[regularizer])
    >>> small = keras_bar.compact(student)
    """

    gate_class = GaussianGate

    def __init__(
        self,
        strength: float,
        weight: str | None = "volume",
        factor: Callable[[ChannelGate], float] | None = None,
        log_all: bool = False,
    ):
        super().__init__(strength, weight, factor, log_all)

    def channel_penalty(self, gate):
        return gate.divergence()


class _Penalty(Penalty):
    """The loss as a control of `GateRegularizer`.

    Args:
        weights: Dict from gate to float.
        strength: Float.
        value: Function from gate to tensor `(channels,)`.
    """

    def __init__(self, weights, strength, value):
        super().__init__(weights)
        self.weights = weights
        self.strength = strength
        self.value = value

    def __call__(self, state, is_new=True):
        return self.strength * sum(
            weight * ops.sum(self.value(gate))
            for gate, weight in self.weights.items()
        )


def _checked_factor(factor, gate):
    if not selection.is_number(factor) or not 0 < factor < float("inf"):
        raise ValueError(
            f"Invalid factor of {gate.name!r}. Expected a finite number "
            f"above 0. Received: {factor!r}"
        )
    return factor


def check_strength(strength):
    """Raises a ValueError unless it is a positive number."""
    if not selection.is_number(strength) or not 0 < strength < float("inf"):
        raise ValueError(
            "Invalid strength of the penalty. Expected a positive number. "
            f"Received: strength={strength!r}"
        )
