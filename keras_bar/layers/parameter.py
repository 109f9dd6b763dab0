"""A weight as a tensor of a graph."""

import weakref
from typing import Any

import keras
from keras import ops

# Layers that return a variable, as long as someone uses them. They keep their
# variables, so that no other one has the same identity.
_LAYERS: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


@keras.saving.register_keras_serializable("keras_bar")
class Parameter(keras.layers.Layer):
    """Returns its weight, whatever its input is.

    Unrolling turns the weights that a subclassed layer creates for itself, such
    as a class token or an embedding of positions, into layers of this kind.
    Compaction makes an `Embedding` of Keras's of them.

    Args:
        shape: Tuple of integers, the shape of the weight.
        per_sample: Whether what it returns, whose first size is then 1, is
            repeated for every sample of the input. Defaults to False.
        leading: Number of axes of size 1 that are put in front of those of the
            weight. Defaults to 0.

    Call arguments:
        inputs: Tensor, whose batch size matters alone.

    Example:

    >>> token = keras_bar.layers.Parameter((1, 1, 4), per_sample=True)
    >>> token(np.ones((2, 8, 4))).shape[0]
    2
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        per_sample: bool = False,
        leading: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.per_sample = per_sample
        self.leading = leading
        self.value: Any = None

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Shape of what it returns, where a 1 may stand for the samples."""
        return (1,) * self.leading + self.shape

    @classmethod
    def of(cls, variable, dtype, per_sample=False, name=None, leading=0):
        """A layer that returns an existing variable: the same for all calls of
        the layer that the variable belongs to.

        Args:
            variable: `keras.Variable`.
            dtype: The dtype policy of the layer that it belongs to.
            per_sample: See the class.
            name: Name of the layer. Defaults to that of the variable.
            leading: See the class.
        """
        key = id(variable), per_sample, leading
        if key not in _LAYERS:
            layer = cls(
                variable.shape,
                per_sample,
                leading,
                name=name or variable.name,
                dtype=dtype,
            )
            layer.value = variable
            layer.built = True
            _LAYERS[key] = layer
        layer = _LAYERS[key]
        layer.trainable = variable.trainable
        return layer

    def build(self, input_shape):
        self.value = self.add_weight(
            shape=self.shape, initializer="zeros", name="value"
        )

    def call(self, inputs):
        value = ops.convert_to_tensor(self.value)
        if self.leading:
            value = ops.reshape(value, self.full_shape)
        if not self.per_sample:
            return value
        shape = (ops.shape(inputs)[0], *self.full_shape[1:])
        return ops.broadcast_to(value, shape)

    def compute_output_shape(self, input_shape):
        if not self.per_sample:
            return self.full_shape
        return (input_shape[0], *self.full_shape[1:])

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "per_sample": self.per_sample,
            "leading": self.leading,
        }
