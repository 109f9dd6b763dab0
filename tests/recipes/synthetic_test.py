"""Synthetic images can be learned, and stand beside nobody's numbers."""

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

from keras_bar.datasets import synthetic  # noqa: E402
from recipes.data import registry  # noqa: E402
from recipes.experiment.training import CROSSENTROPY  # noqa: E402

# The others take the same way, with fewer classes.
COVERED_BY_OTHERS = ("cifar10", "cifar100", "mio_tcd")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            x, marks=[pytest.mark.slow] if x in COVERED_BY_OTHERS else []
        )
        for x in registry.PAPER
    ],
)
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="`fit` on tf.data"
)
def test_two_epochs_are_above_chance(name, tmp_path):
    """With the network, the batches and the number of images of the recipe."""
    known = registry.DATASETS[f"{name}-synthetic"]
    data = known.load(tmp_path, None, False)
    keras.utils.set_random_seed(0)
    model = known.networks[known.network]()
    model.compile(keras.optimizers.Adam(1e-3), CROSSENTROPY, jit_compile=False)
    batches = data.batches(0)
    for batches.epoch in range(2):
        model.fit(batches.dataset, verbose=0, shuffle=False)
    chance = 1 / model.output_shape[-1]
    # Six standard deviations of a network that guesses.
    deviation = (chance * (1 - chance) / data.tests) ** 0.5
    assert data.accuracy(model) > chance + 6 * deviation


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
