"""Graphs of attention whose heads are put beside the samples of the batch.

A reshape may join the heads with the batch in front of attention, and another
one take them apart behind it. In between, the operations of attention compute
the same with an axis of their own for heads, which rules then see.
"""

import dataclasses
import math
import string

import keras
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import naming
from keras_bar.analysis import replaying
from keras_bar.analysis.cloning import clone
from keras_bar.layers import Parameter

_BINARY = ("Add", "Divide", "Multiply", "Subtract", "TrueDivide")


@dataclasses.dataclass(frozen=True)
class _Joined:
    """An axis of a tensor of the old graph that stands for two axes of the new
    one: this and the next.

    Attributes:
        axis: Its index.
        count: Size of the second.
        op: The reshape that joined them.
    """

    axis: int
    count: int
    op: keras.Operation

    def moved(self, axis):
        return dataclasses.replace(self, axis=axis)

    def place(self, axis, rank):
        """The index of another axis in the new graph."""
        axis = axis % rank
        return axis + (axis > self.axis)


class _NotApart(Exception):
    """An operation needs the batch as it was."""


def apart(model, unroll):
    """A Functional model like another, in which heads have an axis of their own
    throughout attention; the very model where they have one already.

    Args:
        model: Functional `keras.Model` with a flat list of inputs.
        unroll: Function that returns the graph of a layer's call, and the
            places of its outputs; or None. See `unrolling.unroll`.
    """
    nodes = keras_internals.nodes_in_order(model)
    if not any(map(_joining, nodes)):
        return model
    replay = _Replay(model, unroll)
    for node in nodes:
        replay.add(node)
    if not replay.attends:
        return model
    outputs = [replay.joined(x) for x in model.outputs]
    return replaying.functional(replay.inputs, outputs, model.name)


class _Replay:
    """The new graph while it is made.

    Attributes:
        inputs: List of its inputs.
        attends: Whether heads are apart in a product with what a softmax made,
            as windows of an image are not.
    """

    def __init__(self, model, unroll):
        self._unroll = unroll
        self._names = {x.name for x in model.operations}
        self.inputs = [
            keras.Input(
                batch_shape=x.shape,
                dtype=x.dtype,
                name=keras_internals.maker_of(x).name,
            )
            for x in model.inputs
        ]
        self.attends = False
        self._tensors = dict(
            zip(map(id, model.inputs), self.inputs, strict=True)
        )
        self._joined: dict = {}  # Of old tensors.
        self._weights: set = set()  # Old tensors that a softmax made.

    def add(self, node, prefix=""):
        """Adds what a node computes, inside a layer of that name."""
        joined = _joining(node)
        if joined and id(node.input_tensors[0]) not in self._joined:
            (output,) = node.outputs
            self._tensors[id(output)] = self._new(node.input_tensors[0])
            self._joined[id(output)] = joined
            return
        if any(id(x) in self._joined for x in node.input_tensors):
            if self._add_inside(node):
                return
            try:
                self._add_apart(node, prefix)
                return
            except _NotApart:
                pass
        self._call(node, self._named(node.operation, prefix), self.joined)

    def _call(self, node, op, new, joined=None):
        """Calls an operation as a node does, on new tensors."""
        args, kwargs = tree.map_structure(
            lambda x: new(x) if _is_tensor(x) else x,
            (node.arguments.args, node.arguments.kwargs),
        )
        outputs = [
            x for x in tree.flatten(op(*args, **kwargs)) if _is_tensor(x)
        ]
        for old, made in zip(node.outputs, outputs, strict=True):
            self._tensors[id(old)] = made
            if joined is not None:
                self._joined[id(old)] = joined

    def _named(self, op, prefix, **changes):
        """An operation that has the only node of its name; layers have names of
        their own."""
        if isinstance(op, keras.Layer) or not prefix and not changes:
            return op
        name = op.name
        if prefix:
            name = naming.fresh(f"{prefix}_{name}", self._names)
        return clone(op, name, **changes)

    def _add_inside(self, node):
        """Adds what a layer calls, if it can be unrolled, and returns whether
        it was."""
        if isinstance(node.operation, Parameter):
            return False
        found = self._unroll(node)
        if found is None:
            return False
        inner, places = found
        given = [x for x in node.input_tensors if _is_tensor(x)]
        for old, x in zip(given, inner.inputs, strict=True):
            self._alias(old, x)
        for x in keras_internals.nodes_in_order(inner):
            self.add(x, node.operation.name)
        for place, x in zip(places, inner.outputs, strict=True):
            self._alias(x, node.outputs[place])
        return True

    def _alias(self, old, same):
        self._tensors[id(same)] = self._new(old)
        if id(old) in self._joined:
            self._joined[id(same)] = self._joined[id(old)]

    def joined(self, old):
        """The new tensor with heads beside the samples."""
        new, joined = self._new(old), self._joined.get(id(old))
        if joined is None:
            return new
        shape = [-1 if d is None else d for d in old.shape]
        name = naming.fresh(f"{joined.op.name}_joined", self._names)
        return clone(joined.op, name, newshape=tuple(shape))(new)

    def _new(self, old):
        return self._tensors[id(old)]

    def _add_apart(self, node, prefix):
        """Adds a node whose heads stay apart.

        Raises:
            _NotApart: If they cannot.
        """
        op = node.operation
        found = [self._joined.get(id(x)) for x in node.input_tensors]
        joined, *others = [x for x in found if x is not None]
        if any(
            (x.axis, x.count) != (joined.axis, joined.count) for x in others
        ):
            raise _NotApart
        if isinstance(op, Parameter) and not op.per_sample:
            self._call(node, op, self._new)
            return
        changes, after = self._changes(node, joined)
        if isinstance(op, keras.Layer) and changes:
            raise _NotApart
        self._call(node, self._named(op, prefix, **changes), self._new, after)
        self._notice_attention(node, after)

    def _notice_attention(self, node, after):
        """Finds products of weights and values."""
        kind, read = (
            type(node.operation).__name__,
            {*map(id, node.input_tensors)},
        )
        weighted = read & self._weights
        if kind == "Softmax" or weighted and kind in ("Cast", "Dropout"):
            self._weights.add(id(node.outputs[0]))
        elif weighted and kind in ("Matmul", "Einsum") and after is not None:
            self.attends |= len(read) > 1 and read <= self._joined.keys()

    def _changes(self, node, joined):
        """What changes of an operation, a dict, and the joined axis of its
        outputs; None if these have heads as they were."""
        op, kind = node.operation, type(node.operation).__name__
        source, output = node.input_tensors[0], node.outputs[0]
        rank, axis = len(source.shape), joined.axis
        if kind == "Reshape":
            return _reshaped(source.shape, output.shape, joined)
        if kind == "Transpose":
            axes = op.axes or range(rank)[::-1]
            axes = [x % rank for x in axes]
            places = []
            for x in axes:
                places += [x, x + 1] if x == axis else [joined.place(x, rank)]
            return {"axes": tuple(places)}, joined.moved(axes.index(axis))
        if kind in _BINARY and self._broadcasts(node, rank - 1 - axis):
            return {}, joined
        if kind == "Matmul" and axis == 0 and self._broadcasts(node, 2):
            return {}, joined
        if kind == "Einsum":
            return self._summed(node, joined)
        if kind in ("Cast", "Identity"):
            return {}, joined
        if kind == "Dropout" and op.noise_shape is None:
            return {}, joined
        if kind == "Softmax" and isinstance(op.axis, int):
            along = joined.place(op.axis, rank) - rank - 1
            if op.axis % rank != axis:
                return {"axis": along} if along != op.axis else {}, joined
        if kind == "ExpandDims" and isinstance(op.axis, int):
            new = op.axis % (rank + 1)
            if new > axis:
                return {"axis": new + 1}, joined
        if kind == "Unstack" and op.axis % rank != axis:
            along = joined.place(op.axis, rank)
            return {"axis": along}, joined.moved(axis - (along < axis))
        if kind == "GetItem":
            return {}, _taken(node.arguments.args[1], joined)
        raise _NotApart

    def _broadcasts(self, node, rank):
        """Whether every operand has its heads apart, or no more axes than
        these."""
        return all(
            id(x) in self._joined or len(getattr(x, "shape", ())) <= rank
            for x in tree.flatten((node.arguments.args, node.arguments.kwargs))
        )

    def _summed(self, node, joined):
        """The changes of an einsum: the label of the batch becomes two."""
        left, _, output = node.operation.subscripts.partition("->")
        operands = left.replace(" ", "").split(",")
        output = output.strip()
        if len(operands) != len(node.input_tensors):
            raise _NotApart  # One is a constant.
        pairs = list(zip(operands, node.input_tensors, strict=True))
        labels = {x[joined.axis] for x, old in pairs if id(old) in self._joined}
        others = "".join(x for x, old in pairs if id(old) not in self._joined)
        free = [x for x in string.ascii_letters if x not in left + output]
        (label, *more) = labels
        if more or "." in left or label in others or label not in output:
            raise _NotApart
        two = label + free[0]
        spelled = ",".join(x.replace(label, two) for x in operands)
        subscripts = f"{spelled}->{output.replace(label, two)}"
        return {"subscripts": subscripts}, joined.moved(output.index(label))


def _joining(node):
    """The axis that a node makes of the batch and the axis behind it, or
    None."""
    if type(node.operation).__name__ != "Reshape":
        return None
    old, new = node.input_tensors[0].shape, node.outputs[0].shape
    if len(old) != len(new) + 1 or old.count(None) != 1:
        return None
    axis = old.index(None)
    count, rest = old[axis + 1], old[axis + 2 :]
    if axis > 1 or not rest or count == 1:
        return None
    if new == (*old[:axis], None, *rest):
        return _Joined(axis, count, node.operation)
    return None


def _reshaped(old, new, joined):
    """The changes of a reshape. In memory, two axes are the same as one."""
    if new.count(None) != 1 or old.count(None) != 1:
        raise _NotApart
    shape = [-1 if d is None else d for d in new]
    same = math.prod(old[1:]) == math.prod(new[1:]) if not joined.axis else None
    if new[0] is None and same:
        shape = [-1, joined.count, *shape[1:]]
        return {"newshape": tuple(shape)}, joined
    return {"newshape": tuple(shape)}, None


def _taken(key, joined):
    """The joined axis behind a look-up by a key."""
    if isinstance(key, int) and joined.axis == 1:
        return joined.moved(0)
    if isinstance(key, tuple) and key[0] is Ellipsis and joined.axis == 0:
        return joined
    raise _NotApart


def _is_tensor(x):
    return isinstance(x, keras.KerasTensor)
