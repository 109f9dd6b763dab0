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

from recipes import datasets
from recipes import methods
from recipes import resuming
from recipes import tables
from recipes import training
from recipes.pictures import BATCH
from recipes.work import Cell
from recipes.work import Work


def make_parser(description, compared, factors, output):
    """The arguments that all comparisons have.

    Args:
        description: String, the recipe's.
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
        choices=methods.METHODS,
        default=compared,
        metavar="METHOD",
        help=f"any of {', '.join(methods.METHODS)} "
        f"(default: {' '.join(compared)})",
    )
    parser.add_argument(
        "--factors",
        nargs="+",
        type=float,
        default=factors,
        help="what the metric is divided by (default: "
        f"{' '.join(map(str, factors))})",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--network",
        help="one of the data set's networks (default: its first)",
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
        help="weights with which pruning begins: the teacher's, or random "
        "ones (default: teacher)",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        help="a file that holds the data set, where it is not to be "
        "downloaded (Fashion-MNIST: an .npz with `images` and `labels`)",
    )
    parser.add_argument("--pictures", type=int, help="how many to train with")
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
    """Runs all cells that the settings ask for, and yields after each.

    Args:
        parser: The `ArgumentParser`, which exits where the settings are wrong.
        settings: What it parsed.
        dataset: String, a name in `datasets.DATASETS`.
        folder: `pathlib.Path`, the folder of this data set's cells.

    Yields:
        The rows of all cells that are done in this folder, whoever asked for
        them.
    """
    known = datasets.DATASETS[dataset]
    settings.network = settings.network or known.network
    if settings.pictures is None:
        settings.pictures = known.count
    try:
        check(settings, known)
        data = known.load(settings.data, settings.pictures)
        # One table holds one kind of training.
        resuming.Run(
            folder, {"scale": settings.scale, "pictures": data.checksum()}
        )
    except Exception as error:  # Keras raises a bare one where it downloads.
        parser.error(str(error))
    rest = settings.network, settings.metric, settings.start
    for method, factor, seed in itertools.product(
        settings.methods, settings.factors, settings.seeds
    ):
        cell = Cell(method, factor, seed, *rest)
        do(Work(cell, dataset, data, settings.scale, folder))
        yield find_rows(folder)


def do(work):
    """One cell, unless it is done."""
    run, cell = work.run, work.cell
    if run.report() is not None:
        print(f"{cell}: done before", flush=True)
        return
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
        cell = Cell("bar-flops", max(factors), 0, "", settings.metric, "")
        training.check_budget(model, methods.divisor(cell) ** -2, "flops")
