"""Images in memory, in batches sliced from arrays, on every backend.

TensorFlow need not be installed. `keras_bar.datasets.Stream` does the same for
large data sets.
"""

import dataclasses
import itertools
import os
import zipfile
import zlib
from typing import Any

import keras
import numpy as np

from keras_bar import devices

__all__ = ["InMemoryData", "read_npz"]


@dataclasses.dataclass
class InMemoryData:
    """Training, validation and test images for `Model.fit`.

    The order of the training images and their augmentation depend only on a
    seed and the epoch, so that a resumed training sees the same images as an
    uninterrupted one. `keras_bar.datasets.Stream` has the same methods.

    Args:
        x: Array of training images, `(n, height, width, channels)`, normalized.
        y: Array of their classes, integers `(n,)`.
        x_test: Array of test images.
        y_test: Array of their classes.
        shift: Integer, the maximum shift of a training image in pixels, along
            both axes; the border is filled with 0.
        batch_size: Integer, images per batch.
        x_validation: Array of validation images, for choices, which are neither
            trained nor tested on. Without them `fit` validates on test images.
        y_validation: Array of their classes.
        validation_count: Integer, the maximum number of images that `fit`
            validates on.
        is_answered: Boolean, whether the targets are those that `answered`
            makes.

    Example:

    >>> from keras_bar import in_memory
    >>> x, y = np.zeros((96, 8, 8, 1), "float32"), np.zeros(96, "int32")
    >>> data = in_memory.InMemoryData(x, y, x, y, shift=1, batch_size=32)
    >>> batches = data.batches(seed=0)
    >>> model = keras.Sequential(
    ...     [keras.layers.Flatten(), keras.layers.Dense(10)]
    ... )
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("adam", loss)
    >>> history = model.fit(
    ...     batches.dataset,
    ...     epochs=2,
    ...     shuffle=False,
    ...     callbacks=[batches],
    ...     validation_data=data.validation,
    ...     verbose=0,
    ... )
    >>> accuracy = data.accuracy(model)
    """

    x: np.ndarray
    y: Any
    x_test: np.ndarray
    y_test: np.ndarray
    shift: int = 0
    batch_size: int = 64
    x_validation: np.ndarray | None = None
    y_validation: Any = None
    validation_count: int = 2000
    is_answered: bool = False
    # Names of images that could not be read: these are not files.
    left_out = ()

    @property
    def repeats(self):
        """Whether all epochs have the same images, or the same nine shifts of
        each, so that a teacher has to classify them only once."""
        return self.shift <= 1

    @property
    def has_validation(self):
        """Whether there are validation images."""
        return self.x_validation is not None

    @property
    def steps(self):
        """Batches per epoch; an incomplete last batch is dropped."""
        return len(self.x) // self.batch_size

    @property
    def validation(self):
        """The argument `validation_data` of `fit`."""
        x, y = self.split("validation")
        # Devices share every batch.
        count = min(self.validation_count, len(x))
        count -= count % devices.replicas()
        return x[:count], keras.tree.map_structure(lambda y: y[:count], y)

    def batches(self, seed: int | list[int]) -> "Epochs":
        """Returns the training batches, shuffled and shifted by a seed."""
        return Epochs(self, seed)

    def ask(self, teacher: keras.Model) -> np.ndarray:
        """Returns a teacher's logits for every shift of every training image,
        `(n, shifts, classes)`; the shifts are ordered by row, then column."""
        sides = range(2 * self.shift + 1)
        corners = itertools.product(sides, sides)
        return np.stack(
            [_ask(teacher, shifted(self.x, self.shift, x)) for x in corners], 1
        )

    def answered(
        self, teacher: keras.Model, answers: np.ndarray | None = None
    ) -> "InMemoryData":
        """Returns the same images, with the classes and a teacher's logits as
        targets for training and validation, as `RecordedDistiller` expects.

        Args:
            teacher: `keras.Model` of logits.
            answers: What `ask` returned for this teacher, to save the time.

        Raises:
            ValueError: If the images are answered already, or the answers are
                not those for these images.
        """
        if self.is_answered:
            raise ValueError(
                "These images have the answers of a teacher already. Expected "
                "images with classes alone. Received: answered images"
            )
        x, y = self.validation
        answers = self.ask(teacher) if answers is None else answers
        expected = len(self.x), (2 * self.shift + 1) ** 2
        if answers.shape[:2] != expected:
            raise ValueError(
                "The answers are those for other images. Expected what `ask` "
                f"returns, of shape {expected} and the classes. "
                f"Received: answers of shape {answers.shape}"
            )
        return dataclasses.replace(
            self,
            y={"labels": self.y, "teacher": answers},
            x_validation=x,
            y_validation={"labels": y, "teacher": _ask(teacher, x)},
            is_answered=True,
        )

    def split(self, name: str) -> tuple[np.ndarray, Any]:
        """Returns images and targets of `"train"`, `"validation"` or
        `"test"`."""
        if name == "train":
            return self.x, self.y
        if name == "validation" and self.x_validation is not None:
            return self.x_validation, self.y_validation
        return self.x_test, self.y_test

    def accuracy(self, model: keras.Model, split: str = "test") -> float:
        """Returns the fraction of a split's images that a model, which returns
        logits, classifies correctly."""
        x, y = self.split(split)
        classes = y["labels"] if isinstance(y, dict) else y
        return float(np.mean(np.argmax(_ask(model, x), -1) == classes))

    def sample(self, count: int) -> np.ndarray:
        """Returns the first `count` training images."""
        return self.x[:count]

    def checksum(self) -> int:
        """Returns an integer that identifies the images."""
        return zlib.crc32(self.x.tobytes(), zlib.crc32(self.x_test.tobytes()))


class Epochs(keras.callbacks.Callback):
    """The training batches of `InMemoryData`, for `fit`. `dataset` yields the
    batches of `epoch`, which this object sets as a callback of `fit`."""

    def __init__(self, data, seed):
        super().__init__()
        self.data, self.seed = data, [*np.ravel(seed)]
        self.epoch = 0
        self._drawn: tuple[Any, Any] = None, None
        self.dataset = _Batches(self)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def _order(self, epoch):
        """Order and shifts of an epoch's images, in pixels from the corner of
        the padded image."""
        known, found = self._drawn
        if known != epoch:  # Drawing it takes longer than a batch of it.
            rng = np.random.default_rng([*self.seed, epoch])
            order = rng.permutation(len(self.data.x))
            most = 2 * self.data.shift + 1
            found = order, rng.integers(0, most, (len(order), 2))
            # In one assignment, because `fit` asks from several threads.
            self._drawn = epoch, found
        return found

    def batch(self, index):
        """Images and targets of a batch of the epoch."""
        data = self.data
        order, corners = self._order(self.epoch)
        part = slice(index * data.batch_size, (index + 1) * data.batch_size)
        chosen, corners = order[part], corners[part]
        x = shifted(data.x[chosen], data.shift, corners)
        y = keras.tree.map_structure(lambda y: y[chosen], data.y)
        if data.is_answered:
            places = corners @ [2 * data.shift + 1, 1]
            y["teacher"] = y["teacher"][np.arange(len(places)), places]
        return x, y


def shifted(x, most, corners):
    """Images shifted by up to `most` pixels; the border is filled with 0.

    Args:
        x: Array of images, `(n, height, width, channels)`.
        most: Integer.
        corners: Integers `(n, 2)`, or `(2,)` for all images: where the image
            begins in the padded one, from 0 to `2 * most`.
    """
    if not most:
        return x
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (most, most), (most, most), (0, 0)])
    pairs = zip(padded, np.broadcast_to(corners, (len(x), 2)), strict=True)
    return np.stack([y[i:, j:][:height, :width] for y, (i, j) in pairs])


def _ask(teacher, x):
    with devices.on_one_device(teacher) as model:
        return model.predict(x, batch_size=500, verbose=0)


class _Batches(keras.utils.PyDataset):
    """The batches of the current epoch. Needs `fit(..., shuffle=False)`."""

    def __init__(self, epochs):
        super().__init__()
        self._epochs = epochs

    def __len__(self):
        return self._epochs.data.steps

    def __getitem__(self, index):
        return self._epochs.batch(index)


def read_npz(path: str | os.PathLike[str], *names: str) -> list[np.ndarray]:
    """Reads arrays from an `.npz` file.

    Args:
        path: Path of the file.
        *names: Strings, the names of the arrays.

    Returns:
        List of arrays, in the order of their names.

    Raises:
        ValueError: If the file is damaged or of another kind, or lacks one of
            the arrays.
        OSError: If there is no such file.

    Example:

    >>> from keras_bar import in_memory
    >>> np.savez("digits.npz", images=np.zeros((3, 8, 8)), labels=np.arange(3))
    >>> images, labels = in_memory.read_npz("digits.npz", "images", "labels")
    >>> images.shape
    (3, 8, 8)
    """
    wanted = " and ".join(map(repr, names))
    try:
        with np.load(path) as arrays:
            return [arrays[x] for x in names]
    except KeyError as error:
        raise ValueError(
            f"{path} lacks an array. Expected the arrays {wanted}. "
            f"Received: {error}"
        ) from error
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        # NumPy takes text for pickled objects, and says so.
        raise ValueError(
            f"{path} holds no arrays. Expected an .npz file with the arrays "
            f"{wanted}. Received: a file of another kind"
        ) from error
