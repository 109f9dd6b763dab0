"""MorphNet: shrink by the scales of batch normalization, then expand.

Gordon et al. 2018, "MorphNet: Fast & Simple Resource-Constrained Structure
Learning of Deep Networks". The three steps are

    student = keras_bar.gate(
        model, connectivity="regular", layer=keras_bar.layers.MarkerGate
    )
    student.fit(..., callbacks=[MorphNetRegularizer(1e-8, "flops")])
    seed = keras_bar.compact(student)
    wider = expand(seed, keras_bar.measure_cost(model).flops / 4, "flops")
    wider.fit(...)
"""

import math

import keras
from keras import ops

from keras_bar import selection
from keras_bar.baselines.neighbours import find_neighbours
from keras_bar.baselines.penalties import check_gates
from keras_bar.baselines.penalties import check_strength
from keras_bar.callbacks.gate_regularizer import GateRegularizer
from keras_bar.costs import measure_cost
from keras_bar.graph import trace
from keras_bar.graph.flow import Flow
from keras_bar.graph.placements import place_gates
from keras_bar.graph.placements import whole_streams
from keras_bar.layers import MarkerGate
from keras_bar.layers import MixedResidual

# Halvings of the interval in which the width multiplier is sought.
HALVINGS = 20


class MorphNetRegularizer(GateRegularizer):
    """Shrinks a network by a penalty on its batch normalizations' scales.

    With `A_i`, `B_j` being whether the inputs and outputs of a layer are alive,
    its cost is `C sum(A) sum(B)`, and its penalty (Gordon et al. 2018, eq. 3)

        C (sum|gamma_i| sum(B_j) + sum(A_i) sum|gamma_j|):

    a channel's `|gamma|` is worth what closing it would save at present. That
    is the gradient of the cost, so it holds for every metric and for every
    graph that `keras_bar.measure_cost` knows. Where several normalizations
    scale a channel, as those of all writers and readers of a residual stream
    do, the largest `|gamma|` counts. When `fit` ends, channels whose `|gamma|`
    is below the threshold are closed.

    Logs as of `keras_bar.callbacks.BudgetRegularizer`, without the budget; the
    `penalty` is `strength` times the cost of what is alive.

    Args:
        strength: Positive float, the factor of the penalty, per unit of the
            metric.
        metric: `"volume"` (scalar activations), `"flops"` or `"params"`.
        threshold: Positive float: a channel lives while its `|gamma|` is
            larger.

    Raises:
        ValueError: If an argument is wrong, the model has no
            `keras_bar.layers.MarkerGate`s, or no batch normalization scales
            the channels of one of them.
    """

    def __init__(self, strength, metric="flops", threshold=1e-2):
        super().__init__(steps=1.0)
        check_strength(strength)
        selection.check_metric(metric)
        if not selection.is_number(threshold) or not threshold > 0:
            raise ValueError(
                "Invalid threshold. Expected a positive number. "
                f"Received: threshold={threshold!r}"
            )
        self.strength = strength
        self.metric = metric
        self.threshold = threshold

    def make_control(self, steps):
        model = self._cost_model
        check_gates(model.gates, MarkerGate, type(self).__name__)
        return _ScalePenalty(model, self.strength, self.metric, self.threshold)

    def alive(self, cost_model):
        return {
            gate: ops.convert_to_numpy(size) > self.threshold
            for gate, size in _magnitudes(_scales(cost_model)).items()
        }


class _ScalePenalty:
    """The penalty, as `callbacks.gate_regularizer` wants it."""

    def __init__(self, cost_model, strength, metric, threshold):
        self.scales = _scales(cost_model)
        self.cost_model = cost_model
        self.strength = strength
        self.metric = metric
        self.threshold = threshold

    def start(self, state):
        state.pressure.assign(0.0)

    def __call__(self, state):
        vectors = {}
        for gate, size in _magnitudes(self.scales).items():
            alive = ops.cast(size > self.threshold, "float32")
            # 0 or 1, with the gradient of the scale: so the gradient of the
            # cost is the penalty's.
            vectors[gate] = alive + size - ops.stop_gradient(size)
        return self.strength * self.cost_model.soft(self.metric, vectors)

    def penalty(self, state):
        """The loss at present, a float."""
        return float(ops.convert_to_numpy(self(state)))


def _scales(cost_model):
    """Dict from gate to the scales of its channels: the `gamma`s of all batch
    normalizations between their writers and their readers."""
    scales = {}
    for gate, around in find_neighbours(cost_model).items():
        norms = [
            node.op
            for node in around.between
            if isinstance(node.op, keras.layers.BatchNormalization)
        ]
        scales[gate] = [x.gamma for x in norms if x.gamma is not None]
        if not scales[gate]:
            raise ValueError(
                "MorphNet learns from the scales of batch normalization. "
                "Expected one with a scale behind every gated convolution; "
                "name those without one in `skip` of `keras_bar.gate`. "
                f"Received: {gate.name!r} without one"
            )
    return scales


def _magnitudes(scales):
    """Dict from gate to `|gamma|` of its channels, tensor `(channels,)`: the
    largest where there are several."""
    return {
        gate: ops.max(ops.stack([ops.abs(x) for x in gammas]), axis=0)
        for gate, gammas in scales.items()
    }


def expand(model, budget, metric="flops"):
    """Widens a network uniformly until it uses a budget (MorphNet's step 3).

    Every convolution whose channels are free gets the same multiple of them:
    the largest with which the network is within the budget. It starts anew,
    from random weights: it is the widths that MorphNet learns.

    Args:
        model: Functional or built Sequential `keras.Model` without gates, with
            regular connectivity. It is left as it is.
        budget: Positive number, in units of the metric.
        metric: `"volume"`, `"flops"` or `"params"`.

    Returns:
        A new, untrained `keras.Model`.

    Raises:
        ValueError: If an argument is wrong, the model has nothing that can be
            widened, or one channel per convolution exceeds the budget.
    """
    selection.check_metric(metric)
    if not selection.is_number(budget) or not 0 < budget < math.inf:
        raise ValueError(
            f"Invalid budget. Expected a positive number, in {metric}. "
            f"Received: budget={budget!r}"
        )
    graph = trace.trace(model)
    widths = _free_widths(graph)

    def cost(multiple):
        wider = _widened(graph, _multiplied(widths, multiple))
        return getattr(measure_cost(wider), metric)

    if cost(0.0) > budget:
        raise ValueError(
            "The budget is too small. Expected at least the cost of one "
            f"channel in every convolution, a {metric} of {cost(0.0)}. "
            f"Received: {budget}"
        )
    low, high = 0.0, 1.0
    while cost(high) <= budget:
        low, high = high, 2.0 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if cost(middle) <= budget:
            low = middle
        else:
            high = middle
    return _widened(graph, _multiplied(widths, low))


def _free_widths(graph):
    """Dict from `Node` to the channels of a convolution that may get more."""
    flow = Flow(graph)
    mixed = [x.name for x in graph.nodes if isinstance(x.op, MixedResidual)]
    if mixed:
        raise ValueError(
            "The sides of an addition keep different channels, so they have "
            "no common width. Expected a model compacted with "
            "connectivity='regular'. Received: "
            f"{graph.name!r} with {mixed[0]!r}"
        )
    placements = whole_streams(flow, place_gates(flow))
    widths = {
        x.node: x.node.op.filters
        for x in placements
        if x.value is not None and hasattr(x.node.op, "filters")
    }
    if not widths:
        raise ValueError(
            "Nothing in this model can be widened. Expected at least one "
            f"convolution whose channels are free. Received: {graph.name!r}"
        )
    return widths


def _multiplied(widths, multiple):
    return {node: max(1, round(multiple * x)) for node, x in widths.items()}


def _widened(graph, widths):
    """The network with these numbers of filters, and random weights."""

    def rebuild(node, tensors):
        changes = {"filters": widths[node]} if node in widths else {}
        return trace.call(
            trace.clone(node.op, node.name, **changes), node, tensors
        )

    return trace.replay(graph, rebuild)
