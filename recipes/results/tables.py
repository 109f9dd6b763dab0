"""The tables of a comparison, the supplement's numbers beside them."""

import math
import pathlib

import pandas
from rich import console
from rich import markdown

import keras_bar
from keras_bar import files
from keras_bar.costs import METRICS
from keras_bar.reports import paper
from recipes import methods
from recipes.data.registry import DATASETS
from recipes.data.registry import PAPER

# What makes experiments differ in more than their seed.
KEYS = ["dataset", "network", "start", "method", "metric", "factor"]
SORTED = [*KEYS, "seed"]


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
            if "accuracy" in flat:  # It did not diverge.
                row = {"dataset": name, **flat, "folder": str(path.parent)}
                rows.append(row)
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


def write(rows, settings):
    """Writes `results.csv` and `tables.md`."""
    folder = settings.output
    write_csv(
        rows.drop(columns="folder", errors="ignore"), folder / "results.csv"
    )
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
    write_text("\n\n".join(parts) + "\n", folder / "tables.md")


def write_text(text, path):
    with files.replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_csv(frame, path):
    write_text(frame.to_csv(index=False), path)


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
    if values.count() < 2:
        return percent(values.mean())
    return f"{percent(values.mean())} ± {percent(values.std())}"


def mean_factor(members, metric):
    """How many times smaller the networks of some rows are."""
    return 1 / members[metric].mean()


def compare(rows, metric, published=None):
    """The supplement's table for a data set: accuracy, volume factor and FLOPs
    factor, method by method; beside them the supplement's own numbers for the
    data set `published`, which the columns name."""
    titles = methods.titles()
    order = pandas.Categorical(rows.method, list(titles))
    lines = []
    for (method, factor), members in rows.assign(method=order).groupby(
        ["method", "factor"], observed=True
    ):
        line = {
            "method": titles[method],
            "factor": f"{factor:g}",
            "seeds": str(len(members)),
            "V factor": f"{mean_factor(members, 'volume'):.1f}",
            "F factor": f"{mean_factor(members, 'flops'):.1f}",
            "accuracy, %": spread(members.accuracy),
        }
        if published:
            # The budget of the F-trained was not the metric.
            own = method == "bar-flops"
            place = factor if own else mean_factor(members, metric)
            beside = nearest(published, titles[method], place, metric)
            names = ("V factor", "F factor", "accuracy, %")
            for name, value in zip(names, beside, strict=True):
                line[f"{PAPER[published]}, published: {name}"] = value
        lines.append(line)
    return pandas.DataFrame(lines)


def measured_by_the_authors(dataset):
    """The rows of the supplement's section 6 that have an accuracy."""
    frame = pandas.DataFrame(paper.load("results"))
    return frame[(frame.dataset == dataset) & frame.test_accuracy.notna()]


def nearest(dataset, title, factor, metric):
    """The supplement's numbers of a method that come nearest to a pruning
    factor of a metric, if there are any near it."""
    rows = measured_by_the_authors(dataset)
    rows = rows[rows.method == title]
    if metric == "params" or not len(rows):
        return [""] * 3
    places = rows[f"{metric}_factor"]
    if metric == "volume" and title == methods.load("bar-flops").TITLE:
        # The budget was the FLOPs of a network narrowed by the factor.
        places = rows.flops_factor**0.5
    misses = (places / factor).map(lambda x: abs(math.log(x)))
    if misses.min() > math.log(1.5):
        return [""] * 3
    row = rows.loc[misses.idxmin()]
    factors = [f"{row[f'{x}_factor']:.1f}" for x in ("volume", "flops")]
    return [*factors, percent(row.test_accuracy)]


def summarize(rows):
    """A line per setting, its seeds together: mean and standard deviation."""
    lines = []
    for key, members in rows.groupby(KEYS):
        gap = (members.accuracy - members.teacher).mean()
        line = dict(zip(KEYS, map(str, key), strict=True)) | {
            "factor": f"{key[-1]:g}",
            "seeds": str(len(members)),
            "accuracy": spread(members.accuracy),
            "minus teacher": f"{100 * gap:+.2f}",
            "before fine-tuning": spread(members.pruned)
            if "pruned" in members
            else "",
            **{x: f"1/{mean_factor(members, x):.1f}" for x in METRICS},
        }
        lines.append(line)
    return pandas.DataFrame(lines)


def connectivity(rows, published=None):
    """What BAR's gates cost with regular and with mixed blocks, as in section 5
    of the supplement: fractions of the full network, mean of the seeds; beside
    it the supplement's differences, as far as it has the factor."""
    lines = []
    for factor, members in rows[rows.method == "bar"].groupby("factor"):
        line = {"factor": f"{factor:g}", "seeds": str(len(members))}
        for metric, name in (("volume", "volume"), ("flops", "FLOPs")):
            mixed = members[metric].mean()
            full = members[f"full_{metric}"]
            regular = (members[f"regular_{metric}"] / full).mean()
            line |= {
                f"{name}, regular": f"{regular:.4f}",
                f"{name}, mixed": f"{mixed:.4f}",
                f"{name}, difference": f"{mixed / regular - 1:+.0%}",
            }
        for row in paper.load("connectivity") if published else ():
            name = f"{PAPER[row['dataset']]}, published"
            line.setdefault(name, "")
            if row["pruning_factor"] == factor:
                line[name] = ", ".join(
                    f"{row[f'mixed_{x}'] / row[f'regular_{x}'] - 1:+.0%}"
                    for x in ("volume", "flops")
                )
        lines.append(line)
    return pandas.DataFrame(lines)
