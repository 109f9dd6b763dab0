"""Images in memory: Fashion-MNIST at half its size, scikit-learn's digits.

A `PyDataset` slices these arrays on every backend; for a stream they are too
small, and TensorFlow need not be installed.
"""

import dataclasses
import zipfile
import zlib

import keras
import numpy as np

# Images for the curves of every epoch; at the end all of a split count.
VALIDATION = 2000
# Of Fashion-MNIST: images that are neither trained nor tested on, to choose by.
HELD_OUT = 5000
# Mean and standard deviation of Fashion-MNIST's training images.
MEAN, DEVIATION = 0.286, 0.353


@dataclasses.dataclass
class InMemoryData:
    """Images `(n, height, width, channels)`, normalized, and their classes,
    integers `(n,)`. Training images are shifted by up to `shift` pixels; where
    there are images for validation, choices are made by them.
    `keras_bar.datasets.Stream` has the same methods."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    shift: int = 0
    batch_size: int = 64
    x_validation: np.ndarray | None = None
    y_validation: np.ndarray | None = None
    # No image is a file of its own that could be broken.
    left_out = ()

    @property
    def repeats(self):
        """Whether every epoch shows the same images, so that a teacher need
        answer only once."""
        return not self.shift

    @property
    def has_validation(self):
        """Whether images are held out to choose by."""
        return self.x_validation is not None

    @property
    def steps(self):
        """Batches per epoch; images that do not fill one are left out."""
        return len(self.x) // self.batch_size

    @property
    def validation(self):
        """What `fit` validates on after every epoch."""
        x, y = self.split("validation")
        return x[:VALIDATION], keras.tree.map_structure(
            lambda y: y[:VALIDATION], y
        )

    def batches(self, seed):
        """What `fit` trains on; a seed is an integer or a sequence of them."""
        return Batches(self, seed)

    def answered(self, teacher):
        """The same images for training and validation, with a teacher's logits
        beside their classes, as `RecordedDistiller` takes them."""

        def ask(x, y):
            logits = teacher.predict(x, batch_size=500, verbose=0)
            return {"labels": y, "teacher": logits}

        x, y = self.validation
        return dataclasses.replace(
            self,
            y=ask(self.x, self.y),
            x_validation=x,
            y_validation=ask(x, y),
        )

    def split(self, name):
        """Images and targets for `"train"`, `"validation"` or `"test"`."""
        if name == "train":
            return self.x, self.y
        if name == "validation" and self.has_validation:
            return self.x_validation, self.y_validation
        return self.x_test, self.y_test

    def accuracy(self, model, split="test"):
        """Fraction of a split's images that a network of logits gets right."""
        x, y = self.split(split)
        logits = model.predict(x, batch_size=500, verbose=0)
        return float(np.mean(np.argmax(logits, -1) == y))

    def sample(self, count):
        """The first training images."""
        return self.x[:count]

    def checksum(self):
        """Integer that tells other images from these."""
        return zlib.crc32(self.x.tobytes(), zlib.crc32(self.x_test.tobytes()))


class Batches(keras.utils.PyDataset):
    """Training images in an order, and shifted by pixels, that depend on the
    seed and `epoch` only, so that a resumed training sees what an uninterrupted
    one would have seen. Needs `fit(..., shuffle=False)`."""

    def __init__(self, data, seed):
        super().__init__()
        self.data, self.seed = data, seed
        self.epoch = 0  # To be set before every epoch.

    def __len__(self):
        return self.data.steps

    def __getitem__(self, index):
        data, border = self.data, self.data.shift
        rng = np.random.default_rng([*np.ravel(self.seed), self.epoch])
        order = rng.permutation(len(data.x))
        # By the width of the border on either side.
        shifts = rng.integers(0, 2 * border + 1, (len(order), 2))
        part = slice(index * data.batch_size, (index + 1) * data.batch_size)
        chosen = order[part]
        x = data.x[chosen]
        if border:
            height, width = x.shape[1:3]
            sides = (border, border)
            padded = np.pad(x, [(0, 0), sides, sides, (0, 0)])
            pairs = zip(padded, shifts[part], strict=True)
            x = np.stack([y[i:, j:][:height, :width] for y, (i, j) in pairs])
        return x, keras.tree.map_structure(lambda y: y[chosen], data.y)


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
    return InMemoryData(x[:count], y[:count], x_test, y_test, shift=1)


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
    return InMemoryData(
        _halved(x[:count]),
        y[:count].astype("int32"),
        _halved(x_test[:tests]),
        y_test[:tests].astype("int32"),
        x_validation=_halved(x[-held_out:]),
        y_validation=y[-held_out:].astype("int32"),
    )


def _read(path, least):
    try:
        with np.load(path) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except KeyError as error:
        raise ValueError(
            f"{path} holds no Fashion-MNIST. Expected the arrays 'images' "
            f"and 'labels'. Received: {error}"
        ) from error
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        # NumPy takes text for pickled objects, and says so.
        raise ValueError(
            f"{path} holds no arrays. Expected an .npz file with the arrays "
            "'images' and 'labels'. Received: a file of another kind"
        ) from error
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
