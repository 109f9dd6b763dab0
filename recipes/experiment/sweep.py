"""Trials of BAR with hyperparameters that KerasTuner draws."""

import contextlib
import dataclasses
import time

import keras
import keras_tuner

from keras_bar import tuning
from recipes.experiment import devices
from recipes.experiment import grid
from recipes.experiment import worker_heartbeat
from recipes.experiment.backups import DivergedError
from recipes.experiment.key import ExperimentKey
from recipes.experiment.resuming import Run
from recipes.experiment.training import DRAWN
from recipes.experiment.training import Experiment
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

    Args:
        settings: What the command line says.
        make_experiment: Function from a method's name, a factor and what was
            drawn to the `Experiment` of a trial.
    """

    def __init__(self, settings, make_experiment):
        self.settings = settings
        self._make_experiment = make_experiment
        paper = settings.paper
        self._intervals = tuning.PAPER_INTERVALS if paper else tuning.INTERVALS
        drawn = keras_tuner.HyperParameters()
        tuning.draw(drawn, self._intervals)
        signs = settings.output / "workers"
        oracle = worker_heartbeat.Oracle(
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
            worker_heartbeat.start(signs, settings.role)
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
        factor = self.settings.factors[place]
        experiment = self._make_experiment(f"trial{turn}", factor, drawn)

        def prune(experiment, teacher):
            small, row = bar.run(experiment, teacher, **rest)
            return small, row | {"drawn": drawn}

        if not experiment.is_done():
            keras.backend.clear_session()
            try:
                grid.train(experiment, prune, self.settings)
            except DivergedError as error:
                print(f"\n{error}", flush=True)
                key = experiment.key
                row = {"method": key.method, "factor": factor, "drawn": drawn}
                experiment.finish(row)
            sweep_tables.write(self.settings)
        return experiment.report()


def run(settings):
    """Runs the trials that are not done, and writes tables and the figure
    after each."""
    folder = settings.output
    key = ExperimentKey(
        "bar",
        1,
        settings.seed,
        settings.network,
        settings.metric,
        settings.start,
    )
    wait_for_chief(settings, folder / str(key.teacher()) / "teacher.keras")
    with contextlib.ExitStack() as stack:
        options, data = grid.prepare(settings, folder, stack)
        kept = ("factors", "seed", "network", "metric", "start", "paper")
        try:
            sweep = {name: getattr(settings, name) for name in kept}
            Run(folder / "sweep", sweep)
        except ValueError as error:
            settings.fail(str(error))

        def make_experiment(name, factor, drawn):
            tuned = {x: drawn[x] for x in DRAWN if x in drawn}
            return Experiment(
                dataclasses.replace(key, method=name, factor=factor),
                settings.dataset,
                data,
                dataclasses.replace(options, **tuned),
                folder,
                {"drawn": drawn},
            )

        teacher = Experiment(
            key.teacher(), settings.dataset, data, options, folder
        )
        with devices.scope(settings):
            teacher.teacher()
        try:
            Trials(settings, make_experiment).search()
        except keras_tuner.errors.FatalError as error:
            raise (error.__cause__ or error) from None
    if not settings.role:
        sweep_tables.write(settings)
        tables.show(folder / "sensitivity.md")


def wait_for_chief(settings, path):
    """Waits, on a worker, until the chief has prepared the data and trained
    the full network."""
    begin = time.monotonic()
    told = -60.0
    while settings.role and not path.exists():
        waited = time.monotonic() - begin
        if waited - told >= 60:
            told = waited
            print(
                f"waiting for the chief to write {path}, for "
                f"{waited / 60:.0f} minutes now",
                flush=True,
            )
        time.sleep(1)
