"""Networks of logits, and a distiller of the tiny network."""

import warnings

import keras
from keras import layers

import keras_bar
from keras_bar import distillation
from tests.helpers import tiny

STEPS = 2
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier(end=None, units=3):
    """A network that ends in what a function makes of logits."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    x = 5 * layers.Dense(units, name="logits")(x)
    return keras.Model(inputs, end(x) if end else x)


def features(layer="branch"):
    return keras.distillation.FeatureDistillation(
        "mse", teacher_layer_name=layer, student_layer_name=layer
    )


def distiller(losses=None, student=None, teacher=None, weight=0.1, **options):
    """A compiled distiller of the tiny network, with fixed seeds."""
    keras.utils.set_random_seed(0)
    teacher = teacher or tiny.network()
    student = student or keras_bar.gate(teacher, seed=0)
    model = distillation.Distiller(
        teacher,
        student,
        losses or distillation.LogitsDistillation(),
        student_loss_weight=weight,
    )
    return tiny.prepare(model, **options)


def fit(model, *callbacks, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tiny.fit(
            model, *callbacks, **{"steps_per_epoch": STEPS, **options}
        )
