"""One-shot pruning: close the weakest channels of a trained network."""

import functools
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.trace import trace
from keras_bar.baselines.criteria import ChannelGroup
from keras_bar.baselines.criteria import random_scores
from keras_bar.baselines.filter_merging import apply_merge
from keras_bar.baselines.filter_merging import check_merge
from keras_bar.baselines.neighbours import Activations
from keras_bar.baselines.neighbours import find_neighbours
from keras_bar.budget import feasibility
from keras_bar.budget import selection
from keras_bar.compaction import compact
from keras_bar.costs import CostModel
from keras_bar.gating import gate
from keras_bar.layers import ChannelGate
from keras_bar.layers import MarkerGate

SCOPES = ("layer", "global")


def prune(
    model: keras.Model,
    criterion: Callable[[ChannelGroup], Any],
    budget: float,
    metric: str = "volume",
    *,
    scope: str = "layer",
    connectivity: str = "regular",
    skip: Iterable[str] = (),
) -> keras.Model:
    """Removes the weakest channels of a model in one step, without training.

    The iterative scheme of the supplement (section 3.2) alternates this
    function with training, and removes half of the volume each time; see
    `baselines.halvings`.

    Args:
        model: Built `keras.Model`, which stays
            unchanged.
        criterion: Function of `baselines.ChannelGroup` that returns a score per
            channel, such as `baselines.weight_magnitude`; see
            `baselines.criteria`.
        budget: Float in (0, 1], the fraction of the model's cost that may
            remain; or a number above 1, in units of the metric.
        metric: `"volume"`, `"flops"`, `"params"` or `"memory"`.
        scope: `"layer"` removes the same share of every layer; `"global"`
            compares the raw scores of all layers. Scores of WM and VQ are in
            units of the weights, so layers with small weights lose most; scores
            of ID are relative to the strongest channel of a layer; those of
            Random treat all channels alike.
        connectivity: `"regular"` or `"mixed"`, as in `keras_bar.gate`.
        skip: Names of layers that keep all channels.

    Returns:
        A Functional `keras.Model`, compact, connected and within the budget.

    Raises:
        ValueError: If an argument is wrong, nothing in the model can be
            pruned, or the budget is too small for any connected network.

    Example:

    >>> model = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1))
    >>> criterion = keras_bar.baselines.weight_magnitude
    >>> small = keras_bar.baselines.prune(model, criterion, budget=1 / 2)
    >>> full, left = map(keras_bar.measure_cost, (model, small))
    >>> left.volume <= full.volume / 2
    True
    """
    selection.check_budget_argument(budget, metric)
    _check_criterion(criterion)
    if scope not in SCOPES:
        raise ValueError(
            f"Unknown scope. Expected one of {', '.join(map(repr, SCOPES))}. "
            f"Received: scope={scope!r}"
        )
    check_ungated(trace(model))
    student, cost_model, target, neighbours, channels = prepare(
        model, budget, metric, connectivity=connectivity, skip=skip
    )
    scores = {key: _checked(criterion(x), x) for key, x in channels.items()}
    if scope == "layer":
        scores = {key: _shares(x) for key, x in scores.items()}
    chosen = selection.strongest(cost_model, metric, target, scores)
    if hasattr(criterion, "merge"):
        _merge(criterion, channels, chosen, neighbours, cost_model.analysis)
    for key, mask in chosen.items():
        key.set_alive(mask)
    # Writers that regular connectivity ties share a gate and agree, so the
    # compact cost equals the one compared with the budget.
    return compact(student)


def halvings(budget: float) -> list[float]:
    """Budgets of the rounds of iterative pruning.

        for step in baselines.halvings(1 / 16):
            model = baselines.prune(model, criterion, step)
            model.compile(...)
            model.fit(...)

    The supplement (section 3.2) removes half of the volume in each round, four
    times for 1/16. A budget that is not a power of 1/2 is split into as many
    equal rounds as it contains halvings: 1/3 takes one round, 1/6 two of 0.408.
    (`1 / budget` is rounded to an integer, so 1/3.9 takes two rounds, like
    1/4.)

    Args:
        budget: Float in (0, 1], the fraction of the model's cost that may
            remain after the last round.

    Returns:
        List of floats, the fraction of the remaining cost that each round
        leaves. Their product is the budget, to about six digits.

    Raises:
        ValueError: If the budget is not a fraction in (0, 1].

    Example:

    >>> keras_bar.baselines.halvings(1 / 16)
    [0.5, 0.5, 0.5, 0.5]
    >>> len(keras_bar.baselines.halvings(1 / 6))
    2
    """
    if not selection.is_number(budget) or not 0 < budget <= 1:
        raise ValueError(
            "Invalid budget of iterative pruning. Expected a fraction of the "
            f"full cost in (0, 1]. Received: budget={budget!r}"
        )
    factor = 1 / budget
    rounds = max(1, round(factor).bit_length() - 1)
    # Rounding makes the steps of powers of 2 exactly 1/2.
    return [1 / round(factor ** (1 / rounds), 6)] * rounds


def check_ungated(graph):
    """Raises a ValueError if a traced model has gates."""
    if any(isinstance(x.op, ChannelGate) for x in graph.nodes):
        raise ValueError(
            "The model already has gates. Expected one without, such as "
            "the result of `keras_bar.compact`. "
            f"Received: {graph.name!r}"
        )


def _check_criterion(criterion):
    """Raises a ValueError unless this is a function of a `ChannelGroup`."""
    unfinished = isinstance(criterion, type) or criterion is random_scores
    if unfinished or not callable(criterion):
        raise ValueError(
            "Invalid criterion. Expected a function of "
            "`baselines.ChannelGroup`, such as baselines.weight_magnitude, "
            "baselines.random_scores(seed) or baselines.VectorQuantization(). "
            f"Received: criterion={criterion!r}"
        )


def prepare(model, budget, metric, **options):
    """Gates a model whose channels a criterion will choose from.

    Args:
        model, budget, metric: As of `prune`.
        **options: Further arguments of `keras_bar.gate`.

    Returns:
        The gated model, its `CostModel`, the budget in units of the metric,
        and dicts from gate to `Neighbours` and to `ChannelGroup`.
    """
    student = gate(model, layer=MarkerGate, **options)
    cost_model = CostModel(ChannelAnalysis(trace(student)))
    target = feasibility.target_cost(cost_model, metric, budget, model.name)
    neighbours = find_neighbours(cost_model)
    channels = _channel_groups(neighbours, cost_model.analysis)
    return student, cost_model, target, neighbours, channels


def _channel_groups(neighbours, analysis):
    """Dict from gate to `ChannelGroup`.

    Args:
        neighbours: Dict from gate to `Neighbours`.
        analysis: `ChannelAnalysis` of the gated model.
    """
    activations = Activations(analysis, neighbours)

    def observe(key, inputs):
        _check_inputs(inputs, analysis.graph.inputs)
        return activations(key, inputs)

    return {
        key: ChannelGroup(
            name=around.writers[0].name + ("_width" if around.widths else ""),
            filters=[
                _filters(x, key, analysis, around.widths)
                for x in around.writers
            ],
            index=index,
            reader_count=len(around.readers) if around.complete else 0,
            activations=functools.partial(observe, key),
        )
        for index, (key, around) in enumerate(neighbours.items())
    }


def _filters(node, gate, analysis, widths):
    """The filter of each channel of a gate behind a layer, array `(weights,
    channels)`; of all features of a head together, where the channels are the
    heads that a reshape makes of them; of a feature of all heads, where they
    are `widths`."""
    if widths:
        return to_numpy(node.op.kernel).reshape(-1, gate.channels)
    filters = analysis.rules[node].filters(node.op)
    if gate.groups > 1:
        by_factor = filters[:, gate.channels_by_factor()]
        return np.moveaxis(by_factor, 1, 2).reshape(-1, gate.channels)
    if filters.shape[1] == gate.channels:
        return filters
    index = np.concatenate(list(_groups(node, analysis)), axis=1)
    return np.moveaxis(filters[:, index], 1, 2).reshape(-1, gate.channels)


def _groups(node, analysis):
    """Yields the channels of a layer that make each group, arrays `(groups,
    channels)`: of all channels, or of those that a split or a slice takes."""
    stack = [(node.output, np.arange(analysis.channels[node.output].size))]
    while stack:
        value, channels = stack.pop()
        for reader in value.consumers:
            rule = analysis.rules[reader]
            if rule.groups_channels:
                yield channels[rule.members_of_groups(reader)]
            elif rule.passes_channels:
                stack += [(x, channels) for x in reader.outputs]
            stack += [
                (x, channels[taken])
                for x, taken in rule.parts(reader, analysis)
            ]


def _check_inputs(inputs, expected):
    """Raises a ValueError unless a model with the inputs `expected` (list of
    `Value`) accepts these inputs."""
    arrays = keras.tree.flatten(inputs)
    found = [tuple(getattr(x, "shape", ())) for x in arrays]
    shapes = [tuple(x.shape) for x in expected]
    if len(found) != len(shapes) or not all(map(_fits, found, shapes)):
        raise ValueError(
            "The inputs do not fit the model. Expected arrays like the "
            f"inputs of the model, of shapes {shapes}. Received: "
            f"{len(found)} of shapes {found[:3]}"
        )


def _fits(found, shape):
    """Whether the shape of an array fits that of an input of a model."""
    return len(found) == len(shape) and all(
        size is None or size == given
        for size, given in zip(shape[1:], found[1:], strict=True)
    )


def _merge(criterion, channels, chosen, neighbours, analysis):
    """Lets the kept channels stand in for the removed ones."""
    merges = {}
    for key, mask in chosen.items():
        if channels[key].reader_count and mask.any() and not mask.all():
            kept = np.flatnonzero(mask)
            merges[key] = criterion.merge(channels[key], kept)
            check_merge(merges[key], channels[key], kept)
    # The network may change only after all merges were computed.
    for key, merge in merges.items():
        kept = np.flatnonzero(chosen[key])
        apply_merge(merge, neighbours[key], kept, analysis)


def _shares(scores):
    """Share of the channels that are at most as strong, for each channel."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return (ranks + 1) / len(scores)


def _checked(scores, channels):
    """Returns scores as an array of floats; raises a ValueError if invalid."""
    try:
        array = np.asarray(scores, "float64")
    except (TypeError, ValueError):  # Not numeric, or ragged.
        received = repr(scores)
    else:
        nan = np.isnan(array).any()
        received = f"shape {array.shape}" + (", with NaN" if nan else "")
        if array.shape == (channels.size,) and not nan:
            return array
    raise ValueError(
        "A criterion gave wrong scores. Expected a number per channel, "
        f"shape ({channels.size},), for {channels.name!r}. "
        f"Received: {received}"
    )
