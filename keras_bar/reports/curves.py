"""Accuracy over pruning factor, method by method."""

import statistics

from keras_bar.reports import pictures

_COLOURS = {"bar": "#0072B2", "narrow": "#E69F00", "wm": "#009E73"}
_MARKS = {"bar": "o", "narrow": "s", "wm": "^"}
_OTHERS = ("#CC79A7", "#D55E00", "#56B4E9", "#999999", "#F0E442", "#000000")


def plot_accuracies(rows, path):
    """Draws the accuracy over the pruning factor, a line per method: the mean
    of the seeds, and a band from the worst to the best.

    Args:
        rows: List of dicts with `"method"`, `"factor"` and `"accuracy"`, one
            per training, and with `"teacher"`, the full network's accuracy.
        path: Where to write the picture; the ending (`.png`, `.svg`, `.pdf`)
            tells the format.
    """
    figure, axes = pictures.new_figure(5.5, 3.6)
    full = statistics.mean(x["teacher"] for x in rows)
    axes.axhline(
        100 * full, color="black", linestyle="--", linewidth=1, label="teacher"
    )
    others = iter(_OTHERS)
    for method in dict.fromkeys(x["method"] for x in rows):
        points: dict = {}
        for x in rows:
            if x["method"] == method:
                points.setdefault(x["factor"], []).append(100 * x["accuracy"])
        factors = sorted(points)
        colour = _COLOURS.get(method) or next(others, "#999999")
        axes.plot(
            factors,
            [statistics.mean(points[f]) for f in factors],
            _MARKS.get(method, "D") + "-",
            label=method,
            color=colour,
            markersize=4,
        )
        axes.fill_between(
            factors,
            [min(points[f]) for f in factors],
            [max(points[f]) for f in factors],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
    axes.set_xscale("log", base=2)
    factors = sorted({x["factor"] for x in rows})
    axes.set_xticks(factors, [f"{f:g}" for f in factors])
    axes.minorticks_off()
    axes.set_xlabel("pruning factor")
    axes.set_ylabel("test accuracy, %")
    axes.legend(frameon=False)
    pictures.save(figure, path)
