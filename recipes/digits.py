"""Prunes a network for handwritten digits to 1/8 of its activation volume.

Trains a small wide residual network on the 8x8 images that come with
scikit-learn, prunes a copy of it to a budget while the copy learns from the
original (distillation), compacts that to a small plain Keras model and trains
it a little more. Then tells what was gained and lost. It is the method `bar` of
`compare.py --dataset digits`.

    python recipes/digits.py
    python recipes/digits.py --budget 1/16 --metric flops --output runs/small

In the output folder: `tables.md`, a folder for the original, with
`teacher.keras`, and one per budget, with `gated.keras` (pruned, but still of
full size), `compact.keras`, `report.json`, the logs of every epoch in
`prune.json` and `finetune.json`, for TensorBoard in `tensorboard`, and the
figures `budget`, `gates`, `channels` and `flops`. If it is interrupted, the
same command resumes.
"""

import pathlib
import sys

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes.experiment import arguments
from recipes.experiment import command
from recipes.experiment import preflight

# As `phases.toml` has them: 30 for the teacher, 60 for pruning, 30 afterwards.
EPOCHS = 120


def main(given=None):
    parser = arguments.make_parser(__doc__)
    add = parser.add_argument
    add(
        "--budget",
        type=arguments.BUDGET,
        default=1 / 8,
        help="fraction of the metric that may remain, such as 1/8 or 0.125 "
        "(default: 1/8)",
    )
    arguments.add_metric(parser)
    add(
        "--epochs",
        type=arguments.number(int, "at least 4", lambda x: x >= 4),
        default=EPOCHS,
        help="epochs in all: a quarter for the teacher, half for pruning, a "
        f"quarter for fine-tuning (default: {EPOCHS})",
    )
    add(
        "--seed",
        type=arguments.SEED,
        default=0,
        help="of the weights, the noise and the order of the images; the test "
        "images are always the same (default: 0)",
    )
    arguments.add_output(parser, "runs/digits")
    settings = parser.parse_args(given)
    rest = arguments.make_parser("")
    arguments.add_training(rest, ["digits"])
    vars(settings).update(
        {**vars(rest.parse_args([])), **vars(settings)},
        dataset="digits",
        methods=["bar"],
        factors=[1 / settings.budget],
        seeds=[settings.seed],
        scale=settings.epochs / EPOCHS,
        strategy="none",
    )
    preflight.check(parser, settings)
    from recipes.experiment import grid  # Imports Keras.
    from recipes.results import summary

    grid.run(settings, show=False)
    summary.show(settings)


if __name__ == "__main__":
    command.run(main)
