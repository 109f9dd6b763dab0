"""All methods of the paper's comparison on a data set.

Runs BAR on volume and on FLOPs ("F-trained"), the seven methods that the paper
compares it with, and uniformly narrowed networks, at several pruning factors,
with several seeds. Methods without a budget (LZR, IB) are placed by a short
search over their strength, and MorphNet is expanded to the budget.

    python recipes/compare.py
    python recipes/compare.py --dataset fashion_mnist --methods bar wm lzr
    python recipes/compare.py --dataset digits --scale 0.2 --seeds 0

In the output folder: a folder per data set with a folder per cell; of all cells
found there `results.csv`, a row each; of those like the ones asked for
`tables.md`, the tables of the supplement's section 6, and the pictures `volume`
and `flops`, its Figures 6 and 8. The supplement's numbers are drawn dashed.
What is done is not done again, and a cell that was interrupted goes on after
its last epoch. A folder is for one process at a time.
"""

import math
import os
import pathlib
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from keras_bar import reports
from keras_bar.reports import paper
from recipes import datasets
from recipes import resuming
from recipes import runner
from recipes import tables

COMPARED = ["bar", "bar-flops", "random", "wm", "vq", "id"] + [
    "lzr",
    "ib",
    "morphnet",
    "narrow",
]
FACTORS = [2, 4, 8, 16]
# Whose numbers in the supplement stand beside a data set that has none there.
BESIDE = "cifar10"
PAPER = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mio_tcd": "Mio-TCD",
    "tiny_imagenet": "TinyImageNet",
}


def main(arguments=None):
    parser = runner.make_parser(
        __doc__, list(tables.TITLES), COMPARED, FACTORS, "runs/compare"
    )
    parser.add_argument(
        "--dataset",
        choices=datasets.DATASETS,
        default="fashion_mnist",
        help=f"one of {', '.join(datasets.DATASETS)} (default: fashion_mnist)",
    )
    settings = parser.parse_args(arguments)
    folder, dataset = settings.output, settings.dataset
    for _ in runner.run(parser, settings, dataset, folder / dataset):
        write(find(folder), settings, folder)
    print(f"\n{(folder / 'tables.md').read_text()}")


def find(folder):
    """Dict from a data set's name to the rows of all its cells."""
    found = {
        name: runner.find_rows(folder / name) for name in datasets.DATASETS
    }
    return {
        name: [{"dataset": name, **row} for row in rows]
        for name, rows in found.items()
        if rows
    }


def write(found, settings, folder):
    """Writes the tables and pictures.

    Args:
        found: Dict from a data set's name to its rows.
        settings: What the command line asked for.
        folder: `pathlib.Path`.
    """
    rows = [row for rows in found.values() for row in rows]
    tables.write_csv(rows, folder / "results.csv")
    alike = {name: select(found[name], name, settings) for name in found}
    alike = {name: rows for name, rows in alike.items() if rows}
    text = "\n".join(
        markdown(name, rows, settings.metric) for name, rows in alike.items()
    )
    resuming.write(folder / "tables.md", text)
    if not alike:
        return
    for metric, label in (("volume", "volume"), ("flops", "FLOPs")):
        panels = make_panels(alike, metric)
        for ending in ("png", "svg"):
            path = folder / f"{metric}.{ending}"
            reports.plot_accuracies(panels, path, f"{label} factor")


def select(rows, name, settings):
    """The rows of a data set that are like those asked for."""
    network = datasets.DATASETS[name].network
    if name == settings.dataset:
        network = settings.network
    alike = {
        "network": network,
        "start": settings.start,
        "metric": settings.metric,
    }
    return [
        row
        for row in rows
        if alike.items() <= row.items() and row["method"] in tables.TITLES
    ]


def make_panels(found, metric):
    """A panel per data set, with the supplement's numbers where it has some,
    and otherwise one more panel for those."""
    panels = []
    for name, rows in found.items():
        panel = tables.make_panel(datasets.DATASETS[name].title, rows, metric)
        panel.curves += published(name, metric)
        panels.append(panel)
    if not any(curve.published for x in panels for curve in x.curves):
        title = f"{PAPER[BESIDE]}, the supplement's numbers"
        panels.append(reports.Panel(title, published(BESIDE, metric)))
    return panels


def measured_by_the_authors(dataset):
    """The rows of the supplement's section 6 that have an accuracy."""
    return [
        x
        for x in paper.load("results")
        if x["dataset"] == dataset and x["test_accuracy"] is not None
    ]


def published(dataset, metric):
    """The supplement's curves for a data set."""
    curves: dict = {}
    for row in measured_by_the_authors(dataset):
        points = curves.setdefault(row["method"], {})
        place = points.setdefault(row[f"{metric}_factor"], [])
        place.append(row["test_accuracy"])
    return [
        reports.Curve(title, curves[title], published=True)
        for title in tables.TITLES.values()
        if title in curves
    ]


def markdown(dataset, rows, metric):
    """The supplement's table for a data set: accuracy, volume factor and FLOPs
    factor, method by method; beside them the supplement's own numbers, where
    it has the data set, or else those for CIFAR-10."""
    beside = dataset if dataset in PAPER else BESIDE
    full = statistics.mean(x["teacher"] for x in rows)
    lines = [
        f"## {datasets.DATASETS[dataset].title}",
        "",
        f"Full network: {100 * full:.2f} %. On the right: the supplement's "
        f"numbers for {PAPER[beside]}.",
        "",
        "| method | factor | seeds | V factor | F factor | accuracy, % | "
        "V factor | F factor | accuracy, % |",
        "|" + " --- |" * 9,
    ]
    groups = tables.group(rows)
    order = list(tables.TITLES)
    for key in sorted(groups, key=lambda x: (order.index(x[2]), x)):
        members = groups[key]
        _, _, method, _, factor = key
        cells = [
            tables.TITLES[method],
            f"{factor:g}",
            str(len(members)),
            *(
                f"{tables.mean_factor(members, x):.1f}"
                for x in ("volume", "flops")
            ),
            tables.spread([x["accuracy"] for x in members]),
            *nearest(beside, tables.TITLES[method], factor, metric),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def nearest(dataset, title, factor, metric):
    """The supplement's numbers of a method that come nearest to a pruning
    factor of a metric, if there are any near it."""

    def place(row):
        if metric == "volume" and title == tables.TITLES["bar-flops"]:
            # The budget was the FLOPs of a network narrowed by the factor.
            return math.sqrt(row["flops_factor"])
        return row[f"{metric}_factor"]

    def miss(row):
        return abs(math.log(place(row) / factor))

    rows = measured_by_the_authors(dataset) if metric != "params" else []
    rows = [x for x in rows if x["method"] == title]
    row = min(rows, key=miss, default=None)
    if row is None or miss(row) > math.log(1.5):
        return [""] * 3
    return [
        f"{row['volume_factor']:.1f}",
        f"{row['flops_factor']:.1f}",
        f"{100 * row['test_accuracy']:.2f}",
    ]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on where it was.")
