"""A vision transformer for small images."""

import keras
from keras import layers

from keras_bar.models import resnet


def ViT(
    input_shape: tuple | None = None,
    classes: int = 10,
    *,
    patch_size: int = 2,
    width: int = 48,
    depth: int = 4,
    heads: int = 4,
    head_size: int = 12,
    narrow: float = 1,
) -> keras.Model:
    """A vision transformer with convolutional positions, for small images.

    A convolution embeds patches of the image. Before the first block a 3x3
    depthwise convolution, added to its input, encodes the positions. Every
    block has multi-head attention and a perceptron, four times as wide as the
    tokens, each behind layer normalization and with a residual connection. The
    logits are made of the mean over all tokens.

    Args:
        input_shape: Tuple of three, without the batch. Defaults to 32x32 RGB.
        classes: Integer, the number of classes.
        patch_size: Integer, height and width of a patch in pixels.
        width: Integer, the size of a token.
        depth: Integer, the number of blocks.
        heads: Integer, the heads of each attention.
        head_size: Integer, the size of queries, keys and values of a head.
        narrow: Number of at least 1 by which the width, and the features of
            all heads together, are divided; they are rounded and at least 1.
            As far as possible there are fewer heads of the same size.

    Returns:
        A Functional `keras.Model` of logits, with random weights.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> model = keras_bar.models.ViT((14, 14, 1), width=16, depth=1)
    >>> model.output_shape
    (None, 10)

    Reference:

    - [An Image is Worth 16x16 Words](https://arxiv.org/abs/2010.11929)
        (Dosovitskiy et al., 2021)
    - [Conditional Positional Encodings for Vision Transformers](
        https://arxiv.org/abs/2102.10882) (Chu et al., 2023)
    """
    input_shape = input_shape or resnet.default_input_shape(32)
    resnet.check_common_arguments(input_shape, classes, narrow)
    resnet.check_sizes(
        patch_size=patch_size, width=width, heads=heads, head_size=head_size
    )
    resnet.check_sizes(0, depth=depth)
    features = resnet.narrowed(heads * head_size, narrow)
    width = resnet.narrowed(width, narrow)
    heads = resnet.narrowed(heads, narrow)
    head_size = resnet.narrowed(features, heads)
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(width, patch_size, patch_size, name="embedding")(inputs)
    y = layers.DepthwiseConv2D(3, padding="same", name="position")(x)
    x = layers.Add(name="position_add")([x, y])
    if keras.config.image_data_format() == "channels_first":
        x = layers.Permute((2, 3, 1), name="channels_last")(x)
    x = layers.Reshape((-1, width), name="tokens")(x)
    for i in range(1, depth + 1):
        y = _norm(x, f"block{i}_norm1")
        y = layers.MultiHeadAttention(
            heads, head_size, name=f"block{i}_attention"
        )(y, y)
        x = layers.Add(name=f"block{i}_add1")([x, y])
        y = _norm(x, f"block{i}_norm2")
        y = layers.Dense(4 * width, "gelu", name=f"block{i}_expand")(y)
        y = layers.Dense(width, name=f"block{i}_project")(y)
        x = layers.Add(name=f"block{i}_add2")([x, y])
    x = layers.GlobalAveragePooling1D("channels_last", name="pool")(
        _norm(x, "norm")
    )
    outputs = layers.Dense(classes, dtype="float32", name="classifier")(x)
    return keras.Model(inputs, outputs)


def _norm(x, name):
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)
