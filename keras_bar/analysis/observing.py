"""How a layer without a rule treats channels, found by running it.

The layer keeps channels apart if a smaller copy, for some of the channels,
computes the same as the whole layer does for these channels, on random input
and with changed weights. Compaction builds exactly such a copy. This holds for
affine layers, LayerScale, and custom activations, poolings and depthwise
convolutions of any package.
"""

import contextlib
import json
import math

import keras

from keras_bar import keras_internals
from keras_bar.analysis import cloning
from keras_bar.analysis import comparing
from keras_bar.analysis import trace
from keras_bar.analysis.experiments import Experiment
from keras_bar.analysis.experiments import NotChannelwise

# Earlier results, by the layer's class and configuration.
_REMEMBERED: dict = {}


def observe(node, axis, output_axis=None):
    """Runs a layer to find out how it treats the channels of its input.

    Args:
        node: `Node` of the layer.
        axis: Integer, the channel axis of its input.
        output_axis: Integer, the channel axis of its output. Defaults to
            `axis`, and then the rank must stay the same.

    Returns:
        A `Behaviour`.

    Raises:
        NotChannelwise: If its channels depend on each other, or it cannot be
            made smaller.
    """
    key = _key(node, axis, output_axis)
    if key not in _REMEMBERED:
        try:
            found = _observe(node, axis, output_axis)
        except NotChannelwise as error:
            found = str(error)
        if key is None:
            return _checked(found)
        _REMEMBERED[key] = found
    return _checked(_REMEMBERED[key])


def _checked(found):
    if isinstance(found, str):
        raise NotChannelwise(found)
    return found


def _key(node, axis, output_axis):
    """The key of a behaviour: class and text; None if it cannot be formed."""
    static = [
        "a tensor" if isinstance(x, trace.Value) else x
        for x in keras.tree.flatten((node.args, node.kwargs))
    ]
    if isinstance(node.op, keras.layers.Layer):
        config = {**cloning.config_of(node.op), "name": None}
    else:
        attributes = vars(node.op).items()
        config = {x: y for x, y in attributes if x[0] != "_" and x != "name"}
    shape, dtype = node.inputs[0].shape, node.inputs[0].dtype
    try:
        text = json.dumps(
            [config, static, shape, dtype, axis, output_axis], sort_keys=True
        )
    except (TypeError, ValueError):
        return None
    return type(node.op), text


def _observe(node, axis, output_axis):
    failure = "it does not run"
    shape = node.inputs[0].shape
    batch = comparing.EXAMPLES * math.ceil(node.inputs[0].rows)
    sizes = comparing.SIZES if None in shape[1:] else (None,)
    is_layer = isinstance(node.op, keras.layers.Layer)
    undisturbed = (
        keras_internals.undisturbed if is_layer else contextlib.nullcontext
    )
    with undisturbed(node.op):
        for size in sizes:  # It may divide an unknown size.
            dims = (batch, *(size if d is None else d for d in shape[1:]))
            try:
                return Experiment(node, axis, dims, output_axis).behaviour()
            except NotChannelwise:
                raise
            except Exception as error:  # Whatever the user's code raises.
                failure = f"on random input: {comparing.first(error)}"
    raise NotChannelwise(failure)
