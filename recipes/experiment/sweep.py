"""Trials of BAR with hyperparameters that KerasTuner draws."""

import contextlib
import dataclasses
import os
import pathlib
import time

import keras
import keras_tuner

from keras_bar import tuning
from recipes.data.registry import DATASETS
from recipes.experiment import backups
from recipes.experiment import distilling as training
from recipes.experiment import grid as runner
from recipes.experiment import resuming
from recipes.experiment import worker_heartbeat as workers
from recipes.experiment.training import Cell
from recipes.experiment.training import Work
from recipes.experiment.training import full_cell
from recipes.methods import bar as methods
from recipes.results import sweep_tables

OBJECTIVE = keras_tuner.Objective("accuracy", "max")
TUNED = [x.name for x in dataclasses.fields(training.Tuned)]


class Trials(keras_tuner.Tuner):
    """Draws hyperparameters, and prunes with them.

    All factors are in one search, so that several workers share them: the
    factor of a trial follows from its number, turn by turn. What is drawn
    follows from it, too, and from the seed, and reports of trials are kept, so
    the search itself is not: it begins anew and passes over what is done.

    Args:
        settings: What the command line says.
        intervals: Dict from a hyperparameter to its `Interval`.
        make_work: Function from a method's name, a factor and what was drawn
            to the `Work` of a trial.
    """

    def __init__(self, settings, intervals, make_work):
        self.settings = settings
        self._intervals = intervals
        self._make_work = make_work
        drawn = keras_tuner.HyperParameters()
        tuning.draw(drawn, intervals)
        signs = settings.output / "workers"
        oracle = workers.Oracle(
            signs,
            objective=OBJECTIVE,
            max_trials=settings.trials * len(settings.factors),
            # Of 0 KerasTuner makes a random one, and it adds 1 for every draw.
            seed=1 + 100_000 * settings.seed,
            hyperparameters=drawn,
            tune_new_entries=False,
            allow_new_entries=False,
            # The same again would fail again, and others need not.
            max_retries_per_trial=0,
            max_consecutive_failed_trials=10**9,
        )
        if is_worker():
            workers.show_life(signs, os.environ["KERASTUNER_TUNER_ID"])
        super().__init__(
            oracle,
            directory=settings.output,
            project_name="search",
            overwrite=not is_worker(),
        )

    def pre_create_trial(self):
        if is_worker():  # The chief may have nothing to do for it yet.
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
        rest = {x: y for x, y in drawn.items() if x not in TUNED}
        factor = self.settings.factors[place]
        work = self._make_work(f"trial{turn}", factor, drawn)

        def prune(work, teacher):
            small, row = methods.bar(work, teacher, **rest)
            return small, row | {"drawn": drawn}

        if not work.run.is_done():
            keras.backend.clear_session()
            with runner.inside(self.settings):
                try:
                    runner.do(work, prune)
                except backups.DivergedError as error:
                    print(f"\n{error}", flush=True)
                    work.run.finish(diverged_row(work.cell, drawn))
            sweep_tables.write(self.settings)
        return work.run.report()


def diverged_row(cell, drawn):
    """The report of a trial that came to no network."""
    return {"method": cell.method, "factor": cell.factor, "drawn": drawn}


def run(parser, settings):
    """Runs the trials that are not done, and writes tables and the picture
    after each.

    Args:
        parser, settings: The `ArgumentParser`, and what it parsed.
    """
    folder = settings.output = settings.output or pathlib.Path(
        f"runs/sensitivity-{settings.dataset}"
    )
    settings.methods, settings.seeds = ["bar"], [settings.seed]
    check(parser, settings)
    try:
        runner.complete(settings, DATASETS[settings.dataset])
        wait_for_chief(settings)
        manner, data = runner.prepare(settings, settings.dataset, folder)
        kept = ("factors", "seed", "network", "metric", "start", "paper")
        resuming.Run(
            folder / "sweep", {name: getattr(settings, name) for name in kept}
        )
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))

    def make_work(name, factor, drawn):
        cell = Cell(
            name,
            factor,
            settings.seed,
            settings.network,
            settings.metric,
            settings.start,
        )
        tuned = training.Tuned(**{x: drawn[x] for x in TUNED if x in drawn})
        return Work(
            cell,
            settings.dataset,
            data,
            dataclasses.replace(manner, tuned=tuned),
            folder,
            {"drawn": drawn},
        )

    full = full_cell(settings.network, settings.seed)
    with runner.inside(settings):
        Work(full, settings.dataset, data, manner, folder).teacher()
    intervals = tuning.PAPER_INTERVALS if settings.paper else tuning.INTERVALS
    with unwrapped():
        Trials(settings, intervals, make_work).search()
    if is_worker():
        return
    sweep_tables.write(settings)
    print(f"\n{(folder / 'sensitivity.md').read_text()}")


def check(parser, settings):
    """Exits where what only sweeps have is wrong."""
    if settings.trials < 1:
        parser.error(
            "Too few trials. Expected at least 1 per factor. "
            f"Received: --trials {settings.trials}"
        )
    names = [
        f"KERASTUNER_{x}" for x in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")
    ]
    given = [x for x in names if x in os.environ]
    if len(given) not in (0, len(names)):
        parser.error(
            "The machines of the sweep are unknown. Expected all of "
            f"{', '.join(names)}, or none of them. Received: {given}"
        )
    if settings.strategy == "multiworker":
        parser.error(
            "A trial is for one host. Expected --strategy auto, none or "
            "mirrored, and the variables of KerasTuner for several hosts. "
            "Received: --strategy multiworker"
        )


def wait_for_chief(settings):
    """Waits, on a worker, until the chief has prepared the data and trained
    the full network."""
    cell = full_cell(settings.network, settings.seed)
    path = settings.output / str(cell) / "teacher.keras"
    begin = time.monotonic()
    told = -60.0
    while is_worker() and not path.exists():
        waited = time.monotonic() - begin
        if waited - told >= 60:
            told = waited
            print(
                f"waiting for the chief to write {path}, for "
                f"{waited / 60:.0f} minutes now",
                flush=True,
            )
        time.sleep(1)


def is_worker():
    """Whether another process hands out the trials."""
    name = os.environ.get("KERASTUNER_TUNER_ID", "chief")
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in name


@contextlib.contextmanager
def unwrapped():
    """A context out of which errors of trials come as they were."""
    try:
        yield
    except keras_tuner.errors.FatalError as error:
        raise (error.__cause__ or error) from None
