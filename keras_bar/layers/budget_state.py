"""The place in a training graph from which a budget acts."""

import keras


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

    Attributes:
        step: Integer variable, pruning steps done.
        pressure: Float variable, how hard the budget pushes at present.
        control: Function of this layer that acts on the gates and returns a
            scalar loss or None; or None.
        owner: The callback that sets `control`, or None.
        limit: The metric and the budget to which a finished `fit` pruned, or
            None.
    """

    def __init__(self, **kwargs):
        # What it passes on keeps its dtype.
        super().__init__(autocast=False, **kwargs)
        self.control = None
        self.owner = None
        self.limit = None
        self.supports_masking = True

    def build(self, input_shape):
        self.step = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            name="step",
        )
        self.pressure = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            name="pressure",
        )

    def call(self, inputs, training=False):
        if training and self.control is not None:
            loss = self.control(self)
            if loss is not None:
                self.add_loss(loss)
            self.step.assign_add(1)
        return _first(inputs)

    def compute_mask(self, inputs, previous_mask=None):
        return _first(previous_mask)

    def compute_output_spec(self, inputs, training=False):
        first = _first(inputs)
        return keras.KerasTensor(first.shape, first.dtype)


def _first(inputs):
    return inputs[0] if isinstance(inputs, list | tuple) else inputs
