"""Fashion-MNIST at half its size, from Keras or from a file."""

import dataclasses
import zlib

import keras
import numpy as np

SIZE = 14
# Mean and standard deviation of the training pictures.
MEAN, DEVIATION = 0.286, 0.353
BATCH = 64


@dataclasses.dataclass
class Fashion:
    """Pictures `(n, 14, 14, 1)`, normalised, and their classes."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def checksum(self):
        """Integer that tells other pictures from these."""
        return zlib.crc32(self.x.tobytes(), zlib.crc32(self.x_test.tobytes()))


def load_fashion(path=None, pictures=10_000, tests=10_000):
    """The first pictures to train with, and others to test with.

    Args:
        path: `.npz` with `images`, uint8 `(n, 28, 28)`, and `labels`, uint8
            `(n,)`, of which the last ones are for tests. By default Keras
            downloads the data set, or finds it downloaded.
        pictures, tests: Integers, how many.

    Returns:
        `Fashion`.

    Raises:
        ValueError: If the file holds something else or too little.
        OSError: If it cannot be read.
    """
    if path is None:
        (x, y), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
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
    return Fashion(
        _prepare(x[:pictures]),
        y[:pictures].astype("int32"),
        _prepare(x_test[:tests]),
        y_test[:tests].astype("int32"),
    )


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


class Batches(keras.utils.PyDataset):
    """Training pictures in an order that depends on the seed and the epoch
    only, so that a resumed training sees what an uninterrupted one would have
    seen. Wants `fit(..., shuffle=False)`.

    Attributes:
        epoch: Integer, to be set before every epoch.
    """

    def __init__(self, fashion, seed):
        super().__init__()
        self.x, self.y = fashion.x, fashion.y
        self.seed = seed
        self.epoch = 0
        self._shuffled = None, None

    def __len__(self):
        return len(self.x) // BATCH

    def __getitem__(self, index):
        chosen = self._order()[index * BATCH :][:BATCH]
        return self.x[chosen], self.y[chosen]

    def _order(self):
        epoch, order = self._shuffled
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, self.epoch])
            order = rng.permutation(len(self.x))
            self._shuffled = self.epoch, order
        return order


def accuracy(model, x, y):
    """Fraction of the pictures that a network of logits gets right."""
    logits = model.predict(x, batch_size=500, verbose=0)
    return float(np.mean(np.argmax(logits, -1) == y))
