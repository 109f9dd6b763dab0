"""The gate of methods that select channels by other means."""

import keras
from keras import ops

from keras_bar.layers.channel_gate import ChannelGate


@keras.saving.register_keras_serializable("keras_bar")
class MarkerGate(ChannelGate):
    """Marks channels that another method closes.

    The gate has no weights, and multiplies by 1 until `set_alive` closes
    channels. MorphNet decides by the scales of batch normalization; see
    `keras_bar.baselines.MorphNetRegularizer`.

    Args:
        axis: Integer, the channel axis.
        return_factors: Whether to return `[inputs * z, z]`.
        seed: Has no effect, as the gate has no noise.

    Example:

    >>> gate = keras_bar.layers.MarkerGate()
    >>> outputs = gate(np.ones((1, 3)))
    >>> gate.set_alive(np.array([True, False, True]))
    >>> keras.ops.convert_to_numpy(gate(np.ones((1, 3)))).tolist()
    [[1.0, 0.0, 1.0]]
    """

    def add_parameters(self):
        pass

    def draw(self, batch_size):
        return self.inference_factors()

    def inference_factors(self):
        return ops.ones((self.channels,))

    def keep_probability(self):
        return ops.ones((self.channels,))
