"""Values of expressions: exact at 0/1 gates, soft at probabilities.

Gates are taken as independent: "and" is the product, "or" is
`1 - prod(1 - p)`.
"""

import heapq

import numpy as np

from keras_bar.analysis.algebra import ABSENT
from keras_bar.analysis.algebra import unpack

# Replaces 0 in a logarithm. exp(log(TINY)) vanishes beside 1 in float32, so
# that 0 and 1 stay exactly 0 and 1.
TINY = 1e-30


def evaluate(expressions, gates, xp=np):
    """Values of expressions at given gate vectors.

    Args:
        expressions: Iterable of `Expression`.
        gates: Dict from gate key to values in [0, 1], `(..., channels)`: 0/1
            for the exact answer, probabilities for the soft one.
        xp: `numpy`, or `keras.ops` inside a training step.

    Returns:
        Dict from expression to its value, shape `(..., size)`; for a single
        value shape `(..., 1)`. A value that depends on no gate has no leading
        dimensions.
    """
    values: dict = {}
    for x in _closure(expressions):
        values[x] = _EVALUATORS[x.kind](x, values, gates, xp)
    return values


class Evaluation:
    """Values of expressions that follow changes of single gates: what does not
    depend on a gate is not computed again, nor what depends only on values that
    stay the same.

    Args:
        expressions: List of `Expression`.
        gates: Dict from gate key to a vector `(channels,)` in [0, 1].

    Attributes:
        values: Dict from these expressions, and their operands, to their value.
    """

    def __init__(self, expressions, gates):
        self.values = evaluate(expressions, gates)
        self._gates = {x.data: x for x in self.values if x.kind == "gate"}
        self._users: dict = {x: [] for x in self.values}
        for x in self.values:
            for operand in x.operands:
                self._users[operand].append(x)

    def changes(self, gates):
        """Dict from the expressions of other values to these, if some gates
        change.

        Args:
            gates: Dict from gate key to vectors, those that change.
        """
        values, before = self.values, {}
        found = [self._gates[key] for key in gates if key in self._gates]
        queue = [(x.order, x) for x in found]
        heapq.heapify(queue)  # Operands come before their users.
        waiting = set(found)
        while queue:
            _, x = heapq.heappop(queue)
            value = _EVALUATORS[x.kind](x, values, gates, np)
            if np.array_equal(value, values[x]):
                continue
            before[x], values[x] = values[x], value
            for user in self._users[x]:
                if user not in waiting:
                    waiting.add(user)
                    heapq.heappush(queue, (user.order, user))
        changed = {x: values[x] for x in before}
        values.update(before)
        return changed


def _closure(expressions):
    """The expressions and all of their operands, operands first."""
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


def _none(values, xp):
    """Product of `1 - values` along the last axis, in logarithms: a plain
    product underflows and its gradient divides by zero."""
    logs = xp.log(xp.maximum(1.0 - values, TINY))
    return xp.exp(xp.sum(logs, axis=-1))


def _any(x, values, gates, xp):
    return 1.0 - _none(values[x.operands[0]][..., None, :], xp)


def _any_of(x, values, gates, xp):
    value = values[x.operands[0]]
    groups = xp.reshape(value, (*value.shape[:-1], x.size, x.data))
    return 1.0 - _none(groups, xp)


def _exceeds(x, values, gates, xp):
    larger, smaller = (values[operand] for operand in x.operands)
    return 1.0 - _none((larger * (1.0 - smaller))[..., None, :], xp)


def _concat(x, values, gates, xp):
    front = max((values[part].shape[:-1] for part in x.operands), key=len)
    parts = [
        xp.broadcast_to(values[part], (*front, size))
        for part, size in zip(x.operands, x.data, strict=True)
    ]
    return xp.concatenate(parts, axis=-1)


def _take(x, values, gates, xp):
    source = values[x.operands[0]]
    index = unpack(x.data)
    if np.all(index != ABSENT):
        return xp.take(source, index, axis=-1)
    index = np.where(index == ABSENT, x.operands[0].size, index)
    absent = xp.zeros((*source.shape[:-1], 1))
    return xp.take(xp.concatenate([source, absent], axis=-1), index, axis=-1)


_EVALUATORS = {
    "full": lambda x, values, gates, xp: xp.ones((1,)),
    "gate": _gate,
    "and": _and,
    "or": _or,
    "any": _any,
    "any_of": _any_of,
    "exceeds": _exceeds,
    "concat": _concat,
    "take": _take,
}
