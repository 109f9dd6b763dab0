"""Short runs of the recipes that compare methods."""

import contextlib
import csv
import dataclasses
import functools
import re
import shutil

import keras
import numpy as np
import pytest
from keras import layers

from keras_bar import models
from recipes.data import registry
from recipes.results import figures

TEACHER = "wide_resnet-scratch-teacher-volume-1-seed0"


def write_pictures(path):
    """Synthetic images whose brightness tells the class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 400).astype("uint8")
    images = rng.integers(0, 30, (400, 28, 28)) + 20 * labels[:, None, None]
    np.savez(path, images=images.astype("uint8"), labels=labels)


def residual(shape, classes, narrow=1):
    """A stem and one residual block."""
    width = round(16 / narrow)
    conv = {"padding": "same", "use_bias": False}
    inputs = keras.Input(shape)
    x = layers.Conv2D(width, 3, name="stem", **conv)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    y = layers.Conv2D(width, 3, name="branch", **conv)(x)
    y = layers.BatchNormalization(momentum=0.9)(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


@contextlib.contextmanager
def narrow():
    """A context in which recipes know Fashion-MNIST as a small data set with
    small networks."""
    full = registry.DATASETS["fashion_mnist"]
    shape = (14, 14, 1)
    networks = {
        "wide_resnet": functools.partial(residual, shape, 10),
        "vgg": functools.partial(models.VGG, shape, widths=(8,)),
    }
    small = dataclasses.replace(
        full,
        load=functools.partial(full.load, tests=100, held_out=44),
        networks=networks,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.DATASETS, "fashion_mnist", small)
        yield


def run(main, pictures, folder, *arguments):
    """Runs a recipe's `main` on few pictures, for few epochs."""
    main(
        ["--data", str(pictures), "--output", str(folder)]
        + ["--images", "256", "--factors", "4", "--seeds", "0"]
        + ["--scale", "0.2"]
        + list(arguments)
    )


def finish(*arguments, networks=True):
    """Runs a recipe as `run` does, and draws once, at the end: no prunings,
    which `digits_test` looks at, and channels only if `networks` is True."""
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch, "draw_prunings", *["draw_networks"] * (not networks))
        with pytest.MonkeyPatch.context() as until_then:
            undraw(until_then, "draw", "draw_networks")
            run(*arguments)
        run(*arguments)


def undraw(patch, *names):
    """Makes functions of `figures` draw nothing."""
    for name in names:
        patch.setattr(figures, name, lambda settings_or_rows: None)


def rows_of(folder):
    """The rows of `results.csv` by method."""
    with open(folder / "results.csv", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def lend_teacher(source, folder):
    """Copies the full network from one run's folder to another."""
    shutil.copytree(source / TEACHER, folder / TEACHER)


def squeezed(text):
    """A table in Markdown without what aligns its columns."""
    return re.sub(" +", " ", text)


def lines_of(text, title):
    """The lines of a method in tables, without what aligns their columns."""
    lines = squeezed(text).splitlines()
    return [x for x in lines if x.startswith(f"| {title} |")]
