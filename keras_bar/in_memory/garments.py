"""Fashion-MNIST, and pairs of its garments on one image, at half the size."""

import itertools
import os

import keras
import numpy as np

from keras_bar.in_memory.image_data import InMemoryData
from keras_bar.in_memory.image_data import read_npz

# Pixels along a side of a garment, and by how much the second one is offset.
SIDE, OFFSET = 28, 8
CLASSES = 10
# Mean and standard deviation of Fashion-MNIST's training images.
MEAN, DEVIATION = 0.286, 0.353


def load_fashion_mnist(
    path: str | os.PathLike[str] | None = None,
    count: int = 10_000,
    *,
    held_out: int = 5000,
    tests: int = 10_000,
) -> InMemoryData:
    """Loads Fashion-MNIST at 14x14, with images held out for validation.

    Args:
        path: Path of an `.npz` with `images`, uint8 `(n, 28, 28)`, and
            `labels`, uint8 `(n,)`, of which the last `tests` are for tests.
            None takes the data set that Keras downloads.
        count: Integer, the number of training images, the first ones.
        held_out: Integer, the number of images to validate with, the last ones
            before those for tests; neither trained nor tested on.
        tests: Integer, the number of images to test with.

    Returns:
        `InMemoryData` of images `(n, 14, 14, 1)`, normalized.

    Raises:
        ValueError: If the file holds other arrays, or fewer images.
        ConnectionError: If the data set cannot be downloaded.

    Example:

    >>> from keras_bar import in_memory
    >>> images = np.zeros((60, 28, 28), "uint8")
    >>> np.savez("garments.npz", images=images, labels=np.arange(60) % 10)
    >>> data = in_memory.load_fashion_mnist(
    ...     "garments.npz", 40, held_out=10, tests=10
    ... )
    >>> data.x.shape
    (40, 14, 14, 1)
    """
    train, validation, test = _split(path, count, held_out, tests)
    return _in_memory((train[0][:count], train[1][:count]), validation, test)


def load_multi_fashion(
    path: str | os.PathLike[str] | None = None,
    count: int = 20_000,
    *,
    held_out: int = 5000,
    tests: int = 10_000,
) -> InMemoryData:
    """Makes images of two garments each, with 100 classes: both garments.

    One garment stands at the top left of 36x36 pixels, another at the bottom
    right, and the brighter pixel is on top; the image is averaged to 18x18.
    Training images are shifted by up to a pixel. No garment appears in two of
    the splits. The pairs are drawn with fixed seeds.

    Args:
        path: As in `load_fashion_mnist`.
        count: Integer, the number of training images, at least 1.
        held_out: Integer, the number of garments, and of their pairs, for
            validation.
        tests: Integer, the same for tests.

    Returns:
        `InMemoryData` of images `(n, 18, 18, 1)`, normalized; class
        `10 * i + j` has garment `i` at the top left.

    Raises:
        ValueError: If the file holds other arrays, or fewer images.
        ConnectionError: If the data set cannot be downloaded.

    Example:

    >>> from keras_bar import in_memory
    >>> images = np.zeros((60, 28, 28), "uint8")
    >>> np.savez("garments.npz", images=images, labels=np.arange(60) % 10)
    >>> data = in_memory.load_multi_fashion(
    ...     "garments.npz", 100, held_out=10, tests=10
    ... )
    >>> data.x.shape
    (100, 18, 18, 1)

    Reference:

    - [Pareto Multi-Task Learning](https://arxiv.org/abs/1912.12854) (Lin et
      al., 2019), which asks for the two garments separately.
    """
    garments = _split(path, 1, held_out, tests)
    counts = count, held_out, tests
    splits = [
        _pairs(images, labels, size, seed)
        for seed, ((images, labels), size) in enumerate(
            zip(garments, counts, strict=True)
        )
    ]
    return _in_memory(*splits, shift=1)


def _in_memory(train, validation, test, **options):
    """`InMemoryData` of three pairs of images, uint8, and labels."""
    (x, y), (x_validation, y_validation), (x_test, y_test) = (
        (_halved(images), labels.astype("int32"))
        for images, labels in (train, validation, test)
    )
    return InMemoryData(
        x,
        y,
        x_test,
        y_test,
        x_validation=x_validation,
        y_validation=y_validation,
        **options,
    )


def _split(path, count, held_out, tests):
    """Pairs of images and labels: to train, to validate and to test with."""
    if path is None:
        try:
            train, test = keras.datasets.fashion_mnist.load_data()
        except Exception as error:  # A bare one, whatever happened.
            raise ConnectionError(
                "Fashion-MNIST cannot be downloaded. Expected a network, or "
                f"the path of a file. Received: {error}"
            ) from error
        images, labels = map(np.concatenate, zip(train, test, strict=True))
        tests_start = len(train[0])
    else:
        images, labels = read_npz(path, "images", "labels")
        least = count + held_out + tests
        fits = images.shape[1:] == (SIDE, SIDE) and len(labels) == len(images)
        if not fits or len(images) < least:
            raise ValueError(
                f"{path} holds other images than asked for. Expected at least "
                f"{least} of {SIDE}x{SIDE} and as many labels. "
                f"Received: {images.shape} and {labels.shape}"
            )
        tests_start = len(images) - tests
    most = tests_start - held_out
    if count > most:
        raise ValueError(
            "There are fewer images than asked for. Expected at most "
            f"{most} for training. Received: count={count}"
        )
    ends = [0, most, tests_start, tests_start + tests]
    return [
        (images[start:end], labels[start:end])
        for start, end in itertools.pairwise(ends)
    ]


def _pairs(images, labels, count, seed):
    """Overlaid pairs of garments, uint8 `(count, 36, 36)`, and classes."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, len(images), (2, count))
    size = SIDE + OFFSET
    canvas = np.zeros((2, count, size, size), "uint8")
    canvas[0, :, :SIDE, :SIDE] = images[first]
    canvas[1, :, OFFSET:, OFFSET:] = images[second]
    classes = CLASSES * labels[first].astype("int32") + labels[second]
    return canvas.max(axis=0), classes


def _halved(images):
    """Half the size, by averaging, and normalized."""
    half = images.shape[1] // 2
    x = images.astype("float32") / 255
    x = x.reshape(-1, half, 2, half, 2).mean((2, 4))
    return ((x - MEAN) / DEVIATION)[..., None]
