"""Shapes of symbolic tensors, of which Keras forgets some sizes."""

import contextlib
import functools
import inspect
import math
import string

import keras

from keras_bar import keras_internals
from keras_bar.analysis import equations
from keras_bar.analysis.replacing import replaced
from keras_bar.layers import ChannelGate
from keras_bar.layers.backend_function import BackendFunction


def full_shape_of(node):
    """The `output_shape` of an `EinsumDense`: the sizes that its equation
    names, without the batch. `None` is a size that the layer has to find out:
    one that is unknown, or not the same in all of its calls."""
    *_, labels = equations.labels(node.op.equation)
    rank = len(node.output.shape)
    count = min(len(labels.replace(".", "")), rank - 1)
    behind = slice(-count, None) if labels.startswith(".") else slice(1, count)
    named = behind if "." in labels else slice(1, None)
    shapes = [x.output.shape[named] for x in node.shared_calls]
    return tuple(
        sizes[0] if len(set(sizes)) == 1 else None
        for sizes in zip(*shapes, strict=True)
    )


def rows(node, shape, index=0):
    """Number of entries of the first axis of an output per sample. A reshape
    may put windows of an image beside the samples, and back.

    Args:
        node: `Node` with its inputs.
        shape: Shape of the output.
        index: Its place among the outputs.
    """
    if index and isinstance(node.op, ChannelGate):
        return 1  # The factors, which fit any number of entries.
    count = max((x.rows for x in node.inputs), default=1)
    if isinstance(node.op, BackendFunction):
        return _rows_of_function(node, index) or count
    if type(node.op) is not keras_internals.operations.Reshape:
        return count
    sizes = node.inputs[0].shape[1:], shape[1:]
    if None in sizes[0] + sizes[1] or shape[:1] != (None,):
        return count
    before, after = map(math.prod, sizes)
    return count * before / after if after else count


def _rows_of_function(node, index):
    """Number of entries of the first axis of an output of a function per
    sample, from its sizes for two and for three samples; None if it is not
    found."""

    def first_size(samples):
        def sized(x):
            known = x.shape[:1] != (None,)
            first = x.shape[:1] if known else (math.ceil(x.rows * samples),)
            return keras.KerasTensor((*first, *x.shape[1:]), x.dtype)

        outputs = node.op.compute_output_spec(*map(sized, node.inputs))
        return keras.tree.flatten(outputs)[index].shape[0]

    try:
        return first_size(3) - first_size(2) or None
    except Exception:  # Whatever the backend raises.
        return None


@contextlib.contextmanager
def keep_sizes(layers):
    """A context in which symbolic calls lose no size that is known.

    `EinsumDense` layers whose configuration leaves sizes open, as those of
    attention do, take them from their input; and a reshape to a size that was
    read from a tensor where it is unknown, mostly that of the batch, finds it
    out when it runs. Layers that describe their outputs themselves may not
    expect to be told the mode, or what the `call` of a subclass takes besides.
    Keras knows no capital letters in the equation of an einsum of symbolic
    tensors.
    """
    changed = [x for x in layers if isinstance(x, keras.layers.EinsumDense)]
    unexpected = {x: _unexpected(x) for x in layers}
    operations = keras_internals.operations
    reshape, einsum = operations.Reshape, operations.Einsum
    infer = reshape.compute_output_spec
    infer_einsum = einsum.compute_output_spec

    def infer_reshape(operation, x):
        operation.newshape = _open_shape(operation.newshape, x.shape)
        return infer(operation, x)

    def infer_lower_case(operation, *operands):
        operation.subscripts = _in_lower_case(operation.subscripts)
        return infer_einsum(operation, *operands)

    for x in changed:
        x.compute_output_shape = functools.partial(einsum_shape, x)
    for x, names in unexpected.items():
        if names:
            describe = (
                _spec_by_call if names - {"training"} else _spec_in_any_mode
            )
            x.compute_output_spec = functools.partial(describe, x)
    try:
        with (
            replaced(reshape, compute_output_spec=infer_reshape),
            replaced(einsum, compute_output_spec=infer_lower_case),
        ):
            yield
    finally:
        for x in changed:
            del x.compute_output_shape
        for x, names in unexpected.items():
            if names:
                del x.compute_output_spec


def _unexpected(layer):
    """Names of the parameters of a layer's `call`, and of the mode, that its
    `compute_output_spec` lacks."""
    parameters = inspect.signature(layer.compute_output_spec).parameters
    if any(x.kind is x.VAR_KEYWORD for x in parameters.values()):
        return set()
    called = inspect.signature(layer.call).parameters
    return {*called, "training"} - parameters.keys()


def _spec_by_call(layer, *args, **kwargs):
    """The outputs of a layer, from what its `call` does."""
    return keras.Operation.compute_output_spec(layer, *args, **kwargs)


def _spec_in_any_mode(layer, *args, training=None, **kwargs):
    """The outputs of a layer, which are the same in any mode."""
    return type(layer).compute_output_spec(layer, *args, **kwargs)


def _open_shape(target, shape):
    """The target of a reshape with -1 in the place of None."""
    sizes = shape[1:]
    if not isinstance(target, tuple | list) or list(target).count(None) != 1:
        return target
    known = math.prod(x for x in target if x not in (None, -1))
    if -1 in target and (None in sizes or not known):
        return target
    rest = math.prod(sizes) // known if -1 in target else -1
    return tuple(-1 if x is None else rest if x == -1 else x for x in target)


def _in_lower_case(equation):
    """The same equation, with other letters in the place of capital ones. The
    order of letters matters where there is no arrow."""
    if "->" not in equation:
        return equation
    capitals = sorted({x for x in equation if x.isupper()})
    free = [x for x in string.ascii_lowercase if x not in equation]
    if len(capitals) > len(free):
        return equation
    letters = zip(capitals, free, strict=False)
    return equation.translate(str.maketrans(dict(letters)))


def einsum_shape(layer, input_shape):
    """Sizes of an `EinsumDense`'s output, from its input and its kernel."""
    read, kernel, output = equations.labels(layer.equation)
    if "." in read + kernel:
        return type(layer).compute_output_shape(layer, input_shape)
    sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
    sizes |= dict(zip(read, input_shape, strict=True))
    return tuple(sizes[x] for x in output)
