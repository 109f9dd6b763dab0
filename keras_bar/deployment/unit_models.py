"""Models of single units of work, to be measured."""

import itertools
import math

import keras
import numpy as np

from keras_bar.analysis import static_shapes
from keras_bar.analysis import trace
from keras_bar.compaction.moving import ZERO
from keras_bar.compaction.moving import Mover


def build(unit, reads, writes):
    """A model of a unit alone.

    Args:
        unit: `Unit`.
        reads, writes: Integers, its widths.

    Returns:
        A Functional `keras.Model` with random weights.
    """
    if unit.moves:
        return _build_move(unit, writes)
    tensors: dict = {}
    made, last = [], None
    for node in unit.nodes:
        for value in node.inputs:
            if node is unit.nodes[0] and value not in tensors:
                tensors[value] = _input(unit, node, value, reads, writes)
                made.append(tensors[value])
        if node is not unit.nodes[0]:
            # Gates and the like may stand between the nodes.
            tensors[node.inputs[0]] = last
        layer = trace.clone(node.op, None, node, **_config(unit, node, writes))
        (last, *_) = trace.call(layer, node, tensors)
    model = keras.Model(made, last)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        # No number that a converter could drop: not 0, and not 1.
        weight.assign(rng.uniform(0.1, 0.9, weight.shape))
    return model


def _build_move(unit, writes):
    """A model that moves every second of some channels."""
    shape = [*unit.head.output.shape[1:-1], (writes + 1) // 2]
    inputs = keras.Input(shape, dtype=unit.head.output.dtype)
    counter = itertools.count()
    mover = Mover(lambda name: f"{name}_{next(counter)}")
    places = np.arange(shape[-1])
    if unit.moves == "gather":
        places = np.arange(0, writes, 2)
    source = np.full(writes, ZERO)
    source[places] = np.arange(len(places))
    outputs = mover.gather(inputs, source, len(shape), "move")
    return keras.Model(inputs, outputs)


def _input(unit, node, value, reads, writes):
    """A symbolic input of a unit with some widths."""
    shape = list(value.shape[1:])
    if not unit.is_scalable or value not in unit.axes:
        return keras.Input(shape, dtype=value.dtype)
    axis = unit.axes[value] - 1
    full = unit.writes[1]
    if unit.reads is not None:
        shape[axis] = reads
    elif type(node.op).__name__ == "Concatenate":
        shape[axis] = max(1, round(shape[axis] * writes / full))
    elif shape[axis] == full:
        shape[axis] = writes
    elif full % max(shape[axis], 1) == 0 and shape[axis] > 1:
        # A depthwise convolution makes several channels of each.
        shape[axis] = math.ceil(writes / (full // shape[axis]))
    return keras.Input(shape, dtype=value.dtype)


def _config(unit, node, writes):
    """Configuration entries of a layer with some widths."""
    if node is not unit.head or not unit.is_scalable:
        return {}
    if type(node.op).__name__ == "EinsumDense":
        shape = list(static_shapes.full_shape_of(node))
        shape[unit.axes[node.output] - len(node.output.shape)] = writes
        return {"output_shape": tuple(shape)}
    if unit.reads is not None:
        name = "units" if type(node.op).__name__ == "Dense" else "filters"
        return {name: writes}
    if hasattr(node.op, "filters"):  # One group per channel.
        each = node.op.filters // node.op.groups
        groups = math.ceil(writes / each)
        return {"filters": groups * each, "groups": groups}
    return {}
