"""The tables and the figure of a sweep, beside the supplement's Table 1."""

import pandas

from keras_bar import files
from keras_bar import reports
from keras_bar.reports import paper
from recipes.data.registry import DATASETS
from recipes.data.registry import PAPER
from recipes.results import tables

RESULTS = ["accuracy", "volume", "flops", "params"]


def write(settings):
    """Writes the tables and the figure of the trials that are done."""
    folder, known = settings.output, DATASETS[settings.dataset]
    found = [files.read_json(x) for x in folder.glob("*-trial*/report.json")]
    trials = pandas.DataFrame(
        {
            "factor": row["factor"],
            "trial": int(row["method"].removeprefix("trial")),
            **row["drawn"],
            **{x: row.get(x) for x in RESULTS},
        }
        for row in found
    )
    if trials.empty:
        return
    trials = trials.sort_values(["factor", "trial"])
    tables.write_csv(trials, folder / "trials.csv")
    summary = summarize(trials)
    tables.write_csv(summary, folder / "sensitivity.csv")
    published = pandas.DataFrame(paper.load("sensitivity"))
    beside = known.published if settings.metric == "volume" else None
    published = published[published.dataset == beside]
    text = tables.markdown_of(table(summary, published, PAPER.get(beside)))
    if summary.diverged.any():
        text += "\n\nTrials that are missing diverged."
    tables.write_text(
        f"## {known.title}\n\n{text}\n", folder / "sensitivity.md"
    )
    panels = {known.title: {"measured here": points(summary)}}
    columns = {"volume_factor": "factor", "test_accuracy": "accuracy"}
    other = points(published.rename(columns=columns))
    if other:
        own = beside == settings.dataset
        name = f"{PAPER[beside]}, the supplement's numbers"
        panels.setdefault(known.title if own else name, {})["published"] = other
    for ending in ("png", "svg"):
        reports.plot_sensitivity(panels, folder / f"sensitivity.{ending}")


def summarize(trials):
    """A row per factor: the mean accuracy of its trials, and the standard
    deviation; without those that diverged, which are counted."""
    groups = trials.astype({"accuracy": float}).groupby("factor").accuracy
    summary = groups.agg(
        trials="size",
        diverged=lambda x: x.isna().sum(),
        accuracy="mean",
        standard_deviation="std",
    )
    return summary.reset_index()


def points(frame):
    """What `plot_sensitivity` draws of a table's rows."""
    frame = frame[frame.accuracy.notna()].fillna({"standard_deviation": 0.0})
    values = zip(frame.accuracy, frame.standard_deviation, strict=True)
    return dict(zip(frame.factor, values, strict=True))


def table(summary, published, name):
    """The measured accuracies, and those that the supplement has for the data
    set of a name, which the columns tell."""
    lines = []
    for row in summary.itertuples():
        done = row.trials - row.diverged
        trials = f"{done} of {row.trials}" if row.diverged else str(row.trials)
        line = {
            "factor": f"{row.factor:g}",
            "trials": trials,
            "accuracy, %": tables.percent(row.accuracy),
            "std dev.": tables.percent(row.standard_deviation),
        }
        if name:
            other = published[published.volume_factor == row.factor]
            line |= {
                f"{name}, published: {x}": tables.percent(other[y].mean())
                for x, y in (
                    ("accuracy, %", "test_accuracy"),
                    ("std dev.", "standard_deviation"),
                )
            }
        lines.append(line)
    return pandas.DataFrame(lines)
