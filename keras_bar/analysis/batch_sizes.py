"""Graphs of layers that compute with the size of the batch.

The batch of a symbolic tensor has the size None, which nothing can be divided
by or repeated for. Such a layer is called on batches of a certain size instead,
and its graph is made anew for batches of any size: where a number is a multiple
of that size, it was computed from it.
"""

import math

import keras
import numpy as np
from keras import tree

from keras_bar import keras_internals
from keras_bar.layers import Parameter

# A prime number, so that no other size is a multiple of it. Masks of all pairs
# of steps that are repeated for every sample must fit into memory.
PRIME = 509


def divisor(arguments):
    """What the batch of a call has to be a multiple of: windows of images are
    samples of attention, and a constant mask has an entry for each of them.

    Args:
        arguments: Nested structure of the arguments of the call.
    """
    shapes = [
        tuple(getattr(x, "shape", ()))
        for x in tree.flatten(arguments)
        if not isinstance(x, keras.KerasTensor)
    ]
    return math.lcm(*(shape[0] for shape in shapes if shape))


def released(model, opened):
    """A model like one for batches of a certain size, for those of any size.

    Args:
        model: Functional `keras.Model` whose batch size is a multiple of
            `PRIME`.
        opened: Booleans, which of its inputs have batches of any size.

    Returns:
        Pair of the lists of its inputs and its outputs, symbolic tensors.

    Raises:
        ValueError: If it computes with a constant that differs between samples.
    """
    tensors = {}
    for x, is_open in zip(model.inputs, opened, strict=True):
        shape = (None, *x.shape[1:]) if is_open else x.shape
        tensors[id(x)] = keras.Input(
            batch_shape=shape,
            dtype=x.dtype,
            name=keras_internals.maker_of(x).name,
        )
    inputs = [tensors[id(x)] for x in model.inputs]
    for node in keras_internals.nodes_in_order(model):
        args, kwargs = tree.map_structure(
            lambda x: tensors.get(id(x), _for_any_sample(x)),
            (node.arguments.args, node.arguments.kwargs),
        )
        op = _released(node)
        if isinstance(op, Parameter):
            outputs = op(inputs[0])
        else:
            outputs = op(*args, **kwargs)
        flat = [x for x in tree.flatten(outputs) if x is not None]
        pairs = zip(node.outputs, flat, strict=True)
        tensors.update((id(old), new) for old, new in pairs)
    return inputs, [tensors[id(x)] for x in model.outputs]


def _for_any_sample(x):
    """An argument without the size of the batch: a constant that is the same
    for all samples, such as a causal mask, is broadcast to them."""
    shape = getattr(x, "shape", ())
    if isinstance(x, keras.KerasTensor) or not any(map(_is_sized, shape)):
        return x
    array = keras.ops.convert_to_numpy(x)
    if any(map(_is_sized, shape[1:])) or not np.all(array == array[:1]):
        raise ValueError("A constant differs between the samples of a batch.")
    return array[:1]


def _is_sized(size):
    """Whether a size is that of the batch, or a multiple."""
    return bool(size) and size % PRIME == 0


def _released(node):
    """The operation of a node of a graph, for batches of any size."""
    op, kind = node.operation, type(node.operation).__name__
    if isinstance(op, keras.layers.Layer):
        return op
    if kind == "Reshape":
        op.newshape = tuple(
            -1 if x and x % PRIME == 0 else x for x in node.outputs[0].shape
        )
    return _repeated(node) or op


def _repeated(node):
    """The layer that repeats a weight for every sample, where a node of a graph
    does; otherwise None."""
    op, output = node.operation, node.outputs[0]
    along = op.axis if type(op).__name__ == "Repeat" else 0
    repeats = type(op).__name__ in ("BroadcastTo", "Repeat", "Tile")
    if not repeats or along != 0 or not output.shape[0]:
        return None
    source = node.input_tensors[0]
    full = (1, *output.shape[1:])
    if output.shape[0] % PRIME or source.shape != full:
        return None
    maker = keras_internals.maker_of(source)
    while type(maker).__name__ in ("ExpandDims", "Reshape"):
        (source,) = keras_internals.read_by_maker(source)
        maker = keras_internals.maker_of(source)
    leading = len(full) - len(source.shape)
    if not isinstance(maker, Parameter) or maker.per_sample or leading < 0:
        return None
    if source.shape != full[leading:]:
        return None
    return Parameter.of(
        maker.value,
        maker.dtype_policy,
        per_sample=True,
        name=maker.name,
        leading=leading + maker.leading,
    )
