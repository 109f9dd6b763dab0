"""The supplement's data sets, and synthetic ones, of tensorflow-datasets."""

import keras
import tensorflow as tf

from keras_bar import datasets
from recipes.data.registry import FOLDER

if keras.backend.backend() != "tensorflow":
    # It would take the memory that the other backend needs.
    tf.config.set_visible_devices([], "GPU")


def load(name, path, count, skip_broken):
    """Images of a name in `keras_bar.datasets.SOURCES`."""
    builder = datasets.prepare(name, path or FOLDER, skip_broken)
    return datasets.Stream(builder, count)


def load_synthetic(name, size, classes, per_class, path, count, skip_broken):
    """Synthetic images of the shape of a data set."""
    builder = datasets.prepare_synthetic(
        name, path or FOLDER, size, classes, per_class
    )
    return datasets.Stream(builder, count)
