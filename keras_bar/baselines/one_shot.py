"""One-shot pruning: close the weakest channels of a trained network."""

import functools

import numpy as np

from keras_bar import selection
from keras_bar.baselines.criteria import Channels
from keras_bar.baselines.merging import apply_merge
from keras_bar.baselines.neighbours import Activations
from keras_bar.baselines.neighbours import find_neighbours
from keras_bar.compaction import compact
from keras_bar.costs import CostModel
from keras_bar.gating import gate
from keras_bar.graph.flow import Flow
from keras_bar.graph.trace import trace
from keras_bar.layers import ChannelGate
from keras_bar.layers import MarkerGate

SCOPES = ("layer", "global")


def prune(
    model,
    criterion,
    budget,
    metric="volume",
    *,
    scope="layer",
    connectivity="regular",
    skip=(),
):
    """Removes the weakest channels of a model at once, without training.

    Train the result, and call this again: that is the iterative scheme in
    section 3.2 of the supplement, which removes half of the volume each time.

    Args:
        model: Functional or built Sequential `keras.Model`. It is left as it
            is.
        criterion: Function of `baselines.Channels` that returns a score per
            channel, such as `baselines.weight_magnitude`; see
            `baselines.criteria`.
        budget: Float in (0, 1], the fraction of the model's cost that may
            remain; or a number above 1, in units of the metric.
        metric: `"volume"`, `"flops"` or `"params"`.
        scope: `"layer"` removes the same share of every layer; `"global"`
            compares the scores of all layers.
        connectivity: `"regular"` or `"mixed"`, as in `keras_bar.gate`.
        skip: Names of layers that keep all channels.

    Returns:
        A Functional `keras.Model`, compact, connected and within the budget.

    Raises:
        ValueError: If an argument is wrong, nothing in the model can be
            pruned, or the budget is too small for any connected network.
    """
    selection.check_budget_argument(budget, metric)
    if scope not in SCOPES:
        raise ValueError(
            f"Unknown scope. Expected one of {', '.join(map(repr, SCOPES))}. "
            f"Received: scope={scope!r}"
        )
    if any(isinstance(x.op, ChannelGate) for x in trace(model).nodes):
        raise ValueError(
            "The model has gates already. Expected one without, such as "
            "`keras_bar.compact` returns of this one. "
            f"Received: {model.name!r}"
        )
    student = gate(
        model, connectivity=connectivity, skip=skip, layer=MarkerGate
    )
    cost_model = CostModel(Flow(trace(student)))
    target = selection.target_cost(cost_model, metric, budget, model.name)
    neighbours = find_neighbours(cost_model)
    channels = _channels(neighbours, cost_model.flow)
    scores = {key: _checked(criterion(x), x) for key, x in channels.items()}
    if scope == "layer":
        scores = {key: _shares(x) for key, x in scores.items()}
    chosen = selection.strongest(cost_model, metric, target, scores)
    if hasattr(criterion, "merge"):
        _merge(criterion, channels, chosen, neighbours, cost_model.flow)
    for key, mask in chosen.items():
        key.set_alive(mask)
    # The writers that regular connectivity ties share a gate, so that they
    # agree; what is left is what the budget was compared with.
    return compact(student)


def _channels(neighbours, flow):
    """Dict from gate to `Channels`."""
    activations = Activations(flow, neighbours)
    return {
        key: Channels(
            name=around.writers[0].name,
            filters=[flow.rules[x].filters(x.op) for x in around.writers],
            index=index,
            reader_count=len(around.readers) if around.complete else 0,
            activations=functools.partial(activations, key),
        )
        for index, (key, around) in enumerate(neighbours.items())
    }


def _merge(criterion, channels, chosen, neighbours, flow):
    """Lets the channels that stay stand in for those that go."""
    # All look at the network as it was; what they see must not change.
    merges = {
        key: criterion.merge(channels[key], np.flatnonzero(mask))
        for key, mask in chosen.items()
        if channels[key].reader_count and mask.any() and not mask.all()
    }
    for key, merge in merges.items():
        kept = np.flatnonzero(chosen[key])
        apply_merge(merge, neighbours[key], kept, flow)


def _shares(scores):
    """The share of a layer's channels that are at most as strong."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return (ranks + 1) / len(scores)


def _checked(scores, channels):
    scores = np.asarray(scores, "float64")
    if scores.shape != (channels.size,) or np.isnan(scores).any():
        raise ValueError(
            "A criterion gave wrong scores. Expected a number per channel, "
            f"shape ({channels.size},), for {channels.name!r}. "
            f"Received: shape {scores.shape}"
            + (", with NaN in it" if np.isnan(scores).any() else "")
        )
    return scores
