"""Distillers whose samples or classes are weighted, of a network of logits."""

import keras
import numpy as np
from keras import layers
from keras import ops

from keras_bar import distillation
from tests.helpers import tiny
from tests.helpers.budgets import QUICK

CLASS_WEIGHT = {0: 1.0, 1: 4.0, 2: 0.5}


CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy


def network(outputs="one"):
    """Logits of 3 classes; in a list or by name also those of 2."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Flatten()(inputs)
    a, b = layers.Dense(3, name="a")(x), layers.Dense(2, name="b")(x)
    return keras.Model(
        inputs, {"one": a, "list": [a, b], "dict": {"a": a, "b": b}}[outputs]
    )


def data(outputs="one"):
    x, y = tiny.data(32)
    targets = {"one": y, "list": (y, y % 2), "dict": {"a": y, "b": y % 2}}
    weights = np.random.default_rng(1).uniform(0, 1, (2, 32)).astype("float32")
    a, b = weights
    each = {"one": a, "list": (a, b), "dict": {"a": a, "b": b}}
    return x, targets[outputs], each[outputs]


def compiled(model, **options):
    model.compile(
        keras.optimizers.SGD(0.1),
        options.pop("loss", None) or CROSSENTROPY(from_logits=True),
        **{**QUICK, **options},
    )
    return model


def distiller(student, teacher=None, losses=None, kind=None, **options):
    kind = kind or distillation.Distiller
    share = options.pop("share", 1.0)
    model = kind(
        teacher or keras.models.clone_model(student),
        student,
        losses or distillation.LogitsDistillation(2.0),
        student_loss_weight=share,
    )
    return compiled(model, **options)


def fit(model, x, y, **options):
    history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0, **options)
    return history.history


def recorded(x, y, labels=None, **options):
    keras.utils.set_random_seed(0)
    student, teacher = network(), network()
    kind = distillation.RecordedDistiller
    model = distiller(student, teacher, kind=kind, share=0.5)
    answers = ops.convert_to_numpy(teacher(x))
    return student, fit(model, x, {"labels": y, "teacher": answers}, **options)
