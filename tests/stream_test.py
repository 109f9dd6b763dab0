"""The pipeline from tensorflow-datasets to `fit`."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_datasets")

from keras_bar import datasets  # noqa: E402
from keras_bar.datasets import stream as streams  # noqa: E402
from tests.helpers import archives  # noqa: E402

if keras.backend.backend() != "tensorflow":
    pytest.skip("`fit` on tf.data is tested once", allow_module_level=True)

BATCH = 4


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    archives.write("cifar10", folder, 3, 2)
    return datasets.prepare("cifar10", folder)


@pytest.fixture(params=["in memory", "from disk"])
def stream(builder, request, monkeypatch):
    if request.param == "from disk":
        monkeypatch.setattr(streams, "MEMORY", 0)
    return datasets.Stream(builder, batch_size=BATCH)


def read(epochs, epoch):
    epochs.epoch = epoch
    batches = list(epochs.dataset.as_numpy_iterator())
    return [np.concatenate(x) for x in zip(*batches, strict=True)]


def test_an_epoch_depends_on_its_seed_and_number_only(stream):
    keras.utils.set_random_seed(0)
    first = stream.batches([0, 7])
    images, labels = read(first, 3)
    keras.utils.set_random_seed(1)
    second = stream.batches([0, 7])
    read(second, 0)
    for found, expected in zip(read(second, 3), (images, labels), strict=True):
        np.testing.assert_array_equal(found, expected)
    for other in (read(first, 4), read(stream.batches([0, 8]), 3)):
        assert not np.array_equal(other[1], labels)
    assert images.shape == (28, 32, 32, 3)
    assert len(first.dataset) == stream.steps == 7


def test_every_picture_at_most_once_per_epoch(stream, monkeypatch):
    monkeypatch.setattr(streams, "_augment", lambda image, seed: image)
    images, _ = read(stream.batches(0), 0)
    everything = stream.sample(100)
    assert len(everything) == 30
    distance = np.abs(images[:, None] - everything).max((2, 3, 4))
    assert (np.sort(distance == 0).sum(1) == 1).all()
    assert ((distance == 0).sum(0) <= 1).all()


def test_pictures_are_normalised_per_channel(stream):
    pixels = stream.sample(100).reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(pixels.std(0), 1, atol=1e-4)


def test_the_smaller_the_count_the_fewer_pictures(builder):
    stream = datasets.Stream(builder, count=9, batch_size=BATCH)
    assert stream.steps == 2 and len(stream.sample(100)) == 9


def test_augmentation_cuts_from_the_padded_picture():
    image = np.arange(1, 193, dtype="float32").reshape(8, 8, 3)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    parts = [padded[i : i + 8, j : j + 8] for i in range(9) for j in range(9)]
    seen = set()
    for i in range(40):
        seed = tf.constant([0, i], tf.int64)
        found = streams._augment(tf.constant(image), seed).numpy()
        for flipped, picture in enumerate((found, found[:, ::-1])):
            seen |= {
                (k, flipped)
                for k, part in enumerate(parts)
                if np.array_equal(part, picture)
            }
    # Each found one place, most of them different ones, flipped or not.
    assert len(seen) > 25 and {flipped for _, flipped in seen} == {0, 1}


class Spy(keras.Model):
    """Writes down the labels that `fit` shows it."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(10)
        self.seen = []

    def call(self, x):
        return self.dense(keras.ops.mean(x, (1, 2)))

    def train_step(self, data):
        self.seen.append(np.asarray(data[1]))
        return super().train_step(data)


def test_fit_sees_the_epochs_that_are_set(stream):
    epochs = stream.batches(5)
    model = Spy()
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(
            epochs.dataset,
            # As after an interruption.
            initial_epoch=2,
            epochs=5,
            callbacks=[epochs],
            shuffle=False,
            verbose=0,
            validation_data=stream.validation,
        )
    expected = np.concatenate([read(epochs, i)[1] for i in (2, 3, 4)])
    np.testing.assert_array_equal(np.concatenate(model.seen), expected)


def test_accuracy_by_hand(stream):
    """Of a network that takes every picture for class 1."""
    x = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    dense = keras.layers.Dense(10, kernel_initializer="zeros")
    model = keras.Model(x, dense(pooled))
    bias = np.zeros(10)
    bias[1] = 1
    dense.bias.assign(bias)
    for split in ("train", "test"):
        assert stream.accuracy(model, split) == pytest.approx(1 / 10)
