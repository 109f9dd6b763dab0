"""Trials of BAR with hyperparameters that KerasTuner draws."""

import contextlib
import dataclasses
import time

import keras
import keras_tuner

from keras_bar import runs
from keras_bar import tuning
from recipes.experiment import devices
from recipes.experiment import grid
from recipes.experiment.key import ExperimentKey
from recipes.experiment.training import DRAWN
from recipes.methods import bar
from recipes.results import sweep_tables
from recipes.results import tables

OBJECTIVE = keras_tuner.Objective("accuracy", "max")


class Trials(keras_tuner.Tuner):
    """Draws hyperparameters, and prunes with them.

    All factors are in one search, so that several workers share them: the
    factor of a trial follows from its number, turn by turn. What is drawn
    follows from it, too, and from the seed, and reports of trials are kept, so
    the search itself is not: it begins anew and passes over what is done.
    `make` makes an `Experiment` of a key, like the one given, and of what was
    drawn.
    """

    def __init__(self, settings, key, make):
        self.settings, self._key, self._make = settings, key, make
        paper = settings.paper
        self._intervals = tuning.PAPER_INTERVALS if paper else tuning.INTERVALS
        drawn = keras_tuner.HyperParameters()
        tuning.draw(drawn, self._intervals)
        signs = settings.output / "workers"
        oracle = tuning.HeartbeatOracle(
            signs,
            objective=OBJECTIVE,
            max_trials=settings.trials * len(settings.factors),
            # KerasTuner randomizes seed 0 and increments it at every draw.
            seed=1 + 100_000 * settings.seed,
            hyperparameters=drawn,
            tune_new_entries=False,
            allow_new_entries=False,
            # The same again would fail again, and others need not.
            max_retries_per_trial=0,
            max_consecutive_failed_trials=10**9,
        )
        if settings.role:
            tuning.start_heartbeat(signs, settings.role)
        super().__init__(
            oracle,
            directory=settings.output,
            project_name="search",
            overwrite=not settings.role,
        )

    def pre_create_trial(self):
        if self.settings.role:  # The chief may have nothing for it yet.
            time.sleep(0.5)

    def run_trial(self, trial):
        try:
            row = self._train(trial)
        except Exception as error:
            # Others would be taken for those of bad hyperparameters.
            raise keras_tuner.errors.FatalError(str(error)) from error
        if "accuracy" not in row:
            raise keras_tuner.errors.FailedTrialError("The training diverged.")
        return {OBJECTIVE.name: row["accuracy"]}

    def _train(self, trial):
        turn, place = divmod(int(trial.trial_id), len(self.settings.factors))
        drawn = tuning.draw(trial.hyperparameters, self._intervals)
        rest = {x: y for x, y in drawn.items() if x not in DRAWN}
        factor, method = self.settings.factors[place], f"trial{turn}"
        key = dataclasses.replace(self._key, method=method, factor=factor)
        experiment = self._make(key, drawn=drawn)

        def prune(experiment, teacher):
            small, row = bar.run(experiment, teacher, **rest)
            return small, row | {"drawn": drawn}

        if not experiment.is_done():
            keras.backend.clear_session()
            try:
                grid.train(experiment, prune, self.settings)
            except FloatingPointError as error:
                print(f"\n{error}", flush=True)
                row = {"method": method, "factor": factor, "drawn": drawn}
                experiment.finish(row)
            sweep_tables.write(self.settings)
        return experiment.report()


def run(settings):
    """Runs the trials that are not done, and writes tables and the figure
    after each."""
    folder = settings.output
    rest = settings.seed, settings.network, settings.metric, settings.start
    key = ExperimentKey("bar", 1, *rest)
    if settings.role:
        tuning.wait_for_chief(folder / str(key.teacher()) / "teacher.keras")
    with contextlib.ExitStack() as stack:
        make = grid.prepare(settings, folder, stack)
        kept = ("factors", "seed", "network", "metric", "start", "paper")
        try:
            runs.Run(folder / "sweep", {x: getattr(settings, x) for x in kept})
        except ValueError as error:
            settings.fail(str(error))
        with devices.scope(settings):
            make(key.teacher()).teacher()
        try:
            Trials(settings, key, make).search()
        except keras_tuner.errors.FatalError as error:
            raise (error.__cause__ or error) from None
    if not settings.role:
        sweep_tables.write(settings)
        tables.show(folder / "sensitivity.md")
