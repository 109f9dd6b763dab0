"""The tables and the picture of a sweep, beside the supplement's Table 1."""

import statistics

from keras_bar import reports
from keras_bar.reports import paper
from recipes.data import registry as datasets
from recipes.experiment import files
from recipes.experiment import grid as runner
from recipes.results import comparison
from recipes.results import tables

RESULTS = ("accuracy", "volume", "flops", "params")


def find_rows(folder):
    """The reports of all trials that are done."""
    return [x for x in runner.find_rows(folder) if "drawn" in x]


def write(settings):
    """Writes the tables and the picture of what is done.

    Args:
        settings: What the command line said.
    """
    folder = settings.output
    rows = find_rows(folder)
    flat = [
        {
            "factor": row["factor"],
            "trial": int(row["method"].removeprefix("trial")),
            **row["drawn"],
            **{x: row.get(x) for x in RESULTS},
        }
        for row in rows
    ]
    flat.sort(key=lambda row: (row["factor"], row["trial"]))
    tables.write_csv(flat, folder / "trials.csv")
    summary = summarize(flat)
    tables.write_csv(summary, folder / "sensitivity.csv")
    beside = comparison.published_for(settings.dataset)
    title = datasets.DATASETS[settings.dataset].title
    published = []
    if settings.metric == "volume":
        published = [
            x for x in paper.load("sensitivity") if x["dataset"] == beside
        ]
    text = markdown(title, summary, published, comparison.PAPER[beside])
    files.write(folder / "sensitivity.md", text)
    panels = {title: {"measured here": points(summary, "factor", "accuracy")}}
    other = points(published, "volume_factor", "test_accuracy")
    if beside == settings.dataset and other:
        panels[title]["published"] = other
    elif other:
        name = f"{comparison.PAPER[beside]}, the supplement's numbers"
        panels[name] = {"published": other}
    for ending in ("png", "svg"):
        reports.plot_sensitivity(panels, folder / f"sensitivity.{ending}")


def summarize(rows):
    """List of a dict per factor: the mean accuracy of its trials, and the
    standard deviation; without those that diverged, which are counted."""
    summary = []
    for factor in sorted({x["factor"] for x in rows}):
        every = [x["accuracy"] for x in rows if x["factor"] == factor]
        found = [x for x in every if x is not None]
        summary.append(
            {
                "factor": factor,
                "trials": len(every),
                "diverged": len(every) - len(found),
                "accuracy": statistics.mean(found) if found else None,
                "standard_deviation": (
                    statistics.stdev(found) if len(found) > 1 else None
                ),
            }
        )
    return summary


def points(rows, factor, accuracy):
    """What `plot_sensitivity` draws of a table's rows."""
    return {
        x[factor]: (x[accuracy], x["standard_deviation"] or 0.0)
        for x in rows
        if x[accuracy] is not None
    }


def percent(value):
    """A fraction in percent, or nothing."""
    return "" if value is None else f"{100 * value:.2f}"


def markdown(title, summary, published, beside):
    """The table beside the supplement's."""
    others = {x["volume_factor"]: x for x in published}
    lines = [
        f"## {title}",
        "",
        f"On the right: the supplement's Table 1 for {beside}."
        + " Of some factors not all trials came to a network; the others "
        "diverged." * any(x["diverged"] for x in summary),
        "",
        "| factor | trials | accuracy, % | std dev. | published accuracy, % | "
        "published std dev. |",
        "|" + " --- |" * 6,
    ]
    for row in summary:
        other = others.get(row["factor"], {})
        trials, diverged = row["trials"], row["diverged"]
        cells = [
            f"{row['factor']:g}",
            f"{trials - diverged} of {trials}" if diverged else str(trials),
            percent(row["accuracy"]),
            percent(row["standard_deviation"]),
            percent(other.get("test_accuracy")),
            percent(other.get("standard_deviation")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
