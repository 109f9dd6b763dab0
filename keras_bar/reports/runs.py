"""What the trainings of a recipe have left in their folders."""

import csv

from keras_bar.files import read_json
from keras_bar.reports import gates
from keras_bar.reports import pictures

REPORT, LOGS, GATES = "report.json", "prune.json", "gates.json"


def find_cells(folder):
    """The folders below one in which something was trained, sorted."""
    found = {
        path.parent
        for name in (REPORT, LOGS, GATES)
        for path in folder.rglob(name)
    }
    return sorted(found - {folder})


def read_history(path):
    """Dict from a log to its values, one per epoch, of what a recipe has
    written down epoch by epoch; empty where there is no file."""
    rows = read_json(path)
    epochs = [rows[x] for x in sorted(rows, key=int)]
    return {x: [row[x] for row in epochs] for x in epochs[0]} if epochs else {}


def read_csv(path):
    """The rows of a table, lists of strings, the heading first.

    Raises:
        ValueError: If it is no text.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file)) or [[]]
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table. Expected CSV in UTF-8. Received: {error}"
        ) from error


def draw_missing(cell, folder):
    """Draws what a training in progress, or one of the user's own, has logged
    and not drawn: the budget and the gates.

    Args:
        cell: `pathlib.Path` of the training's folder.
        folder: `pathlib.Path` of the folder for the pictures.
    """
    metric = read_json(cell / "settings.json").get("metric", "volume")
    history = read_history(cell / LOGS)
    told = {metric, "budget"} <= history.keys()
    if told and not any(cell.glob("budget.*")):
        pictures.plot_budget(history, folder / "budget.svg", metric)
    journal = read_json(cell / GATES)
    if journal and not any(cell.glob("gates.[ps]*")):
        gates.plot_gates(journal, folder / "gates.svg")
