"""Compaction: building the smaller network."""

import keras
import numpy as np

from keras_bar.compaction.hard_pruning import hard_prune
from keras_bar.compaction.layout import arrange
from keras_bar.compaction.numbers import Numbers
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks
from keras_bar.gating import CONNECTIVITIES
from keras_bar.graph import trace
from keras_bar.graph.flow import Flow
from keras_bar.graph.rules import channelwise
from keras_bar.graph.rules import mixing
from keras_bar.graph.streams import unite
from keras_bar.layers import HardConcreteGate
from keras_bar.layers import MixedResidual


def compact(model, *, connectivity="mixed"):
    """Builds the small network that a gated one has become.

    Dead channels are removed with everything that only served them, constants
    are folded into biases and batch normalization, the gates' values into the
    weights. In inference the result equals `hard_prune(model)`. It holds
    standard Keras layers, and `keras_bar.layers.MixedResidual` where the two
    sides of an addition keep different channels.

    Args:
        model: Gated `keras.Model`. It is left as it is.
        connectivity: `"mixed"`: the identity and the branch of a residual
            block keep the channels they have. `"regular"`: all writers of a
            residual stream keep the union of theirs; more is computed, by
            ordinary additions.

    Returns:
        A Functional `keras.Model` without gates.

    Raises:
        ValueError: If the model has no gates, no path from input to output is
            left, or an argument is wrong.
    """
    if connectivity not in CONNECTIVITIES:
        raise ValueError(
            "Unknown connectivity. Expected one of "
            f"{', '.join(map(repr, CONNECTIVITIES))}. "
            f"Received: connectivity={connectivity!r}"
        )
    pruned = hard_prune(model)
    graph = trace.trace(pruned)
    flow = Flow(graph)
    masks = alive_masks(CostModel(flow).gates)
    _fold_gates(flow)
    if connectivity == "regular":
        masks = unite(flow, masks)
    builder = Builder(flow, Numbers(flow, masks))
    small = trace.replay(graph, builder.rebuild, finish=builder.finish)
    small.hard_pruning_adjustments = pruned.hard_pruning_adjustments
    small.compaction = builder.summary()
    return small


class Builder:
    """Builds the compact network, operation by operation.

    Args:
        flow: `Flow` of the hard-pruned network.
        numbers: Its `Numbers`.

    Attributes:
        tensors: Dict from `Value` to its tensor in the new model; None where
            nothing of it is computed.
        order: Dict from `Value` to the channels its tensor stores, in their
            order; None for all of them where the channel axis is unknown.
    """

    def __init__(self, flow, numbers):
        self.flow = flow
        self.numbers = numbers
        self.constants = dict(numbers.constants)
        self.tensors = {}
        self.order = {
            value: None if flow.channels[value].axis is None else order
            for value, order in arrange(flow, numbers).items()
        }
        self.removed = []
        self.mixed = []
        self.restorations = []
        self._clones = {}
        self._mean_shifts = {}

    def rebuild(self, node, tensors):
        """The new output tensors of a node, None where it is not built."""
        self.tensors = tensors
        if not any(self._is_built(x) for x in node.outputs):
            self.removed.append(node)
            return [None] * len(node.outputs)
        return self.flow.rules[node].rebuild(node, self)

    def finish(self, outputs):
        """The model's outputs, with all of their channels."""
        return [self.restored(value) for value in self.flow.graph.outputs]

    def _is_built(self, value):
        return value in self.flow.needed and self.numbers.live[value].any()

    def clone(self, node, **changes):
        """A new layer for a node; one layer for all calls of one layer."""
        key = id(node.op)
        if node.calls == 1 or key not in self._clones:
            self._clones[key] = trace.clone(node.op, node.name, **changes)
        return self._clones[key]

    def copy_state(self, source, target):
        trace.copy_state(source, target)

    def read_for(self, node, index):
        """An input with just the channels that the output of `node` stores."""
        value, wanted = node.inputs[index], self.order[node.output]
        if wanted is None:
            return self.restored(value)
        return self._read(value, wanted, node.output)

    def restored(self, value):
        """A tensor with all of its channels, constants where they are dead."""
        size = self.flow.channels[value].size
        if self.order[value] is None:
            return self.tensors[value]
        return self._read(value, np.arange(size), value)

    def _read(self, value, wanted, like):
        """The channels `wanted` of a tensor, in that order."""
        tensor, stored = self.tensors[value], self.order[value]
        size = self.flow.channels[like].size
        if stored is None:
            stored = np.arange(size)
        if tensor is None:
            raise ValueError(
                "All channels of a tensor are dead, and a layer that cannot "
                "be pruned needs them. Expected at least one that is alive. "
                f"Received: the input of {like.producer.name!r}"
            )
        if np.isin(wanted, stored).all():
            return self.select(tensor, stored, wanted, like)
        constants = np.broadcast_to(self.constants[value], (size,))
        place = {channel: i for i, channel in enumerate(wanted)}
        kept = np.array([c for c in stored if c in place])
        tensor = self.select(tensor, stored, kept, like)
        constant = np.where(np.isin(wanted, kept), 0.0, constants[wanted])
        self.restorations.append(value)
        return self._place([tensor], [[place[c] for c in kept]], constant, like)

    def select(self, tensor, stored, wanted, like):
        """Takes the channels `wanted` out of a tensor that stores `stored`."""
        if wanted is None or np.array_equal(stored, wanted):
            return tensor
        place = {channel: i for i, channel in enumerate(stored)}
        positions = [place[c] for c in wanted]
        axis = self.flow.channels[like].axis
        return keras.ops.take(tensor, positions, axis=axis)

    def scale(self, tensor, factors, node):
        """A tensor times one number per channel."""
        if np.all(factors == 1.0):
            return tensor
        shape = [1] * (len(node.output.shape) - 1)
        shape[self.flow.channels[node.output].axis - 1] = -1
        factors = np.reshape(factors, shape).tolist()
        return keras.layers.Rescaling(factors, name=f"{node.name}_scale")(
            tensor
        )

    def gate_values(self, gate):
        """The factors of a gate whose values were not folded already."""
        return keras.ops.convert_to_numpy(gate.fixed_value).astype("float64")

    def folded(self, value):
        """The constants that a layer with a kernel folds into its bias."""
        return self.constants[value]

    def shift(self, node, layer, shift):
        """Adds constants to what a new layer computes."""
        if layer.use_bias:
            layer.bias.assign(mixing.to_numpy(layer.bias) + shift)
        else:
            norm = mixing.following_norm(node, self.flow)
            self._mean_shifts[norm] = shift

    def mean_shift(self, norm):
        """What was added in front of a batch normalization, or None."""
        return self._mean_shifts.get(norm)

    def operands(self, node):
        """The operands of an addition that are computed.

        Returns:
            Their tensors; per tensor the positions, among the output's
            channels, of those it stores (None for all, in order); and what
            the dead channels add per output channel, or None.
        """
        kept = self.order[node.output]
        place = {channel: i for i, channel in enumerate(kept)}
        tensors, indices, constant = [], [], np.zeros(len(kept))
        for value in node.inputs:
            constants = np.broadcast_to(
                self.constants[value], (self.flow.channels[node.output].size,)
            )
            constant += constants[kept]
            if self.tensors[value] is None:
                continue
            stored = self.order[value]
            if stored is None:
                stored = np.arange(self.flow.channels[node.output].size)
            wanted = np.array([c for c in stored if c in place])
            tensors.append(
                self.select(self.tensors[value], stored, wanted, node.output)
            )
            aligned = np.array_equal(wanted, kept)
            indices.append(None if aligned else [place[c] for c in wanted])
        return tensors, indices, constant if np.any(constant) else None

    def mix(self, tensors, indices, node, constant):
        """Adds tensors that store different channels."""
        self.mixed.append(node)
        return self._place(tensors, indices, constant, node.output, node.name)

    def _place(self, tensors, indices, constant, like, name=None):
        channels = len(self.order[like]) if name else len(constant)
        axis = self.flow.channels[like].axis
        layer = MixedResidual(
            indices,
            channels=channels,
            constant=None
            if constant is None or not np.any(constant)
            else constant,
            axis=-1 if axis == len(like.shape) - 1 else axis,
            name=name,
        )
        return layer(tensors)

    def summary(self):
        """What compaction did, for `keras_bar.explain`."""
        return {
            "removed": [
                node.name
                for node in self.removed
                if getattr(node.op, "weights", ())
                and not isinstance(node.op, HardConcreteGate)
            ],
            "mixed": [node.name for node in self.mixed],
            "restored": [
                value.producer.name if value.producer else "input"
                for value in self.restorations
            ],
        }


def _fold_gates(flow):
    """Multiplies the gates' values into the weights in front of them, where
    these are linear; what remains becomes a `Rescaling`."""
    for node, rule in flow.rules.items():
        if not isinstance(rule, channelwise.Gate) or len(node.outputs) > 1:
            continue
        producer = node.inputs[0].producer
        only_reader = len(node.inputs[0].consumers) == 1 and node.calls == 1
        if producer is None or not only_reader:
            continue
        values = keras.ops.convert_to_numpy(node.op.fixed_value)
        weights = _linear_weights(producer, flow.rules[producer])
        if weights:
            for weight in weights:
                array = keras.ops.convert_to_numpy(weight)
                weight.assign(array * values)
            node.op.fixed_value.assign(np.where(values > 0, 1.0, 1.0))


def _linear_weights(node, rule):
    """The weights `(..., out)` that scale a layer's output, if it is linear."""
    layer = node.op
    if isinstance(rule, channelwise.BatchNormalization):
        linear = layer.gamma is not None
        weights = [layer.gamma, layer.beta]
    elif isinstance(rule, mixing.Mixing) and not isinstance(
        rule, mixing.TransposedConvolution
    ):
        linear = channelwise.is_homogeneous(layer.activation)
        separable = isinstance(rule, mixing.SeparableConvolution)
        kernel = layer.pointwise_kernel if separable else layer.kernel
        weights = [kernel, layer.bias if layer.use_bias else None]
    else:
        return []
    return [w for w in weights if w is not None] if linear else []
