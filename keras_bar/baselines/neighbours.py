"""What stands around a gate: who writes its channels, and who reads them."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_bar.graph import trace
from keras_bar.graph.rules import merging
from keras_bar.graph.rules.base import to_numpy
from keras_bar.graph.rules.channelwise import Channelwise
from keras_bar.graph.rules.convolutions import DepthwiseConvolution
from keras_bar.graph.rules.convolutions import SeparableConvolution
from keras_bar.graph.rules.gates import Gate
from keras_bar.graph.rules.kernels import Kernel
from keras_bar.graph.rules.kernels import Mixing
from keras_bar.graph.rules.reshaping import Flatten
from keras_bar.graph.streams import Streams

# Pictures in a batch of those on which activations are observed.
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Reader:
    """A layer with a kernel that reads the channels of a gate.

    Attributes:
        node: `Node` of the layer.
        value: `Value` that holds the channels: what the layer reads, or what
            is flattened in front of it.
        rows: Integers `(channels, places)`, where a channel's weights are
            along the kernel's input axis.
    """

    node: object
    value: object
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The layers around the channels of one gate.

    Attributes:
        writers: List of `Node`, the layers with a kernel that write them.
        between: List of `Node`, layers with numbers of their own for every
            channel, such as batch normalization, between writers and readers.
        readers: List of `Reader`. Layers that cannot make up for a channel by
            others, such as a concatenation's readers, are not among them.
    """

    writers: list
    between: list
    readers: list

    def mergeable(self, flow):
        """Whether channels could stand in for one another. Those of a
        depthwise convolution are bound to the channels that it reads."""
        return not any(
            isinstance(flow.rules[x], DepthwiseConvolution)
            for x in self.writers
        )


def find_neighbours(cost_model):
    """Dict from gate to its `Neighbours`."""
    flow = cost_model.flow
    gated: dict = {gate: [] for gate in cost_model.gates}
    for node, rule in flow.rules.items():
        if isinstance(rule, Gate):
            gated[rule.gate(node)].append(node)
    streams = Streams(flow)
    sources = streams.sources()
    return {
        gate: _around(gate, nodes, flow, streams, sources)
        for gate, nodes in gated.items()
    }


def _around(gate, nodes, flow, streams, sources):
    behind = [_behind_norm(flow.rules[x].gated(x), flow) for x in nodes]
    writers = [writer for writer, _ in behind]
    between = [norm for _, norms in behind for norm in norms]
    readers: list = []
    seen: set = set()
    stack = [node.output for node in nodes]
    while stack:
        value = stack.pop()
        for node in set(value.consumers) - seen:
            seen.add(node)
            rule = flow.rules[node]
            if isinstance(rule, Flatten):
                readers.extend(_behind_flatten(node, value, flow))
            elif _reads_linearly(rule):
                rows = np.arange(gate.channels)[:, None]
                readers.append(Reader(node, value, rows))
            elif _is_channelwise(rule, node):
                between += [node] if getattr(node.op, "weights", ()) else []
                stack.append(node.output)
            elif isinstance(rule, merging.Sum) and (
                set(sources[streams.of(node.output)]) <= set(nodes)
            ):
                # Nobody else writes to the sum.
                stack.append(node.output)
    return Neighbours(writers, between, sorted(readers, key=_name))


def _name(reader):
    return reader.node.name


def _reads_linearly(rule):
    """Whether a sum over input channels makes the output. (A separable
    convolution applies another kernel to every channel first.)"""
    separable = isinstance(rule, SeparableConvolution)
    return isinstance(rule, Mixing) and not separable


def _is_channelwise(rule, node):
    """Whether channel i of the output depends on channel i alone."""
    if isinstance(rule, DepthwiseConvolution):
        return rule.copies(node.op) == 1
    return isinstance(rule, Channelwise) and not isinstance(rule, Gate)


def _behind_norm(value, flow):
    """The layer with a kernel that writes a tensor, and the layers of one
    input after another between them."""
    norms = []
    node = value.producer
    while not isinstance(flow.rules[node], Kernel):
        norms.append(node)
        node = node.inputs[0].producer
    return node, norms


def _behind_flatten(node, value, flow):
    """The dense layers that read a flattened tensor."""
    channels = flow.channels[value]
    of, numbers = flow.rules[node].features(
        node, channels, np.arange(channels.size)
    )
    rows = np.stack([numbers[of == i] for i in range(channels.size)])
    return [
        Reader(x, value, rows)
        for x in node.output.consumers
        if isinstance(flow.rules[x], Mixing)
    ]


class Activations:
    """The activations that readers see, compressed.

    For every reader the matrix `X` of its channels (rows: samples x positions)
    is kept as the triangle `R` of its QR decomposition: `R'R = X'X`, which is
    all that a least-squares fit of channels by channels asks for.

    Args:
        flow: `Flow` of the gated model, all of whose gates are open.
        neighbours: Dict from gate to `Neighbours`.
    """

    def __init__(self, flow, neighbours):
        self._flow = flow
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
        """
        if id(inputs) not in self._found:
            # One pass serves all gates. The inputs are kept with what was
            # found, so that their id stays theirs.
            self._found = {id(inputs): (inputs, self._observe(inputs))}
        triangles = self._found[id(inputs)][1]
        return [triangles[x.value] for x in self._readers[gate]]

    def _observe(self, inputs):
        values = {x.value for xs in self._readers.values() for x in xs}
        triangles: dict = {}
        count = len(keras.tree.flatten(inputs)[0])
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            batch = [x[rows] for x in keras.tree.flatten(inputs)]
            for value, array in self._run(batch, values).items():
                axis = self._flow.channels[value].axis
                array = np.moveaxis(array, axis, -1)
                seen = array.reshape(-1, array.shape[-1])
                seen = np.concatenate([triangles.get(value, seen[:0]), seen])
                triangles[value] = np.linalg.qr(seen, mode="r")
        return triangles

    def _run(self, batch, values):
        """Dict from `Value` to its array, in inference."""
        tensors = dict(
            zip(
                self._flow.graph.inputs,
                map(ops.convert_to_tensor, batch),
                strict=True,
            )
        )
        for node in self._flow.graph.nodes:
            outputs = trace.call(node.op, node, tensors)
            tensors.update(zip(node.outputs, outputs, strict=True))
        return {value: to_numpy(tensors[value]) for value in values}
