"""Pictures to train and to test with, in memory."""

import dataclasses
import zlib

import keras
import numpy as np

BATCH = 64


@dataclasses.dataclass
class Pictures:
    """Pictures `(n, height, width, channels)`, normalised, and their classes,
    integers `(n,)`."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def checksum(self):
        """Integer that tells other pictures from these."""
        return zlib.crc32(self.x.tobytes(), zlib.crc32(self.x_test.tobytes()))


class Batches(keras.utils.PyDataset):
    """Training pictures in an order that depends on the seed and the epoch
    only, so that a resumed training sees what an uninterrupted one would have
    seen. Wants `fit(..., shuffle=False)`.

    Attributes:
        epoch: Integer, to be set before every epoch.
    """

    def __init__(self, pictures, seed):
        super().__init__()
        self.x, self.y = pictures.x, pictures.y
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
