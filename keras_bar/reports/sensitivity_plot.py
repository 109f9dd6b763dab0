"""Sensitivity to hyperparameters, as in Fig. 2 of the supplement."""

import os

from keras_bar.reports import plotting

_STYLES = (
    (plotting.BLUE, "o", "-"),
    (plotting.VERMILION, "s", "--"),
    (plotting.GREEN, "^", ":"),
)
# Offset between series, as a share of the distance between two factors, so
# that error bars do not overlap.
_APART = 0.06


def plot_sensitivity(
    panels: dict[str, dict[str, dict[float, tuple[float, float]]]],
    path: str | os.PathLike[str],
) -> None:
    """Draws the accuracy over the pruning factor, with error bars of one
    standard deviation.

    Args:
        panels: Dict from a title to a dict from a label, such as `"measured
            here"`, to a dict from pruning factor to the mean and the standard
            deviation of the accuracy, as fractions. At most three labels.
        path: Path of the image file; its suffix (`.png`, `.svg`, `.pdf`)
            determines the format.

    Raises:
        ValueError: If there are no panels.

    Example:

    >>> from keras_bar import reports
    >>> lines = {"measured here": {2: (0.875, 0.002), 16: (0.778, 0.034)}}
    >>> reports.plot_sensitivity({"Fashion-MNIST": lines}, "s.svg")
    """
    figure, grid = plotting.new_panels(len(panels), 2, 4.6, 3.2)
    labels = list(dict.fromkeys(x for y in panels.values() for x in y))
    for (title, lines), axes in zip(panels.items(), grid, strict=True):
        for label, points in lines.items():
            # A label has one style in all panels.
            _draw_line(axes, labels.index(label), label, points, len(labels))
        factors = sorted({x for points in lines.values() for x in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(factors, [f"{x:g}" for x in factors])
        axes.minorticks_off()
        axes.set_xlabel("pruning factor")
        axes.set_ylabel("test accuracy, %")
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", **plotting.GRID)
        axes.legend(frameon=False)
    plotting.save(figure, path)


def _draw_line(axes, index, label, points, count):
    colour, mark, line = _STYLES[index]
    shift = 2 ** (_APART * (index - (count - 1) / 2))
    factors = sorted(points)
    axes.errorbar(
        [x * shift for x in factors],
        [100 * points[x][0] for x in factors],
        yerr=[100 * points[x][1] for x in factors],
        label=label,
        color=colour,
        marker=mark,
        linestyle=line,
        markersize=4,
        capsize=3,
    )
