"""A convolutional network in the manner of transformers, for small images."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_bar.models import resnet

LAST = {"data_format": "channels_last"}


def ConvNeXt(
    input_shape: tuple | None = None,
    classes: int = 10,
    widths: Sequence[int] = (32, 64),
    depths: Sequence[int] = (2, 2),
    *,
    kernel_size: int = 5,
    narrow: float = 1,
) -> keras.Model:
    """ConvNeXt for small images.

    Every block filters each channel by a depthwise convolution, normalizes the
    channels of each position, and mixes them by a perceptron that is four times
    as wide. Its output, scaled by one factor per channel, is added to its
    input. The stem, and each group but the first, halve the size.

    Args:
        input_shape: Tuple of three, without the batch. Defaults to 32x32 RGB.
        classes: Integer, the number of classes.
        widths: Integers, the channels of each group.
        depths: Integers, the blocks of each group.
        kernel_size: Integer, height and width of the depthwise kernels.
        narrow: Number of at least 1 by which all widths are divided; they are
            rounded and at least 1.

    Returns:
        A Functional `keras.Model` of logits, with random weights.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> model = keras_bar.models.ConvNeXt((14, 14, 1), widths=(8,), depths=(1,))
    >>> model.output_shape
    (None, 10)

    Reference:

    - [A ConvNet for the 2020s](https://arxiv.org/abs/2201.03545)
        (Liu et al., 2022)
    """
    input_shape = input_shape or resnet.default_input_shape(32)
    resnet.check_common_arguments(input_shape, classes, narrow)
    resnet.check_sizes(kernel_size=kernel_size, widths=widths, depths=depths)
    if len(widths) != len(depths):
        raise ValueError(
            "Invalid value received for argument `depths`. Expected a number "
            f"of blocks for each of {len(widths)} widths. "
            f"Received: depths={depths}"
        )
    x = inputs = keras.Input(input_shape)
    if keras.config.image_data_format() == "channels_first":
        # Dense layers mix the last axis.
        x = layers.Permute((2, 3, 1), name="channels_last")(x)
    for i, (full, depth) in enumerate(zip(widths, depths, strict=True), 1):
        width = resnet.narrowed(full, narrow)
        if i > 1:
            x = _norm(x, f"group{i}_norm")
        name = "stem" if i == 1 else f"group{i}_conv"
        x = layers.Conv2D(width, 2, 2, **LAST, name=name)(x)
        for j in range(1, depth + 1):
            x = _block(x, width, kernel_size, f"group{i}_block{j}")
    x = layers.GlobalAveragePooling2D(**LAST, name="pool")(x)
    x = _norm(x, "norm")
    outputs = layers.Dense(classes, dtype="float32", name="classifier")(x)
    return keras.Model(inputs, outputs)


def _block(x, width, kernel_size, name):
    y = layers.DepthwiseConv2D(
        kernel_size, padding="same", **LAST, name=f"{name}_depthwise"
    )(x)
    y = _norm(y, f"{name}_norm")
    y = layers.Dense(4 * width, "gelu", name=f"{name}_expand")(y)
    y = layers.Dense(width, name=f"{name}_project")(y)
    # One factor per channel, without a bias: LayerScale.
    y = layers.DepthwiseConv2D(
        1,
        use_bias=False,
        depthwise_initializer="ones",
        **LAST,
        name=f"{name}_scale",
    )(y)
    return layers.Add(name=f"{name}_add")([x, y])


def _norm(x, name):
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)
