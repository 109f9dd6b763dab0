"""Fixtures of more than one file."""

import dataclasses
import functools

import numpy as np
import pytest

from recipes import datasets
from recipes import networks


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A file of made-up pictures whose brightness tells the class. For these
    recipes know Fashion-MNIST as a small data set with a narrow network."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 400).astype("uint8")
    images = rng.integers(0, 30, (400, 28, 28)) + 20 * labels[:, None, None]
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    np.savez(path, images=images.astype("uint8"), labels=labels)
    full = datasets.DATASETS["fashion_mnist"]
    narrow = functools.partial(
        networks.wide_resnet, 10, 0.5, datasets.FASHION_SHAPE, 10
    )
    small = dataclasses.replace(
        full,
        load=functools.partial(full.load, tests=100),
        networks={**full.networks, "wide_resnet": narrow},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "VGG_WIDTHS", (8,))
        patch.setitem(datasets.DATASETS, "fashion_mnist", small)
        yield path
