"""BAR at several pruning factors on Fashion-MNIST, beside what it must beat.

Trains a network on 10,000 real images at 14x14 and prunes copies of it to
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
stronger penalty, or one default changed. Networks: `wide_resnet`, which is a
WideResNet-10-2, `vgg`, `plain`, `mobile`, `dense`, `convnext` and `vit`.

    python recipes/fashion_mnist.py
    python recipes/fashion_mnist.py --methods bar --factors 8 --seeds 0
    python recipes/fashion_mnist.py --methods bar --metric flops --network vgg
"""

import pathlib
import sys

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes.experiment import command
from recipes.experiment import options


def main(given=None):
    parser = options.make_parser(
        __doc__,
        ("grid", "metric", "training", "output", "export"),
        ["fashion_mnist"],
        compared=["bar", "narrow", "wm"],
        output="runs/fashion_mnist",
    )
    parser.set_defaults(dataset="fashion_mnist")
    command.start(options.check(parser, parser.parse_args(given)))


if __name__ == "__main__":
    command.run(main)
