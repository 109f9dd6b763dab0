"""The neighbours of a gate: the layers that write and read its channels."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_bar.analysis import trace
from keras_bar.analysis.residual_groups import ResidualGroups
from keras_bar.analysis.rules.base import has_full_shape
from keras_bar.analysis.rules.base import to_numpy

# Batch size for the observation of activations.
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Reader:
    """A layer with a kernel that reads the channels of a gate.

    Attributes:
        node: `Node` of the layer.
        value: `Value` that the layer reads.
        rows: Integers `(channels, places)`, the indices of each channel's
            weights along the kernel's input axis: one per channel, one per
            position of a flattened channel, or those of channels that share a
            factor.
    """

    node: trace.Node
    value: trace.Value
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The layers around the channels of one gate.

    Attributes:
        writers: List of `Node`, the layers with a kernel that write the
            channels, each once.
        between: List of `Node`, layers between writers and readers with weights
            per channel, such as batch normalization.
        norms: Dict from the batch normalizations with a scale among them to the
            places of each channel's scales: None for one scale per channel,
            else `rows` as in `Reader`.
        unscaled: List of `Node`, the readers of channels that no such scale has
            multiplied; None stands for an output of the model.
        readers: List of `Reader`.
        complete: Whether nothing but `readers` reads the channels, so that some
            channels can stand in for others, one for one. The search does not
            follow a concatenation, an addition to the channels of other gates,
            squeeze-and-excitation, or layers that the model calls several
            times.
        widths: Whether the channels are the features that all heads of
            attention have in common. Their readers are not searched for.
    """

    writers: list
    between: list
    norms: dict
    unscaled: list
    readers: list
    complete: bool
    widths: bool = False


def find_neighbours(cost_model):
    """Returns a dict from gate to its `Neighbours`."""
    analysis = cost_model.analysis
    gated: dict = {gate: [] for gate in cost_model.gates}
    for node, rule in analysis.rules.items():
        gate = rule.gate(node) or rule.width_gate(node)
        if gate is not None:
            gated[gate].append(node)
    groups = ResidualGroups(analysis)
    search = _Search(analysis, groups, groups.sources())
    return {
        gate: search.around_widths(*nodes)
        if analysis.rules[nodes[0]].width_gate(nodes[0])
        else search.around(nodes)
        for gate, nodes in gated.items()
    }


class _Search:
    """Follows the channels of a gate to their readers.

    Args:
        analysis: `ChannelAnalysis`.
        groups: `ResidualGroups` of the analysis.
        sources: Dict from residual group to the nodes that write it.
    """

    def __init__(self, analysis, groups, sources):
        self._analysis = analysis
        self._groups = groups
        self._sources = sources

    def around(self, nodes):
        """Returns the `Neighbours` of the gate that multiplies at `nodes`."""
        behind = [self._written(node) for node in nodes]
        gate = self._analysis.rules[nodes[0]].gate(nodes[0])
        first = gate.channels_by_factor() if gate.groups > 1 else None
        # Channelwise layers on the way, with places as in `norms`.
        passed: dict = {x: first for _, front in behind for x in front}
        readers, followed = [], True
        stack: list = [(node.output, first) for node in nodes]
        seen: set = set()
        while stack:
            value, rows = stack.pop()
            followed &= value not in self._analysis.graph.outputs
            for node in set(value.consumers) - seen:
                seen.add(node)
                rule = self._analysis.rules[node]
                if rule.reads_linearly:
                    size = value.shape[rule.axis(node, value)]
                    one_each = np.arange(size)[:, None]
                    found = one_each if rows is None else rows
                    readers.append(Reader(node, value, found))
                elif rule.flattens and rows is None:
                    flat = self._flattened_rows(node, value)
                    passed[node] = flat
                    stack.append((node.output, flat))
                elif self._passes(node, rule, nodes):
                    passed[node] = rows
                    followed &= rows is None or not _has_weights(node)
                    stack.append((node.output, rows))
                else:
                    followed = False
        writers = [writer for writer, _ in behind]
        followed &= not any(
            x.shares_weights
            for x in [*writers, *passed, *(x.node for x in readers)]
        )
        layers = _layers(passed)
        return Neighbours(
            writers=_layers(writers),
            between=[x for x in layers if _has_weights(x)],
            norms={x: passed[x] for x in layers if _has_scale(x)},
            unscaled=self._unscaled(nodes, behind, passed),
            readers=sorted(readers, key=lambda x: x.node.name),
            complete=bool(followed and readers) and gate.groups == 1,
        )

    def around_widths(self, node):
        """Returns the `Neighbours` of the gate on the widths of heads that
        multiplies at a node."""
        writer, _ = self._written(node)
        return Neighbours(
            writers=[writer],
            between=[],
            norms={},
            unscaled=list(node.output.consumers),
            readers=[],
            complete=False,
            widths=True,
        )

    def _passes(self, node, rule, gate_nodes):
        """Whether channel i of the output depends only on channel i."""
        if rule.filters_each_channel:
            return rule.copies(node.op) == 1
        if rule.adds_inputs:
            # No other gate may write to the sum.
            group = self._groups.of(node.output)
            full = all(has_full_shape(x, node) for x in node.inputs)
            return full and set(self._sources[group]) <= set(gate_nodes)
        if len(node.outputs) > 1 or rule.gate(node) is not None:
            return False
        return rule.passes_channels

    def _written(self, node):
        """The layer with a kernel before a gate, and the layers in between. A
        depthwise convolution is in between if nothing but the gate closes the
        channels that it reads."""
        between = []
        node = self._analysis.rules[node].gated(node).producer
        while not self._analysis.rules[node].has_kernel:
            between.append(node)
            node = node.inputs[0].producer
        if self._analysis.rules[node].filters_each_channel:
            front = [node]
            while (node := self._only_writer(front[-1].inputs[0])) is not None:
                rule = self._analysis.rules[node]
                if rule.has_kernel and not rule.filters_each_channel:
                    return node, between + front
                front.append(node)
            node = front[0]
        return node, between

    def _only_writer(self, value):
        """The node that writes a tensor which nothing else reads; None if it is
        a gate or does not keep channels apart."""
        node = value.producer
        if node is None or len(value.consumers) > 1:
            return None
        rule = self._analysis.rules[node]
        keeps = rule.has_kernel or (
            rule.ties_channels and len(node.inputs) == 1
        )
        return node if keeps and rule.gate(node) is None else None

    def _unscaled(self, nodes, behind, passed):
        """List of `Node`, readers that no scale separates from the gate."""
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
        """Indices of the features of each channel, `(channels, places)`."""
        channels = self._analysis.channels[value]
        everything = np.arange(channels.size)
        rule = self._analysis.rules[node]
        of, resolved = rule.features(node, channels, everything)
        return np.stack([resolved[of == i] for i in everything])


def _layers(nodes):
    """The nodes without further calls of their layers, whose weights are the
    same."""
    by_layer: dict = {}
    for node in nodes:
        by_layer.setdefault(node.shared_calls[0], node)
    return list(by_layer.values())


def _has_weights(node):
    return bool(getattr(node.op, "weights", ()))


def _has_scale(node):
    norm = isinstance(node.op, keras.layers.BatchNormalization)
    return norm and node.op.gamma is not None


class Activations:
    """The activations that readers see, in compressed form.

    The matrix `X` of a reader's channels (rows: samples x positions) is reduced
    to the triangle `R` of its QR decomposition: least-squares fits of channels
    by channels need only `R'R = X'X`.

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
            inputs: Inputs of the model, an array or a structure of arrays with
                the samples along the first axis.

        Raises:
            ValueError: If there are no samples.
        """
        if not len(keras.tree.flatten(inputs)[0]):
            raise ValueError(
                "There are no activations to observe. Expected inputs of at "
                "least one sample. Received: none"
            )
        if id(inputs) not in self._found:
            # One pass serves all gates. Keeping the inputs guarantees that
            # no other object gets their id.
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
        """Matrix with a row per sample and position, a column per channel."""
        rule = self._analysis.rules[reader.node]
        array = np.moveaxis(array, rule.axis(reader.node, reader.value), -1)
        by_channel = array[..., reader.rows]
        by_channel = np.swapaxes(by_channel, -1, -2)
        return by_channel.reshape(-1, len(reader.rows))

    def _run(self, batch, wanted):
        """Dict from the wanted `Value`s to their arrays in inference."""
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
            for value in node.inputs:  # Frees memory.
                unread[value] -= 1
                if not unread[value]:
                    del tensors[value]
        return seen
