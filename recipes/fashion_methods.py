"""How `fashion_mnist.py` trains: the full network, BAR, and the others."""

import dataclasses
import functools
import math

import keras

import keras_bar
from recipes import fashion_data
from recipes import fashion_networks
from recipes import fashion_report
from recipes import resuming
from recipes import training

# Epochs at the high learning rate, and of these how many at the low one.
TEACHER, LOW = 10, 2
PRUNE, FINETUNE = 20, 10
WEIGHT_DECAY = 5e-4
# Of the test pictures, for the curves; all of them count at the end.
VALIDATION = 2000


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

    def epochs(self, count):
        return max(1, round(count * self.scale))

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

    def steps(self, epochs):
        return epochs * (len(self.data.x) // fashion_data.BATCH)

    def distill(self, part, teacher, student, epochs, low=0, callbacks=()):
        """Trains a student, the last `low` epochs at the low rate."""
        rate = 1e-3
        if low:
            rate = training.high_then_low(self.steps(epochs), self.steps(low))
        model = training.distiller(teacher, student, rate, WEIGHT_DECAY)
        self.fit(part, model, epochs, callbacks)
        return student


def train_teacher(work):
    epochs = work.epochs(TEACHER)
    model = fashion_networks.build(work.cell.network)
    rate = training.high_then_low(
        work.steps(epochs), work.steps(work.epochs(LOW))
    )
    model.compile(
        keras.optimizers.Adam(rate, weight_decay=WEIGHT_DECAY),
        training.CROSSENTROPY,
        metrics=["accuracy"],
        jit_compile=training.JIT,
    )
    work.fit("teacher", model, epochs)
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
    epochs, low = work.epochs(FINETUNE), work.epochs(LOW)
    work.distill("finetune", teacher, small, epochs, low)
    return small, row


def prune(work, teacher, settings):
    cell = work.cell
    source = teacher
    if cell.start == "scratch":
        source = fashion_networks.build(cell.network)
    student = keras_bar.gate(source, seed=cell.seed)
    budget = keras_bar.callbacks.BudgetRegularizer(
        1 / cell.factor, cell.metric, **settings
    )
    return work.distill(
        "prune", teacher, student, work.epochs(PRUNE), callbacks=[budget]
    )


def narrow(work, teacher):
    """The same network, uniformly narrower, from scratch."""
    divisor = work.cell.factor
    if work.cell.metric != "volume":  # They grow with the widths' square.
        divisor = math.sqrt(divisor)
    small = fashion_networks.build(work.cell.network, divisor)
    epochs = work.epochs(PRUNE) + work.epochs(FINETUNE)
    work.distill("train", teacher, small, epochs, work.epochs(LOW))
    return small, {}


def weight_magnitude(work, teacher):
    """Half of the volume at a time, and after each a training at the high and
    the low rate, 4 to 1 (supplement, section 3.2)."""
    rounds = max(1, round(work.cell.factor).bit_length() - 1)
    total = work.epochs(PRUNE) + work.epochs(FINETUNE)
    small = teacher
    for i in range(rounds):
        epochs = max(1, total * (i + 1) // rounds - total * i // rounds)
        share = work.cell.factor ** (-1 / rounds)
        small = work.run.once(
            f"round{i + 1}",
            lambda i=i, share=share, epochs=epochs, small=small: work.distill(
                f"round{i + 1}",
                teacher,
                keras_bar.baselines.prune(
                    small,
                    keras_bar.baselines.weight_magnitude,
                    share,
                    work.cell.metric,
                ),
                epochs,
                round(epochs / 5),
            ),
        )
    return small, {}


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
    "wm": weight_magnitude,
    **{
        name: functools.partial(bar, **settings)
        for name, settings in ABLATIONS.items()
    },
}
