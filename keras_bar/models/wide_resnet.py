"""The Wide ResNet of the BAR paper."""

from collections.abc import Callable

import keras
from keras import layers

from keras_bar.models import resnet

STEM_WIDTH = 16


def WideResNet(
    depth: int = 26,
    width: float = 12,
    input_shape: tuple | None = None,
    classes: int = 10,
    *,
    classifier_activation: str | Callable | None = None,
    narrow: float = 1,
    name: str | None = None,
) -> keras.Model:
    """Pre-activation Wide ResNet for small images.

    A 3x3 stem to 16 channels is followed by three groups of blocks with widths
    `16 * width`, `32 * width` and `64 * width`; the second and the third group
    begin with a stride of 2. A block applies batch normalization, ReLU and a
    3x3 convolution twice. The first block of each group, whatever its width,
    has a 1x1 shortcut convolution that reads the same activation as the branch.
    Convolutions have no bias. The defaults are the WideResNet-26-12 of the
    paper.

    The model returns logits by default, as knowledge distillation needs: it
    softens teacher and student by a temperature *before* the softmax. Compile
    it with `from_logits=True`.

    Args:
        depth: Integer, `6n + 2` or `6n + 4` for `n` blocks per group, the
            number of layers without or with the shortcuts; both conventions are
            in use. Depths 26 and 28 are the same network, as are 14 and 16.
        width: Positive number, the widening factor. May be a fraction.
        input_shape: Tuple of three, without the batch and in the order of
            `keras.config.image_data_format()`. Height and width may be `None`.
            Defaults to 32x32 RGB, i.e. `(32, 32, 3)` with `"channels_last"`.
        classes: Integer, the number of classes.
        classifier_activation: Activation of the final dense layer, `None` for
            logits.
        narrow: Number of at least 1 by which all widths, including that of the
            stem, are divided. This is the uniformly narrowed baseline of
            pruning. Widths are rounded and at least 1.
        name: String, the name of the model.

    Returns:
        A Functional `keras.Model` of standard layers, with random weights.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> model = keras_bar.models.WideResNet(10, 2, (8, 8, 1))
    >>> model.output_shape
    (None, 10)
    >>> half = keras_bar.models.WideResNet(10, 2, (8, 8, 1), narrow=2)
    >>> half.get_layer("stem_conv").filters
    8

    Reference:

    - [Wide Residual Networks](https://arxiv.org/abs/1605.07146)
        (Zagoruyko & Komodakis, 2016)
    - [Identity Mappings in Deep Residual Networks](
        https://arxiv.org/abs/1603.05027) (He et al., 2016)
    """
    input_shape = input_shape or resnet.default_input_shape(32)
    resnet.check_common_arguments(input_shape, classes, narrow)
    blocks = _blocks_per_group(depth)
    _check_width(width)

    inputs = keras.Input(input_shape)
    x = resnet.conv(
        inputs, resnet.narrowed(STEM_WIDTH, narrow), 3, name="stem_conv"
    )
    for group in (1, 2, 3):
        filters = resnet.narrowed(STEM_WIDTH * width * 2 ** (group - 1), narrow)
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and group > 1 else 1
            prefix = f"group{group}_block{block}"
            x = _block(x, filters, stride, block == 1, prefix)
    x = resnet.norm_relu(x, "head_norm", "head_relu")
    outputs = resnet.classifier(x, classes, classifier_activation)
    name = name or f"wide_resnet_{depth}_{width}".replace(".", "_")
    return keras.Model(inputs, outputs, name=name)


def _block(x, filters, stride, begins_group, prefix):
    """Applies BN-ReLU-conv3x3 twice and adds the result to the stream."""
    shortcut = x
    x = resnet.norm_relu(x, f"{prefix}_norm1", f"{prefix}_relu1")
    if begins_group:
        shortcut = resnet.conv(x, filters, 1, stride, name=f"{prefix}_shortcut")
    x = resnet.conv(x, filters, 3, stride, name=f"{prefix}_conv1")
    x = resnet.norm_relu(x, f"{prefix}_norm2", f"{prefix}_relu2")
    x = resnet.conv(x, filters, 3, name=f"{prefix}_conv2")
    return layers.Add(name=f"{prefix}_add")([shortcut, x])


def _blocks_per_group(depth):
    if depth < 8 or depth % 6 not in (2, 4):
        raise ValueError(
            "Invalid value received for argument `depth`. Expected 6n + 2 or "
            "6n + 4 with n >= 1 blocks per group, e.g. 16, 26 or 28. "
            f"Received: depth={depth}"
        )
    return int(depth // 6)


def _check_width(width):
    if not width > 0:
        raise ValueError(
            "Invalid value received for argument `width`. Expected a positive "
            "number, the factor by which a group is wider than the stem. "
            f"Received: width={width}"
        )
