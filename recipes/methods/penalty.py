"""LZR, IB, MorphNet: a penalty of constant strength.

There is no budget, so the strength that leads to one is searched for, with one
seed.
"""

import dataclasses
import functools
from collections.abc import Callable

import keras

import keras_bar
from keras_bar import baselines
from recipes.methods import strength_search

# Steps in which gates of LZR and IB get anywhere at their own pace, half of the
# paper's; and how much faster they move at most where there are fewer.
ENOUGH, FASTEST = 31_250, 10.0
# The seed whose trainings tell the strength of a penalty.
SEARCHED = 0


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A method that prunes by a penalty of constant strength.

    Attributes:
        name: String, the method's.
        regularizer: Function from a strength and a metric to the callback.
        strength: Where the search for the strength begins; of one that knows
            the metric, for the volume.
        near: By what factor the pruned network may miss the size aimed at.
        aim: What is aimed at, a factor on the wanted size.
        gate: The class of its gates.
        connectivity: `"mixed"` or `"regular"`, or None for what was asked for.
        phases: Kind of the phases.
        expanded: Whether the regularizer knows the metric and stops at a size,
            and the pruned network is expanded to the budget.
    """

    name: str
    regularizer: Callable
    strength: float
    near: float = strength_search.NEAR
    aim: float = 1.0
    gate: type = keras_bar.layers.HardConcreteGate
    connectivity: str | None = None
    phases: str = "gates"
    expanded: bool = False

    def place(self, experiment):
        """The experiment that keeps the trainings with this penalty. Those
        that know nothing of the budget are the same for all factors."""
        metric, factor = experiment.key.metric, experiment.key.factor
        if not self.expanded:
            metric, factor = "volume", 1
        return experiment.other(
            method=f"{self.name}-shrunk", factor=factor, metric=metric
        )


def run(experiment, teacher, penalty):
    """Prunes with the strength that leads to the experiment's factor."""
    key = experiment.key
    strength = find_strength(experiment, penalty)
    small = keras_bar.compact(shrink(experiment, teacher, penalty, strength))
    row = {"strength": strength, "pruned": experiment.data.accuracy(small)}
    spare = 0
    if penalty.expanded:
        spare = epochs_left(experiment, penalty, strength)
        keras.utils.set_random_seed(key.seed)  # For the new weights.
        full, left = (measure(x, key.metric) for x in (teacher, small))
        row["shrunk"] = left / full
        small = baselines.expand(small, full / key.factor, key.metric)
    return experiment.finetune(teacher, small, penalty.phases, spare), row


def find_strength(experiment, penalty):
    """Searches for the strength that leads to the experiment's factor."""
    experiment = experiment.other(seed=SEARCHED)
    teacher = experiment.teacher()
    metric = experiment.key.metric
    full = measure(teacher, metric)

    def attempt(strength):
        return (
            measure(shrink(experiment, teacher, penalty, strength), metric)
            / full
        )

    place = penalty.place(experiment)
    target = penalty.aim / experiment.key.factor
    first = penalty.strength
    if penalty.expanded:  # It is per unit of the metric.
        first = float(f"{first * measure(teacher, 'volume') / full:.3g}")
    return strength_search.recorded(
        place,
        # A search for something else has another name.
        f"search-{metric}-{target:.4g}-{penalty.near:g}.json",
        attempt,
        target,
        first,
        penalty.near,
        known=[float(x) for x in place.done("gated-")],
    )


def shrink(experiment, teacher, penalty, strength):
    """The network, still of full size, that a penalty has pruned."""
    place, key = penalty.place(experiment), penalty.place(experiment).key
    epochs = place.phases(penalty.phases).prune
    rate, stop = {}, {}
    if penalty.expanded:
        stop["until"] = 1 / key.factor
    else:
        rate["rate"] = gate_rate(epochs * place.data.steps)

    def train():
        keras.utils.set_random_seed(key.seed)
        student = keras_bar.gate(
            place.source(teacher),
            connectivity=penalty.connectivity or place.options.connectivity,
            seed=key.seed,
            layer=functools.partial(penalty.gate, **rate),
        )
        regularizer = penalty.regularizer(strength, key.metric, **stop)
        return place.distill(
            f"prune-{strength:g}",
            teacher,
            student,
            epochs,
            callbacks=[regularizer],
        )

    return place.once(f"gated-{strength:g}", train)


def epochs_left(experiment, penalty, strength):
    """Epochs of pruning that were not needed: those of the training of what is
    left become more, so that all methods train for as long."""
    place = penalty.place(experiment)
    history = place.history(f"prune-{strength:g}")
    return place.phases(penalty.phases).prune - len(history["loss"])


def gate_rate(steps):
    """How much faster gates move that must find their place in few steps. Adam
    moves them by 1e-3 in each, and IB's begin 9 away from where they close."""
    return min(max(ENOUGH / steps, 1.0), FASTEST)


def measure(model, metric):
    """A model's cost in one metric."""
    return getattr(keras_bar.measure_cost(model), metric)
