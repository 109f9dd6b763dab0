"""Pairs of garments: how an image is made, and what no split shares."""

import numpy as np
import pytest

from keras_bar import in_memory
from keras_bar.in_memory import garments

SPLITS = {"held_out": 20, "tests": 30}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Garments of one even shade each, so that they can be told apart."""
    shades = np.arange(1, 101, dtype="uint8")
    images = np.broadcast_to(shades[:, None, None], (100, 28, 28))
    file = tmp_path_factory.mktemp("garments") / "garments.npz"
    np.savez(file, images=images, labels=shades % 10)
    return file


def shades(images):
    """The shades of both garments, where neither covers the other."""
    raw = images[..., 0] * garments.DEVIATION + garments.MEAN
    return np.rint(255 * raw[:, 0, 0]), np.rint(255 * raw[:, -1, -1])


@pytest.fixture(scope="module")
def data(path):
    return in_memory.load_multi_fashion(path, 500, **SPLITS)


def test_class_is_both_garments(data):
    for name in ("train", "validation", "test"):
        images, classes = data.split(name)
        first, second = shades(images)
        np.testing.assert_array_equal(classes, 10 * (first % 10) + second % 10)
    assert [len(x) for x in (data.x, data.x_validation, data.x_test)] == [
        500,
        20,
        30,
    ]


def test_brighter_pixel_is_on_top(data):
    first, second = shades(data.x)
    raw = data.x[..., 0] * garments.DEVIATION + garments.MEAN
    middle = np.rint(255 * raw[:, 9, 9])
    np.testing.assert_array_equal(middle, np.maximum(first, second))
    # Neither garment reaches the other corners.
    np.testing.assert_allclose(raw[:, 0, -1], 0, atol=1e-6)


def test_no_garment_is_in_two_splits(data):
    seen = [
        set(np.concatenate(shades(x)))
        for x in (data.x, data.x_validation, data.x_test)
    ]
    assert seen[0] <= set(range(1, 51))
    assert seen[1] <= set(range(51, 71))
    assert seen[2] <= set(range(71, 101))


def test_the_same_every_time(path, data):
    again = in_memory.load_multi_fashion(path, 500, **SPLITS)
    assert again.checksum() == data.checksum()


@pytest.mark.parametrize(
    ("count", "splits", "words"),
    [
        (51, SPLITS, "at least 101"),
        (10, {"held_out": 90, "tests": 30}, "at least 130"),
    ],
)
def test_too_few_images(path, count, splits, words):
    with pytest.raises(ValueError, match=words):
        in_memory.load_fashion_mnist(path, count, **splits)
