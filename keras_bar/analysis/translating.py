"""Functions of TensorFlow and PyTorch that an operation of Keras's equals.

Files of the operations of Keras need nothing but Keras, and the rules know
what they do to channels. A call with other arguments than those named here is
not translated. Whether a graph computes what its layer computes is verified
for every layer.
"""

import inspect
import itertools
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

# Functions of one tensor, by their names within the backend.
_UNARY: dict[str, dict[str, Callable]] = {
    "tensorflow": {
        "nn.relu": ops.relu,
        "nn.relu6": ops.relu6,
        "nn.elu": ops.elu,
        "nn.selu": ops.selu,
        "nn.silu": ops.silu,
        "nn.softplus": ops.softplus,
        "nn.softsign": ops.softsign,
        "math.log_sigmoid": ops.log_sigmoid,
        "sigmoid": ops.sigmoid,
        "tanh": ops.tanh,
        "exp": ops.exp,
        "sqrt": ops.sqrt,
        "square": ops.square,
        "abs": ops.abs,
        "negative": ops.negative,
        "stop_gradient": ops.stop_gradient,
        "identity": lambda x: x,
        "convert_to_tensor": lambda x: x,
    },
    "torch": {
        "relu": ops.relu,
        "selu": ops.selu,
        "sigmoid": ops.sigmoid,
        "tanh": ops.tanh,
        "exp": ops.exp,
        "sqrt": ops.sqrt,
        "square": ops.square,
        "abs": ops.abs,
        "neg": ops.negative,
        "detach": ops.stop_gradient,
        "clone": lambda x: x,
        "nn.functional.relu": ops.relu,
        "nn.functional.relu6": ops.relu6,
        "nn.functional.elu": ops.elu,
        "nn.functional.selu": ops.selu,
        "nn.functional.silu": ops.silu,
        "nn.functional.hardsigmoid": ops.hard_sigmoid,
        "nn.functional.hardswish": ops.hard_silu,
        "nn.functional.logsigmoid": ops.log_sigmoid,
        "nn.functional.sigmoid": ops.sigmoid,
        "nn.functional.tanh": ops.tanh,
    },
}


def _shape(input, out_type=None):
    """Numbers where all sizes are known, so that functions may be applied."""
    unknown = None in input.shape
    return np.array(input.shape, object if unknown else "int32")


def _matmul(a, b, transpose_a=False, transpose_b=False):
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    b = ops.swapaxes(b, -1, -2) if transpose_b else b
    return ops.matmul(a, b)


def _add_n(inputs):
    total, *others = inputs
    for x in others:
        total = ops.add(total, x)
    return total


def _concatenated(values, axis):
    if axis == 0:
        raise TypeError("Its samples become more, which no rule knows.")
    return ops.concatenate(list(values), axis)


def _split(value, num_or_size_splits, axis=0):
    sizes = _static(num_or_size_splits)
    if isinstance(sizes, int):
        return ops.split(value, sizes, axis)
    return ops.split(value, list(itertools.accumulate(sizes))[:-1], axis)


def _bias_add(value, bias, data_format=None):
    if data_format not in (None, "NHWC"):
        raise TypeError("Its channels are not last.")
    return ops.add(value, bias)


def _constant_pad(tensor, paddings, mode="CONSTANT", constant_values=0):
    if mode.upper() != "CONSTANT":
        raise TypeError("It repeats values.")
    return _padded(tensor, _static(paddings), constant_values)


def _padded(x, widths, value):
    return ops.pad(x, widths, constant_values=value or None)


def _torch_pad(input, pad, mode="constant", value=None):
    if mode != "constant":
        raise TypeError("It repeats values.")
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    rest = [(0, 0)] * (len(input.shape) - len(pairs))
    return _padded(input, [*rest, *pairs], value)


def _torch_split(tensor, split_size_or_sections, dim=0):
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        places = list(range(sizes, tensor.shape[dim], sizes))
    else:
        places = list(itertools.accumulate(sizes))[:-1]
    return ops.split(tensor, places, dim)


def _flatten(input, start_dim=0, end_dim=-1):
    shape, rank = input.shape, len(input.shape)
    start, end = start_dim % rank, end_dim % rank + 1
    sizes = shape[:start], shape[start:end], shape[end:]
    between = -1 if None in sizes[1] else math.prod(sizes[1])
    return ops.reshape(input, [*sizes[0], between, *sizes[2]])


def _axis(axis):
    axis = _static(axis)
    return tuple(axis) if isinstance(axis, list) else axis


def _reduction(operation):
    return lambda input_tensor, axis, keepdims=False: operation(
        input_tensor, _axis(axis), keepdims
    )


def _torch_reduction(operation):
    return lambda input, dim, keepdim=False: operation(
        input, _axis(dim), keepdim
    )


# Functions whose parameters are called as those of the backend are.
_OTHERS: dict[str, dict[str, Callable]] = {
    "tensorflow": {
        "shape": _shape,
        "rank": lambda input: len(input.shape),
        "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(
            features, alpha
        ),
        "nn.gelu": lambda features, approximate=False: ops.gelu(
            features, approximate
        ),
        "nn.softmax": lambda logits, axis=-1: ops.softmax(
            logits, -1 if axis is None else axis
        ),
        "nn.bias_add": _bias_add,
        "add": lambda x, y: ops.add(x, y),
        "subtract": lambda x, y: ops.subtract(x, y),
        "multiply": lambda x, y: ops.multiply(x, y),
        "divide": lambda x, y: ops.true_divide(x, y),
        "maximum": lambda x, y: ops.maximum(x, y),
        "minimum": lambda x, y: ops.minimum(x, y),
        "pow": lambda x, y: ops.power(x, y),
        "add_n": _add_n,
        "matmul": _matmul,
        "einsum": lambda equation, inputs: ops.einsum(equation, *inputs),
        "concat": _concatenated,
        "stack": lambda values, axis=0: ops.stack(list(values), axis),
        "split": _split,
        "reshape": lambda tensor, shape: ops.reshape(tensor, _static(shape)),
        "transpose": lambda a, perm=None: ops.transpose(a, _static(perm)),
        "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
        "squeeze": lambda input, axis=None: ops.squeeze(input, _axis(axis)),
        "tile": lambda input, multiples: ops.tile(input, _static(multiples)),
        "pad": _constant_pad,
        "cast": lambda x, dtype: ops.cast(
            x, keras.backend.standardize_dtype(dtype)
        ),
        "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(
            t, clip_value_min, clip_value_max
        ),
        "reduce_mean": _reduction(ops.mean),
        "reduce_sum": _reduction(ops.sum),
        "reduce_max": _reduction(ops.max),
    },
    "torch": {
        "add": lambda input, other: ops.add(input, other),
        "sub": lambda input, other: ops.subtract(input, other),
        "mul": lambda input, other: ops.multiply(input, other),
        "div": lambda input, other: ops.true_divide(input, other),
        "maximum": lambda input, other: ops.maximum(input, other),
        "minimum": lambda input, other: ops.minimum(input, other),
        "pow": lambda input, exponent: ops.power(input, exponent),
        "clamp": lambda input, min, max: ops.clip(input, min, max),
        "matmul": lambda input, other: ops.matmul(input, other),
        "bmm": lambda input, mat2: ops.matmul(input, mat2),
        "einsum": lambda args: ops.einsum(*args),
        "cat": lambda tensors, dim=0: _concatenated(tensors, dim),
        "stack": lambda tensors, dim=0: ops.stack(list(tensors), dim),
        "split": _torch_split,
        "chunk": lambda input, chunks, dim=0: _torch_split(
            input, -(-input.shape[dim] // chunks), dim
        ),
        "reshape": lambda input, shape: ops.reshape(input, shape),
        "flatten": _flatten,
        "permute": lambda input, dims: ops.transpose(input, list(dims)),
        "transpose": lambda input, dim0, dim1: ops.swapaxes(input, dim0, dim1),
        "unsqueeze": lambda input, dim: ops.expand_dims(input, dim),
        "squeeze": lambda input, dim: ops.squeeze(input, dim),
        "tile": lambda input, dims: ops.tile(input, dims),
        "where": lambda condition, input, other: ops.where(
            condition, input, other
        ),
        "mean": _torch_reduction(ops.mean),
        "sum": _torch_reduction(ops.sum),
        "amax": _torch_reduction(ops.max),
        "softmax": lambda input, dim: ops.softmax(input, dim),
        "nn.functional.softmax": lambda input, dim: ops.softmax(input, dim),
        "nn.functional.pad": _torch_pad,
        "nn.functional.leaky_relu": lambda input, negative_slope=0.01: (
            ops.leaky_relu(input, negative_slope)
        ),
        "nn.functional.gelu": lambda input, approximate="none": ops.gelu(
            input, approximate == "tanh"
        ),
    },
}


def translated(name, function, args, kwargs):
    """The result of an operation of Keras's that does what a call does.

    Args:
        name: String, the full name of a function of the backend.
        function: The function.
        args, kwargs: Arguments of the call, some `keras.KerasTensor`s.

    Returns:
        Symbolic tensors, or what follows from their shapes; None if no
        operation of Keras's is known to do the same.
    """
    backend, _, path = name.partition(".")
    path = path.removeprefix("compat.v1.")
    unary = _UNARY[backend].get(path)
    translation = unary or _OTHERS[backend].get(path)
    if translation is None:
        return None
    try:
        given = _given(function, translation, args, kwargs)
        if unary is None:
            return translation(**given)
        (x,) = given.values()
        return unary(x)
    except Exception:  # Other arguments: the function itself may take them.
        return None


def _given(function, translation, args, kwargs):
    """Dict of the arguments that differ from a function's defaults."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # Functions written in C.
        signature = inspect.signature(translation)
    bound = signature.bind(*args, **kwargs)
    defaults = {x.name: x.default for x in signature.parameters.values()}
    return {
        x: y
        for x, y in bound.arguments.items()
        if x != "name" and y is not defaults[x]
    }


def _static(x):
    """Numbers, in lists, of an argument that says something about a shape."""
    if x is None or isinstance(x, int):
        return x
    if isinstance(x, list | tuple):
        return [_static(y) for y in x]
    if isinstance(x, np.ndarray):
        return x.tolist()
    if isinstance(x, keras.KerasTensor):
        raise TypeError("It is computed.")
    return ops.convert_to_numpy(x).tolist()
