"""Layers and models written in Python, and a copy of what a trace shows."""

import keras
import numpy as np
from keras import layers
from keras import ops

from keras_bar.analysis import replaying
from keras_bar.analysis import trace


class ConvNorm(layers.Layer):
    def __init__(self, filters, active=True, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(
            filters, 3, padding="same", use_bias=False, name="conv"
        )
        self.norm = layers.BatchNormalization(name="norm")
        self.active = active

    def call(self, x, training=None):
        x = self.norm(self.conv(x), training=training)
        return ops.relu(x) if self.active else x


class Block(layers.Layer):
    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.first = ConvNorm(filters, name="first")
        self.drop = layers.Dropout(0.25, seed=3, name="drop")
        self.second = ConvNorm(filters, active=False, name="second")

    def call(self, x, training=None):
        y = self.second(self.drop(self.first(x), training=training))
        return ops.relu(x + y)


class Network(keras.Model):
    """A residual network in the manner of PyTorch."""

    def __init__(self, name="network"):
        super().__init__(name=name)
        self.stem = ConvNorm(6, name="stem")
        self.blocks = [Block(6, name=f"block{i}") for i in range(2)]
        self.head = layers.Dense(3, name="head")

    def call(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(ops.mean(x, axis=(1, 2)))


def built(model, shape=(2, 6, 6, 2)):
    model(np.zeros(shape, "float32"))
    return model


def copy_of(model):
    """A Functional copy of a model, as `gate` makes it, without gates."""
    graph = trace.trace(model)

    def rebuild(node, tensors):
        op = trace.clone(node.op, node.name)
        outputs = trace.call(op, node, tensors)
        trace.copy_state(node.op, op)
        return outputs

    return replaying.replay(graph, rebuild)


class Scaled(layers.Layer):
    """A residual branch, scaled as LayerScale and ReZero do, and shifted."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(8, 3, padding="same", name="conv")

    def build(self, shape):
        self.conv.build(shape)
        self.gamma, self.shift = (
            self.add_weight((8,), "random_normal", name=name)
            for name in ("gamma", "shift")
        )
        self.alpha = self.add_weight((), "ones", name="alpha")

    def call(self, x):
        return x + self.alpha * self.gamma * self.conv(x) + self.shift
