"""All methods of the paper's comparison on a data set.

Runs BAR on volume and on FLOPs ("F-trained"), the seven methods that the paper
compares it with, and uniformly narrowed networks, at several pruning factors,
with several seeds. Methods without a budget (LZR, IB) are placed by a short
search over their strength, and MorphNet is expanded to the budget.

    python recipes/compare.py
    python recipes/compare.py --dataset fashion_mnist --methods bar wm lzr
    python recipes/compare.py --dataset digits --scale 0.2 --seeds 0

The output folder has a folder per data set. With the defaults there are 132
experiments, of some minutes each on one core, and the searches.
"""

import pathlib
import sys

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes import methods
from recipes.experiment import command
from recipes.experiment import options

VARIANTS = ("wm-global", "id-weights")
COMPARED = [x for x in methods.NAMES if x not in VARIANTS]


def main(given=None):
    groups = ("dataset", "grid", "metric", "training", "output")
    parser = options.make_parser(
        __doc__, groups, compared=COMPARED, output="runs/compare"
    )
    parser.set_defaults(output=pathlib.Path("runs/compare"))
    settings = parser.parse_args(given)
    command.start(options.check(parser, settings, shared=True))


if __name__ == "__main__":
    command.run(main)
