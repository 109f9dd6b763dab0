"""What stands around a gate: who writes its channels, and who reads them."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_bar.analysis import trace
from keras_bar.analysis.residual_groups import ResidualGroups
from keras_bar.analysis.rules import multi_input
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.convolutions import DepthwiseConvolution
from keras_bar.analysis.rules.convolutions import SeparableConvolution
from keras_bar.analysis.rules.gates import Gate
from keras_bar.analysis.rules.kernels import Kernel
from keras_bar.analysis.rules.kernels import Mixing
from keras_bar.analysis.rules.reshaping import Flatten

# Pictures in a batch of those on which activations are observed.
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Reader:
    """A layer with a kernel that reads the channels of a gate.

    Attributes:
        node: `Node` of the layer.
        value: `Value` that it reads.
        rows: Integers `(channels, places)`, where the weights of a channel are
            along the kernel's input axis: one place each, or as many as a
            flattened channel has positions.
    """

    node: trace.Node
    value: trace.Value
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The layers around the channels of one gate.

    Attributes:
        writers: List of `Node`, the layers with a kernel that write them.
        between: List of `Node`, layers with numbers of their own for every
            channel, such as batch normalization, between writers and readers.
        norms: Dict from those of them that are batch normalizations with a
            scale to where the scales of a channel are: None for one each, and
            behind a flattening `rows` as of a `Reader`.
        unscaled: List of `Node`, those that read channels which no such scale
            has multiplied; None stands for an output of the model.
        readers: List of `Reader`.
        complete: Whether `readers` are all that read the channels, so that
            some channels can stand in for others. A concatenation, an addition
            to channels that others write or squeeze-and-excitation are not
            followed.
    """

    writers: list
    between: list
    norms: dict
    unscaled: list
    readers: list
    complete: bool


def find_neighbours(cost_model):
    """Dict from gate to its `Neighbours`."""
    analysis = cost_model.analysis
    gated: dict = {gate: [] for gate in cost_model.gates}
    for node, rule in analysis.rules.items():
        if isinstance(rule, Gate):
            gated[rule.gate(node)].append(node)
    groups = ResidualGroups(analysis)
    search = _Search(analysis, groups, groups.sources())
    return {gate: search.around(x) for gate, x in gated.items()}


class _Search:
    """Follows the channels of a gate to those who read them.

    Args:
        analysis: `ChannelAnalysis`.
        streams: Its `ResidualGroups`.
        sources: Dict from stream to the nodes that write it.
    """

    def __init__(self, analysis, groups, sources):
        self._analysis = analysis
        self._groups = groups
        self._sources = sources

    def around(self, nodes):
        """`Neighbours` of the gate that multiplies at `nodes`."""
        behind = [self._written(node) for node in nodes]
        # The layers that channels pass, each on its own; as in `norms`.
        passed: dict = {x: None for _, front in behind for x in front}
        readers, followed = [], True
        stack: list = [(node.output, None) for node in nodes]
        seen: set = set()
        while stack:
            value, rows = stack.pop()
            followed &= value not in self._analysis.graph.outputs
            for node in set(value.consumers) - seen:
                seen.add(node)
                rule = self._analysis.rules[node]
                if _reads_linearly(rule):
                    size = value.shape[rule.axis(node, value)]
                    one_each = np.arange(size)[:, None]
                    found = one_each if rows is None else rows
                    readers.append(Reader(node, value, found))
                elif isinstance(rule, Flatten) and rows is None:
                    flat = self._flattened_rows(node, value)
                    passed[node] = flat
                    stack.append((node.output, flat))
                elif self._passes(node, rule, nodes):
                    passed[node] = rows
                    followed &= rows is None or not _has_weights(node)
                    stack.append((node.output, rows))
                else:
                    followed = False
        return Neighbours(
            writers=[writer for writer, _ in behind],
            between=[x for x in passed if _has_weights(x)],
            norms={x: at for x, at in passed.items() if _has_scale(x)},
            unscaled=self._unscaled(nodes, behind, passed),
            readers=sorted(readers, key=lambda x: x.node.name),
            complete=bool(followed and readers),
        )

    def _passes(self, node, rule, gate_nodes):
        """Whether channel i of the output depends on channel i alone."""
        if isinstance(rule, DepthwiseConvolution):
            return rule.copies(node.op) == 1
        if isinstance(rule, multi_input.Sum):
            # Nobody else writes to the sum.
            group = self._groups.of(node.output)
            full = all(multi_input.has_full_shape(x, node) for x in node.inputs)
            return full and set(self._sources[group]) <= set(gate_nodes)
        return isinstance(rule, Channelwise) and not isinstance(rule, Gate)

    def _written(self, node):
        """The layer with a kernel in front of a gate, and those between."""
        between = []
        node = self._analysis.rules[node].gated(node).producer
        while not isinstance(self._analysis.rules[node], Kernel):
            between.append(node)
            node = node.inputs[0].producer
        return node, between

    def _unscaled(self, nodes, behind, passed):
        """Who reads what has passed a gate, but no scale."""
        stack = [
            node.output
            for node, (_, front) in zip(nodes, behind, strict=True)
            if not any(map(_has_scale, front))
        ]
        seen, readers = set(stack), []
        while stack:
            value = stack.pop()
            readers += [None] if value in self._analysis.graph.outputs else []
            for node in value.consumers:
                if node not in passed:
                    readers.append(node)
                elif not _has_scale(node) and node.output not in seen:
                    seen.add(node.output)
                    stack.append(node.output)
        return readers

    def _flattened_rows(self, node, value):
        """Where the features of every channel are, `(channels, places)`."""
        channels = self._analysis.channels[value]
        everything = np.arange(channels.size)
        rule = self._analysis.rules[node]
        of, resolved = rule.features(node, channels, everything)
        return np.stack([resolved[of == i] for i in everything])


def _reads_linearly(rule):
    """Whether a sum over input channels makes the output. (A separable
    convolution applies another kernel to every channel first.)"""
    separable = isinstance(rule, SeparableConvolution)
    return isinstance(rule, Mixing) and not separable


def _has_weights(node):
    return bool(getattr(node.op, "weights", ()))


def _has_scale(node):
    norm = isinstance(node.op, keras.layers.BatchNormalization)
    return norm and node.op.gamma is not None


class Activations:
    """The activations that readers see, compressed.

    For every reader the matrix `X` of its channels (rows: samples x positions)
    is kept as the triangle `R` of its QR decomposition: `R'R = X'X`, which is
    all that a least-squares fit of channels by channels asks for.

    Args:
        analysis: `ChannelAnalysis` of the gated model, whose gates are open.
        neighbours: Dict from gate to `Neighbours`.
    """

    def __init__(self, analysis, neighbours):
        self._analysis = analysis
        self._readers = {
            gate: around.readers for gate, around in neighbours.items()
        }
        self._found: dict = {}

    def __call__(self, gate, inputs):
        """List of arrays `(up to channels, channels)`, one per reader.

        Args:
            gate: The gate.
            inputs: What the model is called on: an array, or a structure of
                arrays with the samples along the first axis.

        Raises:
            ValueError: If there are no samples.
        """
        if not len(keras.tree.flatten(inputs)[0]):
            raise ValueError(
                "There are no activations to observe. Expected inputs of at "
                "least one sample. Received: none"
            )
        if id(inputs) not in self._found:
            # One pass serves all gates. The inputs are kept with what was
            # found, so that their id stays theirs.
            self._found = {id(inputs): (inputs, self._observe(inputs))}
        triangles = self._found[id(inputs)][1]
        return [triangles[reader.node] for reader in self._readers[gate]]

    def _observe(self, inputs):
        readers = [x for found in self._readers.values() for x in found]
        triangles: dict = {}
        arrays = keras.tree.flatten(inputs)
        for start in range(0, len(arrays[0]), BATCH):
            batch = [x[start : start + BATCH] for x in arrays]
            seen = self._run(batch, {x.value for x in readers})
            for reader in readers:
                rows = self._matrix(reader, seen[reader.value])
                before = triangles.get(reader.node, rows[:0])
                triangles[reader.node] = np.linalg.qr(
                    np.concatenate([before, rows]), mode="r"
                )
        return triangles

    def _matrix(self, reader, array):
        """A row per sample and position, a column per channel."""
        rule = self._analysis.rules[reader.node]
        array = np.moveaxis(array, rule.axis(reader.node, reader.value), -1)
        by_channel = array[..., reader.rows]
        by_channel = np.swapaxes(by_channel, -1, -2)
        return by_channel.reshape(-1, len(reader.rows))

    def _run(self, batch, wanted):
        """Dict from the `Value`s wanted to their arrays, in inference."""
        graph = self._analysis.graph
        seen: dict = {}
        tensors = {
            value: ops.convert_to_tensor(x, dtype=value.dtype)
            for value, x in zip(graph.inputs, batch, strict=True)
        }
        unread = {x: len(x.consumers) for x in graph.values}
        for node in graph.nodes:
            outputs = trace.call(node.op, node, tensors)
            tensors.update(zip(node.outputs, outputs, strict=True))
            for value in wanted & {*node.inputs, *node.outputs} - set(seen):
                seen[value] = to_numpy(tensors[value])
            for value in node.inputs:  # Large ones must not pile up.
                unread[value] -= 1
                if not unread[value]:
                    del tensors[value]
        return seen
