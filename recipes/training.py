"""What the recipes share about training: distillation and its phases."""

import keras

import keras_bar

# On a CPU, TensorFlow's kernels are faster than XLA's for small pictures.
JIT = False if keras.backend.backend() == "tensorflow" else "auto"

# Words of the command line for what `compile` takes.
JITS = {"auto": "auto", "on": True, "off": False}

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def distiller(teacher, student, rate, weight_decay=None, jit=JIT):
    """Trains a student as the paper does: 0.1 of the loss is the labels', 0.9
    the teacher's at a temperature of 4.

    Args:
        teacher, student: `keras.Model`s of logits.
        rate: Learning rate of Adam, a number or a schedule.
        weight_decay: Float of the decoupled weight decay, or None.
        jit: What `compile` takes as `jit_compile`.

    Returns:
        Compiled `keras_bar.distillation.Distiller`.
    """
    model = keras_bar.distillation.Distiller(
        teacher=teacher,
        student=student,
        distillation_losses=keras_bar.distillation.LogitsDistillation(
            temperature=4.0
        ),
        student_loss_weight=0.1,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate, weight_decay=weight_decay),
        loss=CROSSENTROPY,
        metrics=["accuracy"],
        jit_compile=jit,
    )
    model.build(student.input_shape)  # For `BackupAndRestore`.
    return model


def high_then_low(steps, low_steps, high=1e-3, low=1e-4):
    """A learning rate that falls once, `low_steps` before the end."""
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [max(steps - low_steps, 1)], [high, low]
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
