"""FLOPs per layer, before and after pruning."""

import os

from keras_bar.costs import Cost
from keras_bar.reports import plotting


def plot_flops(
    full: Cost, costs: dict[str, Cost], path: str | os.PathLike[str]
) -> None:
    """Draws the FLOPs of each layer of the full and the pruned networks.

    Args:
        full: `keras_bar.Cost` of the full network.
        costs: Dict from a label, such as `"1/8"`, to the `keras_bar.Cost` of a
            pruned network, gated or compact; may be empty.
        path: Path of the image file; its suffix (`.png`, `.svg`, `.pdf`)
            determines the format.

    Example:

    >>> from keras_bar import reports
    >>> teacher = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1))
    >>> student = keras_bar.gate(teacher)
    >>> full, pruned = map(keras_bar.measure_cost, (teacher, student))
    >>> reports.plot_flops(full, {"pruned": pruned}, "flops.svg")
    """
    layers = [x for x in full.layers if x.flops]
    places = range(len(layers))
    figure, axes = plotting.new_figure(5.5, max(2.5, 1.2 + 0.24 * len(layers)))
    axes.barh(
        places,
        [100 * x.flops / full.flops for x in layers],
        0.86,
        color=plotting.FULL,
        label=f"full network, {_short(full.flops)}",
    )
    height = 0.7 / max(len(costs), 1)
    for i, (label, cost) in enumerate(costs.items()):
        left = {x.name: x.flops for x in cost.layers}
        axes.barh(
            [place - 0.35 + (i + 0.5) * height for place in places],
            [100 * left.get(x.name, 0) / full.flops for x in layers],
            height,
            color=plotting.shade(i, len(costs)),
            label=f"{label}, {_short(cost.flops)}",
        )
    axes.set_yticks(places, [x.name for x in layers], fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("FLOPs, % of the full network's")
    axes.grid(axis="x", **plotting.GRID)
    axes.set_axisbelow(True)
    # The legend is above the axes, where it covers no bars.
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    plotting.save(figure, path)


def _short(flops):
    """A number of FLOPs with a unit prefix."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if flops >= size:
            return f"{flops / size:.3g} {unit}FLOPs"
    return f"{flops:g} FLOPs"
