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

# The seed whose trainings tell the strength of a penalty.
SEARCHED = 0


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A method that prunes by a penalty of constant strength."""

    name: str
    # From a strength and a metric to the callback.
    regularizer: Callable
    # Where the search begins; of one that knows the metric, for the volume.
    strength: float
    # By what factor the pruned network may miss the size aimed at, and what is
    # aimed at, a factor on the wanted size.
    near: float = 1.2
    aim: float = 1.0
    gate: type = keras_bar.layers.HardConcreteGate
    # By default what was asked for.
    connectivity: str | None = None
    phases: str = "gates"
    # Whether the regularizer knows the metric and stops at a size, and the
    # pruned network is expanded to the budget.
    expanded: bool = False

    def run(self, experiment, teacher):
        """Prunes with the strength that leads to the experiment's factor."""
        key = experiment.key
        strength = self.find_strength(experiment)
        small = keras_bar.compact(self.shrink(experiment, teacher, strength))
        row = {"strength": strength, "pruned": experiment.data.accuracy(small)}
        spare = 0
        if self.expanded:
            spare = self.epochs_left(experiment, strength)
            keras.utils.set_random_seed(key.seed)  # For the new weights.
            full, left = (measure(x, key.metric) for x in (teacher, small))
            row["shrunk"] = left / full
            small = baselines.expand(small, full / key.factor, key.metric)
        return experiment.finetune(teacher, small, self.phases, spare), row

    def place(self, experiment):
        """The experiment that keeps the trainings with this penalty. Those
        that know nothing of the budget are the same for all factors."""
        metric, factor = experiment.key.metric, experiment.key.factor
        if not self.expanded:
            metric, factor = "volume", 1
        method = f"{self.name}-shrunk"
        return experiment.other(method=method, factor=factor, metric=metric)

    def find_strength(self, experiment):
        """The strength that leads to the experiment's factor. It is written
        down, and so is what the search began with, so that an interrupted one
        takes the same steps again."""
        experiment = experiment.other(seed=SEARCHED)
        teacher, place = experiment.teacher(), self.place(experiment)
        metric = experiment.key.metric
        full = measure(teacher, metric)
        target = self.aim / experiment.key.factor
        # A search for something else has another name.
        name = f"search-{metric}-{target:.4g}-{self.near:g}.json"
        path = place.folder / name
        known = [float(x) for x in place.done("gated-")]
        record = place.hosts.agree(path, {"known": known})
        if "strength" not in record:
            first = self.strength
            if self.expanded:  # It is per unit of the metric.
                first *= measure(teacher, "volume") / full
                first = float(f"{first:.3g}")

            def attempt(strength):
                shrunk = self.shrink(experiment, teacher, strength)
                return measure(shrunk, metric) / full

            record["strength"] = baselines.find_strength(
                attempt, target, first, self.near, known=record["known"]
            )
            place.hosts.write_json(path, record)
        return record["strength"]

    def shrink(self, experiment, teacher, strength):
        """The network, still of full size, that a penalty has pruned."""
        place, key = self.place(experiment), self.place(experiment).key
        epochs = place.phases(self.phases).prune
        rate, stop = {}, {}
        if self.expanded:
            stop["until"] = 1 / key.factor
        else:
            rate["rate"] = baselines.gate_rate(epochs * place.data.steps)

        def train():
            keras.utils.set_random_seed(key.seed)
            student = keras_bar.gate(
                place.source(teacher),
                connectivity=self.connectivity or place.connectivity(),
                seed=key.seed,
                layer=functools.partial(self.gate, **rate),
            )
            callbacks = [self.regularizer(strength, key.metric, **stop)]
            part = f"prune-{strength:g}"
            return place.distill(
                part, teacher, student, epochs, callbacks=callbacks
            )

        return place.once(f"gated-{strength:g}", train)

    def epochs_left(self, experiment, strength):
        """Epochs of pruning that were not needed: those of the training of what
        is left become more, so that all methods train for as long."""
        place = self.place(experiment)
        history = place.history(f"prune-{strength:g}")
        return place.phases(self.phases).prune - len(history["loss"])


def measure(model, metric):
    """A model's cost in one metric."""
    return getattr(keras_bar.measure_cost(model), metric)
