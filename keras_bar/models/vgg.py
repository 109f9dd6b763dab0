"""A plain network without residuals, like those of VGG."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_bar.models import resnet


def VGG(
    input_shape: tuple | None = None,
    classes: int = 10,
    widths: Sequence[int] = (32, 64, 128),
    *,
    convolutions: int = 2,
    narrow: float = 1,
) -> keras.Model:
    """Convolutions one after the other, for small images.

    Every group has 3x3 convolutions of one width, each with batch normalization
    and ReLU; the size is halved between groups. The network has no residual
    connections, so every channel can be removed by itself.

    Args:
        input_shape: Tuple of three, without the batch. Defaults to 32x32 RGB.
        classes: Integer, the number of classes.
        widths: Integers, the channels of each group.
        convolutions: Integer, the convolutions of each group.
        narrow: Number of at least 1 by which all widths are divided; they are
            rounded and at least 1.

    Returns:
        A Functional `keras.Model` of logits, with random weights.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> model = keras_bar.models.VGG((14, 14, 1), widths=(8, 16))
    >>> model.output_shape
    (None, 10)

    Reference:

    - [Very Deep Convolutional Networks for Large-Scale Image Recognition](
        https://arxiv.org/abs/1409.1556) (Simonyan & Zisserman, 2015)
    """
    input_shape = input_shape or resnet.default_input_shape(32)
    resnet.check_common_arguments(input_shape, classes, narrow)
    resnet.check_sizes(convolutions=convolutions, widths=widths)
    first = keras.config.image_data_format() == "channels_first"
    axis = 1 if first else -1
    x = inputs = keras.Input(input_shape)
    for group, width in enumerate(widths, 1):
        filters = resnet.narrowed(width, narrow)
        for i in range(1, convolutions + 1):
            name = f"group{group}_conv{i}"
            x = layers.Conv2D(
                filters, 3, padding="same", use_bias=False, name=name
            )(x)
            x = layers.BatchNormalization(axis=axis, momentum=0.9)(x)
            x = layers.ReLU()(x)
        if group < len(widths):
            x = layers.MaxPooling2D()(x)
    return keras.Model(inputs, resnet.classifier(x, classes, None))
