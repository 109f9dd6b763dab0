"""Prunes a network for handwritten digits to 1/8 of its activation volume.

Trains a small wide residual network on the 8x8 pictures that come with
scikit-learn, prunes a copy of it to a budget while the copy learns from the
original (distillation), compacts that to a small plain Keras model and trains
it a little more. Then tells what was gained and lost.

    python recipes/digits.py
    python recipes/digits.py --budget 1/16 --metric flops --output runs/small

In the output folder: the networks `teacher.keras`, `gated.keras` (pruned, but
still of full size) and `compact.keras`, `report.json`, the logs of every epoch
in `teacher.json`, `prune.json` and `fine-tune.json`, for TensorBoard in
`tensorboard`, and the pictures `budget`, `gates`, `channels` and `flops`. If it
is interrupted, the same command goes on where it was.
"""

import argparse
import fractions
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib  # noqa: F401  Wanted at the end; if missing, said now.

# Runs in a clone, with the package installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from keras_bar import reports
from keras_bar.reports import runs
from recipes.data import digits_data
from recipes.experiment import command
from recipes.experiment import distilling as training
from recipes.experiment import resuming
from recipes.results import figures

# Parts of `--epochs`; the rest fine-tunes.
TEACHER_PART, PRUNE_PART = 0.25, 0.5


def main(arguments=None):
    run = parse(arguments)
    report = run.report()
    if report is None:
        digits = digits_data.load_digits()
        teacher = run.once("teacher", lambda: train_teacher(run, digits))
        student = run.once("gated", lambda: prune(run, digits, teacher))
        small = run.once(
            "compact", lambda: finetune(run, digits, teacher, student)
        )
        report = make_report(run, digits, teacher, student, small)
        draw(run, teacher, student)
        run.finish(report)
    show(run, report)


def train_teacher(run, digits):
    seed = run.settings["seed"]
    keras.utils.set_random_seed(seed)
    model = build_network()
    epochs = epochs_of(run, TEACHER_PART)
    batches = digits_data.Batches(digits, seed)
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(2e-3, epochs * len(batches)),
            weight_decay=5e-3,
        ),
        training.CROSSENTROPY,
        metrics=["accuracy"],
        jit_compile=training.JIT,
    )
    run.fit("teacher", model, batches, epochs)
    # Without the optimizer, whose state would triple the file.
    teacher = keras.models.clone_model(model)
    teacher.set_weights(model.get_weights())
    return teacher


def prune(run, digits, teacher):
    seed, budget, metric = (
        run.settings[x] for x in ("seed", "budget", "metric")
    )
    student = keras_bar.gate(teacher, seed=seed)
    model = training.distiller(teacher, student, rate=1e-3)
    run.fit(
        "prune",
        model,
        digits_data.Batches(digits, seed + 1),
        epochs_of(run, PRUNE_PART),
        [
            keras_bar.callbacks.BudgetRegularizer(budget, metric),
            keras_bar.callbacks.GateJournal(run.folder / runs.GATES),
        ],
    )
    return student


def finetune(run, digits, teacher, student):
    small = keras_bar.compact(student)
    batches = digits_data.Batches(digits, run.settings["seed"] + 2)
    epochs = epochs_of(run, 1 - TEACHER_PART - PRUNE_PART)
    steps = epochs * len(batches)
    rate = training.high_then_low(steps, steps // 3)
    model = training.distiller(teacher, small, rate)
    run.fit("fine-tune", model, batches, epochs)
    return small


def build_network():
    return keras_bar.models.WideResNet(16, 2, digits_data.input_shape())


def epochs_of(run, part):
    return max(1, round(part * run.settings["epochs"]))


def make_report(run, digits, teacher, student, small):
    print("measuring", flush=True)
    models = {"teacher": teacher, "compact": small}
    results = {}
    for name, model in models.items():
        cost = keras_bar.measure_cost(model)
        results[name] = {
            "accuracy": digits_data.accuracy(model, digits),
            "volume": cost.volume,
            "flops": cost.flops,
            "params": cost.params,
            "file_bytes": run.path(name).stat().st_size,
        }
    for size in (1, 128):
        latency = reports.measure_latency(models, size)
        for name, milliseconds in latency.items():
            results[name][f"latency_ms_batch_{size}"] = milliseconds
    parts = ("teacher", "prune", "fine-tune")
    history = {part: run.history(part) for part in parts}
    metric = run.settings["metric"]
    return {
        "settings": run.settings,
        "results": results,
        "used": results["compact"][metric] / results["teacher"][metric],
        "seconds": sum(sum(x["seconds"]) for x in history.values()),
        "history": history,
    }


def draw(run, teacher, student):
    metric, budget = run.settings["metric"], run.settings["budget"]
    part = fractions.Fraction(budget).limit_denominator(1000)
    label = f"pruned to {part} of the {metric}"
    full, gated = map(keras_bar.measure_cost, (teacher, student))
    figures.draw_one(run, full, gated, metric, label)


def show(run, report):
    metric, budget = run.settings["metric"], run.settings["budget"]
    print(
        f"\n{reports.comparison_table(report['results'])}\n\n"
        f"{report['used']:.2%} of the {metric} is in use, the budget was "
        f"{budget:.2%}. The training took {report['seconds']:.0f} s.\n"
        f"{run.folder} holds compact.keras, report.json, budget.png and "
        "channels.png."
    )


def parse(arguments):
    """The run that the command line asks for; exits where it cannot be."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--budget",
        type=fraction,
        default=1 / 8,
        help="fraction of the metric that may remain, such as 1/8 or 0.125 "
        "(default: 1/8)",
    )
    parser.add_argument(
        "--metric",
        choices=("volume", "flops", "params"),
        default="volume",
        help="what the budget limits: activations per picture, FLOPs or the "
        "number of weights (default: volume)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=120,
        help="epochs in all: a quarter for the teacher, half for pruning, a "
        "quarter for fine-tuning (default: 120)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the weights, the noise and the order of the pictures; the "
        "test pictures are always the same (default: 0)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/digits"),
        metavar="FOLDER",
        help="where to write, and to go on from (default: runs/digits)",
    )
    settings = vars(parser.parse_args(arguments))
    folder = settings.pop("output")
    try:
        check(**settings)
        return resuming.Run(folder, settings)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def fraction(text):
    """A number such as 0.125 or 1/8."""
    return float(fractions.Fraction(text))


def check(budget, metric, epochs, seed):
    """Raises a ValueError if the run would fail later."""
    if not 0 < budget <= 1:
        raise ValueError(
            "Invalid --budget. Expected a fraction of the full cost in (0, 1], "
            f"such as 1/8. Received: {budget:.6g}"
        )
    if epochs < 4:
        raise ValueError(
            "Too few --epochs. Expected at least 4, for teacher, pruning and "
            f"fine-tuning. Received: {epochs}"
        )
    if seed < 0:
        raise ValueError(
            "Invalid --seed. Expected an integer of at least 0. "
            f"Received: {seed}"
        )
    # The budget may be too small for any network: ask an untrained one.
    training.check_budget(build_network(), budget, metric)


if __name__ == "__main__":
    command.run(main)
