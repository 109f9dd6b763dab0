"""Hard pruning: every gate fixed, every constant where it can be removed."""

import dataclasses

import keras
import numpy as np

from keras_bar.compaction.numbers import Numbers
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks
from keras_bar.graph import trace
from keras_bar.graph.flow import Flow
from keras_bar.graph.rules import channelwise
from keras_bar.graph.rules import mixing
from keras_bar.layers import HardConcreteGate


@dataclasses.dataclass(frozen=True)
class Adjustment:
    """A place at which hard pruning changed what the network computes.

    A dead channel that holds a constant other than 0 enters a zero-padded
    convolution, which sees the constant end at the border of the picture. It
    is made 0 at its source, and its mean contribution is moved into the bias.

    Attributes:
        layer: Name of the convolution.
        channels: Number of constant channels that entered it.
        moved: Root mean square of what was moved into the bias.
        error: Root mean square of what was lost: the deviation from that mean
            near the border.
    """

    layer: str
    channels: int
    moved: float
    error: float


def hard_prune(model):
    """Fixes every gate at its deterministic value.

    The result still has its full size, and computes exactly what
    `keras_bar.compact` makes of it. Hard pruning changes the network only
    where something could not be removed otherwise: see `Adjustment`;
    `keras_bar.explain` lists these places.

    Args:
        model: Gated `keras.Model`. It is left as it is.

    Returns:
        A new `keras.Model`.

    Raises:
        ValueError: If the model has no gates, or no path from the input to
            the output is left.
    """
    graph = trace.trace(model)
    flow = Flow(graph)
    gates = CostModel(flow).gates
    if not gates:
        raise ValueError(
            "There is nothing to prune. Expected a model with gates, made by "
            "`keras_bar.gate`; a compact model has none left. "
            f"Received: {model.name!r}, which has no `HardConcreteGate`"
        )
    check_connected(flow, alive_masks(gates), model.name)
    pruned = _copy(graph, flow)
    surgeon = _Surgeon(Flow(trace.trace(pruned)))
    pruned.hard_pruning_adjustments = surgeon.operate()
    return pruned


def check_connected(flow, masks, name):
    """Raises a ValueError unless every output depends on an input."""
    numbers = Numbers(flow, masks)
    for value in flow.graph.outputs:
        if not numbers.alive[value].any():
            raise ValueError(
                "The network is disconnected: its output no longer depends on "
                "its input. Expected gates that leave a path open. Received: "
                f"{name!r} with every path closed"
            )


def _copy(graph, flow):
    """The same network, with biases where constants will have to go."""
    clones = {}

    def rebuild(node, tensors):
        if id(node.op) not in clones:
            changes = {}
            rule = flow.rules[node]
            if isinstance(rule, mixing.Mixing) and rule.gains_bias(node, flow):
                changes["use_bias"] = True
            clones[id(node.op)] = trace.clone(node.op, node.name, **changes)
        op = clones[id(node.op)]
        outputs = trace.call(op, node, tensors)
        # A new bias comes last, and starts at 0.
        trace.copy_state(node.op, op, strict=not _gained_bias(op, node.op))
        if isinstance(op, HardConcreteGate):
            op.fix()
        return outputs

    return trace.replay(graph, rebuild)


def _gained_bias(new, old):
    return getattr(new, "use_bias", None) != getattr(old, "use_bias", None)


# Layers that add up what they read: a constant can be moved into their bias.
_KERNELS = (mixing.Mixing, channelwise.DepthwiseConvolution)


class _Surgeon:
    """Moves constants about in the weights of a network, in place."""

    def __init__(self, flow):
        self.flow = flow
        gates = CostModel(flow).gates
        self.numbers = Numbers(flow, alive_masks(gates))
        self._changed = set()

    def operate(self):
        """Zeroes what would end at a border. Returns the `Adjustment`s."""
        adjustments = []
        for node in self.flow.graph.nodes:
            rule = self.flow.rules[node]
            if not _reads_border(node, rule) or self.flow.reads_all(node, 0):
                continue
            constants = self.numbers.constants[node.inputs[0]]
            if np.any(constants) and self.numbers.live[node.output].any():
                adjustments.append(self._adjust(node, constants))
        return adjustments

    def _adjust(self, node, constants):
        before = dict(self.numbers.constants)
        dead = constants != 0
        self.zero(node.inputs[0], dead)
        moved = error = np.zeros(1)
        for reader in self._recompute():
            value = reader.inputs[0]
            rule = self.flow.rules[reader]
            now = rule.contribution(reader, self.numbers.constants[value])
            earlier = rule.contribution(reader, before[value])
            if reader is node:
                earlier, error = _at_border(node, constants)
                moved = earlier
            self._shift(reader, earlier - now)
        return Adjustment(node.name, int(dead.sum()), _rms(moved), _rms(error))

    def zero(self, value, dead):
        """Makes the dead channels of a tensor 0 where the constant arises."""
        producer = value.producer
        self._changed.add(producer)
        self.flow.rules[producer].zero(producer, dead, self)

    def put(self, variable, dead, number):
        """Writes into the dead channels of a weight."""
        array = np.array(keras.ops.convert_to_numpy(variable))
        array[dead] = number
        variable.assign(array)

    def _recompute(self):
        """Brings the constants up to date behind what was changed.

        Returns:
            The layers with a kernel that now read other constants. What they
            compute is to be kept as it was, so it ends there.
        """
        readers, stale = [], set()
        for node in self.flow.graph.nodes:
            reads_stale = any(x in stale for x in node.inputs)
            if reads_stale and isinstance(self.flow.rules[node], _KERNELS):
                readers.append(node)
            elif reads_stale or node in self._changed:
                self.numbers.update(node)
                stale.update(node.outputs)
        self._changed.clear()
        return readers

    def _shift(self, node, shift):
        if node.op.use_bias:
            node.op.bias.assign(mixing.to_numpy(node.op.bias) + shift)
            return
        norm = mixing.following_norm(node, self.flow)
        mean = norm.op.moving_mean
        mean.assign(mixing.to_numpy(mean) - shift)


def _reads_border(node, rule):
    if isinstance(rule, channelwise.ZeroPadding):
        return True
    kinds = (mixing.Convolution, channelwise.DepthwiseConvolution)
    return isinstance(rule, kinds) and rule.pads(node)


def _at_border(node, constants):
    """What constant input channels add to a padded convolution.

    Args:
        node: `Node` of the convolution.
        constants: Array `(in,)`, 0 where the channel is alive.

    Returns:
        Their mean contribution over all positions, array `(out,)`, and the
        deviations from it, array `(positions, out)`. The mean is the constant
        that loses least in the squared sense.
    """
    layer, shape = node.op, node.inputs[0].shape
    axis = len(shape) - 1 if layer.data_format == "channels_last" else 1
    probe = trace.clone(layer, activation=None, use_bias=False)
    size = [1] + [d or 16 for d in shape[1:]]  # 16: an unknown size.
    size[axis] = len(constants)
    around = [1] * len(shape)
    around[axis] = -1
    picture = np.broadcast_to(np.reshape(constants, around), size)
    picture = keras.ops.convert_to_tensor(picture.astype("float32"))
    probe.build(picture.shape)
    for old, new in zip(layer.weights, probe.weights, strict=False):
        new.assign(old)
    output = np.moveaxis(keras.ops.convert_to_numpy(probe(picture)), axis, -1)
    rows = output.reshape(-1, output.shape[-1]).astype("float64")
    return rows.mean(axis=0), rows - rows.mean(axis=0)


def _rms(array):
    return float(np.sqrt(np.mean(np.square(array))))
