"""Where a tensor's widths come from, and where they go.

A zone consists of all tensors that have the widths of a tensor of heads: from
the layers that make them to those that sum over them. A gate can remove widths
where nothing else reads any of these tensors.
"""

import dataclasses

import keras

from keras_bar.analysis.rules import activations
from keras_bar.analysis.rules import einsum
from keras_bar.analysis.rules.attended import is_attended_by
from keras_bar.analysis.rules.heads import merges_heads
from keras_bar.analysis.rules.heads import splits_heads
from keras_bar.analysis.rules.projections import mixed_axes
from keras_bar.analysis.rules.reshaping import permutation
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate

# Operations on single features, and those that scale all of them.
_SAME = ("Cast", "Dropout", "Identity")
_SCALES = ("Multiply", "Divide", "TrueDivide")
_TRANSPOSES = ("Transpose", "Swapaxes", "Moveaxis", "Permute")
_PRODUCTS = {"Einsum": einsum.Einsum(), "Matmul": einsum.Matmul()}


class _Unknown(Exception):
    """Something reads or writes widths in another way."""


@dataclasses.dataclass(frozen=True)
class Zone:
    """Tensors that have the same widths.

    Attributes:
        axes: Dict from `Value` to the axis of its widths.
        makers: List of the `Value`s that layers and reshapes make.
        gives: Whether a layer behind attention reads them: these are widths of
            values. Others are those of queries and keys.
    """

    axes: dict
    makers: list
    gives: bool

    @property
    def nodes(self):
        """Set of the nodes that read or write the tensors."""
        made = {x.producer for x in self.axes}
        return made.union(*(x.consumers for x in self.axes))

    def is_closed_by(self, value):
        """Whether a gate on a tensor closes widths wherever they end: each sum
        over them reads the tensor, or what is made of it."""
        front = [value]
        while front[-1].producer.inputs[0] in self.axes:
            front.append(front[-1].producer.inputs[0])
        if any(len(x.consumers) > 1 for x in front[1:]):
            return False
        behind, stack = {value}, [value]
        while stack:
            found = [
                x
                for reader in stack.pop().consumers
                for x in reader.outputs
                if x in self.axes and x not in behind
            ]
            behind.update(found)
            stack += found
        ends = {
            reader
            for x in self.axes
            if x not in front[1:]
            for reader in x.consumers
            if not any(y in self.axes for y in reader.outputs)
        }
        return all(behind & {*reader.inputs} for reader in ends)


def zone_at(node, value, outputs):
    """The zone of queries, keys or values that a product reads.

    Args:
        node: `Node` of the product.
        value: The `Value` among its inputs.
        outputs: List of the `Value`s that the model returns.

    Returns:
        A `Zone`, or None; see `zone_of`.
    """
    if type(node.op).__name__ == "DotProductAttention":
        return zone_of(value, outputs, 3)
    labels = _PRODUCTS[type(node.op).__name__].labels(node)
    if labels is None or len(node.inputs) != 2:
        return None
    (mine, other), output = labels
    if value is node.inputs[1]:
        mine, other = other, mine
    # Summed with the other one, or else in the output alone.
    attended = is_attended_by(value, node)
    kept = output if attended else other
    found = [
        i
        for i, x in enumerate(mine)
        if x in kept and x not in (other if attended else output)
    ]
    return zone_of(value, outputs, found[0]) if len(found) == 1 else None


def zone_of(value, outputs, axis):
    """The zone of a tensor.

    Args:
        value: `Value`.
        outputs: List of the `Value`s that the model returns.
        axis: Index of the axis of its widths.

    Returns:
        A `Zone`, or None if something reads the widths in another way.
    """
    axes: dict = {}
    makers: list = []
    stack = [(value, axis)]
    try:
        while stack:
            tensor, axis = stack.pop()
            if axes.setdefault(tensor, axis) != axis or tensor in outputs:
                return None
            for node in [tensor.producer, *tensor.consumers]:
                if node is None:
                    return None
                others = _axes_at(node, tensor, axis)
                if not others and node is tensor.producer:
                    makers.append(tensor)
                stack += [x for x in others.items() if x[0] not in axes]
    except _Unknown:
        return None
    gives = any(_reads(x) for tensor in axes for x in tensor.consumers)
    return Zone(axes, makers, gives)


def _reads(node):
    """Whether a node mixes the features of heads."""
    return type(node.op).__name__ in ("EinsumDense", "Reshape")


def _axes_at(node, tensor, axis):
    """Dict from the other tensors at a node that have the widths which a tensor
    has along an axis, to their axes; empty where the widths begin or end.

    Raises:
        _Unknown: If the node does something else with them.
    """
    kind = type(node.op).__name__
    inputs, output = node.inputs, node.output
    if kind in _PRODUCTS:
        return _axes_of_product(node, tensor, axis)
    if kind == "DotProductAttention":
        return _axes_of_attention(node, tensor, axis)
    if len(inputs) != 1:
        raise _Unknown
    last = axis == len(tensor.shape) - 1
    if kind == "EinsumDense":
        ends = {(1, 2): output, (2, 1): inputs[0]}
        if last and tensor is ends.get(mixed_axes(node.op)) and _is_plain(node):
            return {}
        raise _Unknown
    if kind == "Reshape":
        splits = tensor is output and splits_heads(node)
        if last and (splits or tensor is inputs[0] and merges_heads(node)):
            return {}
        raise _Unknown
    other = output if tensor is inputs[0] else inputs[0]
    if kind in _TRANSPOSES:
        places = permutation(node)
        moved = places.index(axis) if tensor is inputs[0] else places[axis]
        return {other: moved}
    if _passes(node, kind, axis):
        return {other: axis}
    raise _Unknown


def _passes(node, kind, axis):
    """Whether feature i of the output is a multiple of feature i of the
    input."""
    if isinstance(node.op, ChannelGate | BudgetState):
        return True
    if kind == "Repeat":
        along = node.op.axis
        return along is not None and along % len(node.output.shape) != axis
    if kind in _SCALES:
        return all(
            not len(getattr(x, "shape", ()))
            for x in keras.tree.flatten((node.args, node.kwargs))
            if x is not node.inputs[0]
        ) and (kind == "Multiply" or node.args[0] is node.inputs[0])
    return kind in _SAME and getattr(node.op, "noise_shape", None) is None


def _axes_of_product(node, tensor, axis):
    labels = _PRODUCTS[type(node.op).__name__].labels(node)
    if labels is None or len({*node.inputs}) < len(node.inputs):
        raise _Unknown
    operands, output = labels
    known = [*zip(node.inputs, operands, strict=True), (node.output, output)]
    label = next(x[axis] for value, x in known if value is tensor)
    found = {value: x.index(label) for value, x in known if label in x}
    if len(node.inputs) != 2 or label == output[0]:
        raise _Unknown
    return {value: x for value, x in found.items() if value is not tensor}


def _axes_of_attention(node, tensor, axis):
    query, key, value, *_ = node.inputs
    sizes = (*query.shape[1:], *key.shape[1:], *value.shape[1:])
    capped = node.op.attn_logits_soft_cap is not None
    alike = query.shape[2] == key.shape[2] == value.shape[2]
    if axis != 3 or None in sizes or capped or not alike:
        raise _Unknown
    if len({*node.inputs}) < len(node.inputs):
        raise _Unknown
    if tensor in (query, key):
        return {key if tensor is query else query: axis}
    if tensor in (value, node.output):
        return {node.output if tensor is value else value: axis}
    raise _Unknown


def _is_plain(node):
    """Whether a projection is called once, and its weights are its own."""
    op = node.op
    changed = getattr(op, "lora_enabled", False) or op.quantization_mode
    elementwise = activations.is_elementwise(op.activation)
    return node.calls == 1 and not changed and elementwise
