"""The networks that the recipes prune, all widths divided by `narrow`."""

import keras
from keras import layers

import keras_bar

# Kernels of the VGG-like network, group by group.
VGG_WIDTHS = (32, 64, 128)


def wide_resnet(depth, width, shape, classes, narrow=1):
    """WideResNet-`depth`-`width`."""
    if keras.config.image_data_format() == "channels_first":
        shape = (shape[-1], *shape[:-1])
    return keras_bar.models.WideResNet(
        depth, width, shape, classes, narrow=narrow
    )


def resnet50(shape, classes, narrow=1):
    """ResNet-50."""
    return keras_bar.models.ResNet50(shape, classes, narrow=narrow)


def vgg(shape, classes, narrow=1):
    """Six convolutions, one after the other."""
    x = inputs = keras.Input(shape)
    for group, width in enumerate(VGG_WIDTHS, 1):
        for i in (1, 2):
            x = layers.Conv2D(
                max(1, round(width / narrow)),
                3,
                padding="same",
                use_bias=False,
                name=f"group{group}_conv{i}",
            )(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        if group < len(VGG_WIDTHS):
            x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    # Distillation takes a softmax of them, which half precision blurs.
    logits = layers.Dense(classes, dtype="float32", name="logits")
    return keras.Model(inputs, logits(x))
