"""Methods on a data set: the supplement's Figures 6 and 8, and its tables."""

import math
import pathlib
import statistics

from keras_bar import reports
from keras_bar.reports import paper
from recipes.data import registry as datasets
from recipes.experiment import arguments
from recipes.experiment import files
from recipes.experiment import grid as runner
from recipes.experiment import hosts
from recipes.results import figures
from recipes.results import tables

# Whose numbers in the supplement stand beside a data set that has none there.
BESIDE = "cifar10"
# Closes the description of every recipe for one data set.
ABOUT = """
The data set is looked for in the folder `--data-dir`, prepared, as its archive
or extracted, and downloaded to there if it is not. Every cell of the table is a
folder in the output folder with `report.json`, the compact network, the logs of
every epoch, for TensorBoard, too, and pictures; `tables.md` and the pictures
`volume` and `flops` have the supplement's numbers beside the measured ones;
`channels` and `flops_of_layers` show BAR's networks layer by layer.
What is done is not done again: the same command goes on where it was.
"""
PAPER = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mio_tcd": "Mio-TCD",
    "tiny_imagenet": "TinyImageNet",
}


def run(description, dataset, compared, given=None):
    """A recipe for one data set, real or made up.

    Args:
        description: String, the recipe's.
        dataset: String, a name in `PAPER`.
        compared: List of the methods that are run by default.
        given: List of arguments, or None for those of the command line.
    """
    parser = arguments.make_parser(
        description + ABOUT,
        [dataset],
        list(tables.TITLES),
        compared,
        None,
    )
    parser.add_argument(
        "--synthetic",
        action="store_true",
        help="try the recipe on made-up pictures, with a narrow network and "
        "few epochs, in minutes",
    )
    settings = parser.parse_args(given)
    if settings.synthetic:
        dataset += "-synthetic"
    if settings.output is None:
        settings.output = pathlib.Path("runs") / dataset
    train(parser, settings, dataset, {dataset: settings.output})


def train(parser, settings, dataset, folders):
    """Runs the cells of a data set, and writes tables and pictures after each.

    Args:
        parser, settings: The `ArgumentParser`, and what it parsed.
        dataset: String, the data set.
        folders: Dict from a data set's name to the folder of its cells.
    """
    folder = settings.output
    title = datasets.DATASETS[dataset].title
    made_up = f"THESE ARE {title}. The numbers say nothing about the method."
    if settings.synthetic:
        print(f"\n{made_up}\n", flush=True)
    for _ in runner.run(parser, settings, dataset, folders[dataset]):
        if hosts.is_chief():
            write(find(folders), dataset, settings, folder)
    if hosts.is_chief():
        rows = select(find(folders)[dataset], settings, settings.network)
        figures.draw(rows, folders[dataset], folder)
        print(f"\n{(folder / 'tables.md').read_text()}")
    if settings.synthetic:
        print(made_up)


def find(folders):
    """The rows of all cells.

    Args:
        folders: Dict from a data set's name to the folder of its cells.

    Returns:
        Dict from the names to lists of rows, where there are any.
    """
    found = {name: runner.find_rows(x) for name, x in folders.items()}
    return {
        name: [{"dataset": name, **row} for row in rows]
        for name, rows in found.items()
        if rows
    }


def write(found, dataset, settings, folder):
    """Writes the tables and pictures.

    Args:
        found: Dict from a data set's name to its rows.
        dataset: String, the data set that was asked for.
        settings: What else was asked for.
        folder: `pathlib.Path`.
    """
    rows = [row for rows in found.values() for row in rows]
    tables.write_csv(rows, folder / "results.csv")
    alike = {
        name: select(
            rows, settings, settings.network if name == dataset else None
        )
        for name, rows in found.items()
    }
    alike = {name: rows for name, rows in alike.items() if rows}
    text = "\n".join(
        markdown(name, rows, settings.metric) for name, rows in alike.items()
    )
    files.write(folder / "tables.md", text)
    if not alike:
        return
    for metric, label in (("volume", "volume"), ("flops", "FLOPs")):
        panels = make_panels(alike, metric)
        for ending in ("png", "svg"):
            path = folder / f"{metric}.{ending}"
            reports.plot_accuracies(panels, path, f"{label} factor")


def select(rows, settings, network):
    """The rows of a data set that are like those asked for; without a network
    those of the data set's first one."""
    if rows and network is None:
        network = datasets.DATASETS[rows[0]["dataset"]].network
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


def published_for(dataset):
    """The data set whose numbers in the supplement stand beside another's."""
    return dataset if dataset in PAPER else BESIDE


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
    beside = published_for(dataset)
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
            *nearest(
                beside,
                tables.TITLES[method],
                # Its budget was not the metric.
                factor
                if method == "bar-flops"
                else tables.mean_factor(members, metric),
                metric,
            ),
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
