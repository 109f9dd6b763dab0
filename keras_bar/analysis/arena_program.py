"""The program that an inference runtime would run for a network.

For a gated network it is that of its compact model, which does not have to be
built: the channels that are computed say which tensors there are, and how large
they are. An operation that reads other channels than a tensor stores moves them
first.
"""

import keras
import numpy as np

from keras_bar.analysis.arena import Program
from keras_bar.analysis.rules.base import has_full_shape
from keras_bar.analysis.rules.base import positions
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.channel_selection import ChannelPad
from keras_bar.analysis.rules.channel_selection import Mixed
from keras_bar.analysis.rules.channel_selection import Selection
from keras_bar.analysis.rules.channelwise import Elementwise
from keras_bar.analysis.rules.convolutions import DepthwiseConvolution
from keras_bar.analysis.rules.gates import Gate
from keras_bar.analysis.rules.grouped import GroupedConvolution
from keras_bar.analysis.rules.joining import Concatenate
from keras_bar.analysis.rules.kernels import Mixing
from keras_bar.analysis.rules.multi_input import Merge
from keras_bar.analysis.rules.multi_input import Sum
from keras_bar.analysis.rules.multi_input import broadcasts
from keras_bar.analysis.rules.projections import ToHeads
from keras_bar.analysis.rules.splitting import Divided
from keras_bar.analysis.rules.splitting import Split

# Layers that return their input in inference, or another shape of it.
_VIEWS = (
    "ActivityRegularization AlphaDropout BudgetState Dropout ExpandDims "
    "Flatten GaussianDropout GaussianNoise Identity Reshape "
    "SpatialDropout1D SpatialDropout2D SpatialDropout3D Squeeze StopGradient"
).split()
# Operations on numbers, of one tensor or of one tensor and constants.
_IN_PLACE = (
    "Activation BatchNormalization LayerScale Normalization PReLU Rescaling "
    "Softmax Add Divide Maximum Minimum Multiply Subtract TrueDivide "
    f"{Elementwise.layers} {Elementwise.operations}"
).split()
_MOVES = "GetItem Moveaxis Pad Permute Swapaxes Take Transpose".split()
# Operations whose result has the shape of their input, but none of its data.
_CONSTANTS = "OnesLike ZerosLike".split()


def item_size(dtype):
    """Bytes of a number of a type."""
    dtype = keras.backend.standardize_dtype(dtype)
    if dtype == "bool":
        return 1
    return int("".join(x for x in dtype if x.isdigit())) // 8


def bytes_per_channel(value, analysis):
    """Bytes of a channel of a tensor for one sample; of the whole tensor, if
    its channel axis is unknown. NaN if a size is unknown."""
    axis = analysis.channels[value].axis
    places = product(value.shape[1:])
    if axis is not None:
        places = positions(value, axis)
    return places * value.rows * item_size(value.dtype)


def write(analysis, live):
    """The `Program` of a network.

    Args:
        analysis: `ChannelAnalysis`.
        live: Dict from every `Value` that is needed to booleans, the channels
            of it that are computed.
    """
    return _Writer(analysis, live).write()


class _Writer:
    def __init__(self, analysis, live):
        self.analysis = analysis
        self.live = {
            x: np.broadcast_to(mask, (self._channels(x),))
            for x, mask in live.items()
        }
        self.program = Program()
        rules = analysis.rules.values()
        self._gated = any(isinstance(rule, Gate) for rule in rules)
        # The tensor of every value; None if it is constant, or not computed.
        self.tensors: dict = {}

    def write(self):
        graph, program = self.analysis.graph, self.program
        for value in graph.inputs:
            self.tensors[value] = program.tensor(
                *self._sized(value, self._channels(value))
            )
        program.inputs = [self.tensors[x] for x in graph.inputs]
        program.whole.update(program.inputs)
        for node in graph.nodes:
            self.tensors.update(dict.fromkeys(node.outputs))
            built = any(self._is_built(x) for x in node.outputs)
            if built and type(node.op).__name__ not in _CONSTANTS:
                self._write(node)
        outputs = [self._whole(x.producer, x) for x in graph.outputs]
        program.outputs = [x for x in outputs if x is not None]
        return program.finish()

    def _write(self, node):
        rule = self.analysis.rules[node]
        data = [x for x in node.inputs if self.tensors[x] is not None]
        known = self._axis(node.output) is not None
        if not data:
            return
        for kind, method in (
            (Gate, self._gate),
            ((Sum, Mixed), self._sum),
            (Concatenate, self._concatenation),
            ((Selection, ChannelPad), self._selection),
            (Split, self._split),
            (Divided, self._division),
        ):
            if known and isinstance(rule, kind):
                return method(node, rule, data)
        return self._other(node, rule, data)

    def _gate(self, node, rule, data):
        if not self._is_built(node.output):
            return
        tensor = self._read(node, rule.gated(node), self.live[node.output])
        self._make(node, "in place", [tensor])

    def _sum(self, node, rule, data):
        mixed = isinstance(rule, Mixed)
        if not mixed and not all(has_full_shape(x, node) for x in node.inputs):
            return self._other(node, rule, data)
        kept = self.live[node.output]
        everything = [slice(None)] * len(node.inputs)
        places = rule.places(node) if mixed else everything
        operands, constants = [], 0
        for value, held in zip(node.inputs, places, strict=True):
            if not self._is_built(value):
                continue
            stored = np.zeros(len(kept), bool)
            stored[held] = self.live[value]
            wanted = stored & kept
            if not wanted.any():
                continue
            tensor = self.tensors[value]
            if tensor is None:
                constants += 1
            elif np.array_equal(stored, kept):
                operands.append(tensor)
            else:
                operands.append(self._move(node, tensor, node.output))
        if len(operands) == 1 and not constants:
            self.tensors[node.output] = operands[0]
        elif operands:
            kind = "add" if len(operands) > 1 else "in place"
            self._make(node, kind, operands)

    def _concatenation(self, node, rule, data):
        if len(data) == 1 and sum(map(self._is_built, node.inputs)) == 1:
            tensor, made = self.tensors[data[0]], self._count(data[0])
        else:
            tensors = [self.tensors[x] for x in data]
            made = sum(map(self._count, filter(self._is_built, node.inputs)))
            tensor = self._run(node, "other", tensors, node.output, made)
        self._select(node, tensor, made, node.output)

    def _selection(self, node, rule, data):
        tensor, made = self.tensors[data[0]], self._count(data[0])
        self._select(node, tensor, made, node.output)

    def _split(self, node, rule, data):
        if not self._gated:
            return self._other(node, rule, data)
        for value in filter(self._is_built, node.outputs):
            tensor, made = self.tensors[data[0]], self._count(data[0])
            self._select(node, tensor, made, value)

    def _division(self, node, rule, data):
        made = self._count(data[0])
        sizes = [self._sized(x, made) for x in node.outputs]
        tensors = self.program.run(
            node, "other", [self.tensors[data[0]]], *sizes
        )
        for value, tensor in zip(node.outputs, tensors, strict=True):
            if self._is_built(value):
                self._select(node, tensor, made, value)

    def _other(self, node, rule, data):
        tensors = [self._operand(node, rule, x) for x in data]
        name, output = type(node.op).__name__, node.output
        one = len(data) == 1
        if one and name in _VIEWS:
            self.tensors[output] = tensors[0]
            if rule.flattens and self._axis(data[0]) is not None:
                places = positions(data[0], self._axis(data[0]))
                made = self._count(data[0]) * places
                self._select(node, tensors[0], made, output)
            return
        if name.startswith("SeparableConv"):
            stored = self.program.sizes[tensors[0]] / bytes_per_channel(
                data[0], self.analysis
            )
            made = stored * node.op.depth_multiplier
            tensors = [self._run(node, "other", tensors, output, made)]
        same = one and (
            data[0].shape[1:] == output.shape[1:]
            and item_size(data[0].dtype) >= item_size(output.dtype)
        )
        if one and name in _MOVES:
            self._make(node, "move", tensors)
        elif same and name in _IN_PLACE:
            self._make(node, "in place", tensors)
        elif isinstance(rule, DepthwiseConvolution):
            copies = rule.copies(node.op)
            made = self._grouped(self.live[output], copies).sum() * copies
            tensor = self._run(node, "other", tensors, output, made)
            self._select(node, tensor, made, output)
        else:
            self._make(node, "other", tensors)

    def _operand(self, node, rule, value):
        """The tensor that an operation reads, with the channels it needs."""
        index = node.inputs.index(value)
        whole = rule.reason or rule.restores or isinstance(rule, ToHeads)
        if whole or self.analysis.reads_all(node, index):
            return self._whole(node, value)
        if isinstance(rule, Mixing) or not self._is_built(node.output):
            return self.tensors[value]
        wanted = self.live[node.output]
        if isinstance(rule, DepthwiseConvolution):
            wanted = self._grouped(wanted, rule.copies(node.op))
        elif isinstance(rule, GroupedConvolution):
            reads, writes = rule._sizes(node)
            wanted = np.repeat(self._grouped(wanted, writes), reads)
        elif isinstance(rule, Merge) and broadcasts(value, node, self.analysis):
            return self._whole(node, value)
        elif len(wanted) != self._channels(value):
            return self.tensors[value]
        tensor = self._read(node, value, wanted)
        if tensor != self.tensors[value]:
            self.program.channels[tensor] = node.output
        return tensor

    def _whole(self, node, value):
        """A tensor with all of its channels."""
        wanted = np.ones(self._channels(value), bool)
        tensor = self._read(node, value, wanted)
        if tensor != self.tensors[value]:
            self.program.whole.add(tensor)
        return tensor

    def _read(self, node, value, wanted):
        """A tensor with the channels `wanted`, booleans."""
        tensor = self.tensors[value]
        if tensor is None or np.array_equal(self.live[value], wanted):
            return tensor
        return self._move(node, tensor, value, int(wanted.sum()))

    def _select(self, node, tensor, stored, value):
        """Makes a value out of a tensor that stores more channels."""
        count = self._count(value)
        if stored != count:
            tensor = self._move(node, tensor, value, count)
        self.tensors[value] = tensor

    def _move(self, node, tensor, value, count=None):
        return self._run(node, "move", [tensor], value, count)

    def _make(self, node, kind, tensors):
        """Adds the operation of a node."""
        sizes = [self._sized(x) for x in node.outputs]
        made = self.program.run(node, kind, tensors, *sizes)
        for value, tensor in zip(node.outputs, made, strict=True):
            if self._is_built(value):
                self.tensors[value] = tensor

    def _run(self, node, kind, tensors, value, count=None):
        sized = self._sized(value, count)
        return self.program.run(node, kind, tensors, sized)[0]

    def _sized(self, value, count=None):
        """A tensor and its bytes."""
        count = self._count(value) if count is None else count
        return value, bytes_per_channel(value, self.analysis) * count

    def _count(self, value):
        """Number of channels of a tensor that are computed."""
        if value not in self.live:  # An output that nobody reads.
            return self._channels(value)
        return int(self.live[value].sum())

    def _is_built(self, value):
        return value in self.live and bool(self.live[value].any())

    def _channels(self, value):
        return self.analysis.channels[value].size or 1

    def _axis(self, value):
        return self.analysis.channels[value].axis

    @staticmethod
    def _grouped(mask, size):
        """Per group of `size` channels, whether any is computed."""
        return mask.reshape(-1, size).any(axis=1)
