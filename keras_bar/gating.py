"""Gating: a copy of a model with a gate behind every prunable convolution."""

import dataclasses

import keras

from keras_bar.graph import trace
from keras_bar.graph.flow import Flow
from keras_bar.graph.rules import Boundary
from keras_bar.graph.rules import channelwise
from keras_bar.graph.rules import merging
from keras_bar.graph.rules import mixing
from keras_bar.graph.streams import Streams
from keras_bar.layers import BudgetState
from keras_bar.layers import HardConcreteGate

CONNECTIVITIES = ("mixed", "regular")
BUDGET_NAME = "budget_state"


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the gate of a convolution goes, or why it has none.

    Attributes:
        node: `Node` of the convolution.
        value: `Value` the gate multiplies, or None.
        reason: Why there is no gate; empty if there is one.
    """

    node: trace.Node
    value: trace.Value | None = None
    reason: str = ""


def gate(model, *, connectivity="mixed", skip=(), seed=None):
    """Copies a model and puts a gate behind every prunable convolution.

    The gate multiplies the output of the convolution's batch normalization
    where that is the convolution's only reader, and the convolution's own
    output otherwise. Convolutions without a gate are listed, with the reason,
    by `keras_bar.explain`. The copy starts from the model's weights and shares
    nothing with it; nested models are unrolled into one.

    Args:
        model: Functional or built Sequential `keras.Model`.
        connectivity: `"mixed"`: every convolution has a gate of its own, so
            that the identity and the branch of a residual block may keep
            different channels. `"regular"`: all writers of a residual stream
            share one gate.
        skip: Names of layers that get no gate.
        seed: Integer seed of the gates' noise and initial values.

    Returns:
        A Functional `keras.Model` with the same inputs and outputs.

    Raises:
        ValueError: If the model has no graph of layers, nothing in it can be
            pruned, or an argument is wrong.
    """
    if connectivity not in CONNECTIVITIES:
        raise ValueError(
            "Unknown connectivity. Expected one of "
            f"{', '.join(map(repr, CONNECTIVITIES))}. "
            f"Received: connectivity={connectivity!r}"
        )
    graph = trace.trace(model)
    placements = place_gates(Flow(graph), skip=_checked_skip(graph, skip))
    chosen = [x for x in placements if x.value is not None]
    already = any(isinstance(n.op, HardConcreteGate) for n in graph.nodes)
    if not chosen and not already:
        reasons = "; ".join(f"{x.node.name}: {x.reason}" for x in placements)
        raise ValueError(
            "Nothing in this model can be pruned. Expected at least one "
            "convolution whose channels are free. Received: "
            f"{model.name!r} ({reasons or 'it has no convolution'})"
        )
    gates = _Gates(chosen, connectivity, seed)
    return _rebuild(graph, gates)


def place_gates(flow, skip=()):
    """Decides for every convolution where its gate goes.

    Args:
        flow: `Flow` of a graph.
        skip: Names of layers that get no gate.

    Returns:
        List of `Placement`, one per convolution.
    """
    convolutions = (mixing.Convolution, channelwise.DepthwiseConvolution)
    placements = []
    for node, rule in flow.rules.items():
        if isinstance(rule, convolutions):
            value, reason = _place(node, flow)
            if node.name in skip or node.op.name in skip:
                value, reason = None, "it was to be skipped"
            placements.append(
                Placement(node, None if reason else value, reason)
            )
        elif _is_convolution(node.op):
            placements.append(Placement(node, reason=rule.reason))
    return placements


def _place(node, flow):
    """The tensor to gate, and the reason against it if there is one."""
    value = node.output
    norm = mixing.following_norm(node, flow)
    if norm is not None and not isinstance(flow.rules[norm], Boundary):
        value = norm.output
    follows = isinstance(flow.rules[node], channelwise.DepthwiseConvolution)
    if follows and _comes_from_convolution(node, flow):
        return value, "its channels follow those of its input"
    return value, _obstacle(value, flow)


def _obstacle(value, flow):
    """Why a gate on this tensor could remove nothing, or an empty string."""
    stack = [value]
    while stack:
        tensor = stack.pop()
        if tensor in flow.graph.outputs:
            return "its channels are the model's output"
        for reader in tensor.consumers:
            rule = flow.rules[reader]
            if isinstance(rule, channelwise.Gate):
                return "it already has a gate"
            if isinstance(rule, Boundary):
                return (
                    f"{reader.name!r} needs all of its channels: {rule.reason}"
                )
            if isinstance(rule, merging.Multiply):
                return f"its channels follow those it scales in {reader.name!r}"
            keeps_channels = isinstance(
                rule, channelwise.Channelwise
            ) and not isinstance(rule, channelwise.DepthwiseConvolution)
            if keeps_channels:
                stack.append(reader.output)
    return ""


def _comes_from_convolution(node, flow):
    """Whether a depthwise convolution reads a tensor that convolutions write,
    whose gates (if they have any) then close its channels too."""
    stack = [node.inputs[0]]
    while stack:
        producer = stack.pop().producer
        if producer is None:
            continue
        rule = flow.rules[producer]
        if isinstance(rule, mixing.Convolution):
            return True
        if not isinstance(rule, Boundary | mixing.Mixing):
            stack.extend(producer.inputs)
    return False


class _Gates:
    """Makes the gates of a graph while it is rebuilt."""

    def __init__(self, placements, connectivity, seed):
        self._names = {x.value: f"{x.node.name}_gate" for x in placements}
        self._connectivity = connectivity
        self._seed = seed
        self._count = 0
        self._factors = {}
        self._streams = None

    def prepare(self, flow):
        """Finds which tensors share a gate: the writers of one stream."""
        if self._connectivity == "regular":
            self._streams = Streams(flow)
            self._sizes = {}
            for value in self._names:
                stream = self._streams.of(value)
                self._sizes[stream] = self._sizes.get(stream, 0) + 1

    def apply(self, value, tensor, flow):
        """The tensor behind its gate."""
        if value not in self._names:
            return tensor
        axis = flow.channels[value].axis
        last = axis == len(value.shape) - 1
        stream = self._streams and self._streams.of(value)
        shared = stream is not None and self._sizes[stream] > 1
        if shared and stream in self._factors:
            factors = self._factors[stream]
            name = self._names[value].replace("_gate", "_shared_gate")
            return keras.layers.Multiply(name=name)([tensor, factors])
        layer = HardConcreteGate(
            axis=-1 if last else axis,
            return_factors=shared,
            seed=self._next_seed(),
            name=self._names[value],
        )
        if not shared:
            return layer(tensor)
        output, self._factors[stream] = layer(tensor)
        return output

    def _next_seed(self):
        self._count += 1
        return None if self._seed is None else self._seed + self._count


def _rebuild(graph, gates):
    """The copy, with gates, and the budget's state at the first output."""
    flow = Flow(graph)
    gates.prepare(flow)
    clones = {}
    budget = next(
        (n for n in graph.nodes if isinstance(n.op, BudgetState)), None
    )

    def rebuild(node, tensors):
        op = clones.get(id(node.op))
        if op is None:
            op = clones[id(node.op)] = trace.clone(node.op, node.name)
        outputs = trace.call(op, node, tensors)
        trace.copy_state(node.op, op)
        return [
            gates.apply(value, tensor, flow)
            for value, tensor in zip(node.outputs, outputs, strict=True)
        ]

    def finish(outputs):
        if budget is None:
            outputs[0] = BudgetState(name=BUDGET_NAME)(outputs[0])
        return outputs

    return trace.replay(graph, rebuild, finish=finish)


def _checked_skip(graph, skip):
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    known = {x for node in graph.nodes for x in (node.name, node.op.name)}
    unknown = [name for name in skip if name not in known]
    if unknown:
        raise ValueError(
            "Cannot skip layers that the model does not have. Expected names "
            f"of its layers. Received: skip={unknown}"
        )
    return skip


def _is_convolution(op):
    return "Conv" in type(op).__name__ and hasattr(op, "kernel_size")
