"""MorphNet: shrinks by the scales of batch normalization, then expands.

Gordon et al. 2018, "MorphNet: Fast & Simple Resource-Constrained Structure
Learning of Deep Networks". The three steps are

    student = keras_bar.gate(
        model, connectivity="regular", layer=keras_bar.layers.MarkerGate
    )
    student.fit(..., callbacks=[MorphNetRegularizer(1e-8, "flops")])
    seed = keras_bar.compact(student)
    wider = expand(seed, keras_bar.measure_cost(model).flops / 4, "flops")
    wider.fit(...)
"""

from keras import ops

from keras_bar.baselines.neighbours import find_neighbours
from keras_bar.baselines.penalties import check_strength
from keras_bar.budget import selection
from keras_bar.budget.controls import Penalty
from keras_bar.budget.gate_regularizer import GateRegularizer
from keras_bar.budget.validation import check_gates
from keras_bar.layers import MarkerGate


class MorphNetRegularizer(GateRegularizer):
    """Shrinks a network by a penalty on its batch normalizations' scales.

    If `A_i` and `B_j` indicate which inputs and outputs of a layer are alive,
    the layer's cost is `C sum(A) sum(B)`, and its penalty (Gordon et al. 2018,
    eq. 3)

        C (sum|gamma_i| sum(B_j) + sum(A_i) sum|gamma_j|):

    the weight of a channel's `|gamma|` is the cost that closing the channel
    would save now. The penalty is the gradient of the cost, so it applies to
    every metric and every graph that `keras_bar.measure_cost` supports. If
    several normalizations scale a channel, as in a residual stream with its
    writers and readers, the largest `|gamma|` counts. When `fit` ends, channels
    whose `|gamma|` is below the threshold are closed. The last channel of a
    layer that keeps the network connected stays open, without a penalty.

    The network shrinks with every epoch. Gordon et al. do not specify when to
    stop; `until` stops at a given size.

    The logs are those of `keras_bar.callbacks.BudgetRegularizer`, without the
    budget; `penalty` is `strength` times the cost of the alive channels.

    Args:
        strength: Positive float, the factor of the penalty, per unit of the
            metric.
        metric: `"volume"` (scalar activations), `"flops"`, `"params"` or
            `"memory"`.
        threshold: Positive float; channels with a larger `|gamma|` are alive.
        until: Float in (0, 1); `fit` ends after the first epoch with at most
            this fraction of the full cost. None runs all epochs.
        log_all: Boolean, whether to log all entries. Defaults to False.

    Raises:
        ValueError: If an argument is wrong, the model has no
            `keras_bar.layers.MarkerGate`s, or a layer reads the channels of
            a gate without the scale of a batch normalization in between.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.BatchNormalization(),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(
    ...     model, connectivity="regular", layer=keras_bar.layers.MarkerGate
    ... )
    >>> student.compile("adam", "mse")
    >>> x, y = np.ones((16, 8, 8, 1)), np.zeros((16, 2))
    >>> regularizer = keras_bar.baselines.MorphNetRegularizer(1e-6, "flops")
    >>> history = student.fit(x, y, verbose=0, callbacks=[regularizer])
    >>> seed = keras_bar.compact(student, connectivity="regular")
    """

    def __init__(
        self,
        strength: float,
        metric: str = "flops",
        threshold: float = 1e-2,
        until: float | None = None,
        log_all: bool = False,
    ):
        super().__init__(steps=None, log_all=log_all)
        check_strength(strength)
        selection.check_metric(metric)
        if not selection.is_number(threshold) or not threshold > 0:
            raise ValueError(
                "Invalid threshold. Expected a positive number. "
                f"Received: threshold={threshold!r}"
            )
        if until is not None and not (
            selection.is_number(until) and 0 < until < 1
        ):
            raise ValueError(
                "Invalid size at which to stop. Expected a fraction of the "
                f"full cost, in (0, 1), or None. Received: until={until!r}"
            )
        self.strength = strength
        self.metric = metric
        self.threshold = threshold
        self.until = until

    @property
    def brief_logs(self):
        return (self.metric, "penalty")

    def check_model(self, cost_model, name):
        selection.check_known_size(cost_model, self.metric, name)

    def make_control(self, steps):
        model = self._cost_model
        check_gates(model.gates, MarkerGate, type(self).__name__)
        return _ScalePenalty(model, self.strength, self.metric, self.threshold)

    def alive(self, cost_model):
        return {
            gate: ops.convert_to_numpy(alive)
            for gate, alive in self._control.alive().items()
        }

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self.until is not None:
            cost = self._cost_model.hard(self.alive(self._cost_model))
            full = self._cost_model.full
            if cost[self.metric] <= self.until * full[self.metric]:
                self.model.stop_training = True


class _ScalePenalty(Penalty):
    """The penalty as a control of `GateRegularizer`."""

    def __init__(self, cost_model, strength, metric, threshold):
        super().__init__(cost_model.gates)
        self.scales = _scales(cost_model)
        self.cost_model = cost_model
        self.strength = strength
        self.metric = metric
        self.threshold = threshold
        self.required_gates = selection.required_gates(cost_model, metric)

    def alive(self):
        """Dict from gate to its alive channels, boolean tensor
        `(channels,)`."""
        return {
            gate: self._is_alive(gate, size)
            for gate, size in _magnitudes(self.scales).items()
        }

    def __call__(self, state, is_new=True):
        vectors = {}
        for gate, size in _magnitudes(self.scales).items():
            alive = ops.cast(self._is_alive(gate, size), "float32")
            pushed = 1.0
            if gate in self.required_gates:
                # The last channel stays open, so closing it saves nothing.
                pushed = ops.where(ops.sum(alive) > 1.0, 1.0, 1.0 - alive)
            # The value is 0 or 1 and the gradient is that of the scale, so
            # the cost has the gradient of the penalty.
            slope = size - ops.stop_gradient(size)
            vectors[gate] = alive + pushed * slope
        return self.strength * self.cost_model.soft(self.metric, vectors)

    def _is_alive(self, gate, size):
        alive = size > self.threshold
        if gate in self.required_gates:
            strongest = ops.arange(gate.channels) == ops.argmax(size)
            alive = ops.logical_or(alive, strongest)
        return alive


def _scales(cost_model):
    """Dict from gate to the scales of its channels: pairs of the `gamma` of a
    batch normalization between writers and readers, and the places of each
    channel's scales in it (`Neighbours.norms`)."""
    scales = {}
    for gate, around in find_neighbours(cost_model).items():
        # A reader without a scale may need a channel of any magnitude.
        if around.unscaled:
            reader = around.unscaled[0]
            where = repr(reader.name) if reader else "the model's output"
            raise ValueError(
                "MorphNet learns from the scales of batch normalization. "
                "Expected a batch normalization with a scale between each "
                "gated convolution and its readers; list convolutions without "
                "one in `skip` of `keras_bar.gate`. "
                f"Received: {gate.name!r} without one in front of {where}"
            )
        scales[gate] = [(x.op.gamma, at) for x, at in around.norms.items()]
    return scales


def _magnitudes(scales):
    """Dict from gate to `|gamma|` of its channels, tensor `(channels,)`: the
    largest of several."""
    return {
        gate: ops.max(
            ops.stack([_magnitude(gamma, at) for gamma, at in gammas]), axis=0
        )
        for gate, gammas in scales.items()
    }


def _magnitude(gamma, places):
    # Under mixed precision Keras casts variables within a step.
    size = ops.cast(ops.abs(gamma), "float32")
    if places is None:
        return size
    return ops.max(ops.take(size, places, axis=0), axis=1)
