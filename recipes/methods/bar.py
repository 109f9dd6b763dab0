"""BAR: pruning to a budget while training, then fine-tuning."""

import math

import keras_bar
from keras_bar import reports

TITLE = "BAR"
# Steps of the optimizer in which a `short` BAR prunes, at least.
FEW = 300


def run(
    experiment,
    teacher,
    metric=None,
    budget=None,
    frozen=False,
    short=False,
    **settings,
):
    """BAR with other settings of `BudgetRegularizer`, if any; by default to the
    fraction of the experiment's metric that its factor leaves. Gates that are
    `frozen` learn nothing: the budget alone moves them. A `short` one prunes
    for a few hundred steps and trains the compact network for longer."""
    key = experiment.key
    planned = epochs = experiment.phases("gates").prune
    if short:
        epochs = min(planned, math.ceil(FEW / experiment.data.steps))
    metric, budget = metric or key.metric, budget or 1 / key.factor
    regularizer = keras_bar.callbacks.BudgetRegularizer(
        budget, metric, log_all=True, **settings
    )

    def prune():
        student = keras_bar.gate(
            experiment.source(teacher),
            connectivity=experiment.connectivity(metric),
            seed=key.seed,
        )
        for layer in student.layers:
            if frozen and isinstance(layer, keras_bar.layers.HardConcreteGate):
                layer.log_alpha.trainable = False
        callbacks = [regularizer]
        if experiment.hosts.is_chief:
            path = experiment.folder / "gates.json"
            callbacks.append(keras_bar.callbacks.GateHistoryLogger(path))
        return experiment.distill(
            "prune", teacher, student, epochs, callbacks=callbacks
        )

    gated = experiment.once("gated", prune)
    row = describe(experiment.history("prune"), metric, gated, experiment.data)
    regular = keras_bar.measure_cost(gated).regular
    row |= {f"regular_{x}": getattr(regular, x) for x in ("volume", "flops")}
    small = keras_bar.compact(gated)
    return experiment.finetune(teacher, small, more=planned - epochs), row


def describe(history, metric, gated, data):
    """A dict of how pruning to a budget of a metric went."""
    return {
        # The accuracy in training mode, with the gates' noise.
        "stochastic": history["accuracy"][-1],
        # The hard-pruned network's, before any fine-tuning.
        "pruned_train": data.accuracy(gated, "train"),
        "validation": history["val_accuracy"][-1],
        "pruned": data.accuracy(gated),
        **reports.summarize_pruning(history, metric),
    }
