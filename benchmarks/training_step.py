"""Measures the time that gates and a budget add to a training step.

Trains a Wide ResNet on random images with `fit`: without gates, with gates,
and with gates and a `BudgetRegularizer`, which take turns batch by batch. The
target is at most 1.08 times the step without gates.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --jit-compile true
    KERAS_BACKEND=jax python benchmarks/training_step.py
"""

import argparse
import os
import pathlib
import sys
import threading
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from benchmarks import measuring

WARMUP = 2
PLAIN, GATED, BUDGET = "without gates", "gates", "gates and budget"


class Turns:
    """Lets several trainings take turns, one batch each.

    Args:
        labels: Names of the trainings.
    """

    def __init__(self, labels):
        self.watch = measuring.Watch(labels)
        self.failure = None
        self._labels = list(labels)
        self._go = {label: threading.Semaphore(0) for label in labels}
        self._go[self._labels[0]].release()

    def begin(self, label):
        self._go[label].acquire()
        if self.failure:
            raise self.failure
        self.watch.start()

    def end(self, label):
        self.watch.stop(label)
        index = (self._labels.index(label) + 1) % len(self._labels)
        self._go[self._labels[index]].release()

    def fail(self, failure):
        """Ends the other trainings as well."""
        self.failure = self.failure or failure
        for semaphore in self._go.values():
            semaphore.release()


class Turn(keras.callbacks.Callback):
    """Waits, before each batch, until it is this training's turn."""

    def __init__(self, turns, label):
        super().__init__()
        self.turns = turns
        self.label = label

    def on_train_batch_begin(self, batch, logs=None):
        self.turns.begin(self.label)

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # Until then a backend may still be computing.
        self.turns.end(self.label)


def main(arguments=None):
    settings = parse(arguments)
    measuring.set_threads(settings.threads)
    models = make_models(settings)
    turns = Turns(models)
    threads = [
        threading.Thread(
            target=train, args=(model, label, turns, settings), daemon=True
        )
        for label, model in models.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if turns.failure:
        raise turns.failure
    # The first training finishes during the last turns of the others, which
    # are therefore dropped.
    turns.watch.drop(WARMUP, 1)
    name = f"training_step_{keras.backend.backend()}"
    if settings.jit_compile != "false":
        name += f"_jit_{settings.jit_compile}"
    measuring.report(name, vars(settings), turns.watch.rows(PLAIN))


def make_models(settings):
    models = {}
    for label in (PLAIN, GATED, BUDGET):
        keras.utils.set_random_seed(0)
        model = keras_bar.models.WideResNet(settings.depth, settings.width)
        if label != PLAIN:
            model = keras_bar.gate(model, seed=0)
        jit = {"true": True, "false": False}.get(settings.jit_compile, "auto")
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit,
        )
        models[label] = model
    return models


class Repeated(keras.utils.PyDataset):
    """The same random batch again and again."""

    def __init__(self, shape, length):
        super().__init__()
        rng = np.random.default_rng(0)
        self.batch = rng.random(shape, "float32"), rng.integers(0, 10, shape[0])
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.batch


def train(model, label, turns, settings):
    callbacks = [Turn(turns, label)]
    if label == BUDGET:
        regularizer = keras_bar.callbacks.BudgetRegularizer(settings.budget)
        callbacks.insert(0, regularizer)
    shape = (settings.batch_size, *model.input_shape[1:])
    data = Repeated(shape, WARMUP + settings.turns + 1)
    # A few steps of pruning do not reach the budget, which is irrelevant here.
    warnings.filterwarnings("ignore", message="The training was too short")
    try:
        model.fit(data, callbacks=callbacks, verbose=0, shuffle=False)
    except Exception as failure:
        turns.fail(failure)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--width", type=float, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--budget", type=float, default=0.25)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--jit-compile", choices=["auto", "true", "false"], default="false"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
