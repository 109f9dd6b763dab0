"""The rule of keras.ops.einsum."""

import string

import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.rules.attended import comes_from_softmax
from keras_bar.analysis.rules.attended import is_place_of_gate
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.widths import any_alive


class Einsum(Rule):
    """keras.ops.einsum where channels stay whole: their label is in the output.

    A channel that is 0 in one operand is 0 in the output; any other constant
    is multiplied with numbers that vary.
    """

    operations = "Einsum"
    ties_channels = True

    def specialized(self, node, analysis):
        self.prunable = self.starts_channels = is_place_of_gate(node)
        return self

    def equation(self, node):
        """The equation of the sum, in the notation of `einsum`."""
        return node.op.subscripts

    def only_scales(self, value, node):
        return comes_from_softmax(value)

    def labels(self, node):
        """The labels of every operand, and of the output; None if they are not
        spelled out, up to an ellipsis."""
        equation = self.equation(node)
        left, arrow, output = equation.replace(" ", "").partition("->")
        operands = left.split(",")
        if not arrow or len(operands) != len(node.inputs):
            return None
        if "." in equation:
            operands, output = _without_ellipsis(node, operands, output)
        spelled = "." not in "".join([*operands, output])
        if not spelled or any(len(set(x)) < len(x) for x in operands):
            return None
        return operands, output

    def _label(self, node, analysis):
        """The label of the channels, or None."""
        operands, output = self.labels(node) or ([], "")
        pairs = zip(operands, analysis.inputs(node), strict=False)
        kept = [x[c.axis] for x, c in pairs if c.axis is not None]
        return next((x for x in kept if x in output), None)

    def _with_channels(self, node, analysis):
        """Indices of the operands that have the channels, and whether their
        channel axis is that."""
        label = self._label(node, analysis)
        operands, _ = self.labels(node)
        return {
            i: c.axis is not None and x[c.axis] == label
            for i, (x, c) in enumerate(
                zip(operands, analysis.inputs(node), strict=True)
            )
            if label in x
        }

    def refuse(self, node, analysis):
        if self.labels(node) is None:
            return f"no rule knows the equation {self.equation(node)!r}"
        labels: dict = {}
        for value, x in zip(node.inputs, self.labels(node)[0], strict=True):
            if labels.setdefault(value, x) != x:
                return "it reads a tensor in two ways"
        known = any(c.axis is not None for c in analysis.inputs(node))
        if known and self._label(node, analysis) is None:
            return "it sums over the channels"
        return None

    def restored_inputs(self, node, analysis):
        if self._label(node, analysis) is None:
            return ()
        kept = self._with_channels(node, analysis)
        return [
            i
            for i, value in enumerate(node.inputs)
            if not kept.get(i) and analysis.removable(value)
        ]

    def propagate_alive(self, node, analysis):
        label = self._label(node, analysis)
        if label is None:
            return [analysis.all_alive(node.output)]
        inputs = analysis.inputs(node)
        kept = self._with_channels(node, analysis)
        nonzero = analysis.algebra.conjunction(
            *(inputs[i].nonzero for i, known in kept.items() if known)
        )
        axis = self.labels(node)[1].index(label)
        return [analysis.carries(node.output, axis, nonzero, nonzero)]

    def propagate_needed(self, node, analysis):
        live, algebra = analysis.live(node.output), analysis.algebra
        if self._label(node, analysis) is None:
            return [algebra.any(live)] * len(node.inputs)
        kept = self._with_channels(node, analysis)
        return [
            algebra.conjunction(
                live if kept.get(i) else algebra.any(live),
                any_alive(value, analysis),
            )
            for i, value in enumerate(node.inputs)
        ]

    def is_counted(self, node):
        return len(node.inputs) <= 2 and self.labels(node) is not None

    def terms(self, node, analysis):
        operands, output = self.labels(node) or ([], "")
        sizes = {
            label: size
            for x, value in zip(operands, node.inputs, strict=False)
            for label, size in zip(x, value.shape, strict=True)
        }
        batch = {output[0]} if any(x[0] == output[0] for x in operands) else {}
        if not self.is_counted(node) or set(sizes) <= set(output):
            return []  # Nothing is summed.
        label, live = self._label(node, analysis), analysis.live(node.output)
        factor = (analysis.algebra.any(live), 1)
        if label is not None:
            factor = (live, sizes[label])
        widths = {
            x[analysis.widths[value].axis]: analysis.widths[value]
            for x, value in zip(operands, node.inputs, strict=True)
            if value in analysis.widths
        }
        factors = [factor, *((x.alive, x.size) for x in widths.values())]
        taken = {label, *batch, *widths}
        others = [y for x, y in sizes.items() if x not in taken]
        return [Term("flops", 2 * product(others), tuple(factors))]

    def order_ties(self, node, analysis):
        if self._label(node, analysis) is None:
            return []
        everything = np.arange(analysis.channels[node.output].size)
        kept = self._with_channels(node, analysis)
        return [
            (node.output, everything, node.inputs[i], everything)
            for i, known in kept.items()
            if known
        ]

    def operand(self, node, index, writer):
        value, label = node.inputs[index], self._label(node, writer.analysis)
        operands, _ = self.labels(node) or ([""] * len(node.inputs), "")
        if label and label in operands[index] and not writer.knows(value):
            return writer.taken(node, value)
        return super().operand(node, index, writer)

    def constants(self, node, resolved):
        return np.zeros(resolved.analysis.channels[node.output].size)

    def rebuild(self, node, builder):
        label, wanted = self._label(node, builder.analysis), None
        tensors = {}
        if label is not None:
            wanted = builder.order[node.output]
            known = builder.analysis.widths.keys() & {*node.inputs}
            if not all(len(builder.widths(x)) for x in known):
                return [builder.zeros(node.output)]
            kept = self._with_channels(node, builder.analysis)
        for i, value in enumerate(node.inputs):
            if wanted is not None and i in kept:
                axis = self.labels(node)[0][i].index(label)
                tensors[value] = builder.read(value, wanted, axis)
            else:
                tensors[value] = builder.restored(value)
        return trace.call(builder.clone(node), node, tensors)


def _without_ellipsis(node, operands, output):
    """Labels with letters in the place of an ellipsis that stands for the same
    axes of all operands that have one; the given ones otherwise."""
    used = {*"".join(operands), *output}
    free = [x for x in string.ascii_letters if x not in used]
    pairs = list(zip(operands, node.inputs, strict=True))
    shapes = {
        tuple(_under_ellipsis(x, value)) for x, value in pairs if "..." in x
    }
    if len(shapes) != 1 or len(*shapes) > len(free):
        return operands, output
    letters = "".join(free[: len(*shapes)])
    spelled = [x.replace("...", letters) for x in (*operands, output)]
    return spelled[:-1], spelled[-1]


def _under_ellipsis(labels, value):
    """The sizes of the axes for which an ellipsis stands."""
    first = labels.index("...")
    behind = len(labels) - first - 3
    return value.shape[first : len(value.shape) - behind]


class Matmul(Einsum):
    """keras.ops.matmul of two stacks of matrices, one of which may repeat its
    matrices for those of the other."""

    operations = "Matmul"

    def equation(self, node):
        if len(node.inputs) != 2:
            return "matmul"
        (*first, _, _), (*second, _, _) = (x.shape for x in node.inputs)
        if len(first) != len(second) or not first:
            return "matmul"
        # An axis of size 1 that is repeated has a label of its own.
        output = string.ascii_lowercase[: len(first)]
        stacks = ["", ""]
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            if a != b and 1 not in (a, b):
                return "matmul"
            own = string.ascii_uppercase[i]
            stacks[0] += own if a == 1 != b else output[i]
            stacks[1] += own if b == 1 != a else output[i]
        return f"{stacks[0]}xy,{stacks[1]}yz->{output}xz"
