"""One HTML page of a run: its tables and pictures, and nothing beside it."""

import base64
import html
import math
import os
import pathlib
import tempfile

from keras_bar import files
from keras_bar.reports import runs

_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}
# What the pictures of recipes show, by the names of their files.
_CAPTIONS = {
    "accuracy": "accuracy over the pruning factor",
    "budget": "the cost follows the moving budget",
    "channels": "channels of every layer, full and pruned",
    "flops": "FLOPs",
    "flops_of_layers": "FLOPs of every layer, full and pruned",
    "gates": "how likely channels are to live, epoch by epoch",
    "sensitivity": "accuracy with hyperparameters drawn around the tuned ones",
    "volume": "accuracy over the volume factor",
}
# Of Markdown what could lead out of the page, or be HTML.
_LEADING_OUT = (
    "reference",
    "link",
    "image_link",
    "image_reference",
    "short_reference",
    "short_image_ref",
    "autolink",
    "automail",
    "html",
)
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 2rem auto;
       max-width: 68rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
        font-size: 13px; margin: 0.8rem 0; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd;
         text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
.wide { overflow-x: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; max-width: 100%; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: 12px; color: #555; }
details { margin: 0.6rem 0; border-top: 1px solid #ddd; padding-top: 0.4rem; }
summary { cursor: pointer; font-weight: 600; }
"""


def write_page(
    folder: str | os.PathLike[str], path: str | os.PathLike[str]
) -> None:
    """Writes a page of what a recipe has left in its output folder.

    It has the folder's Markdown, such as the tables beside the published
    numbers, its pictures and its CSV tables; and the same, with what its report
    says, of every folder in it in which something was trained. Of a training
    that is not finished, or one's own with a `callbacks.GateHistoryLogger` in
    `gates.json`, it draws the budget and the gates from the logs. Pictures are
    part of the page, so that it can be sent as one file.

    Args:
        folder: Path of the folder.
        path: Where to write the page.

    Raises:
        ValueError: If there is no such folder, nothing of a recipe in it, or
            a file that is not what its name says.

    Example:

    >>> from keras_bar import reports
    >>> import pathlib
    >>> folder = pathlib.Path("run")
    >>> folder.mkdir()
    >>> reports.plot_distributions(folder / "distributions.svg")
    >>> reports.write_page(folder, "run.html")
    """
    folder = pathlib.Path(folder)
    cells = runs.find_cells(folder)
    parts = [_describe(folder, level=2)]
    parts += [
        _details(cell.relative_to(folder), _describe(cell, level=3))
        for cell in cells
    ]
    if not any(parts):
        raise ValueError(
            "There is nothing to report. Expected the output folder of a "
            "recipe, with tables, pictures or a report.json. "
            f"Received: {folder}"
        )
    title = html.escape(folder.resolve().name)
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{''.join(parts)}\n</body>\n</html>\n"
    )
    with files.replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _describe(folder, level):
    """What is in one folder, what people read first of all."""
    texts = sorted(folder.glob("*.md"))
    parts = [_markdown(path.read_text(encoding="utf-8")) for path in texts]
    report = runs.read_json(folder / runs.REPORT)
    parts += _describe_report(report, level)
    with tempfile.TemporaryDirectory() as drawn:
        runs.draw_missing(folder, pathlib.Path(drawn))
        pictures = _find_pictures(folder, pathlib.Path(drawn))
        shown = "".join(map(_figure, pictures))
    if shown:
        parts.append(_heading("pictures", level))
        parts.append(f'<div class="pictures">{shown}</div>\n')
    for path in sorted(folder.glob("*.csv")):
        rows = runs.read_csv(path)
        table = _table(rows[0], rows[1:])
        if texts:  # They say the same, for people.
            table = _details(path.name, table)
        else:
            table = _heading(path.stem, level) + table
        parts.append(table)
    return "".join(parts)


def _markdown(text):
    """Markdown as HTML, or as it is where `markdown` is not installed."""
    try:
        import markdown
    except ImportError:
        return f"<pre>{html.escape(text)}</pre>\n"
    reader = markdown.Markdown(extensions=["tables"])
    reader.preprocessors.deregister("html_block")
    for name in _LEADING_OUT:
        reader.inlinePatterns.deregister(name)
    return f'<div class="wide">{reader.convert(text)}</div>\n'


def _describe_report(report, level):
    """What a report says: its tables of numbers, then what else it has."""
    dicts = {x: y for x, y in report.items() if isinstance(y, dict) and y}
    wide = {x: y for x, y in dicts.items() if _is_table(y)}
    narrow = {x: y for x, y in dicts.items() if x not in wide}
    narrow["report"] = {
        x: y for x, y in report.items() if not isinstance(y, dict | list)
    }
    parts = []
    for name, values in wide.items():
        rows = _numbers(values)
        columns = list(dict.fromkeys(y for row in rows.values() for y in row))
        lines = [
            [x, *(row.get(y, "") for y in columns)] for x, row in rows.items()
        ]
        if columns:
            parts.append(_heading(name, level))
            parts.append(_table(["", *columns], lines))
    for name, values in narrow.items():
        if values:
            parts.append(_heading(name, level))
            parts.append(_table(["", "value"], values.items()))
    return parts


def _is_table(values):
    return all(isinstance(x, dict) for x in values.values())


def _numbers(values):
    """A dict of dicts, of lists only what is last in them: logs of epochs."""
    return {
        x: {
            y: z[-1] if isinstance(z, list) and z else z for y, z in row.items()
        }
        for x, row in values.items()
    }


def _find_pictures(*folders):
    """The pictures, each in one format, the sharper one."""
    found: dict = {}
    for ending in _KINDS:
        for folder in folders:
            for path in folder.glob(f"*{ending}"):
                found.setdefault(path.stem, path)
    return [found[name] for name in sorted(found)]


def _figure(path):
    data = base64.b64encode(path.read_bytes()).decode()
    name = html.escape(_CAPTIONS.get(path.stem, path.stem))
    return (
        f'<figure><img alt="{name}" src="data:{_KINDS[path.suffix]};base64,'
        f'{data}"><figcaption>{name}</figcaption></figure>\n'
    )


def _details(title, text):
    """What is shown when its title is clicked."""
    title = html.escape(str(title))
    return f"<details><summary>{title}</summary>{text}</details>\n"


def _heading(text, level):
    return f"<h{level}>{html.escape(text)}</h{level}>\n"


def _table(header, rows):
    head = "".join(f"<th>{html.escape(str(x))}</th>" for x in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(x)}</td>" for x in row) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}</table></div>\n'


def _cell(value):
    """A value as text, a number with not more digits than are read."""
    if isinstance(value, bool):
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return html.escape(str(value))
    if not math.isfinite(number):
        return str(number)
    if number == round(number) and abs(number) < 1e15:
        return f"{round(number):,}"
    return f"{number:.4g}"
