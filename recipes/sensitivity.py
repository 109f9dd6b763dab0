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

from recipes.experiment import command
from recipes.experiment import options


def main(given=None):
    groups = ("dataset", "metric", "training", "output", "sensitivity")
    parser = options.make_parser(__doc__, groups)
    command.start(options.check_sweep(parser, parser.parse_args(given)))


if __name__ == "__main__":
    command.run(main)
