"""Data sets in memory: Fashion-MNIST at half its size, scikit-learn's
digits."""

import keras
import numpy as np

from keras_bar import in_memory

# Of Fashion-MNIST: images that are neither trained nor tested on, to choose by.
HELD_OUT = 5000
# Mean and standard deviation of Fashion-MNIST's training images.
MEAN, DEVIATION = 0.286, 0.353


def load_digits(path, count, skip_broken):
    """1797 images of 8x8; the same quarter of them is for tests in every run,
    whatever its seed."""
    from sklearn import datasets
    from sklearn import model_selection

    bunch = datasets.load_digits()
    x, x_test, y, y_test = model_selection.train_test_split(
        (bunch.images / 16).astype("float32")[..., None],
        bunch.target,
        test_size=0.25,
        stratify=bunch.target,
        random_state=0,
    )
    _check_count(x, count)
    return in_memory.InMemoryData(x[:count], y[:count], x_test, y_test, shift=1)


def load_fashion_mnist(
    path, count, skip_broken, tests=10_000, held_out=HELD_OUT
):
    """The first images to train with, the last others to validate with, and
    those to test with, from an `.npz` with `images`, uint8 `(n, 28, 28)`, and
    `labels`, uint8 `(n,)`, of which the last ones are for tests; or from where
    Keras keeps the data set."""
    if path is None:
        try:
            (x, y), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
        except Exception as error:  # A bare one, whatever happened.
            raise ConnectionError(
                "Fashion-MNIST cannot be downloaded. Expected a network, or a "
                f"file with --data. Received: {error}"
            ) from error
    else:
        images, labels = _read(path, count + held_out + tests)
        x, x_test = np.split(images, [len(images) - tests])
        y, y_test = np.split(labels, [len(images) - tests])
    _check_count(x[held_out:], count)
    return in_memory.InMemoryData(
        _halved(x[:count]),
        y[:count].astype("int32"),
        _halved(x_test[:tests]),
        y_test[:tests].astype("int32"),
        x_validation=_halved(x[-held_out:]),
        y_validation=y[-held_out:].astype("int32"),
    )


def _read(path, least):
    images, labels = in_memory.read_npz(path, "images", "labels")
    if images.shape[1:] != (28, 28) or not len(labels) == len(images) >= least:
        raise ValueError(
            f"{path} holds other images than asked for. Expected at least "
            f"{least} of 28x28 and as many labels. "
            f"Received: {images.shape} and {labels.shape}"
        )
    return images, labels


def _check_count(x, count):
    if count > len(x):
        raise ValueError(
            "There are fewer images than asked for. Expected at most "
            f"{len(x)} for training. Received: --images {count}"
        )


def _halved(images):
    """Half the size, by averaging, and normalized."""
    x = images.astype("float32") / 255
    x = x.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    return ((x - MEAN) / DEVIATION)[..., None]
