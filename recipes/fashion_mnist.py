"""BAR at several pruning factors on Fashion-MNIST, beside what it must beat.

Trains a network on 10,000 real pictures at 14x14 and prunes copies of it to
1/2, 1/4, 1/8 and 1/16 of its activation volume, with nothing but the budget
set. Compares them, after the same number of training steps with the same
distillation, with

    narrow  the same network with all widths divided by the factor (by its
            square root where the metric is not the volume), trained from
            scratch;
    wm      weight-magnitude pruning by the iterative scheme in section 3.2 of
            the paper's supplement.

Further methods, if asked for: the others of the paper's comparison (random,
vq, id, lzr, ib, morphnet; the strength of the last three is searched for), and
BAR with another setting: the paper's, the paper's with a stronger penalty, or
one default changed.

    python recipes/fashion_mnist.py
    python recipes/fashion_mnist.py --methods bar --factors 8 --seeds 0
    python recipes/fashion_mnist.py --methods bar --metric flops --network vgg

A cell of the table is a folder in the output folder; what is done is not done
again, and a cell that was interrupted goes on after its last epoch. All cells
found go to `results.csv`, `table.md` and the picture `accuracy`.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes import fashion_data
from recipes import fashion_methods
from recipes import fashion_networks
from recipes import fashion_report
from recipes import resuming
from recipes import training


def do(cell, arguments, data):
    """One cell, unless it is done."""
    run = resuming.Run(arguments.output / str(cell), dataclasses.asdict(cell))
    if run.report() is not None:
        print(f"{cell}: done before", flush=True)
        return
    print(f"\n{cell}", flush=True)
    keras.backend.clear_session()
    teacher = find_teacher(cell, arguments, data)
    # Whether the teacher was trained or loaded must not matter.
    keras.utils.set_random_seed(cell.seed)
    work = fashion_methods.Work(cell, run, data, arguments.scale)
    small, row = fashion_methods.METHODS[cell.method](work, teacher)
    run.save("compact", small)
    row = fashion_report.cell_row(cell, teacher, small, data) | row
    run.finish(row)
    print(f"{cell}: accuracy {row['accuracy']:.4f}", flush=True)


def find_teacher(cell, arguments, data):
    """The full network of a seed, which serves all of its cells."""
    original = dataclasses.replace(
        cell, method="teacher", factor=1, metric="volume", start="scratch"
    )
    run = resuming.Run(
        arguments.output / str(original), dataclasses.asdict(original)
    )
    keras.utils.set_random_seed(cell.seed)
    work = fashion_methods.Work(original, run, data, arguments.scale)
    return run.once("teacher", lambda: fashion_methods.train_teacher(work))


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=fashion_methods.METHODS,
        default=["bar", "narrow", "wm"],
        help="default: bar narrow wm",
    )
    parser.add_argument(
        "--factors", nargs="+", type=float, default=[2, 4, 8, 16]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--network",
        choices=fashion_networks.NETWORKS,
        default="wide_resnet",
        help="WideResNet-10-2, or six convolutions without residuals "
        "(default: wide_resnet)",
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
        help="an .npz with `images` and `labels` (default: downloaded by "
        "Keras)",
    )
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="factor on the number of epochs of every phase (default: 1)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/fashion_mnist"),
        metavar="FOLDER",
        help="where to write, and to go on from (default: runs/fashion_mnist)",
    )
    return parser, parser.parse_args(arguments)


def check(arguments):
    """Raises a ValueError if a cell would fail later."""
    factors, seeds = arguments.factors, arguments.seeds
    if not all(1 <= x < math.inf for x in factors) or min(seeds) < 0:
        raise ValueError(
            "Invalid cells. Expected finite factors of 1 or more and seeds of "
            f"0 or more. Received: --factors {factors} --seeds {seeds}"
        )
    if arguments.pictures < fashion_data.BATCH or not 0 < arguments.scale < 100:
        raise ValueError(
            f"Invalid length of the training. Expected {fashion_data.BATCH} "
            "pictures or more and a scale in (0, 100). Received: --pictures "
            f"{arguments.pictures} --scale {arguments.scale}"
        )
    training.check_budget(
        fashion_networks.build(arguments.network),
        1 / max(factors),
        arguments.metric,
    )


def main(arguments=None):
    parser, settings = parse(arguments)
    try:
        check(settings)
        data = fashion_data.load_fashion(settings.data, settings.pictures)
        # One table holds one kind of training.
        resuming.Run(
            settings.output,
            {"scale": settings.scale, "pictures": data.checksum()},
        )
    except Exception as error:  # Keras raises a bare one where it downloads.
        parser.error(str(error))
    rest = settings.network, settings.metric, settings.start
    for method, factor, seed in itertools.product(
        settings.methods, settings.factors, settings.seeds
    ):
        do(fashion_methods.Cell(method, factor, seed, *rest), settings, data)
        reports = sorted(settings.output.glob("*/report.json"))
        rows = [json.loads(path.read_text()) for path in reports]
        fashion_report.write(rows, settings.output)
    print(f"\n{(settings.output / 'table.md').read_text()}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on where it was.")
