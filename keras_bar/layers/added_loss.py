"""Losses that a layer adds, in a graph."""

import keras


@keras.saving.register_keras_serializable("keras_bar")
class AddedLoss(keras.layers.Layer):
    """Returns its first argument, and adds the others to the model's losses.

    Unrolling turns `add_loss` in the `call` of a subclassed layer or model into
    a layer of this kind, so that a pruned and a compact model train with the
    same losses. A file of such a model needs `import keras_bar` before it is
    loaded.

    Call arguments:
        inputs: Tensor.
        losses: List of tensors, such as scalars. `fit` adds up their entries.

    Example:

    >>> inputs = keras.Input((4,))
    >>> loss = keras.ops.mean(keras.ops.square(inputs))
    >>> outputs = keras_bar.layers.AddedLoss()(inputs, [loss])
    >>> model = keras.Model(inputs, outputs)
    >>> outputs = model(np.ones((2, 4)))
    >>> float(model.losses[0])
    1.0
    """

    def __init__(self, **kwargs):
        # Losses keep their type.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs, losses):
        self.add_loss(losses)
        return inputs

    def compute_output_spec(self, inputs, losses):
        return keras.KerasTensor(inputs.shape, inputs.dtype)
