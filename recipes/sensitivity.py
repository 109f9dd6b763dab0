"""How much BAR's hyperparameters matter: the supplement's section 8.

At every pruning factor, in 10 trials, draws seven hyperparameters uniformly
from intervals around their tuned values and prunes the same full network with
them. The supplement does not name its seven; ours, with the intervals, are
`keras_bar.tuning.INTERVALS`, or `PAPER_INTERVALS` with `--paper`.

    python recipes/sensitivity.py
    python recipes/sensitivity.py --dataset cifar10-synthetic --trials 3
    python recipes/sensitivity.py --dataset digits --scale 0.5 --factors 4 16

In the output folder: a folder per trial, as `compare.py` has them;
`trials.csv`, a row per trial with what was drawn; `sensitivity.csv`, the mean
and the standard deviation per factor; `sensitivity.md`, the same beside the
supplement's Table 1; and the figure `sensitivity`, its Fig. 2. What is done is
not done again, and a trial that was interrupted resumes after its last epoch.

On several machines, with an output folder that all of them see: set
`KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT` to the address of the first
one everywhere, `KERASTUNER_TUNER_ID` to `chief` there, and to `tuner0`,
`tuner1`, ... on the others, and run the same command. The chief trains the full
network and then hands out the trials. If a worker is lost, another one resumes
its trial; it may be started again under its name.
"""

import pathlib
import sys

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from recipes.data.registry import DATASETS
from recipes.experiment import arguments
from recipes.experiment import command
from recipes.experiment import preflight


def main(given=None):
    parser = arguments.make_parser(__doc__)
    add = parser.add_argument
    arguments.add_dataset(parser)
    arguments.add_training(parser, DATASETS)
    arguments.add_output(parser, None)
    add(
        "--trials",
        type=arguments.COUNT,
        default=10,
        help="per factor (default: 10)",
    )
    add(
        "--seed",
        type=arguments.SEED,
        default=0,
        help="of what is drawn, and of all trainings (default: 0)",
    )
    add(
        "--paper",
        action="store_true",
        help="with the paper's penalty in the loss instead of the threshold: "
        "its strength and the steps of the budget are drawn, too, instead of "
        "initial_logit and exponent of the price",
    )
    settings = preflight.check_sweep(parser, parser.parse_args(given))
    from recipes.experiment import sweep  # Imports Keras.

    sweep.run(settings)


if __name__ == "__main__":
    command.run(main)
