"""Pictures of BAR's networks: of one, and of those at all pruning factors."""

import dataclasses

import keras

import keras_bar
from keras_bar import reports
from keras_bar.files import read_json
from keras_bar.reports import runs
from recipes.experiment.training import Cell
from recipes.experiment.training import full_cell


def draw_one(run, full, gated, metric, label):
    """Draws how a training followed its budget, and what it left.

    Args:
        run: `Run` whose part `"prune"` it was.
        full, gated: `Cost` before and after it.
        metric: String, what the budget limited.
        label: String, the name of the pruned network.
    """
    history = run.history("prune")
    gates = read_json(run.folder / runs.GATES)
    for ending in ("png", "svg"):
        path = {
            name: run.folder / f"{name}.{ending}"
            for name in ("budget", "channels", "flops", "gates")
        }
        reports.plot_budget(history, path["budget"], metric)
        reports.plot_channels({label: gated}, path["channels"])
        reports.plot_flops(full, {label: gated}, path["flops"])
        if gates:  # Runs of older versions have none.
            reports.plot_gates(gates, path["gates"])


def draw(rows, cells, output):
    """Draws the channels (the supplement's Fig. 1) and the FLOPs of every
    layer, in the full network and in BAR's of the first seed.

    Args:
        rows: List of dicts, the reports of cells that differ in method, factor
            and seed alone.
        cells: `pathlib.Path` of the folder that has a folder per cell.
        output: `pathlib.Path` of the folder for the pictures.
    """
    rows = [row for row in rows if row["method"] == "bar"]
    if not rows:
        return
    first = min(rows, key=lambda row: row["seed"])
    costs = find_costs([x for x in rows if x["seed"] == first["seed"]], cells)
    cell = full_cell(first["network"], first["seed"])
    full = measure(cells / str(cell) / "teacher.keras")
    for ending in ("png", "svg"):
        reports.plot_channels(costs, output / f"channels.{ending}")
        reports.plot_flops(full, costs, output / f"flops_of_layers.{ending}")


def find_costs(rows, cells):
    """Dict from the fraction that was asked for to the `Cost` of the gated
    network, the largest first."""
    found = {}
    for row in sorted(rows, key=lambda row: row["factor"]):
        fields = dataclasses.fields(Cell)
        cell = Cell(**{x.name: row[x.name] for x in fields})
        path = cells / str(cell) / "gated.keras"
        found[f"1/{cell.factor:g}"] = measure(path)
    return found


def measure(path):
    """The `Cost` of the network in a file."""
    return keras_bar.measure_cost(keras.models.load_model(path, compile=False))
