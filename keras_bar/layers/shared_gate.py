"""The product with the factors of a gate of another tensor."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_bar")
class SharedGate(keras.layers.Layer):
    """Multiplies a tensor by the factors that a gate has returned.

    The factors of a training step may have a row for every entry of the first
    axis of the tensor behind the gate. This tensor may have more or fewer
    entries, such as the windows of every image; those of an image are taken to
    be next to each other. If they are not, the product is right as long as all
    rows are equal, but importance per image is that of mixed images.

    Call arguments:
        inputs: Pair of the tensor and the factors, whose sizes are 1 along all
            other axes but that of the channels.

    Example:

    >>> gate = keras_bar.layers.MarkerGate(return_factors=True)
    >>> _, factors = gate(np.ones((2, 3)))
    >>> gate.set_alive(np.array([True, False, True]))
    >>> _, factors = gate(np.ones((2, 3)))
    >>> windows = keras_bar.layers.SharedGate()([np.ones((4, 3)), factors])
    >>> keras.ops.convert_to_numpy(windows)[0].tolist()
    [1.0, 0.0, 1.0]
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        x, factors = inputs
        count, rows = ops.shape(x)[0], ops.shape(factors)[0]
        index = ops.arange(count) * rows // count
        return x * ops.take(factors, index, axis=0)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask and previous_mask[0]
