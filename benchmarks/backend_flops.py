"""The FLOPs of the graph that a backend runs, to compare costs with.

The count covers the operations that `keras_bar.measure_cost` counts:
convolutions and matrix products, 2 FLOPs per multiply-add, for one sample,
including the zeros at padded borders. It leaves out additions, activations and
normalization, and so differs from `cost_analysis` of a compiled JAX function,
which counts everything but padded borders.

- TensorFlow: every operation of the traced function, and of the functions it
  calls, by the statistics of TensorFlow's profiler.
- JAX: every `conv_general_dilated` and `dot_general` of the jaxpr.
"""

import math

import keras
import numpy as np


def backend_flops(model):
    """FLOPs of the convolutions and matrix products of one forward pass.

    Args:
        model: `keras.Model` with known input sizes.

    Returns:
        Integer.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow(model)
    if backend == "jax":
        return _jax(model)
    raise ValueError(
        "This backend has no graph to count in. Expected TensorFlow or JAX. "
        f"Received: {backend!r}"
    )


def _tensorflow(model):
    import tensorflow as tf

    inputs = keras.tree.map_structure(
        lambda x: tf.TensorSpec((1, *x.shape[1:]), x.dtype), _inputs(model)
    )
    function = tf.function(lambda x: model(x, training=False))
    return _flops_of(function.get_concrete_function(inputs).graph)


def _flops_of(graph):
    """FLOPs of a TensorFlow graph and of all that it calls."""
    from tensorflow.python.framework import ops

    total = 0
    for operation in graph.get_operations():
        if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
            name = operation.get_attr("f").name
            total += _flops_of(graph._get_function(name).graph)
        elif "Conv" in operation.type or "MatMul" in operation.type:
            statistics = ops.get_stats_for_node_def(
                graph, operation.node_def, "flops"
            )
            if statistics.value is None:
                raise ValueError(
                    "TensorFlow does not know the FLOPs of an operation. "
                    "Expected convolutions and matrix products. "
                    f"Received: {operation.type}"
                )
            total += int(statistics.value)
        elif operation.type == "Einsum":
            total += _einsum_flops(operation)
        elif operation.type == "XlaCallModule":
            raise ValueError(
                "The FLOPs of an operation are unknown. Expected convolutions "
                f"and matrix products. Received: {operation.type}"
            )
    return total


def _einsum_flops(operation):
    """2 FLOPs per multiply-add: one for each combination of all labels."""
    equation = operation.get_attr("equation").decode()
    labels = equation.partition("->")[0].split(",")
    sizes = {}
    for names, tensor in zip(labels, operation.inputs, strict=True):
        sizes |= dict(zip(names, tensor.shape.as_list(), strict=True))
    return 2 * math.prod(sizes.values())


def _jax(model):
    import jax

    inputs = keras.tree.map_structure(
        lambda x: np.zeros((1, *x.shape[1:]), x.dtype), _inputs(model)
    )
    state = [
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
        )
    ]
    jaxpr = jax.make_jaxpr(
        lambda x: model.stateless_call(*state, x, training=False)[0]
    )(inputs)
    return sum(map(_equation_flops, _equations(jaxpr.jaxpr)))


def _equations(jaxpr):
    """Every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in keras.tree.flatten(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _equation_flops(equation):
    """FLOPs of one equation."""
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        ((contracted, _), _) = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        terms = math.prod(shape[i] for i in contracted)
    elif name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        terms = math.prod(kernel) // outputs
        # A transposed convolution reads an input with zeros in between.
        terms /= math.prod(parameters["lhs_dilation"])
    else:
        return 0
    return round(2 * terms * math.prod(equation.outvars[0].aval.shape))


def _inputs(model):
    """The symbolic inputs, nested as the model wants them."""
    source = getattr(model, "_functional", None) or model
    return source._inputs_struct
