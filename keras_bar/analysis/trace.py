"""Tracing: a Keras model becomes a `Graph`, in which nested models, subclassed
layers and subclassed models are unrolled."""

import contextlib

from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import kinds
from keras_bar.analysis import masks
from keras_bar.analysis import products
from keras_bar.analysis import unrolling
from keras_bar.analysis.cloning import clone as clone
from keras_bar.analysis.cloning import copy_state as copy_state
from keras_bar.analysis.cloning import named_in_errors
from keras_bar.analysis.cloning import without_random_values
from keras_bar.analysis.graph import Graph
from keras_bar.analysis.nodes import Node as Node
from keras_bar.analysis.nodes import Value as Value
from keras_bar.analysis.tracer import Tracer


def trace(model, inputs=None):
    """Traces a model.

    Args:
        model: A built `keras.Model`: Functional, Sequential or subclassed.
        inputs: Structure of `keras.Input` for a subclassed model, by default
            like those that it was built for.

    Returns:
        A `Graph`.

    Raises:
        ValueError: If the model has no graph of layers, and its `call` does not
            show one.
    """
    kinds.check_is_network(model)
    kinds.check_inputs(model, inputs)
    overridden = kinds.overridden_methods(model)
    if not kinds.is_functional(model):
        try:
            model = unrolling.unroll_model(model, inputs)
        except unrolling.Opaque as error:
            raise ValueError(
                "This model has no graph of layers to analyse. Expected a "
                "Functional or Sequential `keras.Model`, or a subclassed one "
                "whose `call` works on symbolic tensors and computes nothing "
                f"but what they show. Received: {model.name!r} (of type "
                f"{type(model)}), but {error}"
            ) from error
    graph = Graph(model)
    graph.overridden = overridden
    tracer = Tracer(graph)
    graph.outputs = tracer.unroll(model, graph.inputs)
    tracer.add_losses()
    tracer.drop_unread_masks()
    masks.hide(graph)
    # Mapped, not packed again: on PyTorch Keras would sort dict keys.
    known = dict(zip(map(id, model.inputs), graph.inputs, strict=True))
    known |= zip(map(id, model.outputs), graph.outputs, strict=True)
    graph.input_struct, graph.output_struct = tree.map_structure(
        lambda x: known[id(x)],
        keras_internals.structures(kinds.functional(model)),
    )
    return graph


def call(op, node, tensors, initialize=False):
    """Calls `op` as `node` was called, on new tensors.

    Args:
        op: Operation.
        node: `Node`.
        tensors: Dict from `Value` to the new tensor.
        initialize: Whether a new layer keeps the random values with which it
            begins, which take long to draw. Otherwise these weights are 0.

    Returns:
        The flat list of output tensors.
    """

    def tensor_of(x):
        # On constants alone, in inference, masks change nothing.
        is_left_out = x in node.masks and x not in tensors
        return None if is_left_out else tensors[x]

    args, kwargs = tree.map_structure(
        lambda x: tensor_of(x) if isinstance(x, Value) else x,
        (node.args, node.kwargs),
    )
    values = (
        contextlib.nullcontext() if initialize else without_random_values(op)
    )
    with named_in_errors(op), values, products.are_dense():
        return tree.flatten(op(*args, **kwargs))
