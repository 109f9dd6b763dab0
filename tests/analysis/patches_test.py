"""Patches times the kernel are what the layer computes."""

import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_bar.analysis import patches

core = pytest.mark.core
SHAPES = {layers.Conv1D: (9,), layers.Conv2D: (9, 7), layers.Conv3D: (5, 6, 4)}


@core
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (layers.Conv1D, {"padding": "causal", "dilation_rate": 2}),
        (layers.Conv1D, {"padding": "same", "strides": 3}),
        (layers.Conv2D, {"padding": "valid", "strides": 2}),
        (layers.Conv2D, {"padding": "same", "strides": (2, 1)}),
        (layers.Conv2D, {"padding": "same", "dilation_rate": (1, 2)}),
        (layers.Conv2D, {"padding": "valid", "dilation_rate": 3}),
        (layers.Conv3D, {"padding": "same", "strides": 2}),
        (layers.Conv3D, {"padding": "valid"}),
    ],
)
def test_patches_times_kernel_is_the_output(kind, options):
    rng = np.random.default_rng(0)
    sizes = SHAPES[kind]
    layer = kind(5, kernel_size=3, use_bias=False, **options)
    images = rng.normal(size=(2, *sizes, 4)).astype("float32")
    output = ops.convert_to_numpy(layer(images))
    kernel = ops.convert_to_numpy(layer.kernel).reshape(-1, 5)
    assert [*output.shape[1:-1]] == patches.output_sizes(layer, sizes)
    places = patches.sample_positions(output.shape[:-1], 10**6, rng)
    found = patches.read(layer, images, places) @ kernel
    np.testing.assert_allclose(found, output.reshape(-1, 5), atol=1e-5)
    few = patches.sample_positions(output.shape[:-1], 7, rng)
    found = patches.read(layer, images, few) @ kernel
    np.testing.assert_allclose(found, output[few], atol=1e-5)


def test_positions_are_distinct():
    rng = np.random.default_rng(0)
    places = np.stack(patches.sample_positions((4, 5, 6), 100, rng))
    assert places.shape == (3, 100)
    assert len(np.unique(places, axis=1).T) == 100
    assert (places.max(1) < [4, 5, 6]).all()
