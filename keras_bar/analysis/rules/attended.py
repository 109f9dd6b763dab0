"""Where attention is in a graph: what is attended to, and by which weights."""

import keras

from keras_bar.analysis.rules.selecting import WHOLE
from keras_bar.analysis.rules.selecting import whole_key
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate

# Operations between projections and attention that keep heads separate.
_ON_THE_WAY = (
    *("Cast", "Divide", "Dropout", "GetItem", "Identity", "Moveaxis"),
    *("Multiply", "Permute", "Repeat", "Swapaxes", "Transpose", "TrueDivide"),
    *("Rescaling", "Squeeze", "Unstack"),
    # Rotary positions.
    *("Add", "Concatenate", "Negative", "Split", "Subtract"),
)
# What takes apart queries, keys and values that one layer made.
_APART = ("GetItem", "Unstack")
# Operations on products of queries and keys before their softmax.
_SCORES = (
    *("Add", "Cast", "Divide", "Multiply", "Reshape", "Subtract"),
    *("TrueDivide", "Where"),
)
_PRODUCTS = ("Einsum", "Matmul")


def passes_heads(op):
    """Whether an operation keeps heads separate, as gates do."""
    ours = isinstance(op, ChannelGate | BudgetState)
    return ours or type(op).__name__ in _ON_THE_WAY


def is_attended(value):
    """Whether a tensor of heads holds values, which are attended to, and not
    queries or keys; None if no attention reads it."""
    seen, stack = {value}, [value]
    while stack:
        tensor = stack.pop()
        for reader in tensor.consumers:
            attended = is_attended_by(tensor, reader)
            if attended is not None:
                return attended
            if passes_heads(reader.op):
                stack += [x for x in reader.outputs if x not in seen]
                seen.update(reader.outputs)
    return None


def is_product(node):
    """Whether a node may multiply queries by keys, or weights by values."""
    return type(node.op).__name__ in (*_PRODUCTS, "DotProductAttention")


def is_attended_by(value, node):
    """Whether a node attends to a tensor as to values; False for queries and
    keys, None if the node is no attention."""
    if not is_product(node):
        return None
    if type(node.op).__name__ == "DotProductAttention":
        return value is node.inputs[2] if value in node.inputs[:3] else None
    if is_weighted(value, node):
        return True
    return False if leads_to_softmax(node.output) else None


def is_place_of_gate(node):
    """Whether the heads of attention have their gate behind the product of its
    weights and values, because no layer makes the values alone."""
    if type(node.op).__name__ == "DotProductAttention":
        value = node.inputs[2]
    else:
        values = [x for x in node.inputs if is_weighted(x, node)]
        if len(values) != 1:
            return False
        (value,) = values
    while (producer := value.producer) is not None:
        if type(producer.op).__name__ in _APART:
            return True
        if not passes_heads(producer.op):
            return False
        value = producer.inputs[0]
    return False


def are_parts_taken(node, axis):
    """Whether queries, keys and values, along an axis of a node's output, are
    taken apart by whoever reads it."""
    readers = node.output.consumers
    if len(readers) == 1 and type(readers[0].op).__name__ == "Transpose":
        axes = readers[0].op.axes
        if axes is None:
            return False
        rank = len(axes)
        moved = [x % rank for x in axes].index(axis)
        return are_parts_taken(readers[0], moved)
    return bool(readers) and all(_takes_along(x, axis) for x in readers)


def _takes_along(node, axis):
    """Whether a node takes entries of an axis and leaves the others whole."""
    kind, rank = type(node.op).__name__, len(node.inputs[0].shape)
    if kind == "Unstack":
        return node.op.axis % rank == axis
    if kind != "GetItem":
        return False
    key = whole_key(node)
    return key is not None and all(
        isinstance(x, int) if i == axis else x == WHOLE
        for i, x in enumerate(key)
    )


def is_weighted(value, node):
    """Whether a product sums a tensor over positions with weights that a
    softmax made."""
    others = [x for x in node.inputs if x is not value]
    return bool(others) and all(map(comes_from_softmax, others))


def comes_from_softmax(value):
    """Whether a tensor is what a softmax made, up to dropout."""
    while (node := value.producer) is not None:
        if _is_softmax(node):
            return True
        if type(node.op).__name__ not in ("Dropout", "Cast"):
            return False
        value = node.inputs[0]
    return False


def leads_to_softmax(value):
    """Whether a softmax is the next that is made of a tensor, up to scales,
    biases and masks."""
    while len(value.consumers) == 1:
        (node,) = value.consumers
        if _is_softmax(node):
            return True
        if type(node.op).__name__ not in _SCORES:
            return False
        value = node.output
    return False


def _is_softmax(node):
    activation = getattr(node.op, "activation", None)
    named = type(node.op).__name__ == "Softmax"
    return named or activation is keras.activations.softmax
