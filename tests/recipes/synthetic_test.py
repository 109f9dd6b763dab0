"""Synthetic images can be learned, and stand beside nobody's numbers."""

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

from keras_bar.datasets import synthetic  # noqa: E402
from recipes.data import registry  # noqa: E402
from recipes.experiment.training import CROSSENTROPY  # noqa: E402

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="`fit` on tf.data"
)


def train(model, data, epochs, rate):
    """Trains on the batches of a recipe."""
    model.compile(keras.optimizers.Adam(rate), CROSSENTROPY, jit_compile=False)
    batches = data.batches(0)
    for batches.epoch in range(epochs):
        model.fit(batches.dataset, verbose=0, shuffle=False)


def assert_above_chance(model, data):
    """By six standard deviations of a network that guesses."""
    chance = 1 / model.output_shape[-1]
    deviation = (chance * (1 - chance) / data.tests) ** 0.5
    assert data.accuracy(model) > chance + 6 * deviation


@only_tensorflow
def test_images_can_be_learned(tmp_path):
    """By a linear model of the mean colours."""
    data = registry.DATASETS["cifar10-synthetic"].load(tmp_path, None, False)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.AveragePooling2D(8),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    train(model, data, epochs=3, rate=0.01)
    assert_above_chance(model, data)


@only_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("name", registry.PAPER)
def test_a_few_epochs_are_above_chance(name, tmp_path):
    """With the network, the batches and the number of images of the recipe."""
    known = registry.DATASETS[f"{name}-synthetic"]
    data = known.load(tmp_path, None, False)
    keras.utils.set_random_seed(0)
    model = known.networks[known.network]()
    train(model, data, epochs=6, rate=1e-3)
    assert_above_chance(model, data)


def test_images_of_a_class_are_alike():
    one, other = (
        synthetic.make_images(x, 32, 10, 4) for x in ("train", "test")
    )
    means = [
        np.stack([x["image"][x["label"] == i].mean(0) for i in range(10)])
        for x in (one, other)
    ]
    distance = np.abs(means[0][:, None] - means[1][None]).mean((2, 3, 4))
    np.testing.assert_array_equal(distance.argmin(1), np.arange(10))


def test_written_once(tmp_path):
    known = registry.DATASETS["cifar10-synthetic"]
    first = known.load(tmp_path, None, False)
    (folder,) = tmp_path.iterdir()
    written = folder.stat().st_mtime_ns
    second = known.load(tmp_path, None, False)
    assert folder.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [folder]
    np.testing.assert_array_equal(first.sample(9), second.sample(9))
    assert len(first.sample(1000)) == 640 and first.tests == 160
