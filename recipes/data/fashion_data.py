"""Fashion-MNIST at half its size, from Keras or from a file."""

import keras
import numpy as np

from recipes.data.in_memory_data import Pictures

SIZE = 14
# Mean and standard deviation of the training pictures.
MEAN, DEVIATION = 0.286, 0.353


def load_fashion(path=None, pictures=10_000, tests=10_000):
    """The first pictures to train with, and others to test with.

    Args:
        path: `.npz` with `images`, uint8 `(n, 28, 28)`, and `labels`, uint8
            `(n,)`, of which the last ones are for tests. By default Keras
            downloads the data set, or finds it downloaded.
        pictures, tests: Integers, how many.

    Returns:
        `Pictures`.

    Raises:
        ValueError: If the file holds something else or too little.
        OSError: If it cannot be read.
    """
    if path is None:
        (x, y), (x_test, y_test) = _download()
    else:
        images, labels = _read(path, pictures + tests)
        split = len(images) - tests
        x, y = images[:split], labels[:split]
        x_test, y_test = images[split:], labels[split:]
    if len(x) < pictures:
        raise ValueError(
            "There are fewer pictures than asked for. Expected at most "
            f"{len(x)} for training. Received: pictures={pictures}"
        )
    return Pictures(
        _prepare(x[:pictures]),
        y[:pictures].astype("int32"),
        _prepare(x_test[:tests]),
        y_test[:tests].astype("int32"),
    )


def _download():
    try:
        return keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # A bare one, whatever happened.
        raise ConnectionError(
            "Fashion-MNIST cannot be downloaded. Expected a network, or a file "
            f"with --data. Received: {error}"
        ) from error


def _read(path, least):
    with np.load(path) as arrays:
        missing = {"images", "labels"} - set(arrays)
        if missing:
            raise ValueError(
                f"{path} holds no Fashion-MNIST. Expected the arrays 'images' "
                f"and 'labels'. Received: {sorted(arrays)}"
            )
        images, labels = arrays["images"], arrays["labels"]
    if images.shape[1:] != (28, 28) or not len(labels) == len(images) >= least:
        raise ValueError(
            f"{path} holds other pictures than asked for. Expected at least "
            f"{least} of 28x28 and as many labels. "
            f"Received: {images.shape} and {labels.shape}"
        )
    return images, labels


def _prepare(images):
    """Halves the size by averaging, and normalises."""
    x = images.astype("float32") / 255
    x = x.reshape(-1, SIZE, 2, SIZE, 2).mean((2, 4))
    return (x[..., None] - MEAN) / DEVIATION
