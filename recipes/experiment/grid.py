"""Runs the experiments of a comparison, one after the other."""

import contextlib
import functools
import itertools
import textwrap

import keras
import matplotlib  # noqa: F401  Wanted after the first experiment.

import keras_bar
from keras_bar import baselines
from keras_bar import multi_host
from keras_bar import runs
from recipes import methods
from recipes.data.registry import DATASETS
from recipes.experiment import devices
from recipes.experiment import phases
from recipes.experiment.key import ExperimentKey
from recipes.experiment.training import JITS
from recipes.experiment.training import Experiment
from recipes.experiment.training import TrainingOptions
from recipes.results import figures
from recipes.results import summary
from recipes.results import tables

# What tells the experiments that are asked for.
ASKED = ("methods", "factors", "seeds", "network", "metric", "start")


def run(settings):
    """Runs the experiments that are asked for, and not done, and writes tables
    and figures after each; at the end shows the tables, or a summary."""
    made_up = f"THESE ARE {DATASETS[settings.dataset].title}."
    synthetic = settings.dataset.endswith("-synthetic")
    if synthetic:
        print(f"\n{made_up}\n", flush=True)
    with contextlib.ExitStack() as stack:
        folder = settings.folders[settings.dataset]
        make = prepare(settings, folder, stack)
        publish(settings)
        asked = itertools.product(
            settings.methods, settings.factors, settings.seeds
        )
        rest = settings.network, settings.metric, settings.start
        keys = [ExperimentKey(*what, *rest) for what in asked]
        for key in keys:
            experiment = make(key)
            if experiment.is_done():
                print(f"{key}: done before", flush=True)
                continue
            keras.backend.clear_session()
            train(experiment, methods.load(key.method).run, settings)
            publish(settings)
        if multi_host.current().is_chief:
            figures.draw_networks(settings)
        multi_host.current().wait()  # An early end would be taken for a loss.
    if settings.summary:
        summary.show(settings)
    elif multi_host.current().is_chief:
        tables.show(settings.output / "tables.md")
    if settings.export and multi_host.current().is_chief:
        for key in keys:
            summary.export(make(key), settings.export)
    if synthetic:
        print(made_up)


def publish(settings):
    """Writes the tables and figures of what is done."""
    if multi_host.current().is_chief:
        tables.write(settings)
        figures.draw(settings)


def prepare(settings, folder, stack):
    """Checks all, loads the images, and locks the folder until the end of an
    `ExitStack`. Returns a function from a key to its `Experiment`."""
    # As the images of all recipes have them, whatever Keras's configuration.
    keras.config.set_image_data_format("channels_last")
    try:
        methods.check_requirements(settings.methods)
        devices.check(settings)
        multi_host.current().check_same(
            {x: getattr(settings, x) for x in ASKED}
        )
        check_networks(settings)
        role = getattr(settings, "role", None) or ""
        for place in dict.fromkeys([settings.output, folder]):
            stack.enter_context(runs.lock(place, role))
        data = load(settings)
        # One table holds one kind of training.
        kind = {
            "dataset": settings.dataset,
            "pictures": data.checksum(),
            "phases": phases.TABLE[DATASETS[settings.dataset].phases],
            "scale": settings.scale,
            "batch_size": settings.batch_size,
            "connectivity": settings.connectivity,
            "mixed_precision": settings.mixed_precision,
        }
        if settings.teachers:
            kind["teachers"] = str(settings.teachers)
        runs.Run(folder, kind)
    except (ValueError, OSError, ImportError) as error:
        settings.fail(str(error))
    options = TrainingOptions(
        settings.scale,
        settings.connectivity,
        JITS[settings.jit],
        settings.teachers,
    )
    return functools.partial(
        Experiment,
        dataset=settings.dataset,
        data=data,
        options=options,
        output=folder,
    )


def load(settings):
    """The images; names those that cannot be read."""
    known = DATASETS[settings.dataset]
    with multi_host.current().chief_first():
        data = known.load(settings.data, settings.images, settings.skip_broken)
    data.batch_size = settings.batch_size
    if not data.steps:
        raise ValueError(
            "The training images do not fill one batch. Expected a smaller "
            f"--batch-size. Received: --batch-size {settings.batch_size}"
        )
    if names := data.left_out:
        shown = textwrap.shorten(", ".join(names), 500)
        print(f"left out {len(names)} images that cannot be read: {shown}")
    return data


def train(experiment, run, settings):
    """Trains an experiment by a method's `run`, from where it was
    interrupted."""
    key, data = experiment.key, experiment.data
    print(f"\n{key}", flush=True)
    with devices.scope(settings):
        teacher = experiment.teacher()
        small, row = run(experiment, teacher)
        small = experiment.save("compact", small)
        row = tables.describe(key, teacher, small, data) | row
    if data.left_out:
        row["left_out"] = len(data.left_out)
    experiment.finish(row)
    print(f"{key}: accuracy {row['accuracy']:.4f}", flush=True)


def check_networks(settings):
    """Raises a ValueError if a factor is too large for any network."""
    largest, metric = max(settings.factors), settings.metric
    model = DATASETS[settings.dataset].networks[settings.network]()
    budgets = {metric: 1 / largest}
    if "bar-flops" in settings.methods:
        budgets["flops"] = largest**-2
    for name, budget in budgets.items():
        check = keras_bar.check_budget(keras_bar.gate(model), budget, name)
        if not check.possible:
            raise ValueError(
                "The budget cannot be kept. Expected one that a connected "
                f"network can meet. Received: {check}"
            )
    if "morphnet" in settings.methods:
        full = getattr(keras_bar.measure_cost(model), metric)
        baselines.expand(model, full / largest, metric)
