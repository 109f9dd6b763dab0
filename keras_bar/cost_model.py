"""The cost formula of a network.

A cost is one formula over the channel vectors of the gates. At the 0/1 vectors
of the alive channels it is the exact cost of the compact model; at the
probabilities `P(z > 0)` it is the soft cost, which training differentiates.
"""

import dataclasses
import itertools
import math

import numpy as np
from keras import ops

from keras_bar.analysis.counting import uncounted
from keras_bar.analysis.evaluation import evaluate
from keras_bar.layers import ChannelGate

METRICS = ("volume", "flops", "params")

# The part of a channel that `marginal_costs` closes to find its cost.
CLOSED = 1e-3


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """The cost of one layer.

    Attributes:
        name, kind: Name and type of the layer.
        channels: Output channels computed, and those of the full network.
        volume: Activations per sample.
        flops: 2 x multiply-adds per sample.
        params: Number of weights.
    """

    name: str
    kind: str
    channels: tuple
    volume: int = 0
    flops: int = 0
    params: int = 0


@dataclasses.dataclass(frozen=True)
class Limits:
    """Several budgets at once, as a metric: the largest share of a budget that
    is in use, so that a network of cost 1 or less meets all of them.

    Attributes:
        targets: Tuple of pairs of a metric and a budget in its units.
    """

    targets: tuple


class Costs(dict):
    """Dict from metric to cost, in which `Limits` are a metric, too."""

    def __missing__(self, limits):
        if not isinstance(limits, Limits):
            raise KeyError(limits)
        return np.max([self[metric] / most for metric, most in limits.targets])


class CostModel:
    """The cost formula of one graph.

    Args:
        analysis: `ChannelAnalysis` of the graph.

    Attributes:
        gates: List of the gates, each once.
        full: Dict from metric to the cost of the unpruned network.
        uncounted: Dict from name to type of the layers whose multiply-adds
            no cost counts.
    """

    def __init__(self, analysis):
        self.analysis = analysis
        self.uncounted = uncounted(analysis)
        self.gates = list(
            dict.fromkeys(
                node.op
                for node in analysis.graph.nodes
                if isinstance(node.op, ChannelGate)
            )
        )
        self._terms = [
            (node, _per_sample(term, node))
            for node in analysis.graph.nodes
            if _is_used(node, analysis)
            for term in analysis.rules[node].terms(node, analysis)
        ]
        terms = [term for _, term in self._terms]
        self._factors = _unique(t.factors for t in terms)
        self._conditions = _unique(t.conditions for t in terms)
        self.full = self.hard(self._everything())

    def hard(self, masks, own=None):
        """Exact costs.

        Args:
            masks: Dict from gate to booleans `(channels,)`.
            own: The masks of the gates themselves, if `masks` keep channels
                whose gates are closed. They determine which constants are
                folded and which biases are gained. Defaults to `masks`.

        Returns:
            `Costs`, a dict from metric to cost.
        """
        totals = self._totals(masks, own)
        return Costs({x: _whole(total) for x, total in totals.items()})

    def _totals(self, masks, own=None):
        """Like `hard`, but not rounded, for vectors `(..., channels)` in
        [0, 1]."""
        counts = self._hard_counts(masks, own)
        totals = dict.fromkeys(METRICS, 0.0)
        for _, term in self._terms:
            totals[term.metric] = totals[term.metric] + _value(term, counts)
        return totals

    def soft(self, metric, probabilities):
        """The cost of one metric as a differentiable tensor.

        Args:
            metric: One of `METRICS`.
            probabilities: Dict from gate to a tensor `(..., channels)` in
                [0, 1].

        Returns:
            Float32 tensor `(...)`.
        """
        front = next((x.shape[:-1] for x in probabilities.values()), ())
        terms = [t for _, t in self._terms if t.metric == metric]
        if not terms:
            return ops.zeros(front)
        factors = _unique(t.factors + t.conditions for t in terms)
        index = {factor: i + 1 for i, factor in enumerate(factors)}
        counts = self._counts(probabilities, ops, factors)
        # One vector of counts with a leading 1: a term is a product of two or
        # three of its entries.
        entries = [ops.ones(()), *(counts[f] for f in factors)]
        vector = ops.stack(
            [ops.broadcast_to(x, front) for x in entries], axis=-1
        )
        rows = [[index[f] for f in t.factors + t.conditions] for t in terms]
        product = ops.ones(())
        for column in itertools.zip_longest(*rows, fillvalue=0):
            product = product * ops.take(vector, np.array(column), axis=-1)
        coefficients = ops.convert_to_tensor(
            [float(t.coefficient) for t in terms], dtype="float32"
        )
        return ops.sum(product * coefficients, axis=-1)

    def marginal_costs(self, metric, keep_probability):
        """The cost of one channel per gate in a uniformly narrowed network.

        FLOPs and parameters are products: a channel that is read and written
        with fewer others costs less, and the factor differs between gates.

        Args:
            metric: One of `METRICS`.
            keep_probability: Float in (0, 1], the keep probability of all
                channels. The first channel of each gate is certain, so that the
                result is the cost of one channel among others, not that of a
                whole branch.

        Returns:
            The cost of this network, and a dict from gate to the cost of one
            of its channels, at least 1; floats, in units of the metric.
        """
        # All costs are computed at once. Each row has one gate slightly less
        # open; the last row has none.
        vectors, closed = {}, {}
        for i, gate in enumerate(self.gates):
            x = np.full(
                (len(self.gates) + 1, gate.channels), float(keep_probability)
            )
            x[:, 0] = 1.0
            # A single-channel gate costs what closing it saves.
            x[i, gate.channels > 1 :] *= 1.0 - CLOSED
            vectors[gate], closed[gate] = x, np.sum(x[-1] - x[i])
        costs = self._totals(vectors)[metric]
        saved = costs[-1] - costs[:-1]
        return costs[-1], {
            gate: max(float(x) / closed[gate], 1.0)
            for gate, x in zip(self.gates, saved, strict=True)
        }

    def savings(self, metric):
        """Dict from gate to the cost saved by closing one of its channels in
        the full network, in units of the metric; at least 1."""
        savings, everything = {}, self._everything()
        for gate, mask in everything.items():
            closed = mask.copy()
            closed[0] = False
            cost = self.hard({**everything, gate: closed})[metric]
            savings[gate] = max(float(self.full[metric] - cost), 1.0)
        return savings

    def layers(self, masks, own=None):
        """List of `LayerCost`, for the arguments of `hard`."""
        counts = self._hard_counts(masks, own)
        rows: dict = {}
        for node, term in self._terms:
            row = rows.setdefault(node, dict.fromkeys(METRICS, 0.0))
            row[term.metric] += _value(term, counts)
        channels = self._channels(rows, masks)
        return [
            LayerCost(
                name=node.name,
                kind=type(node.op).__name__,
                channels=channels[node],
                **{metric: _whole(v) for metric, v in row.items()},
            )
            for node, row in rows.items()
            if any(row.values()) or channels[node][0] == 0
        ]

    def _everything(self):
        """Dict from gate to a mask that keeps all channels."""
        return {gate: np.ones(gate.channels, bool) for gate in self.gates}

    def _hard_counts(self, masks, own):
        if not self.gates:  # Everything is computed.
            return {
                **{factor: factor[1] for factor in self._factors},
                **dict.fromkeys(self._conditions, 0),
            }
        own = masks if own is None else own
        return {
            **self._counts(masks, np, self._factors),
            **self._counts(own, np, self._conditions),
        }

    def _counts(self, gates, xp, factors):
        """Number of channels for every factor of a term."""
        values = evaluate([expression for expression, _ in factors], gates, xp)
        return {
            (x, size): (
                xp.sum(values[x], axis=-1)
                if x.size > 1
                else values[x][..., 0] * size
            )
            for x, size in factors
        }

    def _channels(self, nodes, masks):
        live = {node: self.analysis.live(node.output) for node in nodes}
        values = evaluate(live.values(), masks)
        result = {}
        for node, expression in live.items():
            axis = self.analysis.channels[node.output].axis
            shape = node.output.shape or (1,)
            size = shape[-1 if axis is None else axis] or 1
            value = np.broadcast_to(values[expression], (size,))
            result[node] = (int(value.sum()) if self.gates else size, size)
        return result


def alive_masks(gates):
    """Dict from gate to its alive channels, booleans `(channels,)`."""
    return {gate: gate.alive() for gate in gates}


def _per_sample(term, node):
    """A summand of a cost for a sample, not for an entry of the first axis."""
    if term.metric == "params":
        return term
    count = node.output.rows
    return dataclasses.replace(term, coefficient=count * term.coefficient)


def _is_used(node, analysis):
    """Whether the compact model may contain a layer; it has no gates."""
    is_gate = isinstance(node.op, ChannelGate)
    return not is_gate and any(x in analysis.needed for x in node.outputs)


def _value(term, counts):
    result = term.coefficient
    for factor in term.factors + term.conditions:
        result = result * counts[factor]
    return result


def _unique(groups):
    """The members of groups, each once."""
    return list(dict.fromkeys(x for group in groups for x in group))


def _whole(total):
    return total if math.isnan(total) else round(float(total))
