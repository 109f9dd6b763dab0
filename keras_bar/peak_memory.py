"""Peak memory of a network: the most bytes of tensors that exist at once.

`keras_bar.analysis.arena` says which tensors exist when. The hard cost runs the
program of the compact network, without building it. The soft cost is the
largest moment of the full network's program. Each moment is a sum over its
tensors: bytes per channel times the expected number of channels.
"""

import functools

import numpy as np
from keras import ops

from keras_bar.analysis import arena_program
from keras_bar.analysis.evaluation import evaluate

# The least cost of a channel, as odds of closing it.
LEAST_ODDS = 0.01
# Exponent of the odds. With 1 the streams of a residual network lose more
# channels than the budget takes, and the insides of its branches hardly any;
# with 1/2 late layers, which are in no moment above it, lose most of theirs.
ODDS_EXPONENT = 0.75
# The costs are those at a budget that is this part of the one in force. At the
# full peak they single out the channels of the moments that have to fall first.
AHEAD = 0.9
# Iterations in which a network is narrowed to a budget.
ITERATIONS = 30
# A gate of fewer channels stays open where each gate lacks a channel.
LEAST_CHANNELS = 4


class PeakMemory:
    """The peak memory of a graph, in bytes.

    Args:
        analysis: `ChannelAnalysis` of the graph.
        gates: List of its gates.
    """

    def __init__(self, analysis, gates):
        self.analysis = analysis
        self.gates = gates
        self._live = {x: analysis.live(x) for x in analysis.needed}

    def hard(self, masks):
        """The peak, exactly that of the compact network.

        Args:
            masks: Dict from gate to booleans `(channels,)`.
        """
        return self._program(masks).peak()

    def by_node(self, masks):
        """Dict from `Node` to the bytes of all tensors while it runs, in the
        order in which the nodes run."""
        result: dict = {}
        for step, size in self._program(masks).moments():
            result[step.node] = max(size, result.get(step.node, 0.0))
        return result

    def _program(self, masks):
        if not self.gates:  # Everything is computed.
            live = {x: np.ones(1, bool) for x in self._live}
            return arena_program.write(
                self.analysis, live, {}, lambda _: np.ones(1, bool)
            )
        widths = {x: y.alive for x, y in self.analysis.widths.items()}
        values = evaluate([*self._live.values(), *widths.values()], masks)
        live = {x: values[e] > 0.5 for x, e in self._live.items()}
        left = {x: np.mean(values[e]) for x, e in widths.items()}
        return arena_program.write(
            self.analysis, live, left, lambda x: evaluate([x], masks)[x] > 0.5
        )

    def soft(self, probabilities, xp=ops):
        """The expected peak, a tensor `(...)`, for a control to follow.

        Where the first channel of a residual stream closes, its additions are
        mixed and need a temporary tensor: the peak rises before it falls. A
        budget that falls could only jump over that, so the temporary tensors
        count gradually, `1 - r^2` of them in a network with the part `r` of the
        full one's peak. Little is left to correct when `hard` chooses the
        channels that stay.

        Args:
            probabilities: Dict from gate to a tensor `(..., channels)`.
            xp: `keras.ops`, or `numpy` for arrays.
        """
        lasting, temporary = self._soft_moments(probabilities, xp)
        part = xp.max(lasting, axis=-1, keepdims=True) / self._full_peak
        counted = 1.0 - xp.minimum(part, 1.0) ** 2
        return xp.max(lasting + counted * temporary, axis=-1)

    def marginal_costs(self, share):
        """The cost of one channel per gate, at a budget.

        Most channels are in no moment above the budget, and cost nothing. The
        others belong to moments that have to lose different parts of their
        tensors. Which moment is the peak changes whenever one was cut, so that
        its savings are no measure: gates would oscillate. Instead, all gates
        are narrowed until no moment exceeds the budget and none is narrower
        than that takes. Where a gate keeps the part k of its channels, one of
        them costs `(1 - k) / k` to the power of 3/4: the odds of being closed,
        softened because the importance of channels differs, too. The costs
        are scaled so that the channels
        of that network cost the budget.

        Args:
            share: Float in (0, 1], the budget as a fraction of the full peak.

        Returns:
            The budget in bytes, and a dict from gate to the cost of a channel.
        """
        budget = share * self._full_peak
        kept = self.narrowed(AHEAD * budget)
        costs = {
            x: max((1.0 - k) / k, LEAST_ODDS) ** ODDS_EXPONENT
            for x, k in kept.items()
        }
        total = sum(y * kept[x] * x.channels for x, y in costs.items())
        return budget, {x: y * budget / total for x, y in costs.items()}

    def narrowed(self, budget):
        """Dict from gate to the part of its channels that it may keep, if the
        moments above a budget in bytes are narrowed evenly."""
        kept = dict.fromkeys(self.gates, 1.0)
        for _ in range(ITERATIONS):
            excess = np.maximum(self._moments_at(kept) / budget, 1e-3)
            for gate, members in self._members.items():
                largest = excess[members].max(initial=1e-3)
                part = kept[gate] * largest**-0.5
                kept[gate] = np.clip(part, 1.0 / gate.channels, 1.0)
        return kept

    @functools.cached_property
    def _members(self):
        """Dict from gate to the moments in which it has channels, booleans."""
        half = dict.fromkeys(self.gates, 0.5)
        before = self._moments_at(half)
        return {
            gate: self._moments_at({**half, gate: 0.4}) < before * (1 - 1e-6)
            for gate in self.gates
        }

    def _moments_at(self, kept):
        """Expected moments `(moments,)` of a network narrowed per gate, whose
        first channels are certain."""
        vectors = {}
        for gate in self.gates:
            vectors[gate] = np.full(gate.channels, float(kept[gate]))
            if gate.channels > 1:
                vectors[gate][0] = 1.0
        return sum(self._soft_moments(vectors, np))

    @functools.cached_property
    def _full_peak(self):
        vectors = {x: np.ones(x.channels) for x in self.gates}
        return float(self._soft_moments(vectors, np)[0].max())

    def _soft_moments(self, probabilities, xp):
        """The expected moments, and the part of them that are tensors of mixed
        additions and restored tensors; tensors `(..., moments)`."""
        terms, *matrices = self._linear
        front = next((x.shape[:-1] for x in probabilities.values()), ())
        values = evaluate({x for y in terms for x in y}, probabilities, xp)
        counts = [
            xp.broadcast_to(
                xp.sum(values[live], axis=-1)
                * xp.mean(values[width], axis=-1)
                * values[exists][..., 0],
                front,
            )
            for live, width, exists in terms
        ]
        counts = xp.stack(counts, axis=-1)
        return [xp.matmul(counts, matrix) for matrix in matrices]

    @functools.cached_property
    def _linear(self):
        """The moments as linear functions of numbers of channels.

        Returns:
            List of triples of `Expression`: the channels of a tensor, its
            widths, and whether it exists, a single value; and two arrays of
            bytes `(triples, moments)`, for the tensors that last and the
            temporary ones.
        """
        program = self._program(self._almost_open())
        rows = [
            self._moment(i, step, tensors, program)
            for i, (step, tensors) in enumerate(program.stored())
        ]
        terms = list(dict.fromkeys(y for row in rows for x in row for y in x))
        matrix = _largest(
            np.array(
                [[x.get(y, 0.0) for x in row for y in terms] for row in rows]
            )
        )
        return terms, *np.split(matrix.T.astype("float32"), 2)

    def _almost_open(self):
        """Masks of a network in which every operation exists, and almost every
        operation that moves channels: each gate lacks another channel."""
        masks = {g: np.ones(g.channels, bool) for g in self.gates}
        for i, (gate, mask) in enumerate(masks.items()):
            mask[i % gate.channels] = gate.channels < LEAST_CHANNELS
        return masks

    def _moment(self, i, step, tensors, program):
        """For the step `i`, two dicts from triples of `Expression` to bytes:
        those of the tensors that last, and those of the temporary ones."""
        algebra = self.analysis.algebra
        lasting: dict = {}
        temporary: dict = {}
        for x in tensors:
            value, exists, row = program.values[x], algebra.full, lasting
            if x in step.outputs:
                exists = self._is_written(step)
                if step.kind == "move" and x in program.whole:
                    exists = algebra.exceeds(algebra.full, self._live[value])
                    row = temporary
            elif x not in program.outputs:
                readers = program.readers(x)
                if readers[0] < i:
                    later = [program.operations[j] for j in readers if j >= i]
                    exists = self._any(y.node for y in later)
            stored = program.channels.get(x, value)
            live = self._live.get(stored, algebra.full)
            if x in program.whole:
                live = algebra.full
            if x in program.per_channel:
                key = (live, algebra.full, exists)
                row[key] = row.get(key, 0.0) + program.per_channel[x]
            else:
                self._count(row, value, live, exists)
        if step.kind == "add":
            value, exists = step.node.output, self._is_moved(step)
            self._count(temporary, value, self._live[value], exists)
        return lasting, temporary

    def _count(self, row, value, live, exists):
        size = arena_program.bytes_per_channel(value, self.analysis)
        if live.size == 1:
            size *= self.analysis.channels[value].size or 1
        width = self.analysis.widths.get(value)
        key = (
            live,
            width.alive if width else self.analysis.algebra.full,
            exists,
        )
        row[key] = row.get(key, 0.0) + size

    def _any(self, nodes):
        """A single value: whether the compact network has any of some nodes."""
        algebra = self.analysis.algebra
        outputs = [x for node in nodes for x in node.outputs]
        live = [self._live[x] for x in outputs if x in self._live]
        return algebra.disjunction(*map(algebra.any, live))

    def _is_written(self, step):
        """Whether a step writes a new tensor: a sum of which one operand is
        left is that operand."""
        algebra, inputs = self.analysis.algebra, step.node.inputs
        if step.kind != "add" or len(inputs) != 2:
            return algebra.full
        return algebra.conjunction(
            *(algebra.any(self._live[x]) for x in inputs)
        )

    def _is_moved(self, step):
        """Whether an operand of a sum lacks a channel of it."""
        algebra, kept = self.analysis.algebra, self._live[step.node.output]
        if any(
            self._live[x].size not in (1, kept.size) for x in step.node.inputs
        ):
            return algebra.full
        lacking = (
            algebra.exceeds(kept, self._live[x]) for x in step.node.inputs
        )
        return algebra.conjunction(
            self._is_written(step), algebra.disjunction(*lacking)
        )


def _largest(matrix):
    """The rows of a matrix that no other row exceeds everywhere."""
    matrix = np.unique(matrix, axis=0)
    kept = [
        i
        for i, row in enumerate(matrix)
        if not any(
            j != i and np.all(other >= row) for j, other in enumerate(matrix)
        )
    ]
    return matrix[kept]
