"""Prunes a network for handwritten digits to 1/8 of its activation volume.

Trains a small wide residual network on the 8x8 images that come with
scikit-learn, prunes a copy of it to a budget while the copy learns from the
original (distillation), compacts that to a small plain Keras model and trains
it a little more. Then tells what was gained and lost. It is the method `bar` of
`compare.py --dataset digits`.

    python recipes/digits.py
    python recipes/digits.py --budget 1/16 --metric flops --output runs/small
    python recipes/digits.py --export litert onnx

In the output folder: `tables.md`, a folder for the original, with
`teacher.keras`, and one per budget, with `gated.keras` (pruned, but still of
full size), `compact.keras`, `report.json`, the logs of every epoch in
`prune.json` and `finetune.json`, for TensorBoard in `tensorboard`, and the
figures `budget`, `gates`, `channels` and `flops`; after `--export`, the files
for devices in `exported`. If it is interrupted, the same command resumes.
"""

import pathlib
import sys

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes.experiment import command
from recipes.experiment import options

# As `phases.toml` has them: 30 for the teacher, 60 for pruning, 30 afterwards.
EPOCHS = 120


def main(given=None):
    parser = options.make_parser(
        __doc__, ("digits", "metric", "output", "export"), output="runs/digits"
    )
    settings = parser.parse_args(given)
    # The other settings are those that `compare.py` has by default.
    rest = options.make_parser("", ("training",)).parse_args([])
    vars(settings).update(
        {**vars(rest), **vars(settings)},
        dataset="digits",
        methods=["bar"],
        factors=[1 / settings.budget],
        seeds=[settings.seed],
        scale=settings.epochs / EPOCHS,
        strategy="none",
        summary=True,
    )
    command.start(options.check(parser, settings))


if __name__ == "__main__":
    command.run(main)
