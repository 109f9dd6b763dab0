"""Pictures to train and to test with, in memory."""

import dataclasses
import zlib

import keras
import numpy as np

BATCH = 64
# Of the test pictures, for the curves; all of them count at the end.
VALIDATION = 2000


@dataclasses.dataclass
class Pictures:
    """Pictures `(n, height, width, channels)`, normalised, and their classes,
    integers `(n,)`.

    What is done with them is the same for `streams.Stream`.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    batch: int = BATCH
    # Of these none is a file of its own that could be broken.
    left_out = ()
    # Every epoch shows the same ones, and so a teacher need answer only once.
    repeats = True

    @property
    def steps(self):
        """Batches per epoch; pictures that do not fill one are left out."""
        return len(self.x) // self.batch

    @property
    def validation(self):
        """What `fit` validates on after every epoch."""
        return self.x_test[:VALIDATION], self.y_test[:VALIDATION]

    def answered(self, teacher):
        """`Answered` of the same pictures by a `keras.Model` of logits."""
        return Answered(self, teacher)

    def batches(self, seed):
        """What `fit` trains on; a seed is an integer or a sequence of them."""
        return Batches(self, seed)

    def accuracy(self, model, split="test"):
        """Fraction of the pictures that a network of logits gets right; of the
        test pictures, or with `"train"` of the others."""
        x, y = (
            (self.x_test, self.y_test) if split == "test" else (self.x, self.y)
        )
        logits = model.predict(x, batch_size=500, verbose=0)
        return float(np.mean(np.argmax(logits, -1) == y))

    def sample(self, count):
        """The first training pictures."""
        return self.x[:count]

    def checksum(self):
        """Integer that tells other pictures from these."""
        return zlib.crc32(self.x.tobytes(), zlib.crc32(self.x_test.tobytes()))


class Answered:
    """Pictures to train and to validate with, and beside their classes what a
    teacher says of them, as `RecordedDistiller` takes it.

    Args:
        pictures: `Pictures`.
        teacher: `keras.Model` of logits.
    """

    def __init__(self, pictures, teacher):
        self.pictures = pictures
        self.y = self._ask(teacher, pictures.x, pictures.y)
        x, y = pictures.validation
        self.validation = x, self._ask(teacher, x, y)

    def batches(self, seed):
        """As of `Pictures`."""
        return Batches(self.pictures, seed, self.y)

    def _ask(self, teacher, x, y):
        logits = teacher.predict(x, batch_size=500, verbose=0)
        return {"labels": y, "teacher": logits}


class Batches(keras.utils.PyDataset):
    """Training pictures in an order that depends on the seed and the epoch
    only, so that a resumed training sees what an uninterrupted one would have
    seen. Wants `fit(..., shuffle=False)`.

    Args:
        pictures: `Pictures`.
        seed: Integer, or sequence of them.
        y: The targets, by default the classes.

    Attributes:
        epoch: Integer, to be set before every epoch.
    """

    def __init__(self, pictures, seed, y=None):
        super().__init__()
        self.x = pictures.x
        self.y = pictures.y if y is None else y
        self.batch, self.steps = pictures.batch, pictures.steps
        self.seed = seed
        self.epoch = 0
        self._shuffled = None, None

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        chosen = self._order()[index * self.batch :][: self.batch]
        y = keras.tree.map_structure(lambda y: y[chosen], self.y)
        return self.x[chosen], y

    def _order(self):
        epoch, order = self._shuffled
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, self.epoch])
            order = rng.permutation(len(self.x))
            self._shuffled = self.epoch, order
        return order
