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

Further methods, if asked for: the others of the paper's comparison, as in
`compare.py`, and BAR with another setting: the paper's, the paper's with a
stronger penalty, or one default changed. Networks: `wide_resnet`, a
WideResNet-10-2, and `vgg`, six convolutions without residuals.

    python recipes/fashion_mnist.py
    python recipes/fashion_mnist.py --methods bar --factors 8 --seeds 0
    python recipes/fashion_mnist.py --methods bar --metric flops --network vgg

A cell of the table is a folder in the output folder; what is done is not done
again, and a cell that was interrupted goes on after its last epoch. All cells
found go to `results.csv`, `table.md` and the picture `accuracy`; `channels` and
`flops_of_layers` show BAR's networks at all factors, layer by layer.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes.experiment import arguments
from recipes.experiment import command
from recipes.experiment import grid as runner
from recipes.experiment import hosts
from recipes.methods import bar as methods
from recipes.results import comparison
from recipes.results import figures
from recipes.results import tables

COMPARED = ["bar", "narrow", "wm"]


def main(given=None):
    parser = arguments.make_parser(
        __doc__,
        ["fashion_mnist"],
        list(methods.METHODS),
        COMPARED,
        "runs/fashion_mnist",
    )
    settings = parser.parse_args(given)
    folder = settings.output
    for rows in runner.run(parser, settings, "fashion_mnist", folder):
        if hosts.is_chief():
            tables.write(rows, folder)
    if hosts.is_chief():
        alike = comparison.select(rows, settings, settings.network)
        figures.draw(alike, folder, folder)
        print(f"\n{(folder / 'table.md').read_text()}")


if __name__ == "__main__":
    command.run(main)
