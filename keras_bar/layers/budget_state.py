"""The layer through which a budget acts within the training graph."""

import json

import keras
import numpy as np
from keras import ops

# Size of the "gradients" of the signal: negligible in a norm of all gradients,
# such as that of sharpness-aware minimization.
SIGNAL = 1e-6

# Keys under which the metrics and the budgets are saved.
_METRICS, _BUDGETS = "limit_metrics", "limit_budgets"


@keras.saving.register_keras_serializable("keras_bar")
class BudgetState(keras.layers.Layer):
    """Returns its input; in training it lets a budget act once per step.

    With several inputs, the layer returns the first one but waits for all. The
    others are outputs of the gates, so the budget acts after the noise of the
    step was drawn.

    The layer owns the state of a budget between steps, as variables, so that it
    is saved, restored and kept equal on all replicas. Without a budget
    (`control` is None) the layer does nothing. A `BudgetRegularizer` sets
    `control` before `fit` compiles its step and removes it afterwards.

    A step is a step of the optimizer, however often the network runs for it.
    The optimizer reports its steps through `signal`, a variable that is
    overwritten with its gradient: the loss scale, and a mark that alternates
    with the parity of the step. The value of the loss does not change.

    Args:
        limits: Dict from metric to a budget in its units, to which the network
            is being pruned; empty if there is none. It is saved with the model.

    Attributes:
        step: Integer variable, index of the current step; -1 before the first.
        threshold: Float variable, the current threshold of the budget.
        signal: Float variable `(3,)`, the report of the optimizer.
        control: Function of this layer and a boolean, whether a new step
            begins, that acts on the gates and returns a scalar loss or None;
            or None.
        owner: The callback that set `control`, or None.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model)
    >>> state = student.get_layer("budget_state")
    >>> state.control is None  # No budget is active.
    True
    """

    def __init__(self, limits: dict[str, float] | None = None, **kwargs):
        # The input keeps its dtype.
        super().__init__(autocast=False, **kwargs)
        self.limits = dict(limits or {})
        self.control = None
        self.owner = None
        self.supports_masking = True

    def build(self, input_shape):
        self.step = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(-1),
            dtype="int32",
            trainable=False,
            name="step",
        )
        self.threshold = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            name="threshold",
        )
        self.signal = self.add_weight(
            shape=(3,),
            initializer="zeros",
            dtype="float32",
            trainable=True,
            autocast=False,
            overwrite_with_gradient=True,
            aggregation="sum",
            name="signal",
        )

    def call(self, inputs, training=False):
        if training:
            if self.control is not None:
                done = self.steps_done()
                is_new = done != ops.convert_to_tensor(self.step)
                self.step.assign(done)
                loss = self.control(self, is_new)
                if loss is not None:
                    self.add_loss(loss)
            self.add_loss(self._signal_loss())
        return _first(inputs)

    def start(self):
        """Prepares for the first step of a budget."""
        self.step.assign(-1)
        # The mark of an odd step, so that step 0 does not count as taken.
        self.signal.assign(SIGNAL * np.array([0.0, 0.0, 1.0]))

    def steps_done(self):
        """Number of optimizer steps since the start, integer scalar tensor."""
        step = ops.convert_to_tensor(self.step)
        _, even, odd = ops.unstack(ops.convert_to_tensor(self.signal), num=3)
        # Taking a step clears the mark of the step before. Moving all variables
        # along their gradients, as sharpness-aware minimization does between
        # two passes, changes only the mark of the step under way.
        other = ops.where(ops.mod(step, 2) == 0, odd, even)
        taken = other <= 0.0
        return ops.where(step < 0, 0, step + ops.cast(taken, "int32"))

    def loss_scale(self):
        """Factor of the loss in the last step's differentiation, scalar tensor;
        1 if it is unknown."""
        signal = ops.stop_gradient(ops.convert_to_tensor(self.signal))
        scale = signal[0] / SIGNAL
        return ops.where(scale > 0.0, scale, 1.0)

    def _signal_loss(self):
        """A loss of 0 whose gradient is the next value of `signal`."""
        step = ops.convert_to_tensor(self.step)
        is_even = ops.cast(ops.mod(step, 2) == 0, "float32")
        signal_loss = ops.custom_gradient(_zero_with_signal)
        return signal_loss(ops.convert_to_tensor(self.signal), is_even)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.limits:
            names = json.dumps([_to_config(x) for x in self.limits])
            store[_METRICS] = np.frombuffer(names.encode(), "uint8")
            store[_BUDGETS] = np.array([*self.limits.values()], "float64")

    def load_own_variables(self, store):
        names = set(store.keys())
        super().load_own_variables(
            {x: store[x] for x in names - {_METRICS, _BUDGETS}}
        )
        if _METRICS in names:
            text = np.array(store[_METRICS]).tobytes().decode()
            # Files of earlier versions have names alone.
            is_json = text.startswith("[")
            metrics = json.loads(text) if is_json else text.split()
            metrics = [_from_config(x) for x in metrics]
            budgets = np.array(store[_BUDGETS]).tolist()
            self.limits = dict(zip(metrics, budgets, strict=True))

    def compute_mask(self, inputs, previous_mask=None):
        return _first(previous_mask)

    def compute_output_spec(self, inputs, training=False):
        first = _first(inputs)
        return keras.KerasTensor(first.shape, first.dtype)

    def get_config(self):
        config = {**super().get_config(), "limits": self.limits}
        if any(not isinstance(x, str) for x in self.limits):
            pairs = [[_to_config(x), y] for x, y in self.limits.items()]
            config["limits"] = pairs
        return config

    @classmethod
    def from_config(cls, config):
        limits = config.pop("limits", None)
        if isinstance(limits, list):
            limits = {_from_config(x): y for x, y in limits}
        return cls(limits=limits, **config)


def _to_config(metric):
    """A metric as JSON can hold it; it is a name, or a serializable object."""
    if isinstance(metric, str):
        return metric
    return keras.saving.serialize_keras_object(metric)


def _from_config(metric):
    if isinstance(metric, str):
        return metric
    return keras.saving.deserialize_keras_object(metric)


def _zero_with_signal(signal, is_even):
    def gradients(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        scale = ops.cast(upstream, "float32")
        marks = ops.stack([scale, is_even, 1.0 - is_even])
        return SIGNAL * marks, ops.zeros_like(is_even)

    return ops.zeros(()), gradients


def _first(inputs):
    return inputs[0] if isinstance(inputs, list | tuple) else inputs
