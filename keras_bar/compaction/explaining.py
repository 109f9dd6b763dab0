"""Explains what was gated, what was not and why, and what compaction did."""

import dataclasses
import random
import warnings

import keras

from keras_bar import gating
from keras_bar.analysis import trace
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.counting import listed
from keras_bar.analysis.gate_placement import place_gates
from keras_bar.budget import feasibility
from keras_bar.costs import CostModel


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The structure of a model as keras_bar sees it; `str()` formats it.

    Attributes:
        gated: Names of the layers with a gate: convolutions, hidden dense
            layers, and the values of attention.
        ungated: Dict from the name of such a layer without one, or of another
            layer whose weights cannot be pruned, to the reason.
        boundaries: Dict from the name of a layer that needs all channels of
            its input, some of which gates may close, to why.
        adjustments: List of `Adjustment`: places at which hard pruning changed
            the network's output. Empty for a model loaded from a file.
        aligned: Dict from the name of a gate to the numbers of its channels
            before and after `align` closed some.
        removed: Names of layers that compaction removed entirely.
        mixed: Names of additions whose sides keep different channels.
        restored: Names of layers whose output was restored to full width.
        least: Dict from metric to the least cost to which the model can be
            pruned, and the full cost. No budget can be smaller than the least
            cost. Empty if nothing can be pruned, and for the result of
            `compact`.
        uncounted: Dict from name to type of the layers without a rule, whose
            multiply-adds no cost counts.
    """

    gated: list[str]
    ungated: dict[str, str]
    boundaries: dict[str, str]
    adjustments: list = dataclasses.field(default_factory=list)
    aligned: dict[str, tuple] = dataclasses.field(default_factory=dict)
    removed: list[str] = dataclasses.field(default_factory=list)
    mixed: list[str] = dataclasses.field(default_factory=list)
    restored: list[str] = dataclasses.field(default_factory=list)
    least: dict[str, tuple] = dataclasses.field(default_factory=dict)
    uncounted: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self):
        lines = [f"{len(self.gated)} layers can be pruned:"]
        lines += [f"  {name}" for name in self.gated]
        lines.append(f"{len(self.ungated)} layers cannot:")
        lines += [f"  {name}: {why}" for name, why in self.ungated.items()]
        if self.least:
            lines.append("Lowest possible costs:")
            lines += [
                f"  {name}: {least:,} of {full:,} ({least / full:.4g})"
                for name, (least, full) in self.least.items()
            ]
        if self.boundaries:
            lines.append("Layers that need every channel they read:")
            lines += [f"  {n}: {why}" for n, why in self.boundaries.items()]
        for x in self.adjustments:
            lines.append(
                f"Hard pruning moved {x.channels} constant channels out of "
                f"{x.layer} (moved {x.moved:.3g}, lost {x.error:.3g} rms)"
            )
        if self.aligned:
            lost = sum(
                before - after for before, after in self.aligned.values()
            )
            lines.append(f"Closed for aligned widths: {lost} channels")
            lines += [
                f"  {x}: {before} to {after}"
                for x, (before, after) in self.aligned.items()
            ]
        for title, names in (
            ("Removed entirely", self.removed),
            ("Mixed additions", self.mixed),
            ("Restored to full width", self.restored),
        ):
            if names:
                lines.append(f"{title}: {', '.join(names)}")
        if self.uncounted:
            lines.append(
                f"Not counted in volume and FLOPs: {listed(self.uncounted)}"
            )
        return "\n".join(lines)


def explain(model: keras.Model) -> Explanation:
    """Explains how keras_bar treats, or treated, a model.

    Args:
        model: A Keras model before gating, for what `gate` would do; a gated
            one; or the result of `hard_prune` or `compact`.

    Returns:
        An `Explanation`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> print(keras_bar.explain(keras_bar.gate(model)))
    1 layers can be pruned:
      conv
    0 layers cannot:
    ...
    """
    if hasattr(model, "explanation"):
        return model.explanation
    cost_model = CostModel(ChannelAnalysis(trace.trace(model)))
    found = explanation_of(model, cost_model)
    if cost_model.gates:
        return dataclasses.replace(found, least=_least_costs(cost_model))
    if not found.gated:
        return found
    # The least cost, and the layers that read channels of others with gates,
    # depend on where the gates would be. Warnings about the gated copy do not
    # matter here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        state = random.getstate()  # It seeds the layers that the user creates.
        try:
            graph = trace.trace(gating.gate(model, seed=0))
        except ValueError:  # The user's call of `gate` will give the reason.
            return found
        finally:
            random.setstate(state)
    gated = CostModel(ChannelAnalysis(graph))
    return dataclasses.replace(
        found,
        least=_least_costs(gated),
        boundaries=_boundaries(gated.analysis),
    )


def explanation_of(model, cost_model):
    """The `Explanation` of a model whose channels are analysed already,
    without its least costs, which take long to find.

    Args:
        model: `keras.Model`.
        cost_model: Its `CostModel`.
    """
    analysis, has_gates = cost_model.analysis, bool(cost_model.gates)
    reasons = getattr(model, "ungated_reasons", {})
    gated, ungated = [], {}
    for x in place_gates(analysis):
        if x.gated or (x.value is not None and not has_gates):
            gated.append(x.name)
        else:
            why = x.reason or "no gate was put behind it"
            ungated[x.name] = reasons.get(x.name, why)
    return Explanation(
        gated=gated,
        ungated=ungated,
        boundaries=_boundaries(analysis),
        adjustments=list(getattr(model, "hard_pruning_adjustments", ())),
        aligned=getattr(model, "aligned_widths", {}),
        uncounted=cost_model.uncounted,
    )


def _boundaries(analysis):
    """Dict from the name of each layer in front of which dead channels would be
    restored to the reason."""
    return {
        node.name: why
        for node, why in analysis.boundaries().items()
        if any(analysis.reads_all(node, i) for i in range(len(node.inputs)))
    }


def _least_costs(cost_model):
    """Dict from metric to the least and the full cost."""
    least = feasibility.least_costs(cost_model)
    return {x: (cost, cost_model.full[x]) for x, cost in least.items()}
