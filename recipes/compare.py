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
and `flops`, its Figures 6 and 8, the supplement's numbers dashed; `channels`,
its Figure 1, and `flops_of_layers`, of BAR's networks at all factors.
What is done is not done again, and a cell that was interrupted goes on after
its last epoch. A folder is for one process at a time. With the defaults there
are 120 cells, of some minutes each on one core, and the searches.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes.data import registry as datasets
from recipes.experiment import arguments
from recipes.experiment import command
from recipes.results import comparison
from recipes.results import tables

COMPARED = ["bar", "bar-flops", "random", "wm", "vq", "id"] + [
    "lzr",
    "ib",
    "morphnet",
    "narrow",
]


def main(given=None):
    known = list(datasets.DATASETS)
    parser = arguments.make_parser(
        __doc__, known, list(tables.TITLES), COMPARED, "runs/compare"
    )
    parser.add_argument(
        "--dataset",
        choices=known,
        default="fashion_mnist",
        help=f"one of {', '.join(known)} (default: fashion_mnist)",
    )
    settings = parser.parse_args(given)
    settings.synthetic = settings.dataset.endswith("-synthetic")
    folders = {name: settings.output / name for name in known}
    comparison.train(parser, settings, settings.dataset, folders)


if __name__ == "__main__":
    command.run(main)
