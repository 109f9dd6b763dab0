"""Expressions over the gates of a network: one formula, two arguments.

Whether a channel is computed depends on its own gate, on the gates of
everything it is made from, and on those of everything that reads it. The
channel analysis writes that dependence down once, as an expression. Evaluated
at the 0/1 vectors of the alive gates, it says exactly which channels the
compact model computes. Evaluated at the probabilities `P(z > 0)`, it is the
soft and differentiable version, with gates taken as independent: "and" is the
product, "or" is `1 - prod(1 - p)`.

Expressions are interned, so that equal ones are the same object, and
simplified, so that the same channels reached in different ways are equal. The
soft version is right for that reason: a gate that reaches a channel along two
paths counts once and is not squared.
"""

import functools

import numpy as np

# Index, for `Algebra.take`, of a channel that is dead whatever the gates do.
ABSENT = -1


class Expression:
    """A vector over channels, or a single value that holds for all of them.

    Attributes:
        kind: `"full"`, `"gate"`, `"and"`, `"or"`, `"any"`, `"any_of"`,
            `"exceeds"`, `"concat"` or `"take"`.
        operands: Expressions this one is made of.
        data: What else the kind needs (gate, sizes, indices, group size).
        size: Number of channels; 1 for a single value.
        order: Position in the order of creation, operands before users.
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
        parts = _absorb("or", _flatten("and", operands) - {self.full})
        parts = self._merge(parts, np.logical_and)
        vectors = {x for x in parts if x.size > 1}
        parts = {x for x in parts if not _follows(x, vectors)}
        return self._join("and", parts) if parts else self.full

    def disjunction(self, *operands):
        """Alive where any operand is."""
        parts = _flatten("or", operands)
        parts = self._merge(parts, np.logical_or)
        if self.full in parts:
            return self.full
        return self._join("or", _absorb("and", parts))

    def constant(self, mask):
        """A vector that depends on no gate, from booleans `(size,)`."""
        if np.all(mask):
            return self.full
        index = np.where(mask, 0, ABSENT)
        return self._make("take", (self.full,), _pack(index), len(index))

    def _mask(self, x):
        """The booleans `(size,)` of a constant vector, otherwise None."""
        if x is self.full:
            return np.ones(1, bool)
        if x.kind == "take" and x.operands[0] is self.full:
            return unpack(x.data) != ABSENT
        return None

    def absent(self, x):
        """Which channels are dead whatever the gates do, booleans `(size,)`:
        the zeros that were inserted among channels."""
        parts = [self.absent(part) for part in x.operands]
        if x.kind == "take":
            index = unpack(x.data)
            return (index == ABSENT) | np.broadcast_to(
                parts[0], max(len(parts[0]), np.max(index) + 1)
            )[index]
        if x.kind in ("and", "or"):
            join = np.logical_or if x.kind == "and" else np.logical_and
            return functools.reduce(join, parts)
        if x.kind == "concat":
            pairs = zip(parts, x.data, strict=True)
            return np.concatenate([np.broadcast_to(p, n) for p, n in pairs])
        return np.zeros(x.size, bool)

    def _merge(self, parts, join):
        """Joins the constant vectors among some expressions into one."""
        masks = {x: self._mask(x) for x in parts}
        constants = {x for x in parts if masks[x] is not None}
        if len(constants) < 2:
            return parts
        mask = functools.reduce(join, (masks[x] for x in constants))
        return (parts - constants) | {self.constant(mask)}

    def any(self, operand):
        """A single value: whether any channel is alive."""
        if operand.size == 1:
            return operand
        mask = self._mask(operand)
        if mask is not None:
            return self.constant(mask.any(keepdims=True))
        if operand.kind == "or":
            return self.disjunction(*map(self.any, operand.operands))
        if operand.kind == "concat":
            parts = zip(operand.operands, operand.data, strict=True)
            return self.disjunction(*(self.any(x) for x, size in parts if size))
        single, vector = _split_by_size(operand)
        if single:
            joined = self._join("and", vector)
            return self.conjunction(*single, self.any(joined))
        return self._make("any", (operand,), None, 1)

    def any_of(self, operand, times):
        """Per group of `times` neighbours, whether any is alive."""
        if operand.size == 1 or times == 1:
            return operand
        mask = self._mask(operand)
        if mask is not None:
            return self.constant(mask.reshape(-1, times).any(axis=1))
        factors = operand.operands if operand.kind == "and" else (operand,)
        same = {x: self._one_of(x, times) for x in factors}
        mixed = [x for x in factors if same[x] is None]
        known = [x for x in same.values() if x is not None]
        if mixed:
            joined = self._join("and", mixed)
            size = operand.size // times
            known.append(self._make("any_of", (joined,), times, size))
        return self.conjunction(*known)

    def _one_of(self, operand, times):
        """One channel per group, if all channels of a group are the same."""
        if operand.size == 1:
            return operand
        if operand.kind == "take":
            groups = np.reshape(unpack(operand.data), (-1, times))
            if np.all(groups == groups[:, :1]):
                return self.take(operand.operands[0], groups[:, 0])
        return None

    def exceeds(self, larger, smaller):
        """A single value: whether `larger` has a channel that `smaller`, which
        it contains, lacks."""
        rest = _parts_of(smaller, "and") - _parts_of(larger, "and")
        rest = self.conjunction(*rest)
        return self._make("exceeds", (larger, rest), None, 1)

    def concatenate(self, operands, sizes):
        """Channel vectors one after the other."""
        if len(operands) == 1:
            return operands[0]
        masks = [self._mask(x) for x in operands]
        if all(mask is not None for mask in masks):
            pairs = zip(masks, sizes, strict=True)
            return self.constant(
                np.concatenate([np.broadcast_to(x, size) for x, size in pairs])
            )
        parts = tuple(operands)
        return self._make("concat", parts, tuple(sizes), sum(sizes))

    def take(self, operand, index):
        """The channels of an index, in its order; `ABSENT` ones are dead.

        Slices, repetitions and insertions among other channels are all
        expressed this way.
        """
        index = np.asarray(index)
        present = np.all(index != ABSENT)
        if operand.size == 1:
            if present:
                return operand
            index = np.minimum(index, 0)
        elif present and np.array_equal(index, np.arange(operand.size)):
            return operand
        if operand.kind in ("and", "or"):
            parts = [self.take(x, index) for x in operand.operands]
            joins = {"and": self.conjunction, "or": self.disjunction}
            return joins[operand.kind](*parts)
        if operand.kind == "take":
            inner = np.append(unpack(operand.data), ABSENT)
            return self.take(operand.operands[0], inner[index])
        if operand.kind == "concat":
            start = 0
            for part, size in zip(operand.operands, operand.data, strict=True):
                if np.all((index >= start) & (index < start + size)):
                    return self.take(part, index - start)
                start += size
        return self._make("take", (operand,), _pack(index), len(index))

    def _join(self, kind, parts):
        if len(parts) == 1:
            return next(iter(parts))
        ordered = tuple(sorted(parts, key=lambda x: x.order))
        return self._make(kind, ordered, None, max(x.size for x in ordered))


def _pack(index):
    """An index as bytes: hashable, and small where there are many."""
    return np.asarray(index, "int32").tobytes()


def unpack(data):
    """The index of a "take", an array."""
    return np.frombuffer(data, "int32")


def _flatten(kind, operands):
    return {part for x in operands for part in _parts_of(x, kind)}


def _absorb(kind, parts):
    """Drops parts that another part implies: a and (a or b) is a; a or (a and
    b) is a. `kind` is the kind of the parentheses."""
    return {
        x
        for x in parts
        if not (
            x.kind == kind
            and any(
                y is not x and _parts_of(y, kind) <= _parts_of(x, kind)
                for y in parts
            )
        )
    }


def _follows(x, vectors):
    """Whether a single value holds for every channel in all of `vectors`:
    any(a) holds for every channel in a."""
    if x.kind == "any":
        return _parts_of(x.operands[0], "and") <= vectors
    if x.kind == "or" and x.size == 1:
        return any(_follows(part, vectors) for part in x.operands)
    return False


def _parts_of(x, kind):
    return set(x.operands) if x.kind == kind else {x}


def _split_by_size(operand):
    """Single values and vectors among the factors of an "and"."""
    if operand.kind != "and":
        return set(), {operand}
    single = {x for x in operand.operands if x.size == 1}
    return single, set(operand.operands) - single
