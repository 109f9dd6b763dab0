"""Runs the cells of a comparison, one after the other.

A cell is a folder in the output folder; what is done is not done again, and a
cell that was interrupted goes on after its last epoch.
"""

import argparse
import itertools
import json
import math
import pathlib

import keras
import matplotlib  # noqa: F401  Wanted after the first cell; missing, said now.

import keras_bar
from keras_bar import baselines
from recipes import datasets
from recipes import methods
from recipes import phases
from recipes import resuming
from recipes import tables
from recipes import training
from recipes.pictures import BATCH
from recipes.work import Cell
from recipes.work import Work


def make_parser(description, choices, compared, factors, output):
    """The arguments that all comparisons have.

    Args:
        description: String, the recipe's.
        choices: List of the methods that can be asked for.
        compared: List of the methods that are run by default.
        factors: List of the default factors.
        output: String, the default output folder.

    Returns:
        `argparse.ArgumentParser`.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=choices,
        default=compared,
        metavar="METHOD",
        help=f"any of {', '.join(choices)} (default: {' '.join(compared)})",
    )
    parser.add_argument(
        "--factors",
        nargs="+",
        type=float,
        default=factors,
        help="what the metric is divided by (default: "
        f"{' '.join(map(str, factors))})",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        help="each has a full network of its own; strengths are searched for "
        "with seed 0 (default: 0 1 2)",
    )
    parser.add_argument(
        "--network",
        help="; ".join(
            f"{name}: {' or '.join(x.networks)}"
            for name, x in datasets.DATASETS.items()
        )
        + " (default: the first)",
    )
    parser.add_argument(
        "--metric",
        choices=("volume", "flops", "params"),
        default="volume",
        help="what the budget limits (default: volume)",
    )
    parser.add_argument(
        "--start",
        choices=("teacher", "scratch"),
        default="teacher",
        help="weights with which BAR, LZR, IB and MorphNet begin: the full "
        "network's, or random ones (default: teacher)",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        help="a file that holds the data set, where it is not to be "
        "downloaded (Fashion-MNIST: an .npz with `images` and `labels`)",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        help="how many to train with (default: "
        + ", ".join(f"{x.count} {n}" for n, x in datasets.DATASETS.items())
        + ")",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="factor on the number of epochs of every phase (default: 1)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(output),
        metavar="FOLDER",
        help=f"where to write, and to go on from (default: {output})",
    )
    return parser


def run(parser, settings, dataset, folder):
    """Runs the cells that the settings ask for and that are not done.

    Args:
        parser: The `ArgumentParser`, which exits where the settings are wrong.
        settings: What it parsed.
        dataset: String, a name in `datasets.DATASETS`.
        folder: `pathlib.Path`, the folder of this data set's cells.

    Yields:
        At the start and after each cell the rows of all cells that are done in
        this folder, whoever asked for them.
    """
    known = datasets.DATASETS[dataset]
    settings.network = settings.network or known.network
    if settings.pictures is None:
        settings.pictures = known.count
    try:
        check(settings, known)
        data = known.load(settings.data, settings.pictures)
        # One table holds one kind of training.
        kind = {
            "scale": settings.scale,
            "pictures": data.checksum(),
            "phases": phases.table(dataset),
        }
        resuming.Run(folder, kind)
    except Exception as error:  # Keras raises a bare one where it downloads.
        parser.error(str(error))
    yield find_rows(folder)
    rest = settings.network, settings.metric, settings.start
    for method, factor, seed in itertools.product(
        settings.methods, settings.factors, settings.seeds
    ):
        cell = Cell(method, factor, seed, *rest)
        work = Work(cell, dataset, data, settings.scale, folder)
        if work.run.report() is not None:
            print(f"{cell}: done before", flush=True)
            continue
        do(work)
        yield find_rows(folder)


def do(work):
    """Trains a cell, from where it was interrupted."""
    run, cell = work.run, work.cell
    print(f"\n{cell}", flush=True)
    keras.backend.clear_session()
    teacher = work.teacher()
    small, row = methods.METHODS[cell.method](work, teacher)
    run.save("compact", small)
    row = tables.cell_row(cell, teacher, small, work.data) | row
    run.finish(row)
    print(f"{cell}: accuracy {row['accuracy']:.4f}", flush=True)


def find_rows(folder):
    """The reports of the cells that are done in a folder."""
    reports = sorted(folder.glob("*/report.json"))
    return [json.loads(path.read_text()) for path in reports]


def check(settings, dataset):
    """Raises a ValueError if a cell would fail later."""
    factors, seeds = settings.factors, settings.seeds
    if not all(1 <= x < math.inf for x in factors) or min(seeds) < 0:
        raise ValueError(
            "Invalid cells. Expected finite factors of 1 or more and seeds of "
            f"0 or more. Received: --factors {factors} --seeds {seeds}"
        )
    if len({f"{x:g}" for x in factors}) < len(factors):
        raise ValueError(
            "Some factors are the same, to six digits. Expected different "
            f"ones. Received: --factors {factors}"
        )
    if settings.pictures < BATCH or not 0 < settings.scale < 100:
        raise ValueError(
            f"Invalid length of the training. Expected {BATCH} pictures or "
            "more and a scale in (0, 100). Received: --pictures "
            f"{settings.pictures} --scale {settings.scale}"
        )
    if settings.network not in dataset.networks:
        raise ValueError(
            f"There is no such network for {dataset.title}. Expected one of "
            f"{', '.join(dataset.networks)}. "
            f"Received: --network {settings.network}"
        )
    model = dataset.networks[settings.network]()
    training.check_budget(model, 1 / max(factors), settings.metric)
    if "bar-flops" in settings.methods:
        if settings.metric != "volume":
            raise ValueError(
                "The method 'bar-flops' stands beside methods with a budget of "
                "volume. Expected --metric volume, or the method 'bar'. "
                f"Received: --metric {settings.metric}"
            )
        training.check_budget(model, max(factors) ** -2, "flops")
    if "morphnet" in settings.methods:
        full = getattr(keras_bar.measure_cost(model), settings.metric)
        baselines.expand(model, full / max(factors), settings.metric)
