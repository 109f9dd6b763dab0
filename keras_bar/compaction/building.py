"""The builder of the compact network: tensors that store fewer channels."""

import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from keras_bar import keras_internals
from keras_bar.analysis import shared_calls
from keras_bar.analysis import trace
from keras_bar.analysis.rules.base import along
from keras_bar.compaction.layout import arrange
from keras_bar.compaction.moving import ZERO
from keras_bar.compaction.moving import Mover
from keras_bar.layers import ChannelGate
from keras_bar.layers import MixedResidual

# Part of the name of a layer that compaction made of constants per channel. A
# name is the only mark on a Keras layer that a file keeps, even if Keras alone
# reads and writes it.
MARK = "__keras_bar__"


def is_remnant(node):
    """Whether `Builder.affine` made the layer of a node."""
    rescales = isinstance(node.op, keras.layers.Rescaling)
    return rescales and MARK in node.op.name


@dataclasses.dataclass(frozen=True)
class Operand:
    """A side of an addition that is computed.

    Attributes:
        value: Its `Value` in the full network.
        tensor: Its tensor in the compact network.
        places: Indices of its channels among the stored channels of the sum;
            None if it stores all of them, in order.
        weight: Its factor in the sum.
    """

    value: trace.Value
    tensor: object
    places: list | None
    weight: float


class Builder:
    """Builds the compact network, operation by operation.

    Args:
        resolved: `ResolvedChannels` of the hard-pruned network.
        folded: Set of nodes whose gate is already folded into weights.
        mixed_addition: `"operations"` or `"layer"`, the form of a mixed
            addition.

    Attributes:
        tensors: Dict from `Value` to its tensor in the new model; None if none
            of its channels are computed.
        order: Dict from `Value` to the channels that its tensor stores, in
            order; None, for all channels, where the channel axis is unknown.
    """

    def __init__(self, resolved, folded, mixed_addition="operations"):
        self.analysis = analysis = resolved.analysis
        self.resolved = resolved
        self.constants = resolved.constants
        self.folded = folded
        self.tensors: dict = {}
        self.order: dict = {
            value: None if analysis.channels[value].axis is None else order
            for value, order in arrange(analysis, resolved).items()
        }
        self._mixed_addition = mixed_addition
        self._mover = Mover(analysis.graph.fresh_name)
        self.named = self._mover.named
        self._removed = []
        self._mixed = []
        self._restored = []
        self._clones = {}

    def rebuild(self, node, tensors):
        """The new output tensors of a node; None where nothing is built."""
        self.tensors = tensors
        if not any(self.is_built(x) for x in node.outputs):
            self._removed.append(node)
            return [None] * len(node.outputs)
        if shared_calls.has_rule(node, self.analysis):
            return shared_calls.rebuild(node, self)
        return self.analysis.rules[node].rebuild(node, self)

    def finish(self, outputs):
        """The model's outputs, with all of their channels."""
        return [self.restored(value) for value in self.analysis.graph.outputs]

    def is_built(self, value):
        """Whether any channel of a tensor is computed."""
        return value in self.analysis.needed and self.resolved.live[value].any()

    def clone(self, node, **changes):
        """A new layer for a node; all calls of a shared layer get the same."""
        return self.made_once(
            node, lambda: trace.clone(node.op, node.name, node, **changes)
        )

    def made_once(self, node, make):
        """The layer that a function makes for a node, once for all calls of a
        shared layer."""
        if node.shares_weights and id(node.op) in self._clones:
            return self._clones[id(node.op)]
        layer = self._clones[id(node.op)] = make()
        return layer

    def read_for(self, node, index):
        """An input with exactly the channels that the output of `node`
        stores."""
        value, wanted = node.inputs[index], self.order[node.output]
        if wanted is None:
            return self.restored(value)
        axis = self._axis(value)
        if axis is None:  # The last dimensions of two operands fit.
            axis = self._axis(node.output) - len(node.output.shape)
            axis += len(value.shape)
        return self.read(value, wanted, axis)

    def widths(self, value):
        """The widths that a tensor of heads stores, in order."""
        return self.resolved.widths(value)

    def zeros(self, value):
        """A tensor of zeros that reads nothing, with the channels that `value`
        stores."""
        return self._constant(value, self.order[value])

    def restored(self, value):
        """A tensor with all of its channels; dead ones hold their constants."""
        size = self.analysis.channels[value].size
        if size is None:
            return self.tensors[value]
        return self.read(value, np.arange(size), self._axis(value))

    def read(self, value, wanted, axis):
        """The channels `wanted` of a tensor, in that order.

        Args:
            value: `Value` to read.
            wanted: Integer array; dead channels become constants.
            axis: Integer, the channel axis.
        """
        if not self.is_built(value):
            return self._constant(value, wanted)
        tensor, stored = self.tensors[value], self.order[value]
        size = value.shape[axis]
        if stored is None:
            stored = np.arange(size)
        if np.isin(wanted, stored).all():
            return self.select(tensor, stored, wanted, axis)
        self._restored.append(value)
        source = np.full(size, ZERO)
        source[stored] = np.arange(len(stored))
        name = self._layer_name(value)
        tensor = self._mover.gather(
            tensor, source[wanted], axis, f"{name}_restored"
        )
        constants = self.constants[value][wanted]
        return self.affine(tensor, value, f"{name}_constant", offset=constants)

    def constant_for(self, node, value, like):
        """An input that is not computed at all, with the channels that the
        output of `node` stores, in the shape of the tensor `like` unless that
        is None."""
        wanted = self.order[node.output]
        if like is None:
            return self._constant(value, wanted)
        name = self._layer_name(value)
        zeros = self.named(ops.zeros_like(like), f"{name}_zeros")
        constants = self.constants[value][wanted]
        return self.affine(zeros, value, f"{name}_constant", offset=constants)

    def select(self, tensor, stored, wanted, axis):
        """Takes the channels `wanted` out of a tensor that stores `stored`."""
        if np.array_equal(stored, wanted):
            return tensor
        place = {channel: i for i, channel in enumerate(stored)}
        name = f"{keras_internals.maker_of(tensor).name}_channels"
        return self._mover.gather(
            tensor, [place[c] for c in wanted], axis, name
        )

    def affine(self, tensor, like, name, scale=1.0, offset=0.0, axis=None):
        """A tensor times a factor, or one per channel, plus an offset; or one
        per entry of another axis."""
        if np.all(np.equal(scale, 1.0)) and not np.any(offset):
            return tensor
        rank = len(like.shape)
        axis = self._axis(like) if axis is None else axis
        name = self.analysis.graph.fresh_name(name + MARK)
        if rank == 2:
            # Keras reshapes factors of fewer than three dimensions if it is
            # configured to put channels first.
            column = keras.layers.Reshape((-1, 1), name=f"{name}_in")
            tensor = column(tensor)
        resolved = [
            along(x, axis, max(rank, 3)).tolist() if np.ndim(x) else float(x)
            for x in (scale, offset)
        ]
        layer = keras.layers.Rescaling(*resolved, name=name, dtype=like.dtype)
        if rank > 2:
            return layer(tensor)
        row = keras.layers.Reshape((-1,), name=f"{name}_out")
        return row(layer(tensor))

    def operands(self, node, weights, places=None):
        """The sides of an addition that are computed.

        Args:
            node: `Node` of the addition.
            weights: The factor of every input.
            places: The channels of the sum that every input holds. Defaults
                to all of them.

        Returns:
            A list of `Operand`, and an array of the constants that dead
            channels add to the channels that the sum stores.
        """
        kept = self.order[node.output]
        place = {channel: i for i, channel in enumerate(kept)}
        size = self.analysis.channels[node.output].size
        operands, constant = [], np.zeros(size)
        for i, value in enumerate(node.inputs):
            held = np.arange(size) if places is None else places[i]
            constant[held] += weights[i] * self.constants[value]
            if not self.is_built(value):
                continue
            stored = self.order[value]
            stored = held if stored is None else held[stored]
            wanted = np.array([c for c in stored if c in place], int)
            if not len(wanted):
                continue
            tensor = self.tensors[value]
            axis = self._axis(node.output)
            tensor = self.select(tensor, stored, wanted, axis)
            aligned = np.array_equal(wanted, kept)
            where = None if aligned else [place[c] for c in wanted]
            operands.append(Operand(value, tensor, where, weights[i]))
        return operands, constant[kept]

    def add(self, node, operands, constant):
        """The sum of operands and a constant, as the output of a node."""
        like, name = node.output, node.name
        tensors = [
            self.affine(x.tensor, like, f"{name}_scale", scale=x.weight)
            for x in operands
        ]
        if any(x.places is not None for x in operands):
            places = [x.places for x in operands]
            return self._mix(node, tensors, places, constant)
        return self._sum(node, tensors, constant)

    def _sum(self, node, tensors, constant):
        """Adds tensors, and a constant, that store the same channels."""
        like, name = node.output, node.name
        output = tensors[0]
        if len({x.shape[0] for x in tensors}) > 1:
            # The layer would take the 1 of a weight for the size of the batch.
            output = self.named(functools.reduce(ops.add, tensors), name)
        elif len(tensors) > 1:
            output = keras.layers.Add(name=name, dtype=like.dtype)(tensors)
        return self.affine(output, like, f"{name}_constant", offset=constant)

    def _mix(self, node, tensors, places, constant):
        """Adds tensors that store different channels."""
        self._mixed.append(node)
        axis, channels = self._axis(node.output), len(self.order[node.output])
        if self._mixed_addition == "operations":
            terms = []
            for x, where in zip(tensors, places, strict=True):
                if where is not None:
                    terms += self._mover.spread(
                        x, where, channels, axis, node.name
                    )
                else:
                    terms.append(x)
            return self._sum(node, terms, constant)
        layer = MixedResidual(
            places,
            channels=channels,
            constant=constant if np.any(constant) else None,
            axis=-1 if axis == len(node.output.shape) - 1 else axis,
            name=node.name,
            dtype=node.output.dtype,
        )
        return layer(tensors)

    def summary(self):
        """Changes that compaction made, for `keras_bar.explain`."""
        return {
            "removed": [
                node.name
                for node in self._removed
                if getattr(node.op, "weights", ())
                and not isinstance(node.op, ChannelGate)
            ],
            "mixed": [node.name for node in self._mixed],
            "restored": [self._layer_name(value) for value in self._restored],
        }

    def _constant(self, value, wanted):
        """A tensor of constants that reads no channel."""
        dims = list(value.shape[1:])
        name = self._layer_name(value)
        if None in dims:
            raise ValueError(
                "All channels of a tensor are dead, its size is unknown, and a "
                "layer that needs every channel reads it. Expected an input "
                "of known size, or at least one alive channel. Received: "
                f"{name!r} of shape {value.shape}"
            )
        dims[self._axis(value) - 1] = len(wanted)
        zeros = self.zero_per_sample(name, value.dtype)
        zeros = ops.reshape(zeros, (-1,) + (1,) * len(dims))
        zeros = self.named(zeros, f"{name}_reshape")
        zeros = self.named(ops.tile(zeros, (1, *dims)), f"{name}_tile")
        constants = self.constants[value][wanted]
        return self.affine(zeros, value, f"{name}_constant", offset=constants)

    def zero_per_sample(self, name, dtype):
        """A 0 for every sample, tensor `(batch,)`, that reads no channel.

        Args:
            name: Prefix of the operations' names.
            dtype: Type of the tensor.
        """
        source = self.tensors[self.analysis.graph.inputs[0]]
        axes = tuple(range(1, len(source.shape)))
        zeros = self.named(ops.zeros_like(source), f"{name}_zeros")
        zeros = self.named(ops.max(zeros, axis=axes), f"{name}_zero")
        return self.named(ops.cast(zeros, dtype), f"{name}_cast")

    def _axis(self, value):
        return self.analysis.channels[value].axis

    def _layer_name(self, value):
        return value.producer.name if value.producer else "input"
