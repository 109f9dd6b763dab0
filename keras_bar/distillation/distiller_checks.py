"""Checks of the arguments of a distiller."""

import keras


def check_networks(teacher, student):
    """Raises a ValueError unless these are two separate networks."""
    for who, model in (("teacher", teacher), ("student", student)):
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"The {who} is not a model. Expected a `keras.Model`. "
                f"Received: {who}={model!r} (of type {type(model)})"
            )
    advice = (
        "Expected two networks that share nothing: "
        "`keras_bar.gate(teacher)` makes such a student with the teacher's "
        "weights, `keras.models.clone_model` one with new weights"
    )
    if teacher is student:
        raise ValueError(
            f"The teacher is its own student. {advice}. "
            f"Received: {teacher.name!r} as both"
        )
    teachers = {id(x) for x in teacher.variables}
    shared = [x.path for x in student.trainable_variables if id(x) in teachers]
    if shared:
        raise ValueError(
            "The teacher would change while the student learns: they share "
            f"weights. {advice}. Received: {len(shared)} shared trainable "
            f"variables, such as {shared[0]!r}"
        )


def check_losses(distillation_losses):
    """Raises a ValueError unless these are distillation losses."""
    found = keras.tree.flatten(distillation_losses)
    kind = keras.distillation.DistillationLoss
    wrong = [x for x in found if not isinstance(x, kind)]
    if wrong or not found:
        raise ValueError(
            "There is nothing to distil with. Expected "
            "`keras_bar.distillation.LogitsDistillation()`, or another "
            "`keras.distillation.DistillationLoss`, or a list of them. "
            f"Received: {wrong[0] if wrong else distillation_losses!r}"
        )


def check_compile_loss(loss, student):
    """Raises a ValueError unless the losses fit the student's outputs."""
    if loss is None:
        raise ValueError(
            "The student has no loss of its own. Expected a `loss` for the "
            "labels, as `keras.Model.compile` takes it. Received: loss=None"
        )
    outputs = getattr(student, "output", None) if student.built else None
    if outputs is None or not isinstance(loss, dict | list | tuple):
        return
    if isinstance(loss, dict):
        known = {*getattr(student, "output_names", [])}
        known |= set(outputs) if isinstance(outputs, dict) else set()
        matches = set(loss) <= known
        expected, received = f"{sorted(known)}", f"{sorted(map(str, loss))}"
    else:
        count = len(keras.tree.flatten(outputs))
        expected, received = f"{count} of them", f"{len(loss)}"
        matches = count == len(loss)
    if not matches:
        raise ValueError(
            "The losses do not match the outputs of the student. Expected "
            f"losses for the outputs: {expected}. Received: {received}"
        )


def check_scalar(value, loss):
    """Raises a ValueError unless a distillation loss is a scalar."""
    if len(getattr(value, "shape", ())) > 0:
        raise ValueError(
            f"`{type(loss).__name__}.compute_loss` did not return a loss that "
            "can be added. Expected a scalar tensor. "
            f"Received: a tensor of shape {tuple(value.shape)}"
        )
