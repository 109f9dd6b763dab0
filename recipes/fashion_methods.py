"""How `fashion_mnist.py` trains: the full network, BAR, and the others."""

import dataclasses
import functools
import math

import keras

import keras_bar
from keras_bar import baselines
from recipes import fashion_data
from recipes import fashion_networks
from recipes import fashion_report
from recipes import phases
from recipes import resuming
from recipes import searching
from recipes import training

WEIGHT_DECAY = 5e-4
# Of the test pictures, for the curves; all of them count at the end.
VALIDATION = 2000
# Training pictures on which ID observes activations.
DECOMPOSED = 500


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of the table."""

    method: str
    factor: float
    seed: int
    network: str
    metric: str
    start: str

    def __str__(self):
        parts = (self.network, self.start, self.method, self.metric)
        return "-".join((*parts, f"{self.factor:g}", f"seed{self.seed}"))


@dataclasses.dataclass
class Work:
    """What every cell needs: its run, the pictures, the phases' scale."""

    cell: Cell
    run: resuming.Run
    data: fashion_data.Fashion
    scale: float

    def phases(self, kind):
        return phases.load("fashion_mnist", kind, self.scale)

    def source(self, teacher):
        """The network that is pruned."""
        if self.cell.start == "scratch":
            return fashion_networks.build(self.cell.network)
        return teacher

    def fit(self, part, model, epochs, callbacks=()):
        """Trains a part of the cell on an order of pictures of its own."""
        key = [self.cell.seed, *part.encode()]
        self.run.fit(
            part,
            model,
            fashion_data.Batches(self.data, key),
            epochs,
            callbacks,
            validation_data=(
                self.data.x_test[:VALIDATION],
                self.data.y_test[:VALIDATION],
            ),
        )

    def rate(self, epochs, low):
        """The learning rate of a training whose last epochs are at the low
        one."""
        per_epoch = len(self.data.x) // fashion_data.BATCH
        return training.high_then_low(epochs * per_epoch, low * per_epoch)

    def distill(self, part, teacher, student, epochs, low=0, callbacks=()):
        """Trains a student, the last `low` epochs at the low rate."""
        rate = self.rate(epochs, low) if low else 1e-3
        model = training.distiller(teacher, student, rate, WEIGHT_DECAY)
        self.fit(part, model, epochs, callbacks)
        return student

    def finetune(self, teacher, small, kind="gates"):
        """Trains the compact network."""
        plan = self.phases(kind)
        return self.distill("finetune", teacher, small, plan.train, plan.low)


def train_teacher(work):
    plan = work.phases("full")
    model = fashion_networks.build(work.cell.network)
    model.compile(
        keras.optimizers.Adam(
            work.rate(plan.train, plan.low), weight_decay=WEIGHT_DECAY
        ),
        training.CROSSENTROPY,
        metrics=["accuracy"],
        jit_compile=training.JIT,
    )
    work.fit("teacher", model, plan.train)
    return fashion_networks.without_optimizer(model)


def bar(work, teacher, **settings):
    """`BudgetRegularizer`, by default with its defaults; then fine-tuning."""
    cell = work.cell
    gated = work.run.once("gated", lambda: prune(work, teacher, settings))
    cost = keras_bar.measure_cost(gated)
    history = work.run.history("prune")
    small = keras_bar.compact(gated)
    row = fashion_report.pruning_row(history, cell.metric, gated, work.data)
    row |= {
        f"regular_{metric}": getattr(cost.regular, metric)
        for metric in ("volume", "flops")
    }
    return work.finetune(teacher, small), row


def prune(work, teacher, settings):
    cell = work.cell
    student = keras_bar.gate(work.source(teacher), seed=cell.seed)
    budget = keras_bar.callbacks.BudgetRegularizer(
        1 / cell.factor, cell.metric, **settings
    )
    epochs = work.phases("gates").prune
    return work.distill("prune", teacher, student, epochs, callbacks=[budget])


def narrow(work, teacher):
    """The same network, uniformly narrower, from scratch."""
    divisor = work.cell.factor
    if work.cell.metric != "volume":  # They grow with the widths' square.
        divisor = math.sqrt(divisor)
    small = fashion_networks.build(work.cell.network, divisor)
    plan = work.phases("gates")
    work.distill("train", teacher, small, plan.total, plan.low)
    return small, {}


def halve(work, teacher, criterion):
    """Half of the volume at a time, and after each a training at the high and
    the low rate, 4 to 1 (supplement, section 3.2).

    Args:
        work: `Work`.
        teacher: The full network.
        criterion: Function of the work that returns a criterion of
            `keras_bar.baselines`.
    """
    rounds = max(1, round(work.cell.factor).bit_length() - 1)
    plan = work.phases("halving")
    small = teacher
    for i in range(rounds):
        epochs = max(
            1, plan.total * (i + 1) // rounds - plan.total * i // rounds
        )
        name = f"round{i + 1}"
        share = work.cell.factor ** (-1 / rounds)
        small = work.run.once(
            name,
            lambda name=name, share=share, epochs=epochs, small=small: (
                work.distill(
                    name,
                    teacher,
                    baselines.prune(
                        small, criterion(work), share, work.cell.metric
                    ),
                    epochs,
                    round(epochs * plan.low / plan.total),
                )
            ),
        )
    return small, {}


CRITERIA = {
    "wm": lambda work: baselines.weight_magnitude,
    "random": lambda work: baselines.random(work.cell.seed),
    "vq": lambda work: baselines.VectorQuantization(),
    "id": lambda work: baselines.InterpolativeDecomposition(
        work.data.x[:DECOMPOSED]
    ),
    "id-weights": lambda work: baselines.InterpolativeDecomposition(),
}


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A method that prunes by a penalty of constant strength.

    Attributes:
        regularizer: Function from a strength to the callback.
        strength: Where the search for the strength begins.
        gates: Arguments of `keras_bar.gate`.
    """

    regularizer: object
    strength: float
    gates: dict


PENALTIES = {
    "lzr": Penalty(baselines.L0Regularizer, 1e-2, {}),
    "ib": Penalty(
        baselines.InformationBottleneckRegularizer,
        1e-5,
        {
            "layer": functools.partial(
                # From -9 it is a long way for 20 epochs.
                keras_bar.layers.GaussianGate,
                rate=10.0,
            )
        },
    ),
    "morphnet": Penalty(
        functools.partial(baselines.MorphNetRegularizer, metric="volume"),
        1e-5,
        {"layer": keras_bar.layers.MarkerGate, "connectivity": "regular"},
    ),
}


def by_penalty(work, teacher, method):
    """LZR, IB, MorphNet: there is no budget, so the strength of the penalty
    that leads to it is searched for. MorphNet is then expanded to it."""
    penalty, cell = PENALTIES[method], work.cell
    kind = method if method == "morphnet" else "gates"
    full = getattr(keras_bar.measure_cost(teacher), cell.metric)

    def attempt(strength):
        gated = work.run.once(
            f"gated-{strength:.3g}",
            lambda: work.distill(
                f"prune-{strength:.3g}",
                teacher,
                keras_bar.gate(
                    work.source(teacher), seed=cell.seed, **penalty.gates
                ),
                work.phases(kind).prune,
                callbacks=[penalty.regularizer(strength)],
            ),
        )
        return gated, getattr(keras_bar.measure_cost(gated), cell.metric) / full

    strength, gated = searching.search(
        attempt, 1 / cell.factor, penalty.strength
    )
    small = keras_bar.compact(gated)
    row = {
        "strength": strength,
        "pruned": fashion_data.accuracy(
            small, work.data.x_test, work.data.y_test
        ),
    }
    if method == "morphnet":
        small = baselines.expand(small, full / cell.factor, cell.metric)
    return work.finetune(teacher, small, kind), row


# Other settings of `BudgetRegularizer`: what docs/small_budgets.md shows.
PAPER = {"strength": 1e-5, "steps": 1.0}
ABLATIONS = {
    "paper": PAPER,
    "paper-strong": {**PAPER, "strength": 1e-3},
    "never-decided": {"indecision": (0.12, 0.12)},
    "half-open": {"openness": 0.0},
    "no-price": {"price_exponent": 0.0},
    "half-price": {"price_exponent": 0.5},
    "no-rest": {"steps": 1.0},
    "line": {"hardness": 0.0},
}
METHODS = {
    "bar": bar,
    "narrow": narrow,
    **{
        name: functools.partial(halve, criterion=criterion)
        for name, criterion in CRITERIA.items()
    },
    **{name: functools.partial(by_penalty, method=name) for name in PENALTIES},
    **{
        name: functools.partial(bar, **settings)
        for name, settings in ABLATIONS.items()
    },
}
