"""BAR at several pruning factors on Fashion-MNIST, beside what it must beat.

Trains a network on 10,000 real pictures at 14x14 and prunes copies of it to
1/2, 1/4, 1/8 and 1/16 of its activation volume, with nothing but the budget
set. Compares them, after the same number of training steps with the same
distillation, with

    narrow  the same network with all widths divided by the factor, trained
            from scratch;
    wm      weight-magnitude pruning by the iterative scheme in section 3.2 of
            the paper's supplement.

Other methods are BAR with another setting: the paper's, the paper's with a
stronger penalty, or one default changed.

    python recipes/fashion_mnist.py
    python recipes/fashion_mnist.py --methods bar --factors 8 --seeds 0
    python recipes/fashion_mnist.py --methods bar --metric flops --network vgg

A cell of the table is a folder in the output folder; what is done is not done
again, and a cell that was interrupted goes on after its last epoch. All cells
found go to `results.csv`, `table.md` and the picture `accuracy`.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

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
    small = fashion_networks.build(work.cell.network, work.cell.factor)
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


def do(cell, arguments, data):
    """One cell, unless it is done."""
    run = resuming.Run(arguments.output / str(cell), dataclasses.asdict(cell))
    if run.report() is not None:
        print(f"{cell}: done before", flush=True)
        return
    print(f"\n{cell}", flush=True)
    keras.backend.clear_session()
    teacher = find_teacher(cell, arguments, data)
    # Whether the teacher was trained or loaded must not matter.
    keras.utils.set_random_seed(cell.seed)
    work = Work(cell, run, data, arguments.scale)
    small, row = METHODS[cell.method](work, teacher)
    run.save("compact", small)
    row = fashion_report.cell_row(cell, teacher, small, data) | row
    run.finish(row)
    print(f"{cell}: accuracy {row['accuracy']:.4f}", flush=True)


def find_teacher(cell, arguments, data):
    """The full network of a seed, which serves all of its cells."""
    original = dataclasses.replace(
        cell, method="teacher", factor=1, metric="volume", start="scratch"
    )
    run = resuming.Run(
        arguments.output / str(original), dataclasses.asdict(original)
    )
    keras.utils.set_random_seed(cell.seed)
    work = Work(original, run, data, arguments.scale)
    return run.once("teacher", lambda: train_teacher(work))


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=["bar", "narrow", "wm"],
        help="the rest are BAR with other settings (default: bar narrow wm)",
    )
    parser.add_argument(
        "--factors", nargs="+", type=float, default=[2, 4, 8, 16]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--network",
        choices=fashion_networks.NETWORKS,
        default="wide_resnet",
        help="WideResNet-10-2, or six convolutions without residuals "
        "(default: wide_resnet)",
    )
    parser.add_argument(
        "--metric",
        choices=("volume", "flops", "params"),
        default="volume",
        help="what the budget limits (default: volume)",
    )
    parser.add_argument(
        "--start",
        choices=("teacher", "scratch"),
        default="teacher",
        help="weights with which pruning begins: the teacher's, or random "
        "ones (default: teacher)",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        help="an .npz with `images` and `labels` (default: downloaded by "
        "Keras)",
    )
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="factor on the number of epochs of every phase (default: 1)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/fashion_mnist"),
        metavar="FOLDER",
        help="where to write, and to go on from (default: runs/fashion_mnist)",
    )
    return parser, parser.parse_args(arguments)


def check(arguments):
    """Raises a ValueError if a cell would fail later."""
    factors, seeds = arguments.factors, arguments.seeds
    if not all(1 <= x < math.inf for x in factors) or min(seeds) < 0:
        raise ValueError(
            "Invalid cells. Expected finite factors of 1 or more and seeds of "
            f"0 or more. Received: --factors {factors} --seeds {seeds}"
        )
    if arguments.pictures < fashion_data.BATCH or not 0 < arguments.scale < 100:
        raise ValueError(
            f"Invalid length of the training. Expected {fashion_data.BATCH} "
            "pictures or more and a scale in (0, 100). Received: --pictures "
            f"{arguments.pictures} --scale {arguments.scale}"
        )
    training.check_budget(
        fashion_networks.build(arguments.network),
        1 / max(factors),
        arguments.metric,
    )


def main(arguments=None):
    parser, settings = parse(arguments)
    try:
        check(settings)
        data = fashion_data.load_fashion(settings.data, settings.pictures)
        # One table holds one kind of training.
        resuming.Run(
            settings.output,
            {"scale": settings.scale, "pictures": data.checksum()},
        )
    except Exception as error:  # Keras raises a bare one where it downloads.
        parser.error(str(error))
    rest = settings.network, settings.metric, settings.start
    for method, factor, seed in itertools.product(
        settings.methods, settings.factors, settings.seeds
    ):
        do(Cell(method, factor, seed, *rest), settings, data)
        reports = sorted(settings.output.glob("*/report.json"))
        rows = [json.loads(path.read_text()) for path in reports]
        fashion_report.write(rows, settings.output)
    print(f"\n{(settings.output / 'table.md').read_text()}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on where it was.")
