"""A network of residual branches."""

import keras
from keras import layers

WIDTH, INSIDE = 16, 12


def network(count=3):
    """A stem and residual branches of two convolutions each."""
    x = inputs = keras.Input((6, 6, 2))
    conv = {"padding": "same", "use_bias": False}
    x = layers.Conv2D(WIDTH, 3, name="stem", **conv)(x)
    for i in range(count):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(INSIDE, 3, name=f"inner{i}", **conv)(y)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(WIDTH, 3, name=f"outer{i}", **conv)(y)
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3)(x))
