"""The place in a training graph from which a budget acts."""

import keras
import numpy as np
from keras import ops

# Size of the "gradients" of the signal: too small to matter to whoever takes
# the norm of all gradients, such as sharpness-aware minimization.
SIGNAL = 1e-6


@keras.saving.register_keras_serializable("keras_bar")
class BudgetState(keras.layers.Layer):
    """Passes its input on; in training it lets a budget act once per step.

    Of several inputs it passes the first on. It waits for all of them: they
    are what the gates return, so that the budget acts when the noise of the
    step was drawn.

    It owns what a budget has to remember between steps, as variables, so that
    they are saved, restored and kept equal on all replicas. Without a budget
    (`control` is None) it does nothing. A `BudgetRegularizer` sets `control`
    before `fit` compiles its step and removes it afterwards.

    A step is one of the optimizer, however often the network runs for it. The
    optimizer reports it by what it writes into `signal`, a variable that is
    overwritten with its gradient: the loss scale, and a mark that alternates
    with the parity of the step. The loss itself stays as it is.

    Args:
        limit: Pair of the metric and the budget in its units to which the
            network is being pruned, or None. It is saved with the model.

    Attributes:
        step: Integer variable, number of the step that is under way; -1 before
            the first.
        threshold: Float variable, how hard the budget pushes at present.
        signal: Float variable `(3,)`, what the optimizer reports.
        control: Function of this layer, and of whether a new step begins, that
            acts on the gates and returns a scalar loss or None; or None.
        owner: The callback that sets `control`, or None.

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
    >>> state.control is None  # No budget is at work.
    True
    """

    def __init__(self, limit=None, **kwargs):
        # What it passes on keeps its dtype.
        super().__init__(autocast=False, **kwargs)
        self.limit = limit and tuple(limit)
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
        # As if an odd step had been taken: step 0 is none that was.
        self.signal.assign(SIGNAL * np.array([0.0, 0.0, 1.0]))

    def steps_done(self):
        """Steps of the optimizer since the start, integer scalar tensor."""
        step = ops.convert_to_tensor(self.step)
        _, even, odd = ops.unstack(ops.convert_to_tensor(self.signal), num=3)
        taken = ops.where(ops.mod(step, 2) == 0, even > odd, odd > even)
        return ops.where(step < 0, 0, step + ops.cast(taken, "int32"))

    def loss_scale(self):
        """What the loss of the last step was multiplied with before it was
        differentiated, scalar tensor; 1 where that is unknown."""
        signal = ops.stop_gradient(ops.convert_to_tensor(self.signal))
        scale = signal[0] / SIGNAL
        return ops.where(scale > 0.0, scale, 1.0)

    def _signal_loss(self):
        """A loss of 0, whose gradient for `signal` is what it is to hold."""
        step = ops.convert_to_tensor(self.step)
        is_even = ops.cast(ops.mod(step, 2) == 0, "float32")
        signal_loss = ops.custom_gradient(_zero_with_signal)
        return signal_loss(ops.convert_to_tensor(self.signal), is_even)

    def compute_mask(self, inputs, previous_mask=None):
        return _first(previous_mask)

    def compute_output_spec(self, inputs, training=False):
        first = _first(inputs)
        return keras.KerasTensor(first.shape, first.dtype)

    def get_config(self):
        return {**super().get_config(), "limit": self.limit}


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
