"""A model built anew from the list of its operations."""

import sys
import warnings

import keras
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import naming
from keras_bar.analysis import products
from keras_bar.analysis.cloning import clone

# The recursion limit for models deeper than Python's usual limit: enough for
# some 10,000 layers in a row.
DEEPEST = 20_000


def replay(graph, rebuild, finish=None, name=None, kind=keras.Model):
    """Builds a new model by running a traced one, operation by operation.

    Args:
        graph: A `Graph`.
        rebuild: Function of `(node, tensors)` that returns the flat list of
            new output tensors of a node; `tensors` maps each `Value` computed
            so far to its new tensor.
        finish: Function from the flat list of output tensors to those that
            the model returns. Defaults to the identity.
        name: Name of the new model. Defaults to that of the old one.
        kind: Class of the new model.

    Returns:
        A Functional `keras.Model` with new inputs. Its inputs and outputs are
        named and nested as in the old model.
    """
    if graph.overridden:
        warnings.warn(
            f"The new model made of {graph.name!r} is a plain one, without "
            f"its own {', '.join(f'`{x}`' for x in graph.overridden)}: only "
            "its graph of layers is rebuilt. To train with them, make a model "
            "of your class from the new one's `inputs` and `outputs`.",
            stacklevel=4,
        )
    known_names = set(graph._names)
    tensors = {}
    for value, tensor in zip(graph.inputs, graph.input_tensors, strict=True):
        tensors[value] = clone(keras_internals.maker_of(tensor)).output
    for node in graph.nodes:
        outputs = rebuild(node, tensors)
        for value, tensor in zip(node.outputs, outputs, strict=True):
            tensors[value] = products.as_dense(tensor, node, graph.fresh_name)
    outputs = [tensors[value] for value in graph.outputs]
    outputs = finish(outputs) if finish else outputs
    final = dict(zip(graph.outputs, outputs, strict=True))
    names = dict(zip(graph.outputs, graph.output_names, strict=True))
    named = naming.name_outputs(
        [tensors[value] for value in graph.inputs],
        final.values(),
        names.values(),
        graph.fresh_name,
    )
    final = dict(zip(final, named, strict=True))
    _warn_of_masks(graph, final)
    graph._names = known_names  # Another new model may use the same names.
    inputs = tree.map_structure(lambda x: tensors[x], graph.input_struct)
    outputs = tree.map_structure(lambda x: final[x], graph.output_struct)
    name = name or graph.name
    try:
        return kind(inputs, outputs, name=name)
    except RecursionError:
        model = functional(inputs, outputs, name, kind)
    warnings.warn(
        f"The new model made of {name!r} is too deep for Keras to load or "
        "clone within Python's recursion limit. Expected, before you do that, "
        f"`sys.setrecursionlimit({DEEPEST})`. Received: "
        f"{sys.getrecursionlimit()}, for {len(model.operations)} operations",
        stacklevel=4,
    )
    return model


def functional(inputs, outputs, name, kind=keras.Model):
    """A Functional model, however deep it is: Keras follows a graph from its
    outputs to its inputs by recursion."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEPEST))
    try:
        return kind(inputs, outputs, name=name)
    finally:
        sys.setrecursionlimit(before)


def _warn_of_masks(graph, outputs):
    """Warns of masks that the outputs of a new model do not carry.

    Args:
        graph: The `Graph` of the old model.
        outputs: Dict from its outputs to those of the new one.
    """
    lost = [
        name
        for value, name in zip(graph.outputs, graph.output_names, strict=True)
        if value.mask is not None
        and keras_internals.get_keras_mask(outputs[value]) is None
    ]
    if lost:
        warnings.warn(
            f"The new model made of {graph.name!r} computes the same, but its "
            "outputs carry no mask. Expected, if losses are to leave out "
            "masked steps as before, a `sample_weight` in `fit`. Received: "
            f"outputs with a mask: {', '.join(map(repr, lost))}",
            stacklevel=5,
        )
