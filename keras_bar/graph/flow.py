"""Channel flow: which channels of every tensor are alive, and which are read.

Forward, every tensor carries which of its channels still vary with the input;
the others are dead and hold a constant. Backward, it carries which channels
anyone reads. What is alive *and* needed is computed by the compact model, and
nothing else. Both are expressions over the gates (see `algebra`), so costs,
their soft versions and the compact model follow from the same analysis.
"""

import dataclasses

from keras_bar.graph.algebra import Algebra
from keras_bar.graph.algebra import Expression
from keras_bar.graph.rules import Boundary
from keras_bar.graph.rules import rule_for


@dataclasses.dataclass(frozen=True)
class Channels:
    """What a tensor carries along its channel axis.

    Attributes:
        axis: Index of the channel axis, batch counted; None where it is
            unknown, and then every channel is alive.
        size: Number of channels; None where the axis is unknown.
        alive: `Expression`, which channels vary with the input.
        zero: Whether a dead channel is known to hold exactly 0. Otherwise it
            holds some constant.
    """

    axis: int | None
    size: int | None
    alive: Expression
    zero: bool = True


class Flow:
    """The channel flow of a graph.

    Args:
        graph: `Graph` to analyse.

    Attributes:
        algebra: The `Algebra` of all expressions.
        rules: Dict from `Node` to the `Rule` that holds for it.
        channels: Dict from `Value` to `Channels`.
        needed: Dict from `Value` to `Expression`.
    """

    def __init__(self, graph):
        self.graph = graph
        self.algebra = Algebra()
        self.rules = {}
        self.channels = {}
        self.needed = {}
        self._read_all = set()
        for value in graph.inputs:
            self.channels[value] = self.all_alive(value)
        for node in graph.nodes:
            self._forward(node)
        for value in graph.outputs:
            self._need(value, self.algebra.full)
        for node in reversed(graph.nodes):
            self._backward(node)

    def all_alive(self, value, axis=None):
        """Channels of a tensor that no gate can kill."""
        size = None if axis is None else value.shape[axis]
        return Channels(axis, size, self.algebra.full)

    def carries(self, value, axis, alive, zero):
        """Channels of a tensor along `axis`."""
        return Channels(axis, value.shape[axis], alive, zero)

    def inputs(self, node):
        """`Channels` of the inputs of a node."""
        return [self.channels[x] for x in node.inputs]

    def removable(self, value):
        """Whether some gate can kill a channel of this tensor."""
        return self.channels[value].alive is not self.algebra.full

    def live(self, value):
        """Which channels the compact model computes: alive and needed."""
        return self.algebra.conjunction(
            self.channels[value].alive, self.needed_by_any(value)
        )

    def needed_by_any(self, value):
        """Which channels anyone reads; `None` becomes nobody's need."""
        return self.needed.get(value, self.algebra.full)

    def reads_all(self, node, index):
        """Whether this input is restored to full width before it is read."""
        return (node, index) in self._read_all

    def read(self, node, index):
        """Which channels of an input a mixing layer reads."""
        if self.reads_all(node, index):
            return self.algebra.full
        return self.channels[node.inputs[index]].alive

    def can_be_zeroed(self, value):
        """Whether the constants of dead channels can be made 0 in weights."""
        if self.channels[value].zero:
            return True
        node = value.producer
        return node is not None and self.rules[node].can_zero(node, self)

    def _forward(self, node):
        rule = rule_for(node, self)
        self.rules[node] = rule
        for index in rule.restored_inputs(node, self):
            self._read_all.add((node, index))
        outputs = rule.forward(node, self)
        for value, channels in zip(node.outputs, outputs, strict=True):
            self.channels[value] = channels

    def _backward(self, node):
        if not any(x in self.needed for x in node.outputs):
            return  # Nobody reads it: a Keras graph holds no such node.
        needs = self.rules[node].backward(node, self)
        for index, (value, need) in enumerate(
            zip(node.inputs, needs, strict=True)
        ):
            if self.reads_all(node, index):
                need = self.algebra.any(need)
            self._need(value, need)

    def _need(self, value, expression):
        before = self.needed.get(value)
        if before is not None:
            expression = self.algebra.disjunction(before, expression)
        self.needed[value] = expression

    def boundaries(self):
        """Dict from `Node` to the reason, for all that hinder removal."""
        return {
            node: rule.reason
            for node, rule in self.rules.items()
            if isinstance(rule, Boundary)
        }
