"""Synthetic images of the supplement's shapes, for a first try.

Every class has a pattern, so that they can be learned, and a pipeline that
mixes images or labels up shows. What reads them reads the real ones.
"""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from recipes.data import tfds_data
from recipes.data.registry import FOLDER

# Bands of a pattern, and standard deviation of the noise.
BANDS, NOISE = 4, 20
VERSION = "1.0.0"


def load(name, size, classes, per_class, path, count, skip_broken):
    """`TfdsData` of synthetic images, which are written unless they are there
    already."""
    folder = (path or FOLDER).expanduser() / f"synthetic-{name}-{per_class}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unfinished = pathlib.Path(scratch) / name
            write(name, unfinished, size, classes, per_class)
            unfinished.rename(folder)
    builder = tfds.builder_from_directory(folder / name / VERSION)
    return tfds_data.TfdsData(builder, count)


def write(name, folder, size, classes, per_class):
    """Writes training images, and a quarter as many for tests."""
    counts = {"train": per_class, "test": -(-per_class // 4)}
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
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices(
                make_images(split, size, classes, n)
            )
            for split, n in counts.items()
        },
        disable_shuffling=True,
    )


def make_images(split, size, classes, per_class):
    """Dict of images, uint8 `(n, size, size, 3)`, and labels, in a random
    order: the pattern of the class, and noise."""
    rng = np.random.default_rng(len(split))
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    images = [rng.normal(make_pattern(x, size), NOISE) for x in labels]
    return {"image": np.clip(images, 0, 255).astype("uint8"), "label": labels}


def make_pattern(label, size):
    """Bands of colours, that stay what they are when an image is flipped, or
    shifted by a few pixels."""
    colours = np.random.default_rng(label).uniform(20, 235, (BANDS, 3))
    rows = colours[np.arange(size) * BANDS // size]
    return np.broadcast_to(rows[:, None], (size, size, 3))
