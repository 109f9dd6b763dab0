"""CIFAR-100: the supplement's experiments.

Trains WideResNet-26-12 for 90 epochs and prunes copies of it to 1/2, 1/4, 1/8
and 1/16 of its activation volume, 80 epochs of pruning and 50 of fine-tuning
each.

    python recipes/cifar100.py --synthetic
    python recipes/cifar100.py --data-dir DATA --methods bar wm --seeds 0
"""

import pathlib
import sys

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes.experiment import command

main = command.for_paper(__doc__, "cifar100")

if __name__ == "__main__":
    command.run(main)
