"""Runs the cells of a comparison, one after the other.

A cell is a folder in the output folder; what is done is not done again, and a
cell that was interrupted goes on after its last epoch.
"""

import contextlib
import importlib.util
import itertools
import json
import math
import zlib

import keras
import matplotlib  # noqa: F401  Wanted after the first cell; missing, said now.

import keras_bar
from keras_bar import baselines
from keras_bar.files import read_json
from recipes.data import registry as datasets
from recipes.experiment import devices
from recipes.experiment import distilling as training
from recipes.experiment import hosts
from recipes.experiment import phases
from recipes.experiment import resuming
from recipes.experiment.training import Cell
from recipes.experiment.training import Manner
from recipes.experiment.training import Work
from recipes.methods import bar as methods
from recipes.results import tables

# Names of pictures.
SHOWN = 10


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
    try:
        manner, data = prepare(settings, dataset, folder)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    yield find_rows(folder)
    rest = settings.network, settings.metric, settings.start
    asked = itertools.product(
        settings.methods, settings.factors, settings.seeds
    )
    cells = [Cell(*what, *rest) for what in asked]
    for i, cell in enumerate(cells, 1):
        work = Work(cell, dataset, data, manner, folder)
        if work.run.is_done():
            print(f"{cell}: done before", flush=True)
            continue
        print(f"\ncell {i} of {len(cells)}", flush=True)
        keras.backend.clear_session()
        with inside(settings):
            do(work)
        yield find_rows(folder)
    hosts.wait()  # An early end would be taken for a loss.


@contextlib.contextmanager
def inside(settings):
    """A context in which models are made and trained as asked for."""
    with (
        devices.scope(settings.strategy),
        devices.precision(settings.mixed_precision),
    ):
        yield


def prepare(settings, dataset, folder):
    """Checks all, makes the folder, and loads the pictures.

    Returns:
        `Manner`, and `Pictures` or `Stream`.
    """
    known = datasets.DATASETS[dataset]
    complete(settings, known)
    jit = training.JITS[settings.jit]
    devices.start(settings.strategy)
    devices.check(
        settings.strategy, settings.batch_size, jit, settings.mixed_precision
    )
    check_same_on_all_hosts(settings)
    if hosts.is_chief():  # It also prepares the data for the others.
        known.check_available(settings.data, settings.skip_broken)
    check_networks(settings, known)
    data = hosts.chief_first(
        lambda: known.load(
            settings.data, settings.pictures, settings.skip_broken
        )
    )
    data.batch = settings.batch_size
    if not data.steps:
        raise ValueError(
            "The training pictures do not fill one batch. Expected a smaller "
            f"--batch-size. Received: --batch-size {settings.batch_size}"
        )
    tell_left_out(data.left_out)
    # One table holds one kind of training.
    kind = {
        "dataset": dataset,
        "pictures": data.checksum(),
        "phases": phases.table(known.phases),
        "scale": settings.scale,
        "batch_size": settings.batch_size,
        "connectivity": settings.connectivity,
        "mixed_precision": settings.mixed_precision,
    }
    resuming.Run(folder, kind)
    return Manner(settings.scale, settings.connectivity, jit), data


def complete(settings, known):
    """Fills in what was not asked for, and checks what is seen at a glance."""
    settings.network = settings.network or known.network
    if settings.pictures is None:
        settings.pictures = known.count
    settings.start = settings.start or known.start
    if settings.scale is None:
        settings.scale = known.scale
    check(settings, known)


def tell_left_out(names):
    """Names the pictures that could not be read."""
    if names:
        more = ", ..." if len(names) > SHOWN else ""
        print(
            f"left out {len(names)} pictures that cannot be read: "
            f"{', '.join(names[:SHOWN])}{more}",
            flush=True,
        )


def do(work, method=None):
    """Trains a cell, from where it was interrupted.

    Args:
        work: `Work`.
        method: Function of the work and the full network, that returns the
            pruned one and a dict of what else to report; by default the one
            that the cell names.
    """
    run, cell = work.run, work.cell
    print(cell, flush=True)
    teacher = work.teacher()
    small, row = (method or methods.METHODS[cell.method])(work, teacher)
    small = run.save("compact", small)
    row = tables.cell_row(cell, teacher, small, work.data) | row
    if work.data.left_out:
        row["left_out"] = len(work.data.left_out)
    run.finish(row)
    print(f"{cell}: accuracy {row['accuracy']:.4f}", flush=True)


def find_rows(folder):
    """The reports of the cells that are done in a folder."""
    reports = sorted(folder.glob("*/report.json"))
    return [read_json(path) for path in reports]


def check(settings, known):
    """Raises a ValueError if a cell would fail later, as far as that is seen
    at a glance."""
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
    batch, pictures = settings.batch_size, settings.pictures
    if pictures is None:
        pictures = math.inf
    if not 0 < batch <= pictures or not 0 < settings.scale < 100:
        raise ValueError(
            "Invalid length of the training. Expected at least as many "
            "pictures as there are in a batch and a scale in (0, 100). "
            f"Received: --pictures {pictures} --batch-size {batch} --scale "
            f"{settings.scale}"
        )
    if settings.network not in known.networks:
        raise ValueError(
            f"There is no such network for {known.title}. Expected one of "
            f"{', '.join(known.networks)}. "
            f"Received: --network {settings.network}"
        )
    for method in settings.methods:
        package = methods.REQUIRED.get(method)
        if package and importlib.util.find_spec(package) is None:
            raise ImportError(
                f"The method {method!r} needs a package that is missing. "
                "Expected `pip install keras-bar[baselines]`. "
                f"Received: no {package}"
            )
    if "bar-flops" in settings.methods and settings.metric != "volume":
        raise ValueError(
            "The method 'bar-flops' stands beside methods with a budget of "
            "volume. Expected --metric volume, or the method 'bar'. "
            f"Received: --metric {settings.metric}"
        )


def check_same_on_all_hosts(settings):
    """Raises a ValueError if the chief runs other cells than this host."""
    names = ("methods", "factors", "seeds", "network", "metric", "start")
    cells = {name: getattr(settings, name) for name in names}
    own = zlib.crc32(json.dumps(cells).encode())
    if own != hosts.chiefs(own):
        raise ValueError(
            "The hosts do different work. Expected the same command on all of "
            f"them. Received, other than on the first one: {cells}"
        )


def check_networks(settings, known):
    """Raises a ValueError if a factor is too large for any network."""
    largest = max(settings.factors)
    model = known.networks[settings.network]()
    training.check_budget(model, 1 / largest, settings.metric)
    if "bar-flops" in settings.methods:
        training.check_budget(model, largest**-2, "flops")
    if "morphnet" in settings.methods:
        full = getattr(keras_bar.measure_cost(model), settings.metric)
        baselines.expand(model, full / largest, settings.metric)
