"""Attention of heads that lost features. Of `keras.ops.dot_product_attention`
Keras infers a wrong shape if values differ in size from keys, and its default
scale depends on their size."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_bar.analysis import trace

# The score of what a mask hides: as in Keras, a part of the smallest number.
HIDDEN = -0.7 * float(np.finfo("float32").max)


def unfused(node, tensors, builder):
    """The output of a `dot_product_attention`, by its operations.

    Args:
        node: `Node` of the operation.
        tensors: Dict from each `Value` that it reads to its new tensor. Without
            queries and keys, each position attends to all others equally.
        builder: `Builder`.
    """
    given = {
        name: tensors.get(x, x) if isinstance(x, trace.Value) else x
        for name, x in _arguments(node).items()
    }
    query, key, value = (given[x] for x in ("query", "key", "value"))
    name, called = node.name, builder.named
    if node.inputs[0] in tensors:
        scores = called(
            ops.einsum("btnh,bsnh->bnts", query, key), f"{name}_scores"
        )
        scores = _scaled(scores, given.get("scale"), node, builder)
    else:
        scores = _zeros(node, builder)
    if given.get("bias") is not None:
        scores = called(ops.add(scores, given["bias"]), f"{name}_bias")
    for i, mask in enumerate(_masks(given.get("mask"), node)):
        if isinstance(mask, keras.KerasTensor):
            scores = ops.where(mask, scores, HIDDEN)
        else:  # Added, which keeps heads apart whatever the mask is.
            mask = ops.convert_to_numpy(mask)
            shift = np.where(mask, 0.0, HIDDEN).astype("float32")
            scores = ops.add(scores, shift)
        scores = called(scores, f"{name}_mask_{i}")
    weights = called(ops.softmax(scores, axis=-1), f"{name}_weights")
    if weights.dtype != value.dtype:
        weights = called(ops.cast(weights, value.dtype), f"{name}_cast")
    return called(ops.einsum("bnts,bsnh->btnh", weights, value), name)


def scale_of(node):
    """The factor of the products that a call of the operation has, or None."""
    return _arguments(node).get("scale")


def _arguments(node):
    """Dict from parameter to argument of the call of an operation."""
    called = inspect.signature(node.op.call).bind(*node.args, **node.kwargs)
    return called.arguments


def _scaled(scores, scale, node, builder):
    """The products, in float32 and divided by the square root of the number of
    features that the full network has."""
    if scores.dtype != "float32":
        scores = builder.named(
            ops.cast(scores, "float32"), f"{node.name}_float32"
        )
    scale = node.inputs[0].shape[-1] ** -0.5 if scale is None else scale
    return builder.named(
        ops.multiply(scores, float(scale)), f"{node.name}_scaled"
    )


def _zeros(node, builder):
    """Products of no queries and keys: 0, shape (batch, heads, to, from)."""
    query, key = node.inputs[:2]
    heads = len(builder.order[node.output])
    shape = (heads, query.shape[1], key.shape[1])
    zeros = builder.zero_per_sample(f"{node.name}_scores", "float32")
    zeros = builder.named(
        ops.reshape(zeros, (-1, 1, 1, 1)), f"{node.name}_scores_reshape"
    )
    return builder.named(
        ops.tile(zeros, (1, *shape)), f"{node.name}_scores_tile"
    )


def _masks(mask, node):
    """The masks of attention: that of the call, and that of causality."""
    masks = [] if mask is None else [mask]
    if node.op.is_causal:
        shape = node.inputs[0].shape[1], node.inputs[1].shape[1]
        masks.append(np.tril(np.ones((1, 1, *shape), bool)))
    return masks
