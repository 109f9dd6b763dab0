"""A mobile network: inverted residuals with squeeze-and-excitation."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_bar.models import resnet

# Output channels, expanded channels and stride of each block.
BLOCKS = (
    (32, 128, 1),
    (48, 128, 2),
    (48, 192, 1),
    (48, 192, 1),
    (80, 192, 2),
    (80, 320, 1),
    (80, 320, 1),
)


def MobileNet(
    input_shape: tuple | None = None,
    classes: int = 10,
    blocks: Sequence[tuple[int, int, int]] = BLOCKS,
    *,
    narrow: float = 1,
) -> keras.Model:
    """Inverted residuals with squeeze-and-excitation, for small images.

    Every block expands its input by a 1x1 convolution, filters each channel by
    a 3x3 depthwise convolution, scales the channels by factors between 0 and 1
    computed from their means, and projects them by another 1x1 convolution.
    Blocks that keep width and size have a residual connection. Unlike those of
    a Wide ResNet, layers differ in width and in cost per channel.

    Args:
        input_shape: Tuple of three, without the batch. Defaults to 32x32 RGB.
        classes: Integer, the number of classes.
        blocks: Triples of integers: output channels, expanded channels and
            stride of each block.
        narrow: Number of at least 1 by which all widths are divided; they are
            rounded and at least 1.

    Returns:
        A Functional `keras.Model` of logits, with random weights.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> model = keras_bar.models.MobileNet((14, 14, 1), blocks=[(8, 16, 2)])
    >>> model.output_shape
    (None, 10)

    Reference:

    - [MobileNetV2: Inverted Residuals and Linear Bottlenecks](
        https://arxiv.org/abs/1801.04381) (Sandler et al., 2018)
    - [MnasNet: Platform-Aware Neural Architecture Search for Mobile](
        https://arxiv.org/abs/1807.11626) (Tan et al., 2019)
    """
    input_shape = input_shape or resnet.default_input_shape(32)
    resnet.check_common_arguments(input_shape, classes, narrow)
    resnet.check_sizes(blocks=[size for block in blocks for size in block])
    if any(len(block) != 3 for block in blocks):
        raise ValueError(
            "Invalid value received for argument `blocks`. Expected output "
            "channels, expanded channels and stride of each block. "
            f"Received: blocks={blocks}"
        )
    x = inputs = keras.Input(input_shape)
    x = resnet.conv(x, resnet.narrowed(32, narrow), 3, name="stem_conv")
    x = _norm_relu6(x, "stem")
    for i, (width, expanded, stride) in enumerate(blocks, 1):
        x = _inverted_residual(
            x,
            width=resnet.narrowed(width, narrow),
            expanded=resnet.narrowed(expanded, narrow),
            squeezed=resnet.narrowed(expanded / 4, narrow),
            stride=stride,
            name=f"block{i}",
        )
    x = resnet.conv(x, resnet.narrowed(256, narrow), 1, name="head_conv")
    x = _norm_relu6(x, "head")
    return keras.Model(inputs, resnet.classifier(x, classes, None))


def _inverted_residual(x, width, expanded, squeezed, stride, name):
    shortcut = x
    x = resnet.conv(x, expanded, 1, name=f"{name}_expand_conv")
    x = _norm_relu6(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        3, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _norm_relu6(x, f"{name}_depthwise")
    x = _squeeze_and_excite(x, expanded, squeezed, name)
    x = resnet.conv(x, width, 1, name=f"{name}_project_conv")
    x = resnet.norm(x, name=f"{name}_project_norm")
    if x.shape == shortcut.shape:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _squeeze_and_excite(x, channels, squeezed, name):
    """Scales the channels by factors computed from their means."""
    scale = layers.GlobalAveragePooling2D(
        keepdims=True, name=f"{name}_squeeze"
    )(x)
    for filters, activation in ((squeezed, "relu"), (channels, "sigmoid")):
        scale = layers.Conv2D(
            filters, 1, activation=activation, name=f"{name}_{activation}"
        )(scale)
    return layers.Multiply(name=f"{name}_excite")([x, scale])


def _norm_relu6(x, name):
    x = resnet.norm(x, name=f"{name}_norm")
    return layers.ReLU(6.0, name=f"{name}_relu")(x)
