"""A cell of a comparison, and what every cell's training has in common."""

import dataclasses
import pathlib

import keras

from recipes.data import networks
from recipes.data import registry as datasets
from recipes.experiment import distilling as training
from recipes.experiment import phases
from recipes.experiment import resuming


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


def full_cell(network, seed):
    """The cell of the full network, which serves all others of its seed."""
    return Cell("teacher", 1, seed, network, "volume", "scratch")


@dataclasses.dataclass(frozen=True)
class Manner:
    """How all cells of a folder are trained.

    Attributes:
        scale: Float, factor on the number of epochs of every phase.
        connectivity: `"mixed"` or `"regular"`, of BAR, LZR and IB.
        jit: What `compile` takes as `jit_compile`.
        tuned: `training.Tuned`, for all but the full network.
    """

    scale: float = 1.0
    connectivity: str = "mixed"
    jit: object = training.JIT
    tuned: training.Tuned = training.Tuned()


class Work:
    """A cell with all that its training needs.

    Args:
        cell: `Cell`.
        dataset: String, a name in `datasets.DATASETS`.
        data: `Pictures` or `Stream` of this data set.
        manner: `Manner`.
        output: `pathlib.Path` of the folder that has a folder per cell.
        settings: Dict of what else tells this training from others, or None.
    """

    def __init__(
        self,
        cell: Cell,
        dataset: str,
        data,
        manner: Manner,
        output: pathlib.Path,
        settings: dict | None = None,
    ):
        self.cell = cell
        self.dataset = dataset
        self.data = data
        self.manner = manner
        self.output = output
        self.run = resuming.Run(
            output / str(cell), dataclasses.asdict(cell) | (settings or {})
        )

    def other(self, **changes):
        """The work of a cell that differs from this one."""
        cell = dataclasses.replace(self.cell, **changes)
        return Work(cell, self.dataset, self.data, self.manner, self.output)

    def phases(self, kind):
        table = datasets.DATASETS[self.dataset].phases
        return phases.load(table, kind, self.manner.scale)

    def build(self, narrow=1):
        """The cell's network with random weights."""
        choice = datasets.DATASETS[self.dataset].networks
        return choice[self.cell.network](narrow=narrow)

    def teacher_work(self):
        """The work of the seed's full network."""
        cell = full_cell(self.cell.network, self.cell.seed)
        work = self.other(**dataclasses.asdict(cell))
        work.manner = dataclasses.replace(self.manner, tuned=training.Tuned())
        return work

    def teacher(self):
        """The full network of the seed, which serves all of its cells."""
        work = self.teacher_work()
        keras.utils.set_random_seed(self.cell.seed)
        teacher = work.run.once("teacher", lambda: train_full(work))
        # Whether it was trained or loaded must not matter.
        keras.utils.set_random_seed(self.cell.seed)
        return teacher

    def source(self, teacher):
        """The network that is pruned."""
        return self.build() if self.cell.start == "scratch" else teacher

    def fit(self, part, model, epochs, callbacks=(), data=None):
        """Trains a part of the cell on an order of pictures of its own."""
        data = data or self.data
        self.run.fit(
            part,
            model,
            data.batches([self.cell.seed, *part.encode()]),
            epochs,
            callbacks,
            validation_data=data.validation,
        )

    def rate(self, epochs, low):
        """The learning rate of a training whose last epochs are at the low
        one."""
        steps = self.data.steps
        high = self.manner.tuned.learning_rate
        return training.high_then_low(epochs * steps, low * steps, high)

    def distill(self, part, teacher, student, epochs, low=0, callbacks=()):
        """Trains a student, the last `low` epochs at the low rate."""
        tuned = self.manner.tuned
        rate = self.rate(epochs, low) if low else tuned.learning_rate
        recorded = self.data.repeats
        model = training.distiller(
            teacher, student, rate, tuned, self.manner.jit, recorded
        )
        data = self.data.answered(teacher) if recorded else self.data
        self.fit(part, model, epochs, callbacks, data)
        return student

    def finetune(self, teacher, small, kind="gates", more=0):
        """Trains the compact network, with so many more epochs at the high
        rate."""
        plan = self.phases(kind)
        epochs = plan.train + more
        return self.distill("finetune", teacher, small, epochs, plan.low)


def train_full(work, part="teacher", kind="full"):
    """The network that is pruned, and that teaches.

    Args:
        work: `Work`.
        part: String, the part of the cell.
        kind: String, the kind of its phases.
    """
    plan = work.phases(kind)
    model = work.build()
    model.compile(
        keras.optimizers.Adam(
            work.rate(plan.train, plan.low),
            weight_decay=work.manner.tuned.weight_decay,
        ),
        training.CROSSENTROPY,
        metrics=["accuracy"],
        jit_compile=work.manner.jit,
    )
    work.fit(part, model, plan.train)
    return networks.without_optimizer(model)
