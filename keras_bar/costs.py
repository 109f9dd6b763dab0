"""What a network costs: activation volume, FLOPs and parameters.

A cost is one formula over the channel vectors of the gates. At the 0/1 vectors
of the alive channels it is the exact cost of the compact model; at the
probabilities `P(z > 0)` it is the soft cost, which training differentiates.
"""

import dataclasses
import itertools
import math

import numpy as np
from keras import ops

from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.counting import listed
from keras_bar.analysis.counting import uncounted
from keras_bar.analysis.evaluation import evaluate
from keras_bar.analysis.residual_groups import unite
from keras_bar.analysis.trace import trace
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate

METRICS = ("volume", "flops", "params")

# The part of a gate's channels by whose closing their price is found.
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
class Cost:
    """The cost of a network; `str()` prints it as a table.

    Attributes:
        volume: Scalar activations per sample, over the outputs of the
            convolutions.
        flops: 2 x multiply-adds of convolutions and dense layers, per sample.
        params: Number of weights, trainable and not.
        layers: List of `LayerCost`.
        regular: `Cost` of the same gates realised with regular connectivity,
            where all writers of a residual stream keep the union of their
            channels. None for a network without gates.
        uncounted: Dict from name to type of the layers that multiply and add
            what these numbers leave out, because no rule knows how much:
            attention, custom layers and the like. Their weights are counted.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> cost = keras_bar.measure_cost(model)
    >>> cost.volume, cost.params
    (288, 98)
    >>> print(cost)
    layer ...
    total ...
    """

    volume: int
    flops: int
    params: int
    layers: list = dataclasses.field(repr=False)
    regular: "Cost | None" = dataclasses.field(default=None, repr=False)
    uncounted: dict = dataclasses.field(default_factory=dict, repr=False)

    def __str__(self):
        rows: list[tuple] = [("layer", "type", "channels", *METRICS)]
        for x in self.layers:
            resolved = (f"{v:,}" for v in (x.volume, x.flops, x.params))
            kept, full = x.channels
            of = f"{kept}" if kept == full else f"{kept} of {full}"
            rows.append((x.name, x.kind, of, *resolved))
        totals = (f"{v:,}" for v in (self.volume, self.flops, self.params))
        rows.append(("total", "", "", *totals))
        text = table(rows)
        if not self.uncounted:
            return text
        left_out = listed(self.uncounted)
        return f"{text}\nNot counted in volume and FLOPs: {left_out}"


class CostModel:
    """The cost formula of one graph.

    Args:
        analysis: `ChannelAnalysis` of the graph.

    Attributes:
        gates: List of the gates, each once.
        full: Dict from metric to the cost of the unpruned network.
        uncounted: Dict from name to type of the layers whose multiply-adds
            are in no cost.
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
            (node, term)
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
            own: Where `masks` hold channels that are computed though their
                gates are closed: the masks of the gates themselves. Constants
                are folded, and biases gained, as these say.

        Returns:
            Dict from metric to cost.
        """
        totals = self._totals(masks, own)
        return {metric: _whole(total) for metric, total in totals.items()}

    def _totals(self, masks, own=None):
        """As `hard`, not rounded, of vectors `(..., channels)` in [0, 1]."""
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
        # One vector of counts, 1 in front: a term is a product of two or
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
        """What a channel costs in a network that is evenly narrower.

        FLOPs and parameters are products: a channel that is read and written
        with fewer others costs less, and not all cost less by the same factor.

        Args:
            metric: One of `METRICS`.
            keep_probability: Float in (0, 1], that of every channel but the
                first of each gate, which is certain: the price is that of one
                among others, and not of the branch that dies with the last.

        Returns:
            The cost of this network, and a dict from gate to the price of one
            of its channels, at least 1; floats, in units of the metric.
        """
        # All costs at once: with a gate a little less open, and last as it is.
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
        """Dict from gate to what closing one channel of it saves in the full
        network, in units of the metric; at least 1."""
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
        """Dict from gate to the mask with which all channels live."""
        return {gate: np.ones(gate.channels, bool) for gate in self.gates}

    def _hard_counts(self, masks, own):
        if not self.gates:  # Nothing will be removed: all of it is computed.
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
            size = node.output.shape[-1 if axis is None else axis] or 1
            value = np.broadcast_to(values[expression], (size,))
            result[node] = (int(value.sum()) if self.gates else size, size)
        return result


def measure_cost(model):
    """Measures what a model costs to run.

    For a gated model this is the cost of the compact model that
    `keras_bar.compact` would return now, exactly, before it is built. The
    FLOPs count every multiply-add of convolutions and dense layers, the stem's
    7x7 kernel included. Layers whose multiply-adds are not counted are in
    `uncounted`, and named beneath the table.

    Args:
        model: Functional or Sequential `keras.Model` with known input sizes,
            with gates or without.

    Returns:
        A `Cost`.

    Raises:
        ValueError: If the model has no graph of layers, or an input of unknown
            size.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> keras_bar.measure_cost(model).flops
    5216
    """
    cost_model = CostModel(ChannelAnalysis(trace(model)))
    if math.isnan(cost_model.full["volume"] + cost_model.full["flops"]):
        shapes = [tuple(x.shape) for x in model.inputs]
        raise ValueError(
            "Volume and FLOPs depend on the size of the input. Expected a "
            "model whose inputs have a known size, such as (32, 32, 3). "
            f"Received: inputs of shape {shapes}"
        )
    masks = alive_masks(cost_model.gates)
    regular = None
    if cost_model.gates:
        regular = _cost(
            cost_model, unite(cost_model.analysis, masks), own=masks
        )
    return dataclasses.replace(_cost(cost_model, masks), regular=regular)


def alive_masks(gates):
    """Dict from gate to its alive channels, booleans `(channels,)`."""
    return {gate: gate.alive() for gate in gates}


def _cost(cost_model, masks, own=None):
    layers = cost_model.layers(masks, own)
    costs = cost_model.hard(masks, own)
    return Cost(**costs, layers=layers, uncounted=cost_model.uncounted)


def _is_used(node, analysis):
    """Gates and the budget's state leave with compaction."""
    ours = isinstance(node.op, ChannelGate | BudgetState)
    return not ours and any(x in analysis.needed for x in node.outputs)


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


def table(rows):
    """Text of rows of strings, a heading first and a total last or what is
    like one; the first two columns on the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
