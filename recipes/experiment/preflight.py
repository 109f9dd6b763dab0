"""Checks a command line before Keras is imported, which takes seconds."""

import os
import pathlib

from recipes import methods
from recipes.data.registry import DATASETS
from recipes.experiment import arguments

# Closes the description of every recipe for one data set.
ABOUT = """
The data set is looked for in the folder `--data-dir`, prepared, as its archive
or extracted, and downloaded to there if it is not. Every experiment is a folder
in the output folder with `report.json`, the compact network, the logs of every
epoch, for TensorBoard, too, and figures; `tables.md` and the figures `volume`
and `flops` have the supplement's numbers beside the measured ones; `channels`
and `flops_of_layers` show BAR's networks layer by layer. What is done is not
done again: the same command resumes.
"""


def parse_paper(description, dataset, given=None):
    """What the command line says of a recipe for one data set of the
    supplement, real or synthetic."""
    parser = arguments.make_parser(description + ABOUT)
    arguments.add_grid(parser, methods.NAMES, ["bar"])
    arguments.add_training(parser, [dataset])
    arguments.add_output(parser, None)
    parser.add_argument(
        "--synthetic",
        action="store_true",
        help="try the recipe on synthetic images, with a narrow network and "
        "few epochs, in minutes",
    )
    settings = parser.parse_args(given)
    settings.dataset = dataset + "-synthetic" * settings.synthetic
    return check(parser, settings)


def check_sweep(parser, settings):
    """As `check`, for a sweep; tells its workers from the chief."""
    settings.methods, settings.seeds = ["bar"], [settings.seed]
    settings.output = settings.output or pathlib.Path(
        f"runs/sensitivity-{settings.dataset}"
    )
    try:
        settings.role = find_role()
    except ValueError as error:
        parser.error(str(error))
    if settings.strategy == "multiworker":
        parser.error(
            "A trial is for one host. Expected --strategy auto, none or "
            "mirrored, and the variables of KerasTuner for several hosts. "
            "Received: --strategy multiworker"
        )
    return check(parser, settings)


def find_role():
    """The name of this worker of a sweep, or None where no other process hands
    out the trials.

    Raises:
        ValueError: If the machines of the sweep are not all told of.
    """
    names = [
        f"KERASTUNER_{x}" for x in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")
    ]
    given = [x for x in names if x in os.environ]
    if len(given) not in (0, len(names)):
        raise ValueError(
            "The machines of the sweep are unknown. Expected all of "
            f"{', '.join(names)}, or none of them. Received: {given}"
        )
    name = os.environ.get(names[0], "chief")
    return None if "chief" in name else name


def check(parser, settings, folders=None):
    """Fills in what was not asked for; exits with code 2 and a line of text
    where something is wrong, as far as that is seen without Keras.

    Args:
        parser, settings: The `ArgumentParser`, and what it parsed.
        folders: Dict from the names of the data sets that share a table to the
            folders of their experiments; by default one data set's, which are
            in the output folder.

    Returns:
        The settings.
    """
    settings.fail = parser.error
    known = DATASETS[settings.dataset]
    settings.network = settings.network or known.network
    settings.start = settings.start or known.start
    settings.images = settings.images or known.count
    settings.scale = settings.scale or known.scale
    settings.output = settings.output or pathlib.Path("runs", settings.dataset)
    try:
        check_experiments(settings, known)
        # The first of several hosts prepares the data for the others.
        if settings.strategy != "multiworker":
            known.check(settings.data, settings.skip_broken)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    settings.folders = folders or {settings.dataset: settings.output}
    return settings


def check_experiments(settings, known):
    """Raises a ValueError if the settings contradict each other."""
    factors = settings.factors
    batch, images = settings.batch_size, settings.images
    if len({f"{x:g}" for x in factors}) < len(factors):
        raise ValueError(
            "Some factors are the same, to six digits. Expected different "
            f"ones. Received: --factors {factors}"
        )
    if images is not None and batch > images:
        raise ValueError(
            "The images do not fill one batch. Expected at least as many as "
            f"--batch-size {batch}. Received: --images {images}"
        )
    if settings.network not in known.networks:
        raise ValueError(
            f"There is no such network for {known.title}. Expected one of "
            f"{', '.join(known.networks)}. "
            f"Received: --network {settings.network}"
        )
    if "bar-flops" in settings.methods and settings.metric != "volume":
        raise ValueError(
            "The method 'bar-flops' stands beside methods with a budget of "
            "volume. Expected --metric volume, or the method 'bar'. "
            f"Received: --metric {settings.metric}"
        )
