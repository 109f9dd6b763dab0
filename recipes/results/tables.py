"""The tables of a comparison, the supplement's numbers beside them."""

import math
import pathlib

import pandas
from rich import console
from rich import markdown

import keras_bar
from keras_bar import files
from keras_bar.reports import paper
from recipes import methods
from recipes.data.registry import DATASETS
from recipes.data.registry import PAPER

# What makes experiments differ in more than their seed.
KEYS = ["dataset", "network", "start", "method", "metric", "factor"]
SORTED = [*KEYS, "seed"]
# The metrics in the tables of earlier runs, too.
METRICS = ("volume", "flops", "params")
COSTS = {"volume": "volume", "flops": "FLOPs"}


def describe(key, teacher, small, data):
    """The row of an experiment: which one it is, how good its network is, and
    what that costs."""
    full, cost = map(keras_bar.measure_cost, (teacher, small))
    accuracy, before = (data.accuracy(x) for x in (small, teacher))
    held_out = {}
    if data.has_validation:
        held_out["accuracy_validation"] = data.accuracy(small, "validation")
    return {
        **{x: getattr(key, x) for x in SORTED[1:]},
        "accuracy": accuracy,
        **held_out,
        "teacher": before,
        **{x: getattr(cost, x) / getattr(full, x) for x in METRICS},
        "full_volume": full.volume,
        "full_flops": full.flops,
        "teacher_folder": str(key.teacher()),
    }


def find_rows(folders):
    """`DataFrame` of the reports of all experiments that are done, whoever
    asked for them, sorted; from a dict of data sets and their folders."""
    rows = []
    for name, folder in folders.items():
        for path in folder.glob("*/report.json"):
            report = files.read_json(path)
            flat = {x: y for x, y in report.items() if not isinstance(y, dict)}
            rows.append({"dataset": name, **flat, "folder": str(path.parent)})
    rows = [x for x in rows if "accuracy" in x]  # They did not diverge.
    frame = pandas.DataFrame(rows or None, columns=None if rows else SORTED)
    return frame.sort_values(SORTED, ignore_index=True)


def alike(rows, settings):
    """The rows of the compared methods that are like those asked for; those of
    another data set with its first network."""
    networks = rows.dataset.map(lambda x: DATASETS[x].network)
    networks = networks.mask(rows.dataset == settings.dataset, settings.network)
    return rows[
        (rows.network == networks)
        & (rows.start == settings.start)
        & (rows.metric == settings.metric)
        & rows.method.isin(methods.NAMES)
    ]


def write(settings):
    """Writes `results.csv` and `tables.md`."""
    rows, folder = find_rows(settings.folders), settings.output
    shown = rows.drop(columns="folder", errors="ignore")
    write_csv(shown, folder / "results.csv")
    parts = []
    for name, members in alike(rows, settings).groupby("dataset"):
        known = DATASETS[name]
        full = f"Full network: {percent(members.teacher.mean())} %."
        table = compare(members, settings.metric, known.published)
        parts += [f"## {known.title}", full, markdown_of(table)]
        mixed = connectivity(members, known.published)
        if len(mixed):
            parts += ["### Regular and mixed connectivity", markdown_of(mixed)]
    if len(rows):
        parts += ["## All settings", markdown_of(summarize(rows))]
    files.write_text(folder / "tables.md", "\n\n".join(parts) + "\n")


def write_csv(frame, path):
    files.write_text(path, frame.to_csv(index=False))


def markdown_of(frame):
    """A table whose cells are text."""
    return frame.to_markdown(index=False, disable_numparse=True)


def show(path):
    """Prints a file of Markdown, in a terminal as tables."""
    text = pathlib.Path(path).read_text(encoding="utf-8")
    terminal = console.Console()
    if terminal.is_terminal:
        terminal.print(markdown.Markdown(text))
    else:
        print(f"\n{text}")


def percent(value):
    """A fraction in percent, or nothing."""
    return "" if pandas.isna(value) else f"{100 * value:.2f}"


def spread(values):
    """Percents: mean and, for several, their standard deviation."""
    mean, deviation = percent(values.mean()), percent(values.std())
    return f"{mean} ± {deviation}" if deviation else mean


def factors(groups, metric):
    """How many times smaller the networks of groups of rows are."""
    return 1 / groups[metric].mean()


def compare(rows, metric, published=None):
    """The supplement's table for a data set: accuracy, volume factor and FLOPs
    factor, method by method; beside them the supplement's own numbers for the
    data set `published`, which the columns name."""
    titles = methods.titles()
    order = pandas.Categorical(rows.method, list(titles))
    groups = rows.assign(method=order).groupby(
        ["method", "factor"], observed=True
    )
    measured = {
        "V factor": factors(groups, "volume").map("{:.1f}".format),
        "F factor": factors(groups, "flops").map("{:.1f}".format),
        "accuracy, %": groups.accuracy.apply(spread),
    }
    seeds = groups.size().map(str)
    frame = pandas.DataFrame({"seeds": seeds, **measured})
    if published:
        columns = [f"{PAPER[published]}, published: {x}" for x in measured]
        places = factors(groups, metric)
        frame[columns] = [
            # The budget of the F-trained was not the metric.
            nearest(published, titles[x], y if x == "bar-flops" else z, metric)
            for (x, y), z in places.items()
        ]
    return labelled(frame, method=titles.get)


def labelled(frame, **formats):
    """A frame whose index becomes columns of text."""
    frame = frame.reset_index()
    formats["factor"] = "{:g}".format
    text = {x: frame[x].astype(object).map(y) for x, y in formats.items()}
    return frame.assign(**text)


def nearest(dataset, title, factor, metric):
    """The supplement's numbers of a method that come nearest to a pruning
    factor of a metric, if there are any near it."""
    row = paper.nearest(dataset, title, factor, metric)
    if row is None:
        return [""] * 3
    near = [f"{row[f'{x}_factor']:.1f}" for x in COSTS]
    return [*near, percent(row["test_accuracy"])]


def summarize(rows):
    """A line per setting, its seeds together: mean and standard deviation."""
    before = rows.get("pruned", math.nan)
    gap = 100 * (rows.accuracy - rows.teacher)
    groups = rows.assign(gap=gap, pruned=before).groupby(KEYS)
    costs = {x: factors(groups, x).map("1/{:.1f}".format) for x in METRICS}
    columns = {
        "seeds": groups.size().map(str),
        "accuracy": groups.accuracy.apply(spread),
        "minus teacher": groups.gap.mean().map("{:+.2f}".format),
        "before fine-tuning": groups.pruned.apply(spread),
    }
    return labelled(pandas.DataFrame(columns | costs))


def connectivity(rows, published=None):
    """What BAR's gates cost with regular and with mixed blocks, as in section 5
    of the supplement: fractions of the full network, mean of the seeds; beside
    it the supplement's differences, as far as it has the factor."""
    rows = rows[rows.method == "bar"]
    groups = rows.groupby("factor")
    frame = pandas.DataFrame({"seeds": groups.size().map(str)})
    for metric, name in COSTS.items() if len(rows) else ():
        share = rows[f"regular_{metric}"] / rows[f"full_{metric}"]
        regular, mixed = (
            share.groupby(rows.factor).mean(),
            groups[metric].mean(),
        )
        frame[f"{name}, regular"] = regular.map("{:.4f}".format)
        frame[f"{name}, mixed"] = mixed.map("{:.4f}".format)
        difference = (mixed / regular - 1).map("{:+.0%}".format)
        frame[f"{name}, difference"] = difference
    for row in paper.load("connectivity") if published else ():
        differences = [
            row[f"mixed_{x}"] / row[f"regular_{x}"] - 1 for x in COSTS
        ]
        column = f"{PAPER[row['dataset']]}, published"
        if column not in frame:
            frame[column] = ""
        if row["pruning_factor"] in frame.index:
            text = ", ".join(map("{:+.0%}".format, differences))
            frame.loc[row["pruning_factor"], column] = text
    return labelled(frame)
