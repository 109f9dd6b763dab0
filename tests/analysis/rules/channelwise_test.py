"""Layers and operations that keep channels apart, or move them."""

import keras
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import assert_removable
from tests.helpers.one_layer import before
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import gates_of

# Groups of layers that keep the shape, side by side in one network.
SIDE_BY_SIDE = {
    "batch_norms": lambda: [
        layers.BatchNormalization(),
        layers.BatchNormalization(scale=False),
        layers.BatchNormalization(center=False),
    ],
    "prelus": lambda: [
        layers.PReLU(shared_axes=[1, 2]),
        layers.PReLU(shared_axes=[1, 2, 3]),
        layers.PReLU(),
    ],
    "rescalings": lambda: [
        layers.Rescaling(0.5, offset=0.1),
        layers.Rescaling([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], offset=0.2),
    ],
    "normalizations": lambda: [
        layers.Normalization(),
        layers.Normalization(
            mean=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], variance=[1.5] * 6
        ),
        layers.Normalization(axis=None, mean=0.5, variance=2.0),
    ],
    "of_training": lambda: [
        layers.Dropout(0.5),
        layers.Dropout(0.5, noise_shape=(None, 1, 1, CHANNELS)),
        layers.Dropout(0.5, noise_shape=(None, 1, 1, 1)),
        layers.SpatialDropout2D(0.5),
        layers.GaussianDropout(0.5),
        layers.AlphaDropout(0.5),
        layers.GaussianNoise(0.5),
        layers.Identity(),
        layers.ActivityRegularization(0.1),
    ],
}
CHANNELWISE = {
    "max_pooling": lambda: layers.MaxPooling2D(3, 2, padding="same"),
    "average_pooling": lambda: layers.AveragePooling2D(3, 2, padding="same"),
    "ops_max_pool": lambda: lambda x: ops.max_pool(x, 2),
    "ops_average_pool": lambda: (
        lambda x: ops.average_pool(x, 3, padding="same")
    ),
    "cropping": lambda: layers.Cropping2D(((1, 0), (2, 1))),
    "up_sampling": lambda: layers.UpSampling2D(2),
    "up_sampling_bilinear": lambda: layers.UpSampling2D(
        2, interpolation="bilinear"
    ),
    "ops_resize": lambda: lambda x: ops.image.resize(x, (9, 4)),
    "ops_resize_cubic": lambda: (
        lambda x: ops.image.resize(
            x, (4, 9), "bicubic", crop_to_aspect_ratio=True
        )
    ),
    "global_average": lambda: layers.GlobalAveragePooling2D(),
    "global_max": lambda: layers.GlobalMaxPooling2D(),
    "global_kept": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "ops_mean": lambda: lambda x: ops.mean(x, axis=(1, 2)),
    "ops_max_kept": lambda: lambda x: ops.max(x, axis=[1, -2], keepdims=True),
    "ops_max_at_least": lambda: lambda x: ops.max(x, axis=1, initial=0.3),
    "ops_min_at_most": lambda: lambda x: ops.min(x, axis=1, initial=0.1),
    "ops_amax": lambda: lambda x: ops.amax(x, axis=(1, 2)),
    "ops_amin_kept": lambda: lambda x: ops.amin(x, axis=-2, keepdims=True),
    "ops_sum": lambda: lambda x: ops.sum(x, axis=[1, 2]),
    "ops_sum_kept": lambda: lambda x: ops.sum(x, axis=-3, keepdims=True),
    "flatten": lambda: layers.Flatten(),
    "repeat_vector": lambda: (
        lambda x: layers.RepeatVector(3)(ops.mean(x, axis=(1, 2)))
    ),
    "roll": lambda: lambda x: ops.roll(x, (1, -2), axis=(1, 2)),
    "reshape_in_front": lambda: (
        lambda x: ops.reshape(x, (-1, 2, 3, 3, 2, CHANNELS))[:, 0, :, 1]
    ),
    "reshape": lambda: layers.Reshape((-1, CHANNELS)),
    "reshape_spelled_out": lambda: layers.Reshape((4, 9, CHANNELS)),
    "ops_reshape": lambda: lambda x: ops.reshape(x, (-1, 36, CHANNELS)),
    "depthwise_valid": lambda: layers.DepthwiseConv2D(3, activation="relu"),
    "depthwise_twice": lambda: layers.DepthwiseConv2D(2, depth_multiplier=2),
    "slice": lambda: lambda x: x[..., 1:5],
    "slice_steps": lambda: lambda x: x[:, :, :, ::2],
    "take": lambda: lambda x: ops.take(x, [4, 0, 5, 2], axis=-1),
    "pad_channels": lambda: lambda x: ops.pad(x, [[0, 0]] * 3 + [[2, 1]]),
    "transpose": lambda: lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "transpose_twice": lambda: (
        lambda x: ops.transpose(
            ops.relu(ops.transpose(x, (0, 3, 1, 2))), (0, 2, 3, 1)
        )
    ),
    "permute": lambda: (
        lambda x: layers.Permute((2, 3, 1))(layers.Permute((3, 1, 2))(x))
    ),
    "swapaxes": lambda: (
        lambda x: ops.swapaxes(ops.relu(ops.swapaxes(x, 1, -1)), -1, 1)
    ),
    "moveaxis": lambda: (
        lambda x: ops.moveaxis(ops.moveaxis(x, 3, 1), (1, 2), (-1, -3))
    ),
    "axes_of_size_1": lambda: (
        lambda x: ops.squeeze(ops.expand_dims(x, (1, -2)), (1, 4))
    ),
    "all_axes_of_size_1": lambda: lambda x: ops.squeeze(ops.expand_dims(x, 1)),
    "first_token": lambda: lambda x: layers.Reshape((-1, 6))(x)[:, 0],
    "rows_and_a_new_axis": lambda: lambda x: x[:, 1:5:2, None, -1],
    "take_rows": lambda: lambda x: ops.take(x, [4, 0, 0], axis=1),
    "take_a_row": lambda: lambda x: ops.take(x, 2, axis=1),
    "take_a_table": lambda: lambda x: ops.take(x, [[0, 1], [2, 3]], axis=2),
    "pad_reflected": lambda: (
        lambda x: ops.pad(x, [[0, 0], [1, 2], [1, 0], [0, 0]], "reflect")
    ),
    "take_zeros": lambda: (
        lambda x: ops.take(
            ops.pad(x, [[0, 0]] * 3 + [[0, 1]]), [6, 1, 6, 0, 3, 6], axis=-1
        )
    ),
}


@pytest.mark.parametrize("name", CHANNELWISE)
def test_channelwise(name):
    assert_removable(CHANNELWISE[name](), zero=False)


@pytest.mark.parametrize("name", ["stack", "sum"])
def test_branches_that_are_stacked(name):
    """As selective kernels add theirs: only 0 stays a constant in a stack."""

    def layer(x):
        y = ops.relu(layers.Conv2D(CHANNELS, 3, padding="same", name="b")(x))
        y = ops.stack([x, y], axis=1)
        return ops.sum(y, axis=1) if name == "sum" else ops.max(y, axis=1)

    gated, _, small = prune(model_with(layer, zero=True))
    assert filters_of(small) < CHANNELS and filters_of(small, "b") < CHANNELS
    assert not keras_bar.explain(small).boundaries


@pytest.mark.parametrize("zero", (False, True))
def test_a_sum_over_an_unknown_number_of_positions(zero):
    """Each constant but 0 has to be computed."""
    x = inputs = keras.Input((None, 3))
    x = ops.sum(before(x, zero, rank=1), axis=1)
    model = keras.Model(inputs, layers.Dense(2)(x))
    gated, _, small = prune(model, measure=False)
    assert filters_of(small) == gates_of(gated)[0].alive().sum() < CHANNELS
    reads = small.layers[-1].kernel.shape[0]
    assert reads == (filters_of(small) if zero else CHANNELS)


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_side_by_side(name):
    for zero in (False, True) if name == "prelus" else (False,):
        made = SIDE_BY_SIDE[name]()
        assert_removable(
            lambda x, made=made: layers.Concatenate()([y(x) for y in made]),
            zero,
        )
