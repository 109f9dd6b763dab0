"""Short runs of the recipes that compare methods."""

import contextlib
import csv
import dataclasses
import functools
import shutil

import numpy as np
import pytest

from recipes.data import networks
from recipes.data import registry as datasets

TEACHER = "wide_resnet-scratch-teacher-volume-1-seed0"


def write_pictures(path):
    """Made-up pictures whose brightness tells the class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 400).astype("uint8")
    images = rng.integers(0, 30, (400, 28, 28)) + 20 * labels[:, None, None]
    np.savez(path, images=images.astype("uint8"), labels=labels)


@contextlib.contextmanager
def narrow():
    """A context in which recipes know Fashion-MNIST as a small data set with a
    narrow network."""
    full = datasets.DATASETS["fashion_mnist"]
    network = functools.partial(
        networks.wide_resnet, 10, 0.5, datasets.FASHION_SHAPE, 10
    )
    small = dataclasses.replace(
        full,
        load=functools.partial(full.load, tests=100),
        networks={**full.networks, "wide_resnet": network},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "VGG_WIDTHS", (8,))
        patch.setitem(datasets.DATASETS, "fashion_mnist", small)
        yield


def run(main, pictures, folder, *arguments):
    """Runs a recipe's `main` on few pictures, for few epochs."""
    main(
        ["--data", str(pictures), "--output", str(folder)]
        + ["--pictures", "256", "--factors", "4", "--seeds", "0"]
        + ["--scale", "0.2"]
        + list(arguments)
    )


def rows_of(folder):
    """The rows of `results.csv` by method."""
    with open(folder / "results.csv", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def lend_teacher(source, folder):
    """Copies the full network from one run's folder to another."""
    shutil.copytree(source / TEACHER, folder / TEACHER)
