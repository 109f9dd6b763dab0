"""The parts of a traced model: tensors and the calls that make them."""

import keras
from keras import tree

from keras_bar.layers import ChannelGate


class Value:
    """A tensor of the traced model.

    Attributes:
        shape: Tuple, batch first, `None` where unknown.
        dtype: String.
        producer: The `Node` that makes it, `None` for a model input.
        consumers: List of `Node`s that read it.
        optional: Whether it is a model input that may be None.
        rows: Number of entries of the first axis per sample: windows of an
            image may be put beside the samples.
        mask: The `Value` of the time steps that count, which Keras carries
            along with the tensor; None if it carries none.
    """

    optional = False
    mask = None

    def __init__(self, tensor, producer, rows=1):
        self.rows = rows
        self.shape = tuple(tensor.shape)
        self.dtype = tensor.dtype
        self.producer = producer
        self.consumers = []


class Node:
    """One call of an operation.

    Attributes:
        op: The `keras.Operation` (a layer, or a `keras.ops` operation).
        name: Unique name; prefixed by the name of a nested model.
        args, kwargs: Arguments of the call, `Value`s in place of tensors.
        inputs, outputs: The `Value`s among them, and those it returns.
        masks: Set of the inputs that are masks of others.
        shared_calls: List of all `Node`s that call this very operation, in
            order.
        opaque: Why the operation shows no graph of its own, a string; empty
            where it has none to show.
        hides_mask: Whether a new embedding makes no mask that is carried along.
    """

    opaque = ""
    hides_mask = False

    def __init__(self, op, name, args, kwargs):
        self.op = op
        self.name = name
        self.args = args
        self.kwargs = kwargs
        self.inputs = [
            x for x in tree.flatten((args, kwargs)) if isinstance(x, Value)
        ]
        self.masks = {
            x for x in tree.flatten(kwargs.get("mask")) if isinstance(x, Value)
        }
        self.outputs = []
        self.shared_calls = [self]
        for value in self.inputs:
            value.consumers.append(self)

    @property
    def output(self):
        return self.outputs[0]

    def is_named(self, names):
        """Whether names contain its own, or that of its layer."""
        return self.name in names or self.op.name in names

    @property
    def calls(self):
        """Number of times the model calls this operation."""
        return len(self.shared_calls)

    @property
    def shares_weights(self):
        """Whether it is one of several calls of a layer with weights."""
        has_weights = bool(getattr(self.op, "weights", ()))
        is_gate = isinstance(self.op, ChannelGate)
        return self.calls > 1 and has_weights and not is_gate


def storable(x):
    """A constant as a file can hold it: NumPy has no bfloat16, and a number
    takes the type of the tensor that it is combined with."""
    is_scalar = getattr(x, "shape", None) == () and hasattr(x, "dtype")
    if is_scalar and "bfloat16" in str(x.dtype):
        return float(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))
    return x
