"""Functions of the backend on symbolic tensors.

TensorFlow and PyTorch let other types of tensors handle their functions:
TensorFlow asks dispatchers about a call that fails because of its types, as
Keras 2 used it for its own symbolic tensors, and PyTorch calls the method
`__torch_function__` of the type. JAX has nothing of this kind.

Private names: TensorFlow's dispatcher for all functions, which has no public
name, and which cannot be removed once it is registered.
"""

import contextlib
import functools
import inspect
import types

import keras

from keras_bar.analysis import translating
from keras_bar.analysis.replacing import replaced
from keras_bar.layers import backend_names
from keras_bar.layers.backend_function import BackendFunction
from keras_bar.layers.backend_function import NotDescribed

# Operators of tensors: if they fail, Python asks the symbolic tensor.
_OPERATORS = (types.MethodDescriptorType, types.WrapperDescriptorType)
# Lists of the functions that were refused, one per context that is entered.
_REFUSED: list[list[str]] = []


@contextlib.contextmanager
def functions_as_operations():
    """A context in which a function of the backend that is called on symbolic
    tensors becomes an operation of the graph.

    Yields:
        List of the names of functions that were called last, and that a graph
        cannot contain.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        _register_dispatcher()
    refused: list[str] = []
    _REFUSED.append(refused)
    try:
        if backend == "torch":
            with _torch_functions():
                yield refused
        else:
            yield refused
    finally:
        _REFUSED.pop()


@functools.cache
def _register_dispatcher():
    """Registers a dispatcher that does nothing outside of the context."""
    import tensorflow as tf

    class Dispatcher(tf.__internal__.dispatch.GlobalOpDispatcher):
        def handle(self, function, args, kwargs):
            result = _called(function, args, kwargs)
            return self.NOT_SUPPORTED if result is NotImplemented else result

    Dispatcher().register()


@contextlib.contextmanager
def _torch_functions():
    """A context in which symbolic tensors handle PyTorch's functions."""

    def handle(cls, function, types, args=(), kwargs=None):
        return _called(function, args, kwargs or {})

    method = classmethod(handle)
    with replaced(keras.KerasTensor, __torch_function__=method):
        yield


def _called(function, args, kwargs):
    """The symbolic result of a call; NotImplemented if there is none."""
    leaves = keras.tree.flatten((args, kwargs))
    symbolic = any(isinstance(x, keras.KerasTensor) for x in leaves)
    if not _REFUSED or not symbolic:
        return NotImplemented
    refused = _REFUSED[-1]
    name = backend_names.name_of(function)
    if name is None:
        if not isinstance(function, _OPERATORS):
            refused.append(_full_name(function))
        return NotImplemented
    args, kwargs = _not_in_place(name, function, args, kwargs)
    found = translating.translated(name, function, args, kwargs)
    if found is None:
        operation, tensors = BackendFunction.of(name, args, kwargs)
        found = operation(*tensors)
    refused.clear()
    return found


def _not_in_place(name, function, args, kwargs):
    """The arguments of a call that changes no tensor. If another part of the
    layer reads what the call would have changed, its graph differs from it."""
    if kwargs.get("out") is not None:
        raise NotDescribed(f"it calls `{name}` with `out`")
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # Functions written in C.
        return args, kwargs
    if not bound.arguments.get("inplace"):
        return args, kwargs
    bound.arguments["inplace"] = False
    return bound.args, bound.kwargs


def _full_name(function):
    """The name of a function for a message."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", None) or str(function)
    return f"{module}.{name}".strip(".")
