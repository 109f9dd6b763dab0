"""Trials of BAR with hyperparameters that KerasTuner draws."""

import contextlib
import dataclasses
import os
import pathlib
import statistics
import time

import keras
import keras_tuner

from keras_bar import reports
from keras_bar import tuning
from keras_bar.reports import paper
from recipes import backups
from recipes import comparison
from recipes import datasets
from recipes import files
from recipes import methods
from recipes import resuming
from recipes import runner
from recipes import tables
from recipes import training
from recipes.work import Cell
from recipes.work import Work
from recipes.work import full_cell

OBJECTIVE = keras_tuner.Objective("accuracy", "max")
RESULTS = ("accuracy", "volume", "flops", "params")
TUNED = [x.name for x in dataclasses.fields(training.Tuned)]


class Trials(keras_tuner.RandomSearch):
    """Draws hyperparameters, and prunes with them.

    All factors are in one search, so that several workers share them: the
    factor of a trial follows from its number, turn by turn.

    Args:
        settings: What the command line says.
        make_work: Function from a method's name, a factor and what was drawn
            to the `Work` of a trial.
    """

    def __init__(self, settings, make_work):
        self.settings = settings
        self._make_work = make_work
        drawn = keras_tuner.HyperParameters()
        tuning.draw(drawn)
        super().__init__(
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
            directory=settings.output,
            project_name="search",
        )

    def run_trial(self, trial):
        try:
            row = self._train(trial)
        except Exception as error:
            # Others would be taken for those of bad hyperparameters.
            raise keras_tuner.errors.FatalError(str(error)) from error
        if "diverged" in row:
            raise keras_tuner.errors.FailedTrialError(row["diverged"])
        return {OBJECTIVE.name: row["accuracy"]}

    def _train(self, trial):
        turn, place = divmod(int(trial.trial_id), len(self.settings.factors))
        drawn = tuning.draw(trial.hyperparameters)
        rest = {x: y for x, y in drawn.items() if x not in TUNED}
        factor = self.settings.factors[place]
        work = self._make_work(f"trial{turn}", factor, drawn)

        def prune(work, teacher):
            small, row = methods.bar(work, teacher, **rest)
            return small, row | {"drawn": drawn}

        keras.backend.clear_session()
        with runner.inside(self.settings):
            if not work.run.is_done():
                try:
                    runner.do(work, prune)
                except backups.DivergedError as error:
                    work.run.finish(diverged_row(work, drawn, error))
        write(find_rows(self.settings.output), self.settings)
        return work.run.report()


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
    wait_for_chief(settings, folder)
    try:
        manner, data = runner.prepare(settings, settings.dataset, folder)
        resuming.Run(
            folder / "search",
            {
                name: getattr(settings, name)
                for name in ("factors", "seed", "network", "metric", "start")
            },
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
        tuned = manner.tuned
        if drawn is not None:
            tuned = training.Tuned(**{x: drawn[x] for x in TUNED})
        return Work(
            cell,
            settings.dataset,
            data,
            dataclasses.replace(manner, tuned=tuned),
            folder,
            drawn and {"drawn": drawn},
        )

    with runner.inside(settings):
        make_work("full", settings.factors[0], None).teacher()
    with unwrapped():
        Trials(settings, make_work).search()
    if is_worker():
        return
    write(find_rows(folder), settings)
    print(f"\n{(folder / 'sensitivity.md').read_text()}")


def wait_for_chief(settings, folder):
    """Waits, on a worker, until the chief has prepared the data and trained
    the full network."""
    network = settings.network or datasets.DATASETS[settings.dataset].network
    path = folder / str(full_cell(network, settings.seed)) / "teacher.keras"
    if is_worker() and not path.exists():
        print(f"waiting for the chief to write {path}", flush=True)
        while not path.exists():
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


def diverged_row(work, drawn, error):
    """The report of a trial that came to no network."""
    cell = work.cell
    return {
        "method": cell.method,
        "factor": cell.factor,
        "drawn": drawn,
        "diverged": str(error),
    }


def find_rows(folder):
    """The reports of all trials that are done."""
    return [x for x in runner.find_rows(folder) if "drawn" in x]


def write(rows, settings):
    """Writes the tables and the picture."""
    folder = settings.output
    flat = [
        {
            "factor": row["factor"],
            "trial": int(row["method"].removeprefix("trial")),
            **row["drawn"],
            **{x: row.get(x) for x in RESULTS},
        }
        for row in rows
    ]
    flat.sort(key=lambda row: (row["factor"], row["trial"]))
    tables.write_csv(flat, folder / "trials.csv")
    summary = summarize(flat)
    tables.write_csv(summary, folder / "sensitivity.csv")
    beside = comparison.published_for(settings.dataset)
    title = datasets.DATASETS[settings.dataset].title
    published = []
    if settings.metric == "volume":
        published = [
            x for x in paper.load("sensitivity") if x["dataset"] == beside
        ]
    text = markdown(title, summary, published, comparison.PAPER[beside])
    files.write(folder / "sensitivity.md", text)
    panels = {title: {"measured here": points(summary, "factor", "accuracy")}}
    other = points(published, "volume_factor", "test_accuracy")
    if beside == settings.dataset and other:
        panels[title]["published"] = other
    elif other:
        name = f"{comparison.PAPER[beside]}, the supplement's numbers"
        panels[name] = {"published": other}
    for ending in ("png", "svg"):
        reports.plot_sensitivity(panels, folder / f"sensitivity.{ending}")


def summarize(rows):
    """List of a dict per factor: the mean accuracy of its trials, and the
    standard deviation; without those that diverged, which are counted."""
    summary = []
    for factor in sorted({x["factor"] for x in rows}):
        every = [x["accuracy"] for x in rows if x["factor"] == factor]
        found = [x for x in every if x is not None]
        summary.append(
            {
                "factor": factor,
                "trials": len(every),
                "diverged": len(every) - len(found),
                "accuracy": statistics.mean(found) if found else None,
                "standard_deviation": (
                    statistics.stdev(found) if len(found) > 1 else None
                ),
            }
        )
    return summary


def points(rows, factor, accuracy):
    """What `plot_sensitivity` draws of a table's rows."""
    return {
        x[factor]: (x[accuracy], x["standard_deviation"] or 0.0)
        for x in rows
        if x[accuracy] is not None
    }


def percent(value):
    """A fraction in percent, or nothing."""
    return "" if value is None else f"{100 * value:.2f}"


def markdown(title, summary, published, beside):
    """The table beside the supplement's."""
    others = {x["volume_factor"]: x for x in published}
    diverged = sum(x["diverged"] for x in summary)
    lines = [
        f"## {title}",
        "",
        f"On the right: the supplement's Table 1 for {beside}."
        + (f" {diverged} of the trials diverged." if diverged else ""),
        "",
        "| factor | trials | accuracy, % | std dev. | accuracy, % | std dev. |",
        "|" + " --- |" * 6,
    ]
    for row in summary:
        other = others.get(row["factor"], {})
        cells = [
            f"{row['factor']:g}",
            str(row["trials"]),
            percent(row["accuracy"]),
            percent(row["standard_deviation"]),
            percent(other.get("test_accuracy")),
            percent(other.get("standard_deviation")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
