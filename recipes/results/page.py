"""One HTML page of a run: its tables and figures, and nothing beside it."""

import base64
import math
import pathlib
import tempfile

import jinja2
import markdown_it
import pandas

from keras_bar import files
from keras_bar import reports
from recipes.results import logs
from recipes.results import tables

KINDS = {".svg": "image/svg+xml", ".png": "image/png"}
# What the figures of recipes show, by the names of their files.
CAPTIONS = {
    "accuracy": "accuracy over the pruning factor",
    "budget": "the cost follows the moving budget",
    "channels": "channels of every layer, full and pruned",
    "flops": "FLOPs",
    "flops_of_layers": "FLOPs of every layer, full and pruned",
    "gates": "how likely channels are to live, epoch by epoch",
    "sensitivity": "accuracy with hyperparameters drawn around the tuned ones",
    "volume": "accuracy over the volume factor",
}
# Markdown syntax that could inject links.
LINKS = ["link", "image", "autolink", "reference"]
# Cells as they are in a file, the empty ones, too.
AS_TEXT = {"dtype": str, "keep_default_na": False}
TRACES = ("report.json", "prune.json", "gates.json")


def write_page(folder, path):
    """Writes a page of what a recipe has left in its output folder.

    It has the folder's Markdown, such as the tables beside the published
    numbers, its figures and its CSV tables; and the same, with what its report
    says, of every folder in it in which something was trained. For a training
    that is not finished, or one of your own with a gate log in `gates.json`, it
    draws the budget and the gates from the logs. Figures are part of the page,
    so that it can be sent as one file.

    Args:
        folder: Path of the folder.
        path: Where to write the page.

    Raises:
        ValueError: If there is no such folder, nothing of a recipe in it, or
            a file that is not what its name says.
    """
    folder = pathlib.Path(folder)
    cells = {x.parent for name in TRACES for x in folder.rglob(name)} - {folder}
    whole = describe(folder)
    if not cells and not any(whole.values()):
        raise ValueError(
            "There is nothing to report. Expected the output folder of a "
            "recipe, with tables, figures or a report.json. "
            f"Received: {folder}"
        )
    template = pathlib.Path(__file__).with_suffix(".html").read_text("utf-8")
    text = jinja2.Template(template, autoescape=True).render(
        title=folder.resolve().name,
        whole=whole,
        cells=[(x.relative_to(folder), describe(x)) for x in sorted(cells)],
    )
    tables.write_text(text, pathlib.Path(path))


def describe(folder):
    """Describes one folder: texts, tables of its report, figures, CSV."""
    reader = markdown_it.MarkdownIt("commonmark", {"html": False})
    reader.enable("table").disable(LINKS)
    with tempfile.TemporaryDirectory() as drawn:
        draw_missing(folder, pathlib.Path(drawn))
        found = find_figures(folder, pathlib.Path(drawn))
    return {
        "texts": [
            reader.render(x.read_text("utf-8"))
            for x in sorted(folder.glob("*.md"))
        ],
        "tables": tables_of(files.read_json(folder / "report.json")),
        "figures": found,
        "csv": [(x.name, read_csv(x)) for x in sorted(folder.glob("*.csv"))],
    }


def read_csv(path):
    """The HTML of a table in a file."""
    try:
        return html_of(pandas.read_csv(path, **AS_TEXT), index=False)
    except ValueError as error:
        raise ValueError(
            f"{path} is no table. Expected CSV in UTF-8. Received: {error}"
        ) from error


def tables_of(report):
    """Pairs of a name and the HTML of a table, for what a report says: dicts of
    numbers, then what else it has."""
    found = []
    rest = {x: y for x, y in report.items() if not isinstance(y, dict | list)}
    dicts = {x: y for x, y in report.items() if isinstance(y, dict) and y}
    for name, values in (dicts | {"report": rest}).items():
        if not values:
            continue
        if not all(isinstance(x, dict) for x in values.values()):
            values = {x: {"value": y} for x, y in values.items()}
        # Only what is last in a log.
        last = {
            x: {
                y: z[-1] if isinstance(z, list) and z else z
                for y, z in row.items()
            }
            for x, row in values.items()
        }
        frame = pandas.DataFrame.from_dict(last, orient="index", dtype=object)
        found.append((name, html_of(frame)))
    return found


def html_of(frame, index=True):
    frame = frame.astype(object).map(cell)
    return frame.to_html(index=index, border=0)


def cell(value):
    """A value as text, a number with not more digits than are read."""
    if isinstance(value, bool):
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(number):
        return str(number)
    whole = number == round(number) and abs(number) < 1e15
    return f"{round(number):,}" if whole else f"{number:.4g}"


def draw_missing(cell, folder):
    """Draws into a folder what a training in progress, or one of the user's
    own, has logged and not drawn: the budget and the gates."""
    metric = files.read_json(cell / "settings.json").get("metric", "volume")
    history = logs.read_history(cell / "prune.json")
    told = {metric, "budget"} <= history.keys()
    if told and not any(cell.glob("budget.*")):
        reports.plot_budget(history, folder / "budget.svg", metric)
    gates = files.read_json(cell / "gates.json")
    if gates and not any(cell.glob("gates.[ps]*")):
        reports.plot_gates(gates, folder / "gates.svg")


def find_figures(*folders):
    """Caption, type and data of every figure, in the sharper format."""
    found: dict = {}
    for ending in KINDS:
        for folder in folders:
            for path in folder.glob(f"*{ending}"):
                found.setdefault(path.stem, path)
    return [
        (
            CAPTIONS.get(name, name),
            KINDS[path.suffix],
            base64.b64encode(path.read_bytes()).decode(),
        )
        for name, path in sorted(found.items())
    ]
