"""The program that an inference runtime would run for a network.

For a gated network it is that of its compact model, which does not have to be
built: the channels that are computed say which tensors there are, and how large
they are. An operation that reads other channels than a tensor stores moves them
first.
"""

import keras
import numpy as np

from keras_bar.analysis import shared_calls
from keras_bar.analysis.arena import Program
from keras_bar.analysis.rules.base import product
from keras_bar.layers import ChannelGate

# Layers that return their input in inference, or another shape of it.
VIEWS = {
    *("ActivityRegularization", "AlphaDropout", "BudgetState", "Dropout"),
    *("ExpandDims", "Flatten", "GaussianDropout", "GaussianNoise"),
    *("Identity", "Reshape", "SpatialDropout1D", "SpatialDropout2D"),
    *("SpatialDropout3D", "Squeeze", "StopGradient"),
}
# Operations on numbers, of one tensor or of one tensor and constants.
_IN_PLACE = {
    *("Abs", "Absolute", "Activation", "Add", "BatchNormalization", "Cast"),
    *("Celu", "Clip", "Cos", "Divide", "ELU", "Elu", "Exp", "Expm1", "Gelu"),
    *("HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LayerScale"),
    *("LeakyReLU", "LeakyRelu", "Log1p", "LogSigmoid", "Maximum", "Minimum"),
    *("Multiply", "Negative", "Normalization", "PReLU", "ReLU", "Relu"),
    *("Relu6", "Rescaling", "Selu", "Sigmoid", "Silu", "Sin", "SoftShrink"),
    *("Softmax", "Softplus", "Softsign", "SparsePlus", "SparseSigmoid"),
    *("Sqrt", "Square", "Squareplus", "Subtract", "Tanh", "TanhShrink"),
    *("Threshold", "TrueDivide"),
}
_MOVES = {
    *("GetItem", "Moveaxis", "Pad", "Permute", "Swapaxes", "Take"),
    "Transpose",
}
# Operations whose result has a size of their input, but none of its data.
_CONSTANTS = {"OnesLike", "Parameter", "ZerosLike"}


def item_size(dtype):
    """Bytes of a number of a type."""
    dtype = keras.backend.standardize_dtype(dtype)
    if dtype == "bool":
        return 1
    return int("".join(x for x in dtype if x.isdigit())) // 8


def bytes_per_channel(value, analysis):
    """Bytes of a channel of a tensor for one sample; of the whole tensor, if
    its channel axis is unknown. NaN if a size is unknown."""
    axis, shape = analysis.channels[value].axis, value.shape
    batch = 0
    if shape and shape[0] is not None and shape.count(None) == 1:
        batch = shape.index(None)  # A transposition moved the samples.
    places = product(
        size for i, size in enumerate(shape) if i not in (batch, axis)
    )
    return places * value.rows * item_size(value.dtype)


def write(analysis, live, widths, holds):
    """The `Program` of a network.

    Args:
        analysis: `ChannelAnalysis`.
        live: Dict from every `Value` that is needed to booleans, the channels
            of it that are computed.
        widths: Dict from values with a `Width` to the part of it that is left.
        holds: Function that evaluates an `Expression` to booleans.
    """
    return ProgramWriter(analysis, live, widths, holds).write()


class ProgramWriter:
    """Writes a program, node by node.

    Attributes:
        program: The `Program`.
        has_gates: Whether the program is that of a compact network.
        live: Dict from every `Value` that is needed to booleans `(channels,)`.
        widths: Dict from values with a `Width` to the part of it that is left.
        holds: Function that evaluates an `Expression` to booleans.
        tensors: Dict from `Value` to its tensor in the program; None if it is
            constant, or not computed.
    """

    def __init__(self, analysis, live, widths, holds):
        self.analysis = analysis
        self.widths = widths
        self.holds = holds
        self.live = {
            x: np.broadcast_to(mask, (self.channels(x),))
            for x, mask in live.items()
        }
        self.program = Program()
        self.has_gates = any(
            isinstance(node.op, ChannelGate) for node in analysis.graph.nodes
        )
        self.tensors: dict = {}

    def write(self):
        graph, program = self.analysis.graph, self.program
        for value in graph.inputs:
            self.tensors[value] = program.tensor(
                *self._sized(value, self.channels(value))
            )
        program.inputs = [self.tensors[x] for x in graph.inputs]
        program.whole.update(program.inputs)
        for node in graph.nodes:
            self.tensors.update(dict.fromkeys(node.outputs))
            built = any(self.is_built(x) for x in node.outputs)
            if built and type(node.op).__name__ not in _CONSTANTS:
                self._write(node)
        outputs = [self.whole(x.producer, x) for x in graph.outputs]
        program.outputs = [x for x in outputs if x is not None]
        return program.finish()

    def _write(self, node):
        """Adds what a node does. A node without data makes constants."""
        if not self.data(node):
            return
        if shared_calls.has_rule(node, self.analysis):
            shared_calls.run(node, self)
        else:
            self.analysis.rules[node].run(node, self)

    def run_layer(self, node):
        """Adds the operation of a layer or operation, which reads what its rule
        says, and writes the channels of its output that are computed."""
        rule, output = self.analysis.rules[node], node.output
        data = self.data(node)
        tensors = [
            rule.operand(node, i, self)
            for i, x in enumerate(node.inputs)
            if self.tensors[x] is not None
        ]
        name, alone = type(node.op).__name__, len(data) == 1
        is_alike = alone and (
            data[0].shape[1:] == output.shape[1:]
            and item_size(data[0].dtype) >= item_size(output.dtype)
        )
        if alone and name in VIEWS:
            self.tensors[output] = tensors[0]
        elif alone and name in _MOVES:
            self.make(node, "move", tensors)
        elif is_alike and name in _IN_PLACE:
            self.make(node, "in place", tensors)
        elif rule.products(node):
            read = dict(zip(data, tensors, strict=True))
            self._run_attention(node, rule.products(node), read)
        else:
            between = rule.channels_between(node, self.count(node.inputs[0]))
            if between:
                tensors = [self.run(node, "other", tensors, output, between)]
            self.make(node, "other", tensors)

    def _run_attention(self, node, size, read):
        """Adds the steps of `dot_product_attention`. Softmax, and constant
        factors and masks, work in place.

        Args:
            node: `Node`.
            size: Number of the products of queries and keys.
            read: Dict from the inputs that are no constants to the tensors that
                hold what is read of them.
        """
        query, key, value, *masks = node.inputs
        output, dtype = node.output, query.dtype
        size = size / self.channels(output)

        def products(kind, tensors, dtype):
            tensors = [x for x in tensors if x is not None]
            if not tensors:
                return None  # Constant: without queries and keys, 0.
            return self._like(node, kind, tensors, size * item_size(dtype))

        scores = products("other", [read.get(query), read.get(key)], dtype)
        if item_size(dtype) < 4:
            scores = products("other", [scores], "float32")
        for mask in masks:
            scores = products("other", [scores, read.get(mask)], "float32")
        if item_size(dtype) < 4:
            scores = products("in place", [scores], dtype)
        last = [x for x in (scores, read.get(value)) if x is not None]
        self.make(node, "other", last)

    def run_sum(self, node, places):
        """Adds a sum: operands that store other channels are moved.

        Args:
            node: `Node`.
            places: Per input, the channels of the sum that it holds.
        """
        kept = self.live[node.output]
        operands, constants = [], 0
        for value, held in zip(node.inputs, places, strict=True):
            if not self.is_built(value):
                continue
            stored = np.zeros(len(kept), bool)
            stored[held] = self.live[value]
            tensor = self.tensors[value]
            if not np.any(stored & kept):
                continue
            if tensor is None:
                constants += 1
            elif np.array_equal(stored, kept):
                operands.append(tensor)
            else:
                operands.append(self.run(node, "move", [tensor], node.output))
        if len(operands) == 1 and not constants:
            self.tensors[node.output] = operands[0]
        elif operands:
            kind = "add" if len(operands) > 1 else "in place"
            self.make(node, kind, operands)

    def data(self, node):
        """The inputs of a node that are no constants."""
        return [x for x in node.inputs if self.tensors[x] is not None]

    def knows(self, value):
        """Whether the channel axis of a tensor is known."""
        return self.analysis.channels[value].axis is not None

    def like_output(self, node, index):
        """An input with the channels of the output, if it has as many."""
        value, output = node.inputs[index], node.output
        if self.analysis.reads_all(node, index):
            return self.whole(node, value)
        if not self.is_built(output):
            return self.tensors[value]
        if self.channels(value) != self.channels(output):
            return self.tensors[value]
        tensor = self.read(node, value, self.live[output])
        if tensor != self.tensors[value]:
            self.program.channels[tensor] = output
        return tensor

    def taken(self, node, value):
        """The heads of the output, taken out of an input that has all of them
        along an axis that is not known as that of its channels."""
        tensor, output = self.tensors[value], node.output
        if not self.is_built(output) or self.live[output].all():
            return tensor
        each = bytes_per_channel(value, self.analysis) / self.channels(output)
        return self._like(node, "move", [tensor], each)

    def _like(self, node, kind, tensors, each):
        """Adds an operation that makes one tensor with the channels of a node's
        output, of `each` bytes, and returns that."""
        sized = node.output, each * self.count(node.output)
        (made,) = self.program.run(node, kind, tensors, sized)
        self.program.channels[made] = node.output
        self.program.per_channel[made] = each
        return made

    def whole(self, node, value):
        """A tensor with all of its channels."""
        wanted = np.ones(self.channels(value), bool)
        tensor = self.read(node, value, wanted)
        if tensor != self.tensors[value]:
            self.program.whole.add(tensor)
        return tensor

    def read(self, node, value, wanted):
        """A tensor with the channels `wanted`, booleans."""
        tensor = self.tensors[value]
        if tensor is None or np.array_equal(self.live[value], wanted):
            return tensor
        if not self.knows(value) and wanted.all():
            return tensor
        # The channels of a tensor whose axis is unknown are no units of it.
        count = wanted.sum() if self.knows(value) else wanted.mean()
        return self.run(node, "move", [tensor], value, float(count))

    def select(self, node, tensor, stored, value):
        """Makes a value out of a tensor that stores more channels."""
        count = self.count(value)
        if stored != count:
            tensor = self.run(node, "move", [tensor], value, count)
        self.tensors[value] = tensor

    def run_all(self, node, kind, tensors, count):
        """Adds an operation whose outputs all have `count` channels, and
        returns these."""
        sizes = [self._sized(x, count) for x in node.outputs]
        return self.program.run(node, kind, tensors, *sizes)

    def make(self, node, kind, tensors):
        """Adds the operation of a node."""
        sizes = [self._sized(x) for x in node.outputs]
        made = self.program.run(node, kind, tensors, *sizes)
        for value, tensor in zip(node.outputs, made, strict=True):
            if self.is_built(value):
                self.tensors[value] = tensor

    def run(self, node, kind, tensors, value, count=None):
        """Adds an operation that makes one tensor, and returns that.

        Args:
            node: `Node` that it belongs to.
            kind: See `Operation`.
            tensors: List of the tensors that it reads.
            value: `Value` like which the tensor is.
            count: Number of its channels. Defaults to those of the value that
                are computed.
        """
        sized = self._sized(value, count)
        return self.program.run(node, kind, tensors, sized)[0]

    def _sized(self, value, count=None):
        """A tensor and its bytes."""
        count = self.count(value) if count is None else count
        size = bytes_per_channel(value, self.analysis) * count
        return value, size * self.widths.get(value, 1.0)

    def count(self, value):
        """Number of channels of a tensor that are computed."""
        if value not in self.live:  # An output that nobody reads.
            return self.channels(value)
        return int(self.live[value].sum())

    def is_built(self, value):
        return value in self.live and bool(self.live[value].any())

    def channels(self, value):
        return self.analysis.channels[value].size or 1
