"""Figures of comparisons, and of the networks in them, from their files."""

import pathlib

import keras

import keras_bar
from keras_bar import files
from keras_bar import reports
from keras_bar.reports import paper
from recipes import methods
from recipes.data.registry import DATASETS
from recipes.data.registry import PAPER
from recipes.results import tables

ENDINGS = ("png", "svg")
# Figures of accuracies, and what is on their horizontal axis.
AXES = {
    "accuracy": "factor",
    "volume": "volume factor",
    "flops": "FLOPs factor",
}


def draw(settings):
    """Draws, of the experiments that are done, those that were not drawn, and
    the accuracies of those like the ones asked for: over the factor, and over
    those of volume and FLOPs, the supplement's Figures 6 and 8."""
    rows = tables.find_rows(settings.folders)
    draw_prunings(rows)
    rows = tables.alike(rows, settings)
    if rows.empty:
        return
    for name, label in AXES.items():
        panels = make_panels(rows, None if name == "accuracy" else name)
        for ending in ENDINGS:
            path = settings.output / f"{name}.{ending}"
            reports.plot_accuracies(panels, path, label)


def draw_prunings(rows):
    """Draws how experiments followed their budget, and what it left, unless
    that is drawn."""
    if "teacher_folder" not in rows:  # Of an older version, or none.
        return
    for folder in map(pathlib.Path, rows.folder):
        last = folder / f"flops.{ENDINGS[-1]}"
        # Only BAR has a budget.
        if (folder / "prune.json").exists() and not last.exists():
            draw_pruning(folder)


def draw_pruning(folder):
    """Draws one experiment, from its logs."""
    row = files.read_json(folder / "report.json")
    metric = row.get("budget_metric", row["metric"])
    factor = row["factor"] ** (2 if "budget_metric" in row else 1)
    label = f"pruned to 1/{factor:.4g} of the {metric}"
    gated = {label: measure(folder / "gated.keras")}
    full = measure(folder.parent / row["teacher_folder"] / "teacher.keras")
    for ending in ENDINGS:
        draw_logs(folder, folder, ending, metric)
        reports.plot_channels(gated, folder / f"channels.{ending}")
        reports.plot_flops(full, gated, folder / f"flops.{ending}")


def draw_logs(cell, folder, ending, metric):
    """Draws into a folder what a training has logged, and what is not drawn
    yet: how it follows its budget, and the gates."""
    budget, gates = (f"{x}.{ending}" for x in ("budget", "gates"))
    history = reports.read_history(cell / "prune.json")
    if {metric, "budget"} <= history.keys() and not (cell / budget).exists():
        reports.plot_budget(history, folder / budget, metric)
    journal = files.read_json(cell / "gates.json")
    if journal and not (cell / gates).exists():
        reports.plot_gates(journal, folder / gates)


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
            panel.curves += paper.curves(name, metric)
        elif metric and known.published:
            title = f"{PAPER[known.published]}, the supplement's numbers"
            others[title] = paper.curves(known.published, metric)
    if not any(curve.published for x in panels for curve in x.curves):
        panels += [reports.Panel(*x) for x in others.items()]
    return panels


def measured(rows, metric):
    """The curves of the compared methods."""
    curves: dict = {}
    for (method, factor), members in rows.groupby(["method", "factor"]):
        place = 1 / members[metric].mean() if metric else factor
        curves.setdefault(method, {})[place] = members.accuracy.tolist()
    titles = reversed(methods.titles().items())
    return [reports.Curve(y, curves[x]) for x, y in titles if x in curves]


def draw_networks(settings):
    """Draws the channels (the supplement's Fig. 1) and the FLOPs of every
    layer, in the full network and in BAR's of the first seed."""
    rows = tables.alike(tables.find_rows(settings.folders), settings)
    rows = rows[(rows.dataset == settings.dataset) & (rows.method == "bar")]
    rows = rows[rows.seed == rows.seed.min()]
    if rows.empty or "teacher_folder" not in rows:  # Of an older version.
        return
    costs, first = find_costs(rows), rows.iloc[0]
    cells = pathlib.Path(first.folder).parent
    full = measure(cells / first.teacher_folder / "teacher.keras")
    for ending in ENDINGS:
        folder = settings.output
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
