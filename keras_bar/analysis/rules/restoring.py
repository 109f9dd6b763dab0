"""Rules of layers that need every channel, and of those that no rule knows."""

import math

from keras_bar.analysis import kinds
from keras_bar.analysis import shared_calls
from keras_bar.analysis import trace
from keras_bar.analysis.counting import kind_of
from keras_bar.analysis.counting import may_multiply
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term


class Boundary(Rule):
    """A layer that needs every channel: what enters it is restored to full
    width.

    Args:
        reason: Why; shown to the user.
        rule: The rule of its kind, which knows its costs; None for a layer
            without one.
    """

    mixes_channels = True

    def __init__(self, reason, rule=None):
        self.reason = reason
        self.rule = rule

    def is_counted(self, node):
        if self.rule is None:
            return not may_multiply(node.op)
        return self.rule.is_counted(node)

    def restored_inputs(self, node, analysis):
        return [i for i, x in enumerate(node.inputs) if analysis.removable(x)]

    def propagate_alive(self, node, analysis):
        return [analysis.all_alive(x) for x in node.outputs]

    def propagate_needed(self, node, analysis):
        return [self._is_read([node], analysis)] * len(node.inputs)

    def _is_read(self, nodes, analysis):
        """A single value: whether anyone reads one of these nodes."""
        outputs = [x for node in nodes for x in node.outputs]
        needs = [analysis.needed[x] for x in outputs if x in analysis.needed]
        return analysis.algebra.disjunction(*map(analysis.algebra.any, needs))

    def terms(self, node, analysis):
        terms = self.rule.terms(node, analysis) if self.rule else []
        costs = [term for term in terms if term.metric != "params"]
        if node is shared_calls.used_calls(node, analysis)[0]:
            # The weights exist once, no matter how often it is called.
            weights = getattr(node.op, "weights", ())
            count = sum(math.prod(x.shape) for x in weights)
            factor = (self._is_read(node.shared_calls, analysis), 1)
            costs.append(Term("params", count, (factor,)))
        return costs

    def rebuild(self, node, builder):
        return _rebuild_whole(node, builder)

    def operand(self, node, index, writer):
        return writer.whole(node, node.inputs[index])

    def channels_between(self, node, count):
        return self.rule.channels_between(node, count) if self.rule else 0

    def products(self, node):
        return self.rule.products(node) if self.rule else 0


class Restoring(Rule):
    """A layer that needs every channel of its input, and makes as many. What
    enters it is restored to full width, and what writes that is pruned."""

    restores = True
    mixes_channels = True

    def restored_inputs(self, node, analysis):
        return [0] if analysis.removable(node.inputs[0]) else []

    def propagate_alive(self, node, analysis):
        axis = analysis.inputs(node)[0].axis
        return [analysis.all_alive(x, axis) for x in node.outputs]

    def round_up(self, node, need, analysis):
        return analysis.algebra.any(need)

    def propagate_needed(self, node, analysis):
        return [analysis.algebra.any(analysis.needed[node.output])]

    def terms(self, node, analysis):
        weights = getattr(node.op, "weights", ())
        count = sum(math.prod(x.shape) for x in weights)
        read = analysis.algebra.any(analysis.needed[node.output])
        return [Term("params", count, ((read, 1),))] if count else []

    def rebuild(self, node, builder):
        return _rebuild_whole(node, builder)

    def operand(self, node, index, writer):
        return writer.whole(node, node.inputs[index])


def _rebuild_whole(node, builder):
    """Calls a copy of a layer on all channels of its inputs."""
    tensors = {x: builder.restored(x) for x in node.inputs}
    layer = builder.clone(node)
    outputs = trace.call(layer, node, tensors)
    trace.copy_state(node.op, layer)
    return outputs


def unknown(node):
    """Why a node without a rule needs every channel."""
    if kinds.is_carrier(node.op):
        return (
            "a layer behind it stays whole and reads the mask that it carries"
        )
    why = f"; {node.opaque}" if node.opaque else ""
    return f"no rule knows how {kind_of(node.op)} treats channels{why}"
