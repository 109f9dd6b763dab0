"""Plots of the budget and the channels, and helpers for all figures.

Matplotlib is imported when a figure is drawn, because it is an optional
dependency. Colours differ in lightness, for print and for the colour-blind.
"""

import math
import os
import pathlib

from keras_bar import files
from keras_bar.costs import Cost
from keras_bar.reports.histories import log_of

# The palette of Okabe and Ito, which the colour-blind can tell apart.
BLUE, SKY, GREEN, VERMILION = "#0072B2", "#56B4E9", "#009E73", "#D55E00"
ORANGE, PURPLE = "#E69F00", "#CC79A7"
# Colour of the full network.
FULL = "#cccccc"
GRID = {"color": "#dddddd", "linewidth": 0.6}
_NAMES = {"flops": "FLOPs", "memory": "peak memory"}


def plot_budget(
    history: dict[str, list[float]],
    path: str | os.PathLike[str],
    metric: str = "volume",
) -> None:
    """Draws the cost and the moving budget during pruning.

    Args:
        history: Dict from the name of a log of `BudgetRegularizer` to its
            values, one per epoch, such as `fit(...).history`. It must have
            `metric` and `"budget"`; `"expected"` is optional.
        path: Path of the image file; its suffix (`.png`, `.svg`, `.pdf`)
            determines the format.
        metric: `"volume"`, `"flops"`, `"params"`, `"memory"`, or the name of a
            `keras_bar.Latency`: the metric of the budget.

    Example:

    >>> from keras_bar import reports
    >>> history = {"volume": [1.0, 0.5, 0.12], "budget": [1.01, 0.57, 0.125]}
    >>> reports.plot_budget(history, "budget.svg")
    """
    figure, axes = new_figure(5.5, 3.4)
    # Wider curves are drawn first, so all stay visible where they meet.
    budget, expected = (
        log_of(name, metric, history) for name in ("budget", "expected")
    )
    curves = {
        expected: ("expected cost of the noisy gates", ORANGE, "-", 4),
        metric: ("cost of the compact network", BLUE, "-", 2),
        budget: ("moving budget", "black", "--", 1.2),
    }
    for key, (label, colour, line, width) in curves.items():
        if key in history:
            epochs = range(1, len(history[key]) + 1)
            axes.plot(
                epochs,
                history[key],
                line,
                label=label,
                color=colour,
                linewidth=width,
            )
    axes.set_yscale("log", base=2)
    # The axis ends at half of the budget and cuts off smaller costs.
    lowest = math.floor(math.log2(history[budget][-1])) - 1
    axes.set_ylim(2.0**lowest, 1.15)
    powers = range(lowest, 1)
    axes.set_yticks([2.0**p for p in powers])
    axes.set_yticklabels([f"1/{2**-p}" if p else "1" for p in powers])
    axes.minorticks_off()
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch of pruning")
    axes.set_ylabel(
        f"{_NAMES.get(metric, metric)}, fraction of the full network"
    )
    axes.grid(axis="y", **GRID)
    axes.legend(frameon=False)
    save(figure, path)


def plot_channels(costs: dict[str, Cost], path: str | os.PathLike[str]) -> None:
    """Draws the channels of each convolution, full and pruned.

    The figure resembles Fig. 1 of the paper's supplement. A cross replaces the
    bar of a removed layer, and removed blocks are labelled.

    Args:
        costs: Dict from a label, such as `"1/8"`, to the `keras_bar.Cost` of a
            gated network. The first one determines the layers.
        path: Path of the image file; its suffix (`.png`, `.svg`, `.pdf`)
            determines the format.

    Raises:
        ValueError: If there are no networks.

    Example:

    >>> from keras_bar import reports
    >>> student = keras_bar.gate(keras_bar.models.WideResNet(8, 0.5, (8, 8, 1)))
    >>> student.get_layer("stem_conv_gate").set_alive(np.arange(16) < 4)
    >>> cost = keras_bar.measure_cost(student)
    >>> reports.plot_channels({"pruned": cost}, "channels.svg")
    """
    if not costs:
        raise ValueError(
            "There are no channels to draw. Expected the cost of at least one "
            "network. Received: costs={}"
        )
    first = [x for x in next(iter(costs.values())).layers if "Conv" in x.kind]
    networks = {
        label: [_channels(cost).get(x.name, 0) for x in first]
        for label, cost in costs.items()
    }
    places = range(len(first))
    figure, axes = new_figure(max(5.5, 1.2 + 0.38 * len(first)), 3.6)
    full = [x.channels[1] for x in first]
    axes.bar(places, full, 0.86, color=FULL, label="full network")
    for index, (label, channels) in enumerate(networks.items()):
        _draw_bars(axes, channels, index, label, len(costs))
    labels, blocks = _split_names([x.name for x in first])
    axes.set_xticks(places, labels, rotation=90)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.7, len(first) - 0.3)
    axes.set_ylabel("channels")
    _draw_blocks(axes, blocks)
    _mark_removed(axes, blocks, networks.values())
    # The legend is above the block names, where it covers no bars.
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    save(figure, path)


def _channels(cost):
    """Dict from layer name to its remaining channels."""
    return {x.name: x.channels[0] for x in cost.layers}


def _draw_bars(axes, channels, index, label, count):
    """Draws the bars of one network beside those of the others."""
    colour = shade(index, count)
    width = 0.7 / count
    places = [i - 0.35 + (index + 0.5) * width for i in range(len(channels))]
    axes.bar(places, channels, width, color=colour, label=label)
    removed = [x for x, n in zip(places, channels, strict=True) if n == 0]
    # Axes coordinates keep the crosses just above the axis.
    axes.plot(
        removed,
        [0.03] * len(removed),
        "x",
        color=colour,
        markersize=5,
        markeredgewidth=1.5,
        transform=axes.get_xaxis_transform(),
    )


def _split_names(names):
    """Splits layer names into short labels and shared blocks.

    Returns:
        List of labels of the bars, and list of blocks `(name, first, last)`.
    """
    prefixes = [name.rpartition("_")[0] for name in names]
    labels, blocks = list(names), []
    start = 0
    for end in range(1, len(names) + 1):
        if end < len(names) and prefixes[end] == prefixes[start]:
            continue
        if end - start > 1 and prefixes[start]:
            blocks.append((prefixes[start], start, end - 1))
            for i in range(start, end):
                labels[i] = names[i][len(prefixes[start]) + 1 :]
        start = end
    return labels, blocks


def _draw_blocks(axes, blocks):
    for i, (name, first, last) in enumerate(blocks):
        if i % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, color="#f4f4f4", zorder=0)
        axes.text(
            (first + last) / 2,
            1.02,
            name.replace("_", "\n"),
            ha="center",
            va="bottom",
            fontsize=7,
            transform=axes.get_xaxis_transform(),
        )


def _mark_removed(axes, blocks, networks):
    """Labels blocks that have no channel left in any network."""
    for _, first, last in blocks:
        if not any(any(x[first : last + 1]) for x in networks):
            axes.text(
                (first + last) / 2,
                0.1,
                "removed",
                ha="center",
                transform=axes.get_xaxis_transform(),
            )


def shade(index, count):
    """Colour of network `index` of `count`; the colours differ in lightness."""
    import matplotlib

    if count == 1:
        return BLUE
    return matplotlib.colormaps["viridis"](0.75 * index / (count - 1))


def new_figure(width, height):
    """Creates a figure with axes of the given size in inches."""
    figure, (axes,) = new_panels(1, 1, width, height)
    return figure, axes


def new_panels(count, columns, width, height):
    """Creates a figure with a list of axes of the given size in inches each."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib, which is not installed. "
            "Expected `pip install keras-bar[recipes]` or "
            f"`pip install matplotlib`. Received: {error}"
        ) from error
    if not count:
        raise ValueError(
            "There is nothing to draw. Expected at least one panel. "
            "Received: none"
        )
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure((columns * width, rows * height), layout="constrained")
    grid = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid


def save(figure, path):
    """Writes a figure in the format of the path's suffix, `.png` by default.
    Several processes may write the same file."""
    path = pathlib.Path(path)
    if not path.suffix:
        path = path.with_suffix(".png")
    with files.replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=160)
