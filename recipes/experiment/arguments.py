"""The command line of all comparisons."""

import argparse
import pathlib

from recipes.data import registry as datasets
from recipes.experiment import devices
from recipes.experiment import distilling as training

FACTORS = [2, 4, 8, 16]


def make_parser(description, known, choices, compared, output):
    """The arguments that all comparisons have.

    Args:
        description: String, the recipe's.
        known: List of names in `datasets.DATASETS`, the recipe's data sets.
        choices: List of the methods that can be asked for.
        compared: List of the methods that are run by default.
        output: String, the default output folder, or None to choose it later.

    Returns:
        `argparse.ArgumentParser`.
    """
    parser = make_basic_parser(description, known, output)
    _add_cells(parser, choices, compared)
    return parser


def make_basic_parser(description, known, output):
    """The arguments that all recipes with real data have: `make_parser`
    without those that tell which cells there are."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--factors",
        nargs="+",
        type=float,
        default=FACTORS,
        help="what the metric is divided by (default: "
        f"{' '.join(map(str, FACTORS))})",
    )
    _add_network(parser, known)
    _add_data(parser, known)
    _add_training(parser)
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=output and pathlib.Path(output),
        metavar="FOLDER",
        help="where to write, and to go on from (default: "
        f"{output or 'a folder of its name in runs'})",
    )
    return parser


def _add_cells(parser, choices, compared):
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=choices,
        default=compared,
        metavar="METHOD",
        help=f"any of {', '.join(choices)} (default: {' '.join(compared)})",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        help="each has a full network of its own; strengths are searched for "
        "with seed 0 (default: 0 1 2)",
    )


def _add_network(parser, known):
    choice = {
        name: " or ".join(datasets.DATASETS[name].networks) for name in known
    }
    parser.add_argument(
        "--network",
        help="; ".join(
            f"{name}: {networks}" for name, networks in choice.items()
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
        help="weights with which BAR, LZR, IB and MorphNet begin: the full "
        "network's, or random ones (default: as in the supplement, scratch for "
        "CIFAR and TinyImageNet, teacher for the others)",
    )


def _add_data(parser, known):
    parser.add_argument(
        "--data",
        "--data-dir",
        type=pathlib.Path,
        metavar="PATH",
        help="where the data set is, or is to be downloaded to: a folder; for "
        "Fashion-MNIST a file, an .npz with `images` and `labels` (default: "
        f"{datasets.FOLDER}; Fashion-MNIST: where Keras keeps it)",
    )
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out pictures that are missing or cannot be decoded, and "
        "name them; otherwise they are refused",
    )
    count = {name: datasets.DATASETS[name].count for name in known}
    parser.add_argument(
        "--pictures",
        type=int,
        help="how many to train with (default: "
        + ", ".join(f"{x or 'all'} of {name}" for name, x in count.items())
        + ")",
    )


def _add_training(parser):
    parser.add_argument(
        "--scale",
        type=float,
        help="factor on the number of epochs of every phase (default: 1; of "
        f"made-up pictures {datasets.SYNTHETIC_SCALE})",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="pictures (default: 64)"
    )
    parser.add_argument(
        "--connectivity",
        choices=("mixed", "regular"),
        default="mixed",
        help="whether the layers that are added may keep different channels "
        "(default: mixed)",
    )
    parser.add_argument(
        "--mixed-precision",
        nargs="?",
        choices=("bfloat16", "float16"),
        const="bfloat16",
        help="compute in half precision (default: float32; if given without "
        "a value: bfloat16)",
    )
    parser.add_argument(
        "--jit",
        choices=training.JITS,
        default=next(x for x, y in training.JITS.items() if y == training.JIT),
        help="compile with XLA (default: %(default)s)",
    )
    parser.add_argument(
        "--strategy",
        choices=devices.STRATEGIES,
        default="auto",
        help="auto: all local accelerators if there are several, otherwise "
        "one device; none: one device; mirrored: all local accelerators, or "
        "the CPUs that TensorFlow was told of; multiworker: those of all hosts "
        "in TF_CONFIG; the last two on TensorFlow only (default: auto)",
    )
