"""What the recipes share about training: distillation and its phases."""

import dataclasses

import keras

import keras_bar

# On a CPU, TensorFlow's kernels are faster than XLA's for small pictures.
JIT = False if keras.backend.backend() == "tensorflow" else "auto"

# Words of the command line for what `compile` takes.
JITS = {"auto": "auto", "on": True, "off": False}

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Hyperparameters of distillation, with the paper's values.

    Attributes:
        learning_rate: Float, of Adam; a tenth of it at the low rate.
        weight_decay: Float, decoupled, or None.
        distillation_weight: Float, the teacher's part of the loss; the rest is
            the labels'.
        temperature: Float, at which the teacher's logits are matched.
    """

    learning_rate: float = 1e-3
    weight_decay: float | None = 5e-4
    distillation_weight: float = 0.9
    temperature: float = 4.0


def distiller(teacher, student, rate, tuned=None, jit=JIT, recorded=False):
    """Trains a student with a teacher's help.

    Args:
        teacher, student: `keras.Model`s of logits.
        rate: Learning rate of Adam, a number or a schedule.
        tuned: `Tuned`; by default without weight decay.
        jit: What `compile` takes as `jit_compile`.
        recorded: Whether the teacher's answers come with the targets.

    Returns:
        Compiled `keras_bar.distillation.Distiller`.
    """
    tuned = tuned or Tuned(weight_decay=None)
    kind = keras_bar.distillation.Distiller
    if recorded:
        kind = keras_bar.distillation.RecordedDistiller
    model = kind(
        teacher=teacher,
        student=student,
        distillation_losses=keras_bar.distillation.LogitsDistillation(
            temperature=tuned.temperature
        ),
        student_loss_weight=1 - tuned.distillation_weight,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate, weight_decay=tuned.weight_decay),
        loss=CROSSENTROPY,
        metrics=["accuracy"],
        jit_compile=jit,
    )
    model.build(student.input_shape)  # So that a state can be loaded.
    return model


def high_then_low(steps, low_steps, high=Tuned.learning_rate):
    """A learning rate that falls once to a tenth, `low_steps` before the
    end."""
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [max(steps - low_steps, 1)], [high, high / 10]
    )


def check_budget(model, budget, metric):
    """Raises a ValueError if no connected network has this cost.

    Args:
        model: `keras.Model`, untrained, as it will be pruned.
        budget: Float, fraction of the full cost.
        metric: `"volume"`, `"flops"` or `"params"`.
    """
    student = keras_bar.gate(model)
    student.compile("sgd", "mse")
    regularizer = keras_bar.callbacks.BudgetRegularizer(budget, metric, steps=1)
    regularizer.set_model(student)
    regularizer.on_train_begin()
