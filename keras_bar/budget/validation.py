"""Checks of arguments, models and weights for budget regularizers."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_bar.budget import selection
from keras_bar.budget.barrier import PaperSettings
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate

# Maximum number of names listed in an error.
MANY = 5


def check_steps(steps):
    """Raises a ValueError for an invalid number or fraction of steps."""
    whole = isinstance(steps, int | np.integer) and steps >= 1
    fraction = isinstance(steps, float) and 0 < steps <= 1
    if isinstance(steps, bool) or not (whole or fraction):
        raise ValueError(
            "Invalid number of pruning steps. Expected a positive integer, or "
            "a float in (0, 1] as the fraction of all steps of `fit`. "
            f"Received: steps={steps!r} (of type {type(steps).__name__})"
        )


def budgets_by_metric(budget, metric):
    """Dict from metric to budget, from the arguments of a regularizer; raises a
    ValueError for budgets that are wrong for any model."""
    if not isinstance(budget, dict):
        selection.check_budget_argument(budget, metric)
        return {metric: budget}
    if not budget or metric != "volume":
        raise ValueError(
            "Several budgets name their metrics themselves. Expected a dict "
            "from metric to budget, and no other metric. "
            f"Received: budget={budget!r}, metric={metric!r}"
        )
    for name, value in budget.items():
        selection.check_budget_argument(value, name)
    names = [str(x) for x in budget]
    if len(set(names)) < len(names):
        raise ValueError(
            "Several budgets have the same name, which logs could not tell "
            "apart. Expected latencies with names of their own, such as "
            "`keras_bar.Latency(path, name='phone')`. "
            f"Received: budgets of {', '.join(names)}"
        )
    return dict(budget)


def check_transition(hardness, strength, budgets):
    """Raises a ValueError for an invalid hardness or strength, or for a
    strength and several budgets."""
    if strength is not None and budgets > 1:
        raise ValueError(
            "The paper's penalty is that of one budget. Expected one budget, "
            "or the default control, without a strength. "
            f"Received: {budgets} budgets and a strength"
        )
    if not selection.is_number(hardness) or not hardness >= 0:
        raise ValueError(
            "Invalid hardness of the transition. Expected a number of 0 "
            f"or more. Received: hardness={hardness!r}"
        )
    if strength is not None and not isinstance(strength, PaperSettings):
        PaperSettings(strength=strength)


def check_tracking(undecided_fraction, initial_logit, cost_exponent):
    """Raises a ValueError for invalid settings of `ThresholdControl`."""
    pair = (
        isinstance(undecided_fraction, tuple | list)
        and len(undecided_fraction) == 2
    )
    if not pair or not all(
        selection.is_number(x) and 0 < x < 1 for x in undecided_fraction
    ):
        raise ValueError(
            "Invalid undecided fraction. Expected a pair of numbers in (0, 1), "
            "at the start and at the end, such as (0.12, 0.02). "
            f"Received: undecided_fraction={undecided_fraction!r}"
        )
    for name, x in (
        ("initial_logit", initial_logit),
        ("cost_exponent", cost_exponent),
    ):
        if not selection.is_number(x) or not 0 <= x < float("inf"):
            raise ValueError(
                f"Invalid {name}. Expected a finite number of 0 or more. "
                f"Received: {name}={x!r}"
            )


def find_gated(model):
    """Finds the gated network in a model: the model itself, a nested model, or
    a distiller's student.

    Args:
        model: `keras.Model`.

    Returns:
        A Functional `keras.Model` with gates and a `BudgetState`.

    Raises:
        ValueError: If there is none.
    """
    stack = [model]
    while stack:
        candidate = stack.pop()
        if isinstance(candidate, keras.distillation.Distiller):
            # Do not search its layers: they include feature extractors, which
            # share the student's layers, and a teacher that may have gates.
            stack.append(candidate.student)
        elif isinstance(candidate, keras.Model):
            if _is_gated(candidate):
                return candidate
            stack.extend(candidate.layers)
    raise ValueError(
        "The model has no gates to prune. Expected a model made by "
        "`keras_bar.gate`; one made by `keras_bar.compact` is finished, gate "
        f"it again to prune further. Received: {model.name!r}"
    )


def _is_gated(model):
    layers = [BudgetState, ChannelGate]
    return all(any(isinstance(x, y) for x in model.layers) for y in layers)


def check_losses_count(model):
    """Raises a ValueError if the model's loss leaves out added losses."""
    parent = keras.distillation.Distiller
    if isinstance(model, parent) and (
        type(model).compute_loss is parent.compute_loss
    ):
        raise ValueError(
            "Keras's distiller leaves the losses that layers add out of the "
            "loss, so the budget could not count its steps. Expected a "
            "`keras_bar.distillation.Distiller`. "
            f"Received: {model.name!r} of type {type(model)}"
        )


def check_trainable(gates, state):
    """Raises a ValueError if gates, or the budget's state, are frozen."""
    frozen = [x.name for x in [*gates, state] if not x.trainable]
    if frozen:
        raise ValueError(
            "Frozen gates cannot be pruned. Expected `trainable` gates, and a "
            "trainable `BudgetState`; other layers may be frozen. Received: "
            f"trainable=False for {_shortened(frozen)}"
        )


def check_length(steps, total, least):
    """Warns if a schedule is too short to follow, or longer than `fit`.

    Args:
        steps: Steps in which the budget moves.
        total: All steps of `fit`; infinite if they are unknown.
        least: The number of steps that the control needs.
    """
    if steps > total:
        warnings.warn(
            f"The budget moves within {steps} steps, but `fit` only has "
            f"{total}. Expected no more `steps` than those of `fit`. The "
            "training is too short for the budget to arrive: the weakest "
            "channels will be closed when it ends.",
            stacklevel=2,
        )
    elif steps < least:
        warnings.warn(
            f"The budget moves within {steps} steps, which is too short to "
            f"follow. Expected {least} steps or more: more epochs, smaller "
            "batches, or larger `steps`. The network will be within its "
            "budget, but worse than it could be.",
            stacklevel=2,
        )


def check_loss(logs, epoch):
    """Raises a FloatingPointError if the loss of an epoch is NaN."""
    loss = logs.get("loss")
    if loss is not None and np.isnan(loss):
        raise FloatingPointError(
            f"The loss of epoch {epoch + 1} is NaN, so no gate was fixed. "
            "Expected a finite loss: a smaller learning rate, `clipnorm`, "
            "or data without NaN may help. "
            f"Received: loss={float(loss)}"
        )


def check_finite(model):
    """Raises a FloatingPointError if weights are NaN or infinite."""
    broken = [
        x.path
        for x in model.trainable_variables
        if not np.all(np.isfinite(ops.convert_to_numpy(x)))
    ]
    if broken:
        raise FloatingPointError(
            "Weights are NaN or infinite, so no gate was fixed. "
            "Expected finite weights: a smaller learning rate, "
            "`clipnorm`, or data without NaN may help. "
            f"Received: {_shortened(broken)}"
        )


def _shortened(names):
    """Formats names for an error message, and counts those left out."""
    rest = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return ", ".join(map(repr, names[:MANY])) + rest


def check_gates(gates, expected, user):
    """Raises a ValueError unless all gates belong to a class."""
    others = {type(x).__name__ for x in gates if not isinstance(x, expected)}
    if others:
        raise ValueError(
            f"`{user}` needs gates of another kind. Expected a model made by "
            f"`keras_bar.gate` with layer={expected.__name__}. "
            f"Received: gates of type {', '.join(sorted(others))}"
        )
