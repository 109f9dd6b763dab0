"""The command line of all recipes. Imports nothing that takes seconds."""

import argparse
import fractions
import math
import pathlib

from recipes.data.registry import DATASETS
from recipes.data.registry import FOLDER
from recipes.data.registry import SYNTHETIC_SCALE

FACTORS = [2, 4, 8, 16]
STRATEGIES = ("auto", "none", "mirrored", "multiworker")
METRICS = ("volume", "flops", "params")


def number(kind, expected, allowed):
    """A `type` of an argument: a number that a function allows."""

    def convert(text):
        try:
            if allowed(value := kind(text)):
                return value
        except (ValueError, ArithmeticError):
            pass
        raise argparse.ArgumentTypeError(
            f"Invalid value. Expected {expected}. Received: {text}"
        )

    return convert


def _fraction(text):
    return float(fractions.Fraction(text))


COUNT = number(int, "an integer of 1 or more", lambda x: x >= 1)
SEED = number(int, "an integer of 0 or more", lambda x: x >= 0)
SCALE = number(float, "a number in (0, 100)", lambda x: 0 < x < 100)
FACTOR = number(
    float, "finite factors of 1 or more", lambda x: 1 <= x < math.inf
)
BUDGET = number(
    _fraction,
    "a fraction of the full cost in (0, 1], such as 1/8",
    lambda x: 0 < x <= 1,
)


def make_parser(description):
    """An `ArgumentParser` that shows a module's docstring."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_metric(parser):
    parser.add_argument(
        "--metric",
        choices=METRICS,
        default="volume",
        help="what the budget limits: activations per image, FLOPs or weights "
        "(default: volume)",
    )


def add_output(parser, default):
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=default and pathlib.Path(default),
        metavar="FOLDER",
        help="where to write, and to resume from (default: "
        f"{default or 'a folder of its name in runs'})",
    )


def add_dataset(parser):
    parser.add_argument(
        "--dataset",
        choices=list(DATASETS),
        default="fashion_mnist",
        help="(default: fashion_mnist)",
    )


def add_grid(parser, choices, compared):
    """Which experiments there are: methods and seeds."""
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
        type=SEED,
        default=[0, 1, 2],
        help="each has a full network of its own; strengths are searched for "
        "with seed 0 (default: 0 1 2)",
    )


def add_training(parser, known):
    """What all recipes have that train on the data sets in a list."""
    sets = {name: DATASETS[name] for name in known}
    networks = "; ".join(
        f"{x}: {', '.join(y.networks)}" for x, y in sets.items()
    )
    counts = ", ".join(f"{y.count or 'all'} of {x}" for x, y in sets.items())
    add = parser.add_argument
    add_metric(parser)
    add(
        "--factors",
        nargs="+",
        type=FACTOR,
        default=FACTORS,
        help="what the metric is divided by (default: 2 4 8 16)",
    )
    add("--network", help=f"{networks} (default: the first)")
    add(
        "--start",
        choices=("teacher", "scratch"),
        help="weights with which BAR, LZR, IB and MorphNet begin: the full "
        "network's, or random ones (default: as in the supplement, scratch for "
        "CIFAR and TinyImageNet, teacher for the others)",
    )
    add(
        "--data",
        "--data-dir",
        type=pathlib.Path,
        metavar="PATH",
        help="where the data set is, or is to be downloaded to: a folder; for "
        "Fashion-MNIST a file, an .npz with `images` and `labels` (default: "
        f"{FOLDER}; Fashion-MNIST: where Keras keeps it)",
    )
    add(
        "--skip-broken",
        action="store_true",
        help="leave out images that are missing or cannot be decoded, and name "
        "them; otherwise they are refused",
    )
    add(
        "--images",
        "--pictures",
        type=COUNT,
        help=f"how many to train with (default: {counts})",
    )
    add(
        "--scale",
        type=SCALE,
        help="factor on the number of epochs of every phase (default: 1; for "
        f"synthetic images {SYNTHETIC_SCALE})",
    )
    add("--batch-size", type=COUNT, default=64, help="images (default: 64)")
    add(
        "--connectivity",
        choices=("mixed", "regular"),
        default="mixed",
        help="whether the layers that are added may keep different channels "
        "(default: mixed)",
    )
    _add_devices(add)


def _add_devices(add):
    add(
        "--mixed-precision",
        nargs="?",
        choices=("bfloat16", "float16"),
        const="bfloat16",
        help="compute in half precision (default: float32; if given without a "
        "value: bfloat16)",
    )
    add(
        "--jit",
        choices=("auto", "on", "off"),
        help="compile with XLA (default: off with TensorFlow, whose kernels "
        "are faster for small images on a CPU, otherwise auto)",
    )
    add(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="auto: all local accelerators if there are several, otherwise "
        "one device; none: one device; mirrored: all local accelerators, or "
        "the CPUs that TensorFlow was told of; multiworker: those of all hosts "
        "in TF_CONFIG; the last two on TensorFlow only (default: auto)",
    )
