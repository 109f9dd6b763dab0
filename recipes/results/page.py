"""One HTML page of a run: its tables and figures, and nothing beside it."""

import base64
import pathlib
import tempfile

import jinja2
import markdown_it
import pandas

from keras_bar import files
from recipes.results import figures

KINDS = {".svg": "image/svg+xml", ".png": "image/png"}
# Markdown syntax that could inject links.
LINKS = ["link", "image", "autolink", "reference"]
# A folder with one of them is that of a training.
TRACES = ("report.json", "prune.json", "gates.json")


def write_page(folder, path):
    """Writes a page of what a recipe has left in its output folder: Markdown,
    figures and CSV tables of the folder, and of every folder in it in which
    something was trained, with what its report says. Figures are part of the
    page, so that it can be sent as one file."""
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
    files.write_text(path, text)


def describe(folder):
    """Describes one folder: texts, tables of its report, figures, CSV."""
    reader = markdown_it.MarkdownIt("commonmark", {"html": False})
    reader.enable("table").disable(LINKS)
    texts = [x.read_text("utf-8") for x in sorted(folder.glob("*.md"))]
    metric = files.read_json(folder / "settings.json").get("metric", "volume")
    with tempfile.TemporaryDirectory() as scratch:
        # The logs may be those of an unfinished training, or of a user's own.
        drawn = pathlib.Path(scratch)
        figures.draw_logs(folder, drawn, "svg", metric)
        found = find_figures(folder, drawn)
    return {
        "texts": list(map(reader.render, texts)),
        "tables": tables_of(files.read_json(folder / "report.json")),
        "figures": found,
        "csv": [(x.name, read_csv(x)) for x in sorted(folder.glob("*.csv"))],
    }


def read_csv(path):
    """The HTML of a table in a file, with its empty cells."""
    try:
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise ValueError(
            f"{path} is no table. Expected CSV in UTF-8. Received: {error}"
        ) from error
    return html_of(frame, index=False)


def tables_of(report):
    """Pairs of a name and the HTML of a table, for what a report says: dicts of
    numbers or of logs, then what else it has."""
    found = {x: y for x, y in report.items() if isinstance(y, dict)}
    rest = {x: y for x, y in report.items() if not isinstance(y, dict | list)}
    return [
        (name, html_of(frame_of(values)))
        for name, values in (found | {"report": rest}).items()
        if values
    ]


def frame_of(values):
    """A `DataFrame` of a dict of rows or of single values; only the last value
    of a log."""
    if not all(isinstance(x, dict) for x in values.values()):
        values = {x: {"value": y} for x, y in values.items()}
    frame = pandas.DataFrame.from_dict(values, orient="index", dtype=object)
    return frame.map(lambda x: x[-1] if isinstance(x, list) and x else x)


def html_of(frame, index=True):
    return frame.astype(object).map(cell).to_html(index=index, border=0)


def cell(value):
    """A value as text, a number with not more digits than are read."""
    if isinstance(value, bool):
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    whole = number.is_integer() and abs(number) < 1e15
    return f"{number:,.0f}" if whole else f"{number:.4g}"


def find_figures(*folders):
    """Name, type and data of every figure, in the sharper format."""
    found: dict = {}
    for ending in KINDS:
        for folder in folders:
            for path in folder.glob(f"*{ending}"):
                found.setdefault(path.stem, path)
    return [
        (x, KINDS[y.suffix], base64.b64encode(y.read_bytes()).decode())
        for x, y in sorted(found.items())
    ]
