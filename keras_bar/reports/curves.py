"""Accuracy over the pruning factor, per method."""

import dataclasses
import itertools
import os
import statistics

from keras_bar.reports import plotting

# There are more methods than colours that everybody can tell apart, so markers
# differ as well, and the remaining colours are dark or grey.
_STYLES = {
    "BAR": (plotting.BLUE, "o"),
    "BAR (F-trained)": (plotting.SKY, "o"),
    "narrowed": ("#000000", "s"),
    "WM": (plotting.GREEN, "^"),
    "Random": ("#999999", "v"),
    "VQ": (plotting.ORANGE, "D"),
    "ID": (plotting.PURPLE, "P"),
    "LZR": (plotting.VERMILION, "X"),
    "IB": ("#332288", "<"),
    "MorphNet": ("#661100", ">"),
}
_FULL: dict = {"color": "black", "linestyle": ":", "label": "full network"}
_COLUMNS = 2


@dataclasses.dataclass
class Curve:
    """Accuracies of a method at several pruning factors.

    Attributes:
        method: String, the name of the method, which has one style in all
            panels.
        points: Dict from pruning factor to a list of accuracies in [0, 1], one
            per seed.
        published: Boolean, whether the accuracies were published by others;
            such curves are dashed.

    Example:

    >>> from keras_bar import reports
    >>> curve = reports.Curve("BAR", {4: [0.88, 0.89], 16: [0.85]})
    """

    method: str
    points: dict[float, list[float]]
    published: bool = False


@dataclasses.dataclass
class Panel:
    """The curves of a data set.

    Attributes:
        title: String, the title of the panel.
        curves: List of `Curve`.
        full: Float, the accuracy of the full network, or None.

    Example:

    >>> from keras_bar import reports
    >>> curve = reports.Curve("BAR", {4: [0.88, 0.89], 16: [0.85]})
    >>> panel = reports.Panel("Fashion-MNIST", [curve], full=0.878)
    """

    title: str
    curves: list[Curve]
    full: float | None = None


def plot_accuracies(
    panels: list[Panel],
    path: str | os.PathLike[str],
    label: str = "pruning factor",
) -> None:
    """Draws the accuracy over the pruning factor, on a logarithmic axis.

    Each method has a line for the mean over seeds, and a band from the worst
    seed to the best.

    Args:
        panels: List of `Panel`.
        path: Path of the image file; its suffix (`.png`, `.svg`, `.pdf`)
            determines the format.
        label: String, the label of the horizontal axis.

    Raises:
        ValueError: If there are no panels.

    Example:

    >>> reports = keras_bar.reports
    >>> curve = reports.Curve("BAR", {4: [0.88, 0.89], 16: [0.85]})
    >>> panel = reports.Panel("Fashion-MNIST", [curve], full=0.878)
    >>> reports.plot_accuracies([panel], "accuracy.svg")
    """
    figure, grid = plotting.new_panels(len(panels), _COLUMNS, 5.5, 3.6)
    styles = _choose_styles(panels)
    for panel, axes in zip(panels, grid, strict=True):
        _draw_panel(panel, axes, styles)
        axes.set_xlabel(label)
    handles = _make_legend(panels, styles)
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    plotting.save(figure, path)


def _choose_styles(panels):
    """Dict from method to its colour and marker."""
    spare = itertools.cycle(
        itertools.product(("#444444", "#882255", "#44AA99"), "*dh")
    )
    styles: dict = {}
    for curve in itertools.chain(*(panel.curves for panel in panels)):
        if curve.method not in styles:
            styles[curve.method] = _STYLES.get(curve.method) or next(spare)
    return styles


def _make_legend(panels, styles):
    """Legend handles: colours mark methods, dashes mark published curves."""
    from matplotlib.lines import Line2D

    curves = [curve for panel in panels for curve in panel.curves]
    handles = [
        Line2D([], [], color=colour, marker=mark, markersize=4, label=method)
        for method, (colour, mark) in styles.items()
    ]
    if any(panel.full is not None for panel in panels):
        handles.append(Line2D([], [], **_FULL))
    if any(curve.published for curve in curves):
        handles.append(Line2D([], [], color="grey", label="measured here"))
        handles.append(
            Line2D([], [], color="grey", linestyle="--", label="published")
        )
    return handles


def _draw_panel(panel, axes, styles):
    if panel.full is not None:
        axes.axhline(100 * panel.full, **_FULL)
    for curve in panel.curves:
        _draw_curve(curve, axes, *styles[curve.method])
    factors = [f for curve in panel.curves for f in curve.points]
    axes.set_xscale("log", base=2)
    top = int(max(factors, default=2)).bit_length()
    # More than nine labels would overlap.
    step = -(-(top + 1) // 9)
    ticks = [2**i for i in range(0, top + 1, step)]
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_xlim(0.9 * min(factors, default=1), 1.1 * max(factors, default=2))
    axes.minorticks_off()
    axes.set_ylabel("test accuracy, %")
    axes.set_title(panel.title, fontsize=10)
    axes.grid(axis="y", **plotting.GRID)


def _draw_curve(curve, axes, colour, mark):
    factors = sorted(curve.points)
    groups = [[100 * x for x in curve.points[f]] for f in factors]
    axes.plot(
        factors,
        [statistics.mean(x) for x in groups],
        marker=mark,
        linestyle="--" if curve.published else "-",
        linewidth=1 if curve.published else 1.5,
        markerfacecolor="white" if curve.published else colour,
        color=colour,
        markersize=4,
    )
    if not curve.published and any(len(x) > 1 for x in groups):
        axes.fill_between(
            factors,
            [min(x) for x in groups],
            [max(x) for x in groups],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
