"""ResNet-50, and the parts that it shares with the Wide ResNet."""

from collections.abc import Callable

import keras
from keras import layers

GROUPS = ((64, 3), (128, 4), (256, 6), (512, 3))  # (width, blocks)


def ResNet50(
    input_shape: tuple | None = None,
    classes: int = 11,
    *,
    classifier_activation: str | Callable | None = None,
    narrow: float = 1,
    name: str | None = None,
) -> keras.Model:
    """ResNet-50 with its stride in the 3x3 convolution.

    The network has post-activation bottleneck blocks, and a 1x1 shortcut
    convolution at the start of each group. Its stride is in the 3x3 instead of
    the first 1x1 convolution, often called version 1.5. Convolutions have no
    bias and are followed by batch normalization.

    The model returns logits by default, as knowledge distillation needs: it
    softens teacher and student by a temperature *before* the softmax. Compile
    it with `from_logits=True`.

    Args:
        input_shape: Tuple of three, without the batch and in the order of
            `keras.config.image_data_format()`. Height and width may be `None`.
            Defaults to 128x128 RGB, i.e. `(128, 128, 3)` with
            `"channels_last"`.
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

    >>> model = keras_bar.models.ResNet50((64, 64, 3), classes=5, narrow=8)
    >>> model.output_shape
    (None, 5)

    Reference:

    - [Deep Residual Learning for Image Recognition](
        https://arxiv.org/abs/1512.03385) (He et al., 2016)
    """
    input_shape = input_shape or default_input_shape(128)
    check_common_arguments(input_shape, classes, narrow)

    inputs = keras.Input(input_shape)
    x = conv(inputs, narrowed(64, narrow), 7, 2, name="stem_conv")
    x = norm_relu(x, "stem_norm", "stem_relu")
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for group, (width, blocks) in enumerate(GROUPS, start=1):
        inner, outer = narrowed(width, narrow), narrowed(4 * width, narrow)
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and group > 1 else 1
            prefix = f"group{group}_block{block}"
            x = _bottleneck(x, inner, outer, stride, block == 1, prefix)
    outputs = classifier(x, classes, classifier_activation)
    return keras.Model(inputs, outputs, name=name or "resnet50")


def _bottleneck(x, inner, outer, stride, begins_group, prefix):
    """Conv1x1-conv3x3-conv1x1 with a post-activation shortcut."""
    shortcut = x
    if begins_group:
        shortcut = conv(x, outer, 1, stride, name=f"{prefix}_shortcut")
        shortcut = norm(shortcut, name=f"{prefix}_shortcut_norm")
    x = conv(x, inner, 1, name=f"{prefix}_conv1")
    x = norm_relu(x, f"{prefix}_norm1", f"{prefix}_relu1")
    x = conv(x, inner, 3, stride, name=f"{prefix}_conv2")
    x = norm_relu(x, f"{prefix}_norm2", f"{prefix}_relu2")
    x = conv(x, outer, 1, name=f"{prefix}_conv3")
    x = norm(x, name=f"{prefix}_norm3")
    x = layers.Add(name=f"{prefix}_add")([shortcut, x])
    return layers.ReLU(name=f"{prefix}_relu3")(x)


def conv(x, filters, kernel_size, strides=1, *, name):
    """Bias-free convolution, padded so that only the stride shrinks `x`."""
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def norm(x, *, name):
    """Batch normalization with the momentum and epsilon of both papers."""
    axis = 1 if keras.config.image_data_format() == "channels_first" else -1
    return layers.BatchNormalization(
        axis=axis, momentum=0.9, epsilon=1e-5, name=name
    )(x)


def norm_relu(x, norm_name, relu_name):
    """Batch normalization, then ReLU."""
    return layers.ReLU(name=relu_name)(norm(x, name=norm_name))


def classifier(x, classes, activation):
    """Global average pooling, then the dense layer over the classes."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    # Half precision is too coarse for the softmax of losses and distillation.
    return layers.Dense(
        classes, activation=activation, dtype="float32", name="classifier"
    )(x)


def narrowed(width, narrow):
    """`width` channels divided by `narrow`, rounded and at least one."""
    return max(1, round(width / narrow))


def default_input_shape(size):
    """Shape of a square RGB image in the configured data format."""
    if keras.config.image_data_format() == "channels_first":
        return (3, size, size)
    return (size, size, 3)


def check_common_arguments(input_shape, classes, narrow):
    """Raises a `ValueError` for arguments that no network can be built from."""
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise ValueError(
            "Invalid value received for argument `input_shape`. Expected a "
            "tuple of three, height, width and channels in the order of "
            "`keras.config.image_data_format()`, without the batch. "
            f"Received: input_shape={input_shape}"
        )
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(
            "Invalid value received for argument `classes`. Expected an "
            f"integer of at least 1. Received: classes={classes}"
        )
    if not narrow >= 1:
        raise ValueError(
            "Invalid value received for argument `narrow`. Expected a number "
            "of at least 1, by which all widths are divided. "
            f"Received: narrow={narrow}"
        )


def check_sizes(least=1, **sizes):
    """Raises a `ValueError` unless all sizes, or all members of sequences of
    them, are integers of at least `least`."""
    for name, given in sizes.items():
        members = given if isinstance(given, list | tuple) else [given]
        if not members or any(
            isinstance(x, bool) or not isinstance(x, int) or x < least
            for x in members
        ):
            raise ValueError(
                f"Invalid value received for argument `{name}`. Expected "
                f"integers of at least {least}. Received: {name}={given!r}"
            )
