"""The two networks that are pruned on Fashion-MNIST."""

import keras
from keras import layers

import keras_bar
from recipes.fashion_data import SIZE

CLASSES = 10


def build(name, narrow=1):
    """A network with random weights, all of its widths divided by `narrow`."""
    return NETWORKS[name](narrow)


def wide_resnet(narrow):
    """WideResNet-10-2: three residual blocks, 32, 64 and 128 wide."""
    return keras_bar.models.WideResNet(
        10, 2, (SIZE, SIZE, 1), CLASSES, narrow=narrow
    )


def vgg(narrow):
    """Six convolutions, one after the other."""
    x = inputs = keras.Input((SIZE, SIZE, 1))
    for group, width in enumerate((32, 64, 128), 1):
        for i in (1, 2):
            name = f"group{group}_conv{i}"
            filters = max(1, round(width / narrow))
            x = layers.Conv2D(
                filters, 3, padding="same", use_bias=False, name=name
            )(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        if group < 3:
            x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x))


NETWORKS = {"wide_resnet": wide_resnet, "vgg": vgg}


def without_optimizer(model):
    """A copy whose file has a third of the size."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy
