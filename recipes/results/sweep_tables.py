"""The tables and the figures of a sweep, beside the supplement's Table 1."""

import pandas

from keras_bar import files
from keras_bar import reports
from keras_bar.reports import paper
from recipes.data.registry import DATASETS
from recipes.data.registry import PAPER
from recipes.results import figures
from recipes.results import tables

RESULTS = ["accuracy", "volume", "flops", "params"]


def write(settings):
    """Writes the tables and the figures of the trials that are done."""
    folder, known = settings.output, DATASETS[settings.dataset]
    found = [files.read_json(x) for x in folder.glob("*-trial*/report.json")]
    if not found:
        return
    figures.draw_prunings(tables.find_rows(settings.folders))
    trials = pandas.DataFrame(
        {
            "factor": row["factor"],
            "trial": int(row["method"].removeprefix("trial")),
            **row["drawn"],
            **{x: row.get(x) for x in RESULTS},
        }
        for row in found
    ).sort_values(["factor", "trial"])
    tables.write_csv(trials, folder / "trials.csv")
    summary = summarize(trials)
    tables.write_csv(summary, folder / "sensitivity.csv")
    published = pandas.DataFrame(paper.load("sensitivity"))
    beside = known.published if settings.metric == "volume" else None
    published = published[published.dataset == beside]
    text = tables.markdown_of(table(summary, published, PAPER.get(beside)))
    if summary.diverged.any():
        text += "\n\nTrials that are missing diverged."
    files.write_text(folder / "sensitivity.md", f"## {known.title}\n\n{text}\n")
    panels = {known.title: {"measured here": points(summary)}}
    columns = {"volume_factor": "factor", "test_accuracy": "accuracy"}
    other = points(published.rename(columns=columns))
    if other:
        own = beside == settings.dataset
        name = f"{PAPER[beside]}, the supplement's numbers"
        panels.setdefault(known.title if own else name, {})["published"] = other
    for ending in figures.ENDINGS:
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
    summary = summary.set_index("factor")
    all_done = summary.diverged == 0
    some = (summary.trials - summary.diverged).map("{} of ".format)
    frame = pandas.DataFrame(
        {
            "trials": some.mask(all_done, "") + summary.trials.map(str),
            "accuracy, %": summary.accuracy.map(tables.percent),
            "std dev.": summary.standard_deviation.map(tables.percent),
        }
    )
    if name:
        columns = ["test_accuracy", "standard_deviation"]
        other = published.groupby("volume_factor")[columns].mean()
        texts = other.reindex(frame.index).map(tables.percent)
        frame[[f"{name}, published: {x}" for x in frame][1:]] = texts
    return tables.labelled(frame)
