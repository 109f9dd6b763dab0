"""Figures of comparisons, and of the networks in them."""

import pathlib

import keras

import keras_bar
from keras_bar import files
from keras_bar import reports
from recipes import methods
from recipes.data.registry import DATASETS
from recipes.data.registry import PAPER
from recipes.results import logs
from recipes.results import tables

ENDINGS = ("png", "svg")


def draw_pruning(folder, row):
    """Draws how an experiment followed its budget, and what it left, from the
    files in its folder and its report."""
    history = logs.read_history(folder / "prune.json")
    if not history:  # A method without a budget.
        return
    full = measure(folder.parent / row["teacher_folder"] / "teacher.keras")
    metric = row.get("budget_metric", row["metric"])
    factor = row["factor"] ** (2 if "budget_metric" in row else 1)
    gated = {
        f"pruned to 1/{factor:.4g} of the {metric}": measure(
            folder / "gated.keras"
        )
    }
    gates = files.read_json(folder / "gates.json")
    for ending in ENDINGS:
        path = {
            name: folder / f"{name}.{ending}"
            for name in ("budget", "channels", "flops", "gates")
        }
        reports.plot_budget(history, path["budget"], metric)
        reports.plot_channels(gated, path["channels"])
        reports.plot_flops(full, gated, path["flops"])
        if gates:  # Runs of older versions have none.
            reports.plot_gates(gates, path["gates"])


def draw(rows, folder):
    """Draws the accuracy over the factor that was asked for, and over those of
    volume and FLOPs, the supplement's Figures 6 and 8, of experiments that are
    alike."""
    if rows.empty:
        return
    axes = (
        ("accuracy", "factor"),
        ("volume", "volume factor"),
        ("flops", "FLOPs factor"),
    )
    for name, label in axes:
        panels = make_panels(rows, None if name == "accuracy" else name)
        for ending in ENDINGS:
            path = folder / f"{name}.{ending}"
            reports.plot_accuracies(panels, path, label)


def make_panels(rows, metric=None):
    """A panel per data set, with the supplement's numbers where it has some,
    and otherwise one more panel for those of the data set that stands beside.
    The metric tells the place on the horizontal axis; without one it is the
    factor that was asked for, which the supplement does not tell."""
    panels, others = [], {}
    for name, members in rows.groupby("dataset"):
        known = DATASETS[name]
        panel = reports.Panel(
            known.title, measured(members, metric), members.teacher.mean()
        )
        panels.append(panel)
        if metric and known.published == name:
            panel.curves += published(name, metric)
        elif metric and known.published:
            others[known.published] = published(known.published, metric)
    if not any(curve.published for x in panels for curve in x.curves):
        for name, curves in others.items():
            title = f"{PAPER[name]}, the supplement's numbers"
            panels.append(reports.Panel(title, curves))
    return panels


def measured(rows, metric):
    """The curves of the compared methods."""
    titles = methods.titles()
    curves: dict = {}
    for (method, factor), members in rows.groupby(["method", "factor"]):
        place = tables.mean_factor(members, metric) if metric else factor
        curves.setdefault(method, {})[place] = members.accuracy.tolist()
    return [
        reports.Curve(titles[x], curves[x])
        for x in reversed(titles)
        if x in curves
    ]


def published(dataset, metric):
    """The supplement's curves for a data set."""
    rows = tables.measured_by_the_authors(dataset)
    groups = rows.groupby(["method", f"{metric}_factor"]).test_accuracy
    curves: dict = {}
    for (title, place), accuracies in groups:
        curves.setdefault(title, {})[place] = accuracies.tolist()
    return [
        reports.Curve(title, curves[title], published=True)
        for title in methods.titles().values()
        if title in curves
    ]


def draw_networks(rows, folder):
    """Draws the channels (the supplement's Fig. 1) and the FLOPs of every
    layer, in the full network and in BAR's of the first seed, from rows of one
    data set that are alike."""
    rows = rows[rows.method == "bar"]
    if rows.empty or "teacher_folder" not in rows:
        return
    rows = rows[rows.seed == rows.seed.min()]
    costs = find_costs(rows)
    first = rows.iloc[0]
    cells = pathlib.Path(first.folder).parent
    full = measure(cells / first.teacher_folder / "teacher.keras")
    for ending in ENDINGS:
        reports.plot_channels(costs, folder / f"channels.{ending}")
        reports.plot_flops(full, costs, folder / f"flops_of_layers.{ending}")


def find_costs(rows):
    """Dict from the fraction that was asked for to the `Cost` of the gated
    network, the largest first."""
    return {
        f"1/{row.factor:g}": measure(pathlib.Path(row.folder) / "gated.keras")
        for row in rows.sort_values("factor").itertuples()
    }


def measure(path):
    """The `Cost` of the network in a file."""
    return keras_bar.measure_cost(keras.models.load_model(path, compile=False))
