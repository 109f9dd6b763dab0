"""Channels on the first axis."""

import keras
import pytest
from keras import layers
from keras import ops

from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import prune


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="TensorFlow on CPU has no convolution with channels first",
)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(4, 3, padding="same"),
        lambda: layers.Conv2DTranspose(4, 3),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.SeparableConv2D(4, 3),
        lambda: layers.MaxPooling2D(2),
        lambda: layers.ZeroPadding2D(1),
        lambda: layers.UpSampling2D(2),
        lambda: layers.PReLU(shared_axes=[2, 3]),
        lambda: layers.SpatialDropout2D(0.2),
        lambda: layers.GlobalMaxPooling2D(),
        lambda: layers.Flatten(),
        lambda: layers.Flatten(data_format="channels_last"),
        lambda: layers.Reshape((6, 4, 9)),
        lambda: lambda x: x[:, 2:5],
        lambda: lambda x: x + layers.Conv2D(6, 3, padding="same")(x),
        lambda: lambda x: ops.concatenate([x, layers.Conv2D(2, 1)(x)], axis=1),
        lambda: (
            lambda x: (
                x
                * layers.Conv2D(6, 1, activation="sigmoid")(
                    layers.GlobalAveragePooling2D(keepdims=True)(x)
                )
            )
        ),
    ],
)
def test_channels_first(layer, channels_first):
    inputs = keras.Input((3, 6, 6))
    x = layers.Conv2D(6, 1, name="first")(inputs)
    x = layers.BatchNormalization(axis=1)(layers.ReLU()(x))
    x = layer()(x)
    if len(x.shape) == 4:
        x = layers.BatchNormalization(axis=1)(layers.Conv2D(4, 1)(x))
        x = layers.Flatten()(layers.ReLU()(x))
    gated, hard, small = prune(keras.Model(inputs, layers.Dense(2)(x)))
    assert filters_of(small) < 6


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")
