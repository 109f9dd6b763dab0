"""A network whose layers read all layers before them."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_bar.models import resnet


def DenseNet(
    input_shape: tuple | None = None,
    classes: int = 10,
    blocks: Sequence[int] = (4, 4, 4),
    growth: int = 24,
    *,
    narrow: float = 1,
) -> keras.Model:
    """Densely concatenated layers with bottlenecks, for small images.

    Every layer computes `growth` channels from all channels before it in its
    block, through a bottleneck of four times as many. Between blocks a 1x1
    convolution halves the channels, and an average pooling the size.

    Args:
        input_shape: Tuple of three, without the batch. Defaults to 32x32 RGB.
        classes: Integer, the number of classes.
        blocks: Integers, the number of layers of each block.
        growth: Integer, the channels that each layer adds.
        narrow: Number of at least 1 by which all widths are divided; they are
            rounded and at least 1.

    Returns:
        A Functional `keras.Model` of logits, with random weights.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> model = keras_bar.models.DenseNet((14, 14, 1), blocks=(2, 2), growth=4)
    >>> model.output_shape
    (None, 10)

    Reference:

    - [Densely Connected Convolutional Networks](
        https://arxiv.org/abs/1608.06993) (Huang et al., 2017)
    """
    input_shape = input_shape or resnet.default_input_shape(32)
    resnet.check_common_arguments(input_shape, classes, narrow)
    resnet.check_sizes(growth=growth, blocks=blocks)
    first = keras.config.image_data_format() == "channels_first"
    axis = 1 if first else -1
    added, inner = (resnet.narrowed(x, narrow) for x in (growth, 4 * growth))
    width = 2 * growth
    x = inputs = keras.Input(input_shape)
    x = resnet.conv(x, resnet.narrowed(width, narrow), 3, name="stem_conv")
    for i, count in enumerate(blocks, 1):
        for j in range(1, count + 1):
            name = f"block{i}_layer{j}"
            y = resnet.norm_relu(x, f"{name}_norm1", f"{name}_relu1")
            y = resnet.conv(y, inner, 1, name=f"{name}_conv1")
            y = resnet.norm_relu(y, f"{name}_norm2", f"{name}_relu2")
            y = resnet.conv(y, added, 3, name=f"{name}_conv2")
            x = layers.Concatenate(axis, name=f"{name}_concat")([x, y])
        x = resnet.norm_relu(x, f"block{i}_norm", f"block{i}_relu")
        width = (width + growth * count) // 2
        if i < len(blocks):
            filters = resnet.narrowed(width, narrow)
            x = resnet.conv(x, filters, 1, name=f"block{i}_conv")
            x = layers.AveragePooling2D(2, name=f"block{i}_pool")(x)
    return keras.Model(inputs, resnet.classifier(x, classes, None))
