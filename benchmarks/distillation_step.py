"""Measures how much of a distillation step a recorded teacher saves.

A `Distiller` runs the teacher in every step, a `RecordedDistiller` gets its
answers. Students are as large as the teacher or uniformly narrowed. All take
turns of some batches, on random images in the layout of `fashion_mnist.py`.

    python benchmarks/distillation_step.py
    KERAS_BACKEND=jax python benchmarks/distillation_step.py
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from benchmarks import measuring
from keras_bar import distillation

SHAPE, CLASSES = (14, 14, 1), 10
NARROW = (1, 4, 16)
KINDS = {
    "asked": distillation.Distiller,
    "recorded": distillation.RecordedDistiller,
}


def main(arguments=None):
    settings = parse(arguments)
    measuring.set_threads(settings.threads)
    rng = np.random.default_rng(0)
    x = rng.random((settings.batch_size, *SHAPE), "float32")
    y = rng.integers(0, CLASSES, len(x))
    teacher = network(settings)
    given = {
        "asked": y,
        "recorded": {
            "labels": y,
            "teacher": teacher.predict(x, verbose=0),
        },
    }
    rows = []
    for narrow in NARROW:
        steps = {
            kind: make_step(teacher, network(settings, narrow), kind, x, target)
            for kind, target in given.items()
        }
        watch = measuring.interleave(steps, settings.turns, settings.calls)
        rows += [
            {"student": f"1/{narrow} of the widths", **row}
            for row in watch.rows("asked")
        ]
    name = f"distillation_step_{keras.backend.backend()}"
    measuring.report(name, vars(settings), rows)


def network(settings, narrow=1):
    return keras_bar.models.WideResNet(
        settings.depth, settings.width, SHAPE, CLASSES, narrow=narrow
    )


def make_step(teacher, student, kind, x, target):
    """A function that trains on one batch."""
    model = KINDS[kind](
        teacher,
        student,
        distillation.LogitsDistillation(),
        student_loss_weight=0.1,
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
    )
    return lambda: model.train_on_batch(x, target)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--width", type=float, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
