"""Channel analysis: which channels of a tensor are alive, and which are read.

In the forward pass every tensor learns which of its channels still vary with
the input; the others are dead and hold a constant. In the backward pass it
learns which channels anyone reads. The compact model computes exactly the
channels that are alive *and* needed. Both are expressions over the gates (see
`algebra`), so costs, their soft versions and the compact model follow from the
same analysis.
"""

import dataclasses

import numpy as np

from keras_bar.analysis import shared_calls
from keras_bar.analysis.algebra import Algebra
from keras_bar.analysis.algebra import Expression
from keras_bar.analysis.evaluation import evaluate
from keras_bar.analysis.rules import rule_for


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of a tensor along its channel axis.

    Attributes:
        axis: Index of the channel axis, batch counted; None where it is
            unknown; every channel is then alive.
        size: Number of channels; None where the axis is unknown.
        alive: `Expression`, which channels vary with the input.
        nonzero: `Expression`, which channels vary or may hold a constant
            other than 0; all others are exactly 0.
    """

    axis: int | None
    size: int | None
    alive: Expression
    nonzero: Expression

    @property
    def constant(self):
        """Whether a dead channel may hold a constant other than 0."""
        return self.alive is not self.nonzero


class ChannelAnalysis:
    """The channels of every tensor of a graph.

    Args:
        graph: `Graph` to analyse.

    Attributes:
        algebra: The `Algebra` of all expressions.
        rules: Dict from `Node` to the `Rule` that holds for it.
        channels: Dict from `Value` to `Channels`.
        connected: Dict from `Value` to an `Expression`, a single value:
            whether anything in it depends on an input of the model.
        needed: Dict from `Value` to an `Expression`, which of its channels
            anyone reads; tensors that nobody reads are missing.
        widths: Dict from `Value` to the `Width` that gates leave of it.
        unlike_calls: Dict from the first call of each shared layer that has to
            keep all channels, because its calls differ, to the reason.
        folding_calls: Set of the first calls of the shared layers into whose
            bias the constants are moved that enter all calls.
    """

    def __init__(self, graph):
        self.graph = graph
        self.algebra = Algebra()
        self.unlike_calls: dict = {}
        self._outputs = set(graph.outputs)
        self.folding_calls: set = set()
        self._run_forward()
        # Only now is it known whether all calls of a layer are alike.
        while found := shared_calls.disagreements(self):
            self.unlike_calls |= found
            self._run_forward()
        foldable = shared_calls.foldable(self)
        while foldable != self.folding_calls:
            self.folding_calls = foldable
            self._run_forward()
            foldable = self.folding_calls & shared_calls.foldable(self)
        for value in graph.outputs:
            self._need(value, self.algebra.full)
        for node in reversed(graph.nodes):
            self._backward(node)

    def all_alive(self, value, axis=None):
        """Channels of a tensor that no gate can kill."""
        size = None if axis is None else value.shape[axis]
        return Channels(axis, size, self.algebra.full, self.algebra.full)

    def carries(self, value, axis, alive, nonzero):
        """Channels of a tensor along `axis`."""
        if value.shape[axis] == 0:  # An empty part of a split.
            return self.all_alive(value, axis)
        return Channels(axis, value.shape[axis], alive, nonzero)

    def is_connected(self, gates):
        """Whether every output of the network depends on an input.

        Args:
            gates: Dict from gate to booleans `(channels,)`.
        """
        outputs = self.connections()
        values = evaluate(outputs, gates)
        return all(values[x] > 0.5 for x in outputs)

    def connections(self):
        """List of an `Expression` per output of the network, a single value:
        whether it depends on an input."""
        return [self.connected[x] for x in self.graph.outputs]

    def inputs(self, node):
        """`Channels` of the inputs of a node."""
        return [self.channels[x] for x in node.inputs]

    def removable(self, value):
        """Whether some gate can kill a channel of this tensor."""
        return self.channels[value].alive is not self.algebra.full

    def live(self, value):
        """Which channels the compact model computes: alive and needed."""
        need = self.needed.get(value, self.algebra.full)
        return self.algebra.conjunction(self.channels[value].alive, need)

    def becomes_output(self, value):
        """Whether an output of the model is made of these channels: as they
        are, or moved, scaled, or added to others, but not mixed."""
        stack, seen = [value], {value}
        while stack:
            tensor = stack.pop()
            if tensor in self._outputs:
                return True
            for reader in tensor.consumers:
                if not self.rules[reader].mixes_channels:
                    stack += [x for x in reader.outputs if x not in seen]
                    seen.update(reader.outputs)
        return False

    def reads_all(self, node, index):
        """Whether this input is restored to full width before it is read."""
        return (node, index) in self._read_all

    def read(self, node, index):
        """Which channels of an input a layer with a kernel reads."""
        if self.reads_all(node, index):
            return self.algebra.full
        return self.channels[node.inputs[index]].alive

    def rule_for(self, node):
        """The rule that holds for a node whose inputs are known."""
        return rule_for(node, self)

    def boundaries(self):
        """Dict from every `Node` that needs all channels to the reason."""
        return {
            node: rule.reason
            for node, rule in self.rules.items()
            if rule.reason
        }

    def _run_forward(self):
        """The forward pass."""
        self.rules = {}
        self.channels = {}
        self.connected = {}
        self.needed = {}
        self.widths = {}
        self._read_all = set()
        for value in self.graph.inputs:
            self.channels[value] = self.all_alive(value)
            self.connected[value] = self.algebra.full
        for node in self.graph.nodes:
            self._forward(node)

    def _forward(self, node):
        rule = self.rules[node] = self.rule_for(node)
        for index in rule.restored_inputs(node, self):
            self._read_all.add((node, index))
        shared = shared_calls.has_rule(node, self)
        seen = shared_calls.entering(node, self) if shared else self
        outputs = rule.propagate_alive(node, seen)
        algebra = self.algebra
        reached = [self.connected[x] for x in node.inputs]
        if not rule.reads_inputs:
            reached = [algebra.constant(np.zeros(1, bool))]
        for value, channels in zip(node.outputs, outputs, strict=True):
            self.channels[value] = channels
            self.connected[value] = algebra.conjunction(
                algebra.any(channels.alive), algebra.disjunction(*reached)
            )

    def _backward(self, node):
        rule = self.rules[node]
        outputs = [x for x in node.outputs if x in self.needed]
        if not outputs:
            return  # Nobody reads it.
        for value in outputs:
            need = self.needed[value]
            self.needed[value] = rule.round_up(node, need, self)
        needs = rule.propagate_needed(node, self)
        for index, value in enumerate(node.inputs):
            need = needs[index]
            if self.reads_all(node, index):
                need = self.algebra.any(need)
            self._need(value, need)

    def _need(self, value, need):
        if self.channels[value].axis is None:
            need = self.algebra.any(need)  # Either all channels or none.
        if value in self.needed:
            need = self.algebra.disjunction(self.needed[value], need)
        self.needed[value] = need
