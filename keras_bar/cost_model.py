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

from keras_bar.analysis import shared_calls
from keras_bar.analysis.channel_counts import count
from keras_bar.analysis.channel_counts import count_after
from keras_bar.analysis.channel_counts import narrowed
from keras_bar.analysis.counting import uncounted
from keras_bar.analysis.evaluation import evaluate
from keras_bar.layers import ChannelGate
from keras_bar.metrics import Costs
from keras_bar.metrics import LayerCost as LayerCost
from keras_bar.metrics import Limits as Limits
from keras_bar.metrics import is_object as is_object
from keras_bar.peak_memory import PeakMemory

SUMS = ("volume", "flops", "params")
METRICS = (*SUMS, "memory")
# The part of a channel that `marginal_costs` closes to find its cost.
CLOSED = 1e-3
# The least cost of a channel of a metric with steps, as a share of the mean.
LEAST_SHARE = 0.02


class CostModel:
    """The cost formula of one graph.

    Args:
        analysis: `ChannelAnalysis` of the graph.

    Attributes:
        gates: List of the gates, each once.
        full: Dict from metric to the cost of the unpruned network.
        uncounted: Dict from name to type of the layers that no cost counts.
        memory: `PeakMemory` of the network.
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
            for term in shared_calls.terms(node, analysis)
        ]
        terms = [term for _, term in self._terms]
        self.memory = PeakMemory(analysis, self.gates)
        self._factors = _unique(t.factors for t in terms)
        self._conditions = _unique(t.conditions for t in terms)
        self._formulas = {}
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

        def measure(metric):
            if metric == "memory":
                return _whole(self.memory.hard(masks))
            formula = self.formula(metric)
            return float(formula.cost(self.counts(formula.factors, masks)))

        sums = self._sums(self._hard_counts(masks, own))
        return Costs({x: _whole(total) for x, total in sums.items()}, measure)

    def _sums(self, counts):
        """Dict from each of `SUMS` to its value at numbers of channels."""
        totals = dict.fromkeys(SUMS, 0.0)
        for _, term in self._terms:
            totals[term.metric] = totals[term.metric] + _value(term, counts)
        return totals

    def changed_costs(self, metric, masks, others):
        """Costs of networks in each of which another gate is changed.

        Args:
            metric: The metric of the costs.
            masks: Dict from gate to booleans `(channels,)`.
            others: Dict from gate to its mask where it is the one that changes.

        Returns:
            Dict from gate to a cost, like `others`.
        """
        changes = [{gate: mask} for gate, mask in others.items()]
        totals = self._changed_totals(masks, changes, metric)
        if is_object(metric):
            return dict(zip(others, totals[metric].tolist(), strict=True))

        def measure(metric):
            if metric == "memory":
                peaks = [self.memory.hard(masks | x) for x in changes]
                return np.rint(peaks)
            return totals[metric]

        costs = Costs({x: np.rint(totals[x]) for x in SUMS}, measure)
        rows = np.broadcast_to(costs[metric], len(changes))
        return dict(zip(others, rows.tolist(), strict=True))

    def _changed_totals(self, masks, changes, metric):
        """Costs `(changes,)`, not rounded: all, or that of an object."""
        if is_object(metric):
            formula = self.formula(metric)
            counts = count_after(changes, formula.factors, masks)
            return {metric: np.broadcast_to(formula.cost(counts), len(changes))}

        def measure(metric):
            formula = self.formula(metric)
            return formula.cost(count_after(changes, formula.factors, masks))

        counts = count_after(changes, self._factors + self._conditions, masks)
        return Costs(self._sums(counts), measure)

    def formula(self, metric):
        """The formula of a metric that is an object, for this network."""
        if metric not in self._formulas:
            self._formulas[metric] = metric.formula(self.analysis)
        return self._formulas[metric]

    def soft(self, metric, probabilities):
        """The cost of one metric as a differentiable tensor.

        Args:
            metric: One of `METRICS`.
            probabilities: Dict from gate to a tensor `(..., channels)` in
                [0, 1].

        Returns:
            Float32 tensor `(...)`.
        """
        if is_object(metric):
            formula = self.formula(metric)
            counts = count(formula.factors, probabilities, ops)
            return formula.cost(counts, ops)
        if metric == "memory":
            return self.memory.soft(probabilities)
        front = next((x.shape[:-1] for x in probabilities.values()), ())
        terms = [t for _, t in self._terms if t.metric == metric]
        if not terms:
            return ops.zeros(front)
        factors = _unique(t.factors + t.conditions for t in terms)
        index = {factor: i + 1 for i, factor in enumerate(factors)}
        counts = count(factors, probabilities, ops)
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
        """The cost of one channel per gate in a narrowed network.

        FLOPs and parameters are products: a channel that is read and written
        with fewer others costs less, and the factor differs between gates.

        Args:
            metric: One of `METRICS`.
            keep_probability: Float in (0, 1], the keep probability of all
                channels, or a dict of one per gate, by default 1, or 0 for
                closed ones; for memory the part of the full peak. The first
                channel of each open gate is certain, so that the result is the
                cost of one channel among others, not that of a branch.

        Returns:
            The cost of this network, and a dict from gate to the cost of one
            of its channels; floats, in units of the metric, at least 1 where
            these are numbers of something.
        """
        if metric == "memory":
            return self.memory.marginal_costs(keep_probability)
        # Each change makes one gate slightly less open; the last one none.
        vectors = narrowed(self.gates, keep_probability)
        changes, closed = [], {}
        part = getattr(metric, "closed", CLOSED)
        for gate, x in vectors.items():
            less = x.copy()
            # A single-channel gate costs what closing it saves.
            less[gate.channels > 1 :] *= 1.0 - part
            changes.append({gate: less})
            closed[gate] = np.sum(x - less) or 1.0
        costs = self._changed_totals(vectors, [*changes, {}], metric)[metric]
        saved = costs[-1] - costs[:-1]
        return costs[-1], {
            gate: max(float(x) / closed[gate], self._least(metric))
            for gate, x in zip(self.gates, saved, strict=True)
        }

    def savings(self, metric):
        """Dict from gate to the cost saved by closing one of its channels in
        the full network, in units of the metric; see `marginal_costs`. Those of
        memory are at half of its peak, which few channels determine alone."""
        if metric == "memory":
            return self.marginal_costs(metric, 0.5)[1]
        part = metric.closed if is_object(metric) else 0
        closed = {x: max(1, int(part * x.channels)) for x in self.gates}
        others = {x: np.arange(x.channels) >= y for x, y in closed.items()}
        costs = self.changed_costs(metric, self._everything(), others)
        return {
            gate: max(
                float(self.full[metric] - cost) / closed[gate],
                self._least(metric),
            )
            for gate, cost in costs.items()
        }

    def _least(self, metric):
        """The least cost of a channel: 1, or a small part of the mean of all in
        a metric that is an object, whose unit may be large."""
        if not is_object(metric):
            return 1.0
        channels = sum(gate.channels for gate in self.gates)
        return LEAST_SHARE * self.full[metric] / channels

    def layers(self, masks, own=None, metric=None):
        """List of `LayerCost`, for the arguments of `hard`, and with the cost
        of each layer in a metric that is an object."""
        counts = self._hard_counts(masks, own)
        rows: dict = {}
        for node, term in self._terms:
            row = rows.setdefault(node, dict.fromkeys(METRICS, 0.0))
            row[term.metric] += _value(term, counts)
        other = {}
        if is_object(metric):
            formula = self.formula(metric)
            other = formula.by_node(self.counts(formula.factors, masks))
            for node in other:
                rows.setdefault(node, dict.fromkeys(METRICS, 0.0))
        for node, size in self.memory.by_node(masks).items():
            rows.get(node, {})["memory"] = size
        channels = self._channels(rows, masks)
        return [
            LayerCost(
                name=node.name,
                kind=type(node.op).__name__,
                channels=channels[node],
                **{metric: _whole(v) for metric, v in row.items()},
                other=other.get(node, 0.0),
            )
            for node, row in rows.items()
            if any(row.values()) or other.get(node) or channels[node][0] == 0
        ]

    def _everything(self):
        """Dict from gate to a mask that keeps all channels."""
        return {gate: np.ones(gate.channels, bool) for gate in self.gates}

    def _hard_counts(self, masks, own):
        if not self.gates:
            return {
                **self.counts(self._factors, masks),
                **dict.fromkeys(self._conditions, 0),
            }
        own = masks if own is None else own
        return {
            **self.counts(self._factors, masks),
            **count(self._conditions, own),
        }

    def counts(self, factors, masks):
        """Dict from the factors of a formula to numbers of channels, for
        vectors `(..., channels)` in [0, 1]."""
        if not self.gates:  # Everything is computed.
            return {factor: factor[1] for factor in factors}
        return count(factors, masks)

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
