"""The table of a comparison: rows, CSV, Markdown, picture."""

import csv
import io
import statistics

import keras_bar
from keras_bar import reports
from keras_bar.costs import METRICS
from keras_bar.reports import paper
from recipes.experiment import files

# What makes cells differ in more than their seed.
KEYS = ("network", "start", "method", "metric", "factor")
SORTED = ("dataset", *KEYS, "seed")
# The methods that are compared, as the supplement calls them; the others are
# BAR with another setting.
TITLES = {
    "random": "Random",
    "wm": "WM",
    "wm-global": "WM (global)",
    "vq": "VQ",
    "id": "ID",
    "id-weights": "ID (weights)",
    "lzr": "LZR",
    "ib": "IB",
    "morphnet": "MorphNet",
    "bar": "BAR",
    "bar-flops": "BAR (F-trained)",
    "narrow": "narrowed",
}
# The table that has all methods.
PLAIN = {"network": "wide_resnet", "start": "teacher", "metric": "volume"}


def cell_row(cell, teacher, small, data):
    """Which cell it is, how good its network is, and what that costs."""
    full, cost = map(keras_bar.measure_cost, (teacher, small))
    accuracies = [data.accuracy(model) for model in (small, teacher)]
    return {
        **{key: getattr(cell, key) for key in KEYS},
        "seed": cell.seed,
        "accuracy": accuracies[0],
        "teacher": accuracies[1],
        **{x: getattr(cost, x) / getattr(full, x) for x in METRICS},
        "full_volume": full.volume,
        "full_flops": full.flops,
    }


def pruning_row(history, metric, gated, data):
    """How pruning went.

    Args:
        history: Dict from log to its values, one per epoch.
        metric: What the budget limited.
        gated: The hard-pruned network, before any fine-tuning.
        data: `Pictures` or `Stream`.

    Returns:
        Dict. `stochastic` is the accuracy in training mode, with the gates'
        noise, over the last epoch; `pruned_train` and `pruned` that of the
        hard-pruned network on the same pictures and on those of the test;
        `validation` that of the last epoch. `expected` and `hard` are the cost
        at the end; `worst_drop` the largest fall of it within an epoch;
        `worst_excess` how far it was above the moving budget at most, after
        the first tenth.
    """
    costs, budgets = history[metric], history["budget"]
    later = range(-(-len(costs) // 10), len(costs))
    falls = zip([1.0, *costs], costs, strict=False)
    return {
        "stochastic": history["accuracy"][-1],
        "pruned_train": data.accuracy(gated, "train"),
        "validation": history["val_accuracy"][-1],
        "pruned": data.accuracy(gated),
        "expected": history["expected"][-1],
        "hard": costs[-1],
        "worst_drop": max(a - b for a, b in falls),
        "worst_excess": max((costs[i] - budgets[i] for i in later), default=0),
    }


def write(rows, folder):
    """Writes `results.csv`, `table.md` and the picture `accuracy`."""
    write_csv(rows, folder / "results.csv")
    parts = {
        "Accuracy and cost": markdown(rows),
        "Regular and mixed connectivity": connectivity_markdown(rows),
    }
    text = "\n".join(f"## {title}\n\n{x}" for title, x in parts.items())
    files.write(folder / "table.md", text)
    panel = make_panel("", plain(rows))
    if panel.curves:
        for ending in ("png", "svg"):
            reports.plot_accuracies([panel], folder / f"accuracy.{ending}")


def plain(rows):
    """The rows of the table that has all methods."""
    return [row for row in rows if PLAIN.items() <= row.items()]


def write_csv(rows, path):
    """Writes a row per cell, sorted."""
    rows = sorted(rows, key=_place)
    fields = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(path, text.getvalue())


def _place(row):
    """Where a row stands in the table."""
    return [row[key] for key in SORTED if key in row]


def group(rows):
    """Dict from what cells have in common to a list of their rows, sorted."""
    groups: dict = {}
    for row in sorted(rows, key=_place):
        groups.setdefault(tuple(row[key] for key in KEYS), []).append(row)
    return groups


def make_panel(title, rows, metric=None):
    """The curves of the compared methods.

    Args:
        title: String.
        rows: List of dicts; those of other methods are left out.
        metric: What tells the place on the horizontal axis; seeds share a
            point. By default it is the factor that was asked for.

    Returns:
        `reports.Panel`.
    """
    curves: dict = {}
    for members in group(rows).values():
        place = mean_factor(members, metric) if metric else members[0]["factor"]
        points = curves.setdefault(members[0]["method"], {})
        points[place] = [x["accuracy"] for x in members]
    return reports.Panel(
        title,
        [
            reports.Curve(TITLES[x], curves[x])
            for x in reversed(TITLES)
            if x in curves
        ],
        statistics.mean(x["teacher"] for x in rows) if rows else None,
    )


def markdown(rows):
    """A line per cell, its seeds together: mean and standard deviation."""
    lines = [
        "| network | start | method | metric | factor | seeds | accuracy | "
        "minus teacher | before fine-tuning | volume | FLOPs | params |",
        "|" + " --- |" * 12,
    ]
    for key, members in group(rows).items():
        lines.append("| " + " | ".join(_cells(key, members)) + " |")
    return "\n".join(lines) + "\n"


def connectivity_markdown(rows):
    """What the same gates cost with regular and with mixed blocks, as in
    section 5 of the supplement: fractions of the full network, mean of the
    seeds; beside it the supplement's differences, as far as it has the
    factor."""
    lines = [
        "| factor | seeds | volume, regular | mixed | difference | FLOPs, "
        "regular | mixed | difference | CIFAR-10 | CIFAR-100 | Mio-TCD |",
        "|" + " --- |" * 11,
    ]
    bar = [row for row in plain(rows) if row["method"] == "bar"]
    for (*_, factor), members in group(bar).items():
        cells = [f"{factor:g}", str(len(members))]
        for metric in ("volume", "flops"):
            mixed = statistics.mean(x[metric] for x in members)
            regular = statistics.mean(
                x[f"regular_{metric}"] / x[f"full_{metric}"] for x in members
            )
            change = f"{mixed / regular - 1:+.0%}"
            cells += [f"{regular:.4f}", f"{mixed:.4f}", change]
        lines.append("| " + " | ".join(cells + _of_paper(factor)) + " |")
    return "\n".join(lines) + "\n"


def _of_paper(factor):
    """The supplement's differences of the volume and of the FLOPs."""
    return [
        f"{x['mixed_volume'] / x['regular_volume'] - 1:+.0%}, "
        f"{x['mixed_flops'] / x['regular_flops'] - 1:+.0%}"
        for x in paper.load("connectivity")
        if x["pruning_factor"] == factor
    ] or [""] * 3


def spread(values):
    """Percents: mean and, of several, their standard deviation."""
    values = [100 * x for x in values]
    mean = f"{statistics.mean(values):.2f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(values):.2f}"


def _cells(key, members):
    gaps = [x["accuracy"] - x["teacher"] for x in members]
    before = [x["pruned"] for x in members if "pruned" in x]
    return [
        *map(str, key[:-1]),
        f"{key[-1]:g}",
        str(len(members)),
        spread([x["accuracy"] for x in members]),
        f"{100 * statistics.mean(gaps):+.2f}",
        spread(before) if before else "",
        *(f"1/{mean_factor(members, x):.1f}" for x in METRICS),
    ]


def mean_factor(members, metric):
    """How many times smaller the networks of some cells are."""
    return 1 / statistics.mean(x[metric] for x in members)
