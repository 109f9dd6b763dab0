"""Functions of the backend as operations of a graph."""

import keras
import numpy as np

from keras_bar.layers import backend_names

# The most numbers of a constant argument. Larger arrays are weights or tables.
LARGEST = 64


class NotDescribed(Exception):
    """A call of a function cannot be written to a file, for the reason given.

    TensorFlow takes a TypeError or ValueError for a call that it may try
    another way.
    """


@keras.saving.register_keras_serializable("keras_bar")
class BackendFunction(keras.Operation):
    """Calls a function of TensorFlow's or PyTorch's, such as `tf.image.resize`
    or `torch.nn.functional.interpolate`.

    Unrolling turns the functions of the backend that a subclassed layer calls
    into operations of this kind, unless an operation of Keras's does the same.

    Args:
        function: String, the full name of the function, such as
            `"tensorflow.image.resize"`, one of
            `keras_bar.layers.backend_names`.
        args: List of its positional arguments: numbers, strings, None, lists
            of these, and dictionaries that stand for something else:
            `{"tensor": 0}` for the first tensor of the call, `{"dtype":
            "float32"}` for a type, `{"array": [1, 2], "dtype": "int32"}` for a
            constant tensor.
        kwargs: Dict of its keyword arguments, likewise.

    Call arguments:
        *tensors: Tensors, in the places that the arguments give them.

    Raises:
        ValueError: If the function is none of those that a graph may contain,
            or belongs to another backend.
    """

    def __init__(self, function, args, kwargs=None, name=None):
        self._function = backend_names.find(function)
        super().__init__(name=name)
        self.function = function
        self.args = args
        self.kwargs = kwargs or {}

    @classmethod
    def of(cls, function, args, kwargs):
        """The operation for a call.

        Args:
            function: String, the full name of the function.
            args, kwargs: Arguments of the call, some `keras.KerasTensor`s.

        Returns:
            Pair of the operation and the list of its tensors.

        Raises:
            NotDescribed: If a file cannot hold the arguments.
        """
        tensors: list = []
        try:
            args = _described(args, tensors)
            kwargs = {x: _described(y, tensors) for x, y in kwargs.items()}
        except NotDescribed as error:
            raise NotDescribed(f"it calls `{function}` with {error}") from None
        leaf = function.rpartition(".")[-1]
        copies = keras.backend.get_uid(leaf) - 1
        name = f"{leaf}_{copies}" if copies else leaf
        return cls(function, args, kwargs, name), tensors

    @property
    def may_multiply(self):
        """Whether it may multiply matrices, as a convolution does."""
        return backend_names.may_multiply(self.function)

    def call(self, *tensors):
        args = _restored(self.args, tensors)
        kwargs = {x: _restored(y, tensors) for x, y in self.kwargs.items()}
        return self._function(*args, **kwargs)

    def get_config(self):
        return {
            "function": self.function,
            "args": self.args,
            "kwargs": self.kwargs,
            "name": self.name,
        }


def _described(x, tensors):
    """An argument as JSON holds it; symbolic tensors are added to a list."""
    if isinstance(x, keras.KerasTensor):
        tensors.append(x)
        return {"tensor": len(tensors) - 1}
    if x is None or isinstance(x, bool | int | float | str):
        return x.item() if isinstance(x, np.generic) else x
    if isinstance(x, list | tuple):
        return [_described(y, tensors) for y in x]
    if dtype := backend_names.dtype_of(x):
        return {"dtype": dtype}
    if hasattr(x, "assign") or getattr(x, "requires_grad", False):
        raise NotDescribed("a variable")
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise NotDescribed(f"{x!r:.80}, which JSON cannot hold")
    if isinstance(x, np.ndarray) and x.dtype == object:
        return x.tolist()
    try:
        array = keras.ops.convert_to_numpy(x)
    except Exception:  # A tensor inside a compiled function, for instance.
        raise NotDescribed(f"{x!r:.80}, which has no value") from None
    if array.size > LARGEST:
        raise NotDescribed(f"a constant of {array.size} numbers")
    dtype = keras.backend.standardize_dtype(x.dtype)
    return {"array": array.tolist(), "dtype": dtype}


def _restored(x, tensors):
    """The argument that `_described` describes, for some tensors."""
    if isinstance(x, list | tuple):
        return [_restored(y, tensors) for y in x]
    if not isinstance(x, dict):
        return x
    if "tensor" in x:
        return tensors[x["tensor"]]
    if "array" in x:
        return keras.ops.convert_to_tensor(x["array"], x["dtype"])
    return backend_names.dtype_named(x["dtype"])
