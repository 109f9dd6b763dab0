"""scikit-learn's handwritten digits: 1797 real pictures in its package."""

import dataclasses

import keras
import numpy as np
from sklearn import datasets
from sklearn import model_selection

BATCH = 64


@dataclasses.dataclass
class Digits:
    """Pictures `(n, 8, 8)` in [0, 1] and their classes."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load_digits():
    """The same quarter is the test set in every run, whatever its seed."""
    bunch = datasets.load_digits()
    x, x_test, y, y_test = model_selection.train_test_split(
        (bunch.images / 16).astype("float32"),
        bunch.target,
        test_size=0.25,
        stratify=bunch.target,
        random_state=0,
    )
    return Digits(x, y, x_test, y_test)


def input_shape():
    """Shape of a picture as a network reads it."""
    return with_channel(np.zeros((1, 8, 8))).shape[1:]


def with_channel(x):
    """Adds the channel axis to pictures `(n, 8, 8)`."""
    first = keras.config.image_data_format() == "channels_first"
    return np.expand_dims(x, 1 if first else -1)


def accuracy(model, digits):
    """Fraction of the test pictures that a network of logits gets right."""
    logits = model.predict(with_channel(digits.x_test), verbose=0)
    return float(np.mean(np.argmax(logits, -1) == digits.y_test))


class Batches(keras.utils.PyDataset):
    """Training pictures, shuffled and shifted by up to one pixel.

    What a batch holds depends on the seed and the epoch only, so that a resumed
    training sees what an uninterrupted one would have seen. Wants
    `fit(..., shuffle=False)`, or Keras shuffles the batches once more.

    Attributes:
        epoch: Integer, to be set before every epoch.
    """

    def __init__(self, digits, seed):
        super().__init__()
        self.x = np.pad(digits.x, ((0, 0), (1, 1), (1, 1)))
        self.y = digits.y
        self.seed = seed
        self.epoch = 0

    def __len__(self):
        return len(self.x) // BATCH

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, self.epoch])
        chosen = rng.permutation(len(self.x))[index * BATCH :][:BATCH]
        shifts = rng.integers(0, 3, (len(self.x), 2))[chosen]
        x = [
            self.x[i, down : down + 8, right : right + 8]
            for i, (down, right) in zip(chosen, shifts, strict=True)
        ]
        return with_channel(np.stack(x)), self.y[chosen]
