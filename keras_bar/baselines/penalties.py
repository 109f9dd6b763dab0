"""LZR and IB: methods that prune by a constant penalty on every channel."""

from keras import ops

from keras_bar import selection
from keras_bar.callbacks.checks import check_gates
from keras_bar.callbacks.control import Penalty
from keras_bar.callbacks.gate_regularizer import GateRegularizer
from keras_bar.costs import METRICS
from keras_bar.layers import GaussianGate
from keras_bar.layers import HardConcreteGate


class ChannelRegularizer(GateRegularizer):
    """Prunes a gated model by a penalty on every channel.

    The loss is `strength * sum(w f)` over the channels, `f` being what
    `channel_penalty` says. There is no budget: how small the network becomes
    follows from the strength. When `fit` ends, channels whose factor in
    inference is 0 are closed for good; the network stays connected.

    Logs of every epoch: `volume`, `flops` and `params`, the cost of the network
    if it were compacted now, as fractions of the full cost; and `penalty`.

    Args:
        strength: Positive float, the factor of the loss.
        weight: What the channels are weighted with, `w`: None for 1; a metric,
            `"volume"`, `"flops"` or `"params"`, for what closing a channel
            saves in the full network, in its units; or a function from a gate
            to a number above 0, for a weight of each layer's own. A gate is
            named after what it gates: `conv1_gate`.

    Raises:
        ValueError: If an argument is wrong, or the model has no gates of this
            kind that can learn.
    """

    gate_class: type

    def __init__(self, strength, weight=None):
        super().__init__(steps=None)
        check_strength(strength)
        known = weight is None or callable(weight) or weight in METRICS
        if not known:
            raise ValueError(
                "Unknown weight. Expected None, a function of a gate, or one "
                f"of {', '.join(map(repr, METRICS))}. "
                f"Received: weight={weight!r}"
            )
        self.strength = strength
        self.weight = weight

    def channel_penalty(self, gate):
        """What is to become small, tensor `(channels,)`."""
        raise NotImplementedError

    def check_model(self, cost_model, name):
        if self.weight in METRICS:
            selection.check_known_size(cost_model, self.weight, name)

    def make_control(self, steps):
        model = self._cost_model
        check_gates(model.gates, self.gate_class, type(self).__name__)
        if self.weight in METRICS:
            weights = model.savings(self.weight)
        else:
            weights = {gate: self._weight_of(gate) for gate in model.gates}
        return _Penalty(weights, self.strength, self.channel_penalty)

    def _weight_of(self, gate):
        weight = 1.0 if self.weight is None else self.weight(gate)
        if not selection.is_number(weight) or not 0 < weight < float("inf"):
            raise ValueError(
                f"The weight of {gate.name} is no weight. Expected a finite "
                f"number above 0. Received: {weight!r}"
            )
        return weight


class L0Regularizer(ChannelRegularizer):
    """LZR: a penalty on the number of open gates (Louizos et al. 2018).

    `f = P(z > 0)` (supplement, eq. 5), for a model with Hard Concrete gates:
    `keras_bar.gate(model)`. Louizos et al. weight a channel with the number of
    its weights and divide by the number of training samples; the weight
    `"params"` also counts what reads the channel, and the division is to be
    part of `strength`.

    Args:
        strength, weight: As of `ChannelRegularizer`.
    """

    gate_class = HardConcreteGate

    def channel_penalty(self, gate):
        return gate.probability()


class InformationBottleneckRegularizer(ChannelRegularizer):
    """IB: a penalty on the information that passes (Dai et al. 2018).

    `f = log(1 + mu^2 / sigma^2) / 2`, an upper bound of it in nats, for a
    model with Gaussian gates:
    `keras_bar.gate(model, layer=keras_bar.layers.GaussianGate)`. Dai et al.'s
    layer weights it with the number of positions, the weight `"volume"`; their
    experiments also have a factor per layer, for which give a function.

    Args:
        strength, weight: As of `ChannelRegularizer`.
    """

    gate_class = GaussianGate

    def __init__(self, strength, weight="volume"):
        super().__init__(strength, weight)

    def channel_penalty(self, gate):
        return gate.divergence()


class _Penalty(Penalty):
    """The loss, as `callbacks.gate_regularizer` wants it.

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

    def __call__(self, state):
        return self.strength * sum(
            weight * ops.sum(self.value(gate))
            for gate, weight in self.weights.items()
        )


def check_strength(strength):
    """Raises a ValueError unless it is a positive number."""
    if not selection.is_number(strength) or not 0 < strength < float("inf"):
        raise ValueError(
            "Invalid strength of the penalty. Expected a positive number. "
            f"Received: strength={strength!r}"
        )
