"""Synthetic images, to try a training without a download.

Every class has a pattern, so the images can be learned, and a pipeline that
mixes up images or labels is noticed. The same code reads synthetic and real
images.
"""

import os
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# Bands of a pattern, and standard deviation of the noise.
BANDS, NOISE = 4, 20
VERSION = "1.0.0"


def prepare_synthetic(
    name: str,
    folder: str | os.PathLike[str],
    size: int,
    classes: int,
    per_class: int,
) -> tfds.core.DatasetBuilder:
    """Writes synthetic images that can be learned, unless they exist.

    Args:
        name: String, the name of the data set.
        folder: Path of the folder of the data; created if necessary.
        size: Integer, width and height of the images, which have 3 channels.
        classes: Integer, the number of classes.
        per_class: Integer, training images per class; the test set has a
            quarter as many.

    Returns:
        `tfds.core.DatasetBuilder` with the splits `"train"` and `"test"`.

    Example:

    >>> from keras_bar import datasets
    >>> builder = datasets.prepare_synthetic("tiny", "data", 16, 10, 8)
    Downloading and preparing ...
    >>> builder.info.splits["train"].num_examples
    80
    """
    folder = pathlib.Path(folder).expanduser()
    folder = folder / f"synthetic-{name}-{per_class}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unfinished = pathlib.Path(scratch) / name
            write(name, unfinished, size, classes, per_class)
            unfinished.rename(folder)
    return tfds.builder_from_directory(folder / name / VERSION)


def write(name, folder, size, classes, per_class):
    """Writes training images, and a quarter as many test images."""
    counts = {"train": per_class, "test": -(-per_class // 4)}
    images = {x: make_images(x, size, classes, n) for x, n in counts.items()}
    from_arrays = tf.data.Dataset.from_tensor_slices
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=VERSION,
        data_dir=folder,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(size, size, 3)),
                "label": tfds.features.ClassLabel(num_classes=classes),
            }
        ),
        split_datasets={x: from_arrays(y) for x, y in images.items()},
        disable_shuffling=True,
    )


def make_images(split, size, classes, per_class):
    """Dict of images, uint8 `(n, size, size, 3)`, and labels, in random order.
    An image is the pattern of its class plus noise."""
    rng = np.random.default_rng(len(split))
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    images = [rng.normal(make_pattern(x, size), NOISE) for x in labels]
    return {"image": np.clip(images, 0, 255).astype("uint8"), "label": labels}


def make_pattern(label, size):
    """Horizontal bands of colours, which survive flips and small shifts. Array
    `(size, size, 3)`."""
    colours = np.random.default_rng(label).uniform(20, 235, (BANDS, 3))
    rows = colours[np.arange(size) * BANDS // size]
    return np.broadcast_to(rows[:, None], (size, size, 3))
