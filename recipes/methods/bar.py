"""BAR: pruning to a budget while training, then fine-tuning."""

import keras_bar

TITLE = "BAR"
REQUIREMENTS = ()


def run(
    experiment, teacher, metric=None, budget=None, frozen=False, **settings
):
    """BAR with the defaults of `BudgetRegularizer`.

    Args:
        experiment: `Experiment`.
        teacher: The full network.
        metric, budget: What is limited, and to what fraction; by default the
            experiment's metric, and what its factor leaves.
        frozen: Whether the gates learn nothing, and the budget alone moves
            them.
        **settings: Further arguments of `BudgetRegularizer`.
    """
    key = experiment.key
    metric, budget = metric or key.metric, budget or 1 / key.factor
    regularizer = keras_bar.callbacks.BudgetRegularizer(
        budget, metric, log_all=True, **settings
    )
    gated = experiment.once(
        "gated", lambda: prune(experiment, teacher, regularizer, frozen)
    )
    history = experiment.history("prune")
    row = describe(history, metric, gated, experiment.data)
    regular = keras_bar.measure_cost(gated).regular
    row |= {f"regular_{x}": getattr(regular, x) for x in ("volume", "flops")}
    return experiment.finetune(teacher, keras_bar.compact(gated)), row


def prune(experiment, teacher, regularizer, frozen):
    """The gated network, trained until it is within its budget."""
    student = keras_bar.gate(
        experiment.source(teacher),
        connectivity=experiment.options.connectivity,
        seed=experiment.key.seed,
    )
    for layer in student.layers:
        if frozen and isinstance(layer, keras_bar.layers.HardConcreteGate):
            layer.log_alpha.trainable = False
    epochs = experiment.phases("gates").prune
    callbacks = [regularizer, *experiment.gate_log()]
    return experiment.distill(
        "prune", teacher, student, epochs, callbacks=callbacks
    )


def describe(history, metric, gated, data):
    """How pruning went.

    Args:
        history: Dict from log to its values, one per epoch.
        metric: What the budget limited.
        gated: The hard-pruned network, before any fine-tuning.
        data: `InMemoryData` or `TfdsData`.

    Returns:
        Dict. `stochastic` is the accuracy in training mode, with the gates'
        noise, over the last epoch; `pruned_train` and `pruned` that of the
        hard-pruned network on the same images and on those of the test;
        `validation` that of the last epoch. `expected` and `hard` are the cost
        at the end; `worst_drop` the largest fall of it within an epoch;
        `worst_excess` how far it was above the moving budget at most, after
        the first tenth.
    """
    costs, budgets = history[metric], history["budget"]
    later = range(-(-len(costs) // 10), len(costs))
    falls = zip([1.0, *costs], costs, strict=False)
    return {
        "stochastic": history["accuracy"][-1],
        "pruned_train": data.accuracy(gated, "train"),
        "validation": history["val_accuracy"][-1],
        "pruned": data.accuracy(gated),
        "expected": history["expected"][-1],
        "hard": costs[-1],
        "worst_drop": max(a - b for a, b in falls),
        "worst_excess": max((costs[i] - budgets[i] for i in later), default=0),
    }
