"""A network, data and training that take a second."""

import keras
import numpy as np
from keras import layers
from keras import ops

import keras_bar

WIDTH = 16
POSITIONS = 6 * 6
# Every convolution output counts: the stem's, and the branch's.
VOLUME = 2 * WIDTH * POSITIONS
BATCHES = 13  # Per epoch, of 8 samples.


def network(width=WIDTH, size=6, **convolution):
    """Stem, one residual block, global pooling, logits of 3 classes."""
    inputs = keras.Input((size, size, 2))
    conv = {"padding": "same", "use_bias": False, **convolution}
    x = layers.Conv2D(width, 3, name="stem", **conv)(inputs)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU()(x)
    y = layers.Conv2D(width, 3, name="branch", **conv)(x)
    y = layers.BatchNormalization(name="branch_norm")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(3, name="logits", dtype="float32")(x)
    return keras.Model(inputs, outputs)


def chain(*widths):
    """Convolutions one after the other: each is a lifeline."""
    x = inputs = keras.Input((6, 6, 2))
    for i, width in enumerate(widths):
        x = layers.Conv2D(width, 3, padding="same", name=f"conv{i}")(x)
        x = layers.ReLU()(x)
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def data(samples=8 * BATCHES):
    """Images, and the quadrant of them that is brightest."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 6, 6, 2)).astype("float32")
    y = rng.integers(0, 3, samples)
    for image, label in zip(x, y, strict=True):
        image[3 * (label % 2) :, 3 * (label // 2) :] += 1.0
    return x, y


def student(width=WIDTH, **options):
    """A compiled gated network, with fixed seeds."""
    keras.utils.set_random_seed(0)
    return prepare(keras_bar.gate(network(width), seed=0), **options)


def prepare(model, optimizer=None, loss=None, **options):
    """Compiles a model, by default for a quick short training: TensorFlow only
    traces the step, and JAX compiles it, because it would otherwise run it
    operation by operation."""
    eager = options.get("run_eagerly", False)
    compiled = keras.backend.backend() == "jax" and not eager
    model.compile(
        optimizer or keras.optimizers.SGD(0.1),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{"jit_compile": compiled, **options},
    )
    return model


def fit(model, *callbacks, epochs=1, **options):
    """Trains in a deterministic order. Returns the history's dict."""
    x, y = data()
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=epochs,
        callbacks=list(callbacks),
        **{"shuffle": False, "verbose": 0, **options},
    )
    return history.history


def gates(model):
    """The gates of the stem and the branch."""
    return model.get_layer("stem_gate"), model.get_layer("branch_gate")


def steps_done(model):
    """The number of steps the budget has counted."""
    state = model.get_layer("budget_state")
    return int(ops.convert_to_numpy(state.steps_done()))
