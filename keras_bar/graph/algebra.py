"""Expressions over the gates of a network: one formula, two arguments.

Whether a channel is computed depends on the gates: on its own, on those of
everything it is made from, and on those of everything that reads it. The
channel flow writes that dependence down once, as an expression. Evaluated at
the 0/1 vectors of the alive gates it says exactly which channels the compact
model computes; evaluated at the probabilities `P(z > 0)` it is the soft and
differentiable version, with gates taken as independent: "and" is the product,
"or" is `1 - prod(1 - p)`.

Expressions are interned, so equal ones are the same object. That is what keeps
the soft version honest: a gate that reaches a channel along two paths counts
once, not squared.
"""

import numpy as np

# Stands for 0 under the logarithm. exp(log(TINY)) vanishes beside 1 in
# float32, hence 0 and 1 stay exactly 0 and 1.
TINY = 1e-30


class Expression:
    """A vector over channels, or a single value that holds for all of them.

    Attributes:
        kind: `"full"`, `"gate"`, `"and"`, `"or"`, `"any"`, `"not_all"`,
            `"concat"`, `"slice"`, `"tile"` or `"repeat"`.
        operands: Expressions this one is made of.
        data: What else the kind needs (gate key, slice bounds, repetitions).
        size: Number of channels; 1 for a single value.
        order: Position in which the algebra made it, operands before users.
    """

    __slots__ = ("data", "kind", "operands", "order", "size")

    def __init__(self, kind, operands, data, size, order):
        self.kind = kind
        self.operands = operands
        self.data = data
        self.size = size
        self.order = order

    def __repr__(self):
        inner = ", ".join(repr(x) for x in self.operands)
        return f"{self.kind}[{self.data}]({inner})"


class Algebra:
    """Makes expressions, simplified and interned."""

    def __init__(self):
        self._interned = {}
        self.full = self._make("full", (), None, 1)

    def _make(self, kind, operands, data, size):
        key = (kind, tuple(x.order for x in operands), data)
        if key not in self._interned:
            self._interned[key] = Expression(
                kind, operands, data, size, len(self._interned)
            )
        return self._interned[key]

    def gate(self, key, size):
        """The alive vector of the gate `key`."""
        return self._make("gate", (), key, size)

    def conjunction(self, *operands):
        """Alive where all operands are."""
        parts = self._flatten("and", operands) - {self.full}
        # Absorption: a and (a or b) is a.
        parts = {
            x
            for x in parts
            if not (x.kind == "or" and parts.intersection(x.operands))
        }
        return self._join("and", parts, self.full)

    def disjunction(self, *operands):
        """Alive where any operand is."""
        parts = self._flatten("or", operands)
        if self.full in parts:
            return self.full
        return self._join("or", parts, None)

    def any(self, operand):
        """A single value: whether any channel is alive."""
        if operand.size == 1:
            return operand
        return self._make("any", (operand,), None, 1)

    def not_all(self, operand):
        """A single value: whether any channel is dead."""
        return self._make("not_all", (operand,), None, 1)

    def concatenate(self, operands, sizes):
        """Channel vectors one after the other."""
        if all(x is self.full for x in operands):
            return self.full
        parts = tuple(operands)
        return self._make("concat", parts, tuple(sizes), sum(sizes))

    def slice(self, operand, start, stop):
        """Channels `start` to `stop`."""
        if operand.size == 1:
            return operand
        if operand.kind == "concat":
            offset = 0
            for part, size in zip(operand.operands, operand.data, strict=True):
                if (offset, offset + size) == (start, stop):
                    return part
                offset += size
        return self._make("slice", (operand,), (start, stop), stop - start)

    def tile(self, operand, times):
        """The whole vector `times` times (flattening, channels last)."""
        if operand.size == 1 or times == 1:
            return operand
        return self._make("tile", (operand,), times, operand.size * times)

    def repeat(self, operand, times):
        """Each channel `times` times (depthwise, flattening channels first)."""
        if operand.size == 1 or times == 1:
            return operand
        return self._make("repeat", (operand,), times, operand.size * times)

    @staticmethod
    def _flatten(kind, operands):
        parts = set()
        for x in operands:
            parts.update(x.operands if x.kind == kind else (x,))
        return parts

    def _join(self, kind, parts, neutral):
        if not parts:
            return neutral
        if len(parts) == 1:
            return next(iter(parts))
        ordered = tuple(sorted(parts, key=lambda x: x.order))
        return self._make(kind, ordered, None, max(x.size for x in ordered))


def evaluate(expressions, gates, xp=np):
    """Values of expressions at given gate vectors.

    Args:
        expressions: Iterable of `Expression`.
        gates: Dict from gate key to a vector `(channels,)` of values in
            [0, 1]: 0/1 for the exact answer, probabilities for the soft one.
        xp: `numpy`, or `keras.ops` inside a training step.

    Returns:
        Dict from expression to its value, shape `(size,)`; for a single value
        shape `(1,)`.
    """
    values = {}
    for x in _closure(expressions):
        values[x] = _EVALUATORS[x.kind](x, values, gates, xp)
    return values


def _closure(expressions):
    """The expressions and all they are made of, operands first."""
    seen, stack = set(), list(expressions)
    while stack:
        x = stack.pop()
        if x not in seen:
            seen.add(x)
            stack.extend(x.operands)
    return sorted(seen, key=lambda x: x.order)


def _gate(x, values, gates, xp):
    value = gates[x.data]
    return value.astype("float64") if xp is np else value


def _and(x, values, gates, xp):
    result = values[x.operands[0]]
    for operand in x.operands[1:]:
        result = result * values[operand]
    return result


def _or(x, values, gates, xp):
    dead = 1.0 - values[x.operands[0]]
    for operand in x.operands[1:]:
        dead = dead * (1.0 - values[operand])
    return 1.0 - dead


def _none(vector, xp):
    """Product of `1 - vector`, in logarithms: a plain product underflows and
    its gradient divides by zero."""
    logs = xp.log(xp.maximum(1.0 - vector, TINY))
    return xp.exp(xp.sum(logs, keepdims=True))


def _any(x, values, gates, xp):
    return 1.0 - _none(values[x.operands[0]], xp)


def _not_all(x, values, gates, xp):
    return 1.0 - _none(1.0 - values[x.operands[0]], xp)


def _concat(x, values, gates, xp):
    parts = [
        xp.broadcast_to(values[part], (size,))
        for part, size in zip(x.operands, x.data, strict=True)
    ]
    return xp.concatenate(parts)


def _slice(x, values, gates, xp):
    start, stop = x.data
    return values[x.operands[0]][start:stop]


_EVALUATORS = {
    "full": lambda x, values, gates, xp: xp.ones((1,)),
    "gate": _gate,
    "and": _and,
    "or": _or,
    "any": _any,
    "not_all": _not_all,
    "concat": _concat,
    "slice": _slice,
    "tile": lambda x, values, gates, xp: xp.tile(values[x.operands[0]], x.data),
    "repeat": lambda x, values, gates, xp: xp.repeat(
        values[x.operands[0]], x.data
    ),
}
