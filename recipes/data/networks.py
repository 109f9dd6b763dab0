"""A network that `keras_bar.models` lacks."""

import keras
from keras import layers

# Kernels, group by group.
VGG_WIDTHS = (32, 64, 128)


def vgg(shape, classes, narrow=1):
    """Six convolutions, one after the other, all widths divided by `narrow`."""
    x = inputs = keras.Input(shape)
    for group, width in enumerate(VGG_WIDTHS, 1):
        filters = max(1, round(width / narrow))
        for i in (1, 2):
            name = f"group{group}_conv{i}"
            x = layers.Conv2D(
                filters, 3, padding="same", use_bias=False, name=name
            )(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        if group < len(VGG_WIDTHS):
            x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    # Distillation takes a softmax of them, which half precision blurs.
    logits = layers.Dense(classes, dtype="float32", name="logits")
    return keras.Model(inputs, logits(x))
