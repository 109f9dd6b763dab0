"""All methods of the paper's comparison on a data set.

Runs BAR on volume and on FLOPs ("F-trained"), the seven methods that the paper
compares it with, and uniformly narrowed networks, at several pruning factors,
with several seeds. Methods without a budget (LZR, IB) are placed by a short
search over their strength, and MorphNet is expanded to the budget.

    python recipes/compare.py
    python recipes/compare.py --dataset fashion_mnist --methods bar wm lzr
    python recipes/compare.py --dataset digits --scale 0.2 --seeds 0

In the output folder: a folder per data set with a folder per cell; of all cells
found there `results.csv`, a row each; `tables.md`, the tables of the
supplement's section 6; the pictures `volume` and `flops`, its Figures 6 and 8,
with its own numbers dashed. What is done is not done again, and a cell that was
interrupted goes on after its last epoch.
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
        __doc__, list(tables.TITLES), FACTORS, "runs/compare"
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
        write(find(folder, settings), folder)
    print(f"\n{(folder / 'tables.md').read_text()}")


def find(folder, settings):
    """The rows of every data set's cells that are like those asked for."""
    found = {}
    for name, dataset in datasets.DATASETS.items():
        alike = {
            "network": dataset.network,
            "start": settings.start,
            "metric": settings.metric,
        }
        if name == settings.dataset:
            alike["network"] = settings.network
        found[name] = [
            row
            for row in runner.find_rows(folder / name)
            if alike.items() <= row.items() and row["method"] in tables.TITLES
        ]
    return {name: rows for name, rows in found.items() if rows}


def write(found, folder):
    """Writes the tables and pictures.

    Args:
        found: Dict from a data set's name to its rows.
        folder: `pathlib.Path`.
    """
    rows = [{"dataset": name, **row} for name in found for row in found[name]]
    tables.write_csv(rows, folder / "results.csv")
    text = "\n".join(markdown(name, rows) for name, rows in found.items())
    resuming.write(folder / "tables.md", text)
    for metric, label in (("volume", "volume"), ("flops", "FLOPs")):
        panels = make_panels(found, metric)
        for ending in ("png", "svg"):
            path = folder / f"{metric}.{ending}"
            reports.plot_accuracies(panels, path, f"{label} factor")


def make_panels(found, metric):
    """A panel per data set, with the supplement's numbers where it has some,
    and otherwise one more panel for those."""
    panels = []
    for name, rows in found.items():
        panel = tables.make_panel(
            datasets.DATASETS[name].title, rows, lambda row: 1 / row[metric]
        )
        panel.curves += published(name, metric)
        panels.append(panel)
    if not any(curve.published for x in panels for curve in x.curves):
        title = f"{PAPER[BESIDE]}, the supplement's numbers"
        panels.append(reports.Panel(title, published(BESIDE, metric)))
    return panels


def published(dataset, metric):
    """The supplement's curves for a data set."""
    curves: dict = {}
    for row in paper.load("results"):
        if row["dataset"] == dataset:
            points = curves.setdefault(row["method"], {})
            points[row[f"{metric}_factor"]] = [row["test_accuracy"]]
    return [
        reports.Curve(title, curves[title], published=True)
        for title in tables.TITLES.values()
        if title in curves
    ]


def markdown(dataset, rows):
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
            *nearest(beside, tables.TITLES[method], factor),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def nearest(dataset, title, factor):
    """The supplement's numbers of a method that come nearest to a pruning
    factor, if there are any near it."""

    def miss(row):
        # The budget was the FLOPs of a network narrowed by the factor.
        trained_on_flops = title == tables.TITLES["bar-flops"]
        placed = (
            math.sqrt(row["flops_factor"])
            if trained_on_flops
            else row["volume_factor"]
        )
        return abs(math.log(placed / factor))

    rows = [
        x
        for x in paper.load("results")
        if (x["dataset"], x["method"]) == (dataset, title)
    ]
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
