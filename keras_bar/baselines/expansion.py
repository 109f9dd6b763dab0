"""Uniform expansion of a network to a budget: MorphNet's third step."""

import math

import keras
import numpy as np

from keras_bar.analysis import replaying
from keras_bar.analysis import trace
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.gate_placement import place_gates
from keras_bar.analysis.gate_placement import regular_placements
from keras_bar.budget import selection
from keras_bar.compaction.building import is_remnant
from keras_bar.costs import CostModel

# Relative tolerance of the multiple of the widths.
TOLERANCE = 1e-5


def expand(
    model: keras.Model, budget: float, metric: str = "flops"
) -> keras.Model:
    """Widens a network uniformly until it uses a budget (MorphNet's step 3).

    All convolutions and hidden dense layers with free channels are widened by
    the same factor, the largest that keeps the network within the budget. The
    weights are random again, because MorphNet learns only the widths. Constants
    that compaction kept from removed channels depend on the old weights and are
    dropped.

    Args:
        model: Built `keras.Model` without gates, with
            regular connectivity. The model stays unchanged.
        budget: Positive number, in units of the metric.
        metric: `"volume"`, `"flops"`, `"params"` or `"memory"`.

    Returns:
        A new, untrained `keras.Model`.

    Raises:
        ValueError: If an argument is wrong, one channel per convolution
            exceeds the budget, or the model cannot be widened: it has no free
            convolution, or a layer whose configuration fixes a number of
            channels (squeeze-and-excitation, grouped convolutions, slices,
            rescaling per channel).

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> budget = 2 * keras_bar.measure_cost(model).flops
    >>> wider = keras_bar.baselines.expand(model, budget, "flops")
    >>> wider.get_layer("conv").filters
    16
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
        return CostModel(ChannelAnalysis(trace.trace(wider))).full[metric]

    if not cost(0.0) <= budget:  # Also true if the cost is unknown.
        raise ValueError(
            "The budget is too small. Expected at least the cost of one "
            f"channel in every convolution, a {metric} of {cost(0.0)}. "
            f"Received: {budget}"
        )
    low, high = 0.0, 1.0
    while cost(high) <= budget:
        low, high = high, 2.0 * high
    while _multiplied(widths, low) != _multiplied(widths, high):
        middle = (low + high) / 2.0
        if cost(middle) <= budget:
            low = middle
        else:
            high = middle
        if high - low < TOLERANCE * high:
            break
    return _widened(graph, _multiplied(widths, low))


def _free_widths(graph):
    """Dict from the `Node` of each free layer to its `Rule`, its channels, and
    the number of which these have to be a multiple."""
    analysis = ChannelAnalysis(graph)
    for node, rule in analysis.rules.items():
        if rule.moves_channels:
            raise ValueError(
                "Layers that pick channels by number cannot be widened. "
                "Expected a model with ordinary additions, such as one "
                "compacted with connectivity='regular'. Received: "
                f"{graph.name!r} with {node.name!r}"
            )
    placements = regular_placements(analysis, place_gates(analysis))
    rules = analysis.rules
    widths = {
        x.node: (
            rules[x.node],
            analysis.channels[x.node.output].size,
            x.grouping.groups if x.grouping else 1,
        )
        for x in placements
        if (x.value is not None or x.grouping)
        and x.axis is None
        and (rules[x.node].mixes_channels or rules[x.node].shares_factors)
    }
    if not widths:
        raise ValueError(
            "Nothing in this model can be widened. Expected at least one "
            "convolution or hidden dense layer whose channels are free. "
            f"Received: {graph.name!r}"
        )
    return widths


def _multiplied(widths, multiple):
    """Dict from `Node` to the changes of a layer's configuration."""
    return {
        node: rule.size_config(
            node, range(step * max(1, round(multiple * size / step)))
        )
        for node, (rule, size, step) in widths.items()
    }


def _widened(graph, widths):
    """Returns the network with these changes and random weights."""
    clones: dict = {}

    def rebuild(node, tensors):
        if is_remnant(node):
            return [tensors[x] for x in node.inputs]
        layer = clones.get(id(node.op))
        if layer is None:  # Repeated calls share a layer.
            layer = trace.clone(
                node.op, node.name, node, **widths.get(node, {})
            )
            clones[id(node.op)] = layer
        try:
            outputs = _call(layer, node, tensors)
        except Exception as error:  # Backends raise errors of many types.
            raise ValueError(
                "The model cannot be widened: the configuration of a layer "
                "fixes a number of channels. Expected layers that accept any "
                f"number. Received: {graph.name!r} with {node.name!r}"
            ) from error
        if isinstance(layer, keras.layers.Normalization):
            trace.copy_state(node.op, layer)  # Adapted, not learned.
        return outputs

    return replaying.replay(graph, rebuild)


def _call(layer, node, tensors):
    """Calls a layer on a widened input; returns its outputs."""
    outputs = trace.call(layer, node, tensors, initialize=True)
    if isinstance(layer, keras.layers.Rescaling):
        sizes = np.size(layer.scale), np.size(layer.offset)
        if max(sizes) > 1 and outputs[0].shape != node.output.shape:
            # Keras would fail only when the model runs.
            raise ValueError(
                "The rescaling does not fit. Expected the shape "
                f"{node.output.shape}. Received: {outputs[0].shape}"
            )
    return outputs
