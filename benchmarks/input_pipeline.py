"""Measures how many times faster the input pipeline is than training.

A batch of the recipes' pipeline, augmented and normalised, takes turns with a
training step of its network on the same processors. The target is 20 times.
Images are synthetic, in the true layout of the data sets: CIFAR-10 for
WideResNet-26-12, which is kept in memory, and Mio-TCD for ResNet-50, which is
decoded from files, because the real one does not fit into memory.

    python benchmarks/input_pipeline.py
"""

import argparse
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from keras_bar import datasets
from keras_bar.datasets import stream
from recipes.data import registry
from recipes.experiment import training
from tests.helpers import archives

# Training images per class.
COUNTS = {"cifar10": 200, "mio_tcd": 100}
PIPELINE, STEP = "a batch of the pipeline", "a training step"


def main(arguments=None):
    settings = parse(arguments)
    rows = []
    for name in settings.datasets:
        with tempfile.TemporaryDirectory() as folder:
            watch = measure(name, pathlib.Path(folder), settings)
        # The pipeline's time is the median of many batches, the step's of few.
        measured = watch.rows(PIPELINE)
        rows += [{"data set": name, **row} for row in measured]
    measuring.report("input_pipeline", vars(settings), rows)


def measure(name, folder, settings):
    archives.write(name, folder, COUNTS[name], COUNTS[name] // 10)
    if name == "mio_tcd":
        stream.MEMORY = 0
    images = datasets.Stream(
        datasets.prepare(name, folder), batch_size=settings.batch_size
    )
    batches = repeat(images.batches(0))
    known = registry.DATASETS[name]
    model = known.networks[known.network]()
    model.compile("adam", training.CROSSENTROPY, jit_compile=False)
    x, y = next(batches)
    watch = measuring.Watch([PIPELINE, STEP])
    for _turn in range(settings.turns + 1):
        watch.start()
        for _ in range(settings.batches):
            next(batches)
        watch.stop(PIPELINE, settings.batches)
        watch.start()
        model.train_on_batch(np.asarray(x), np.asarray(y))
        watch.stop(STEP)
    watch.drop(1)
    keras.backend.clear_session()
    return watch


def repeat(epochs):
    """Yields batches of one epoch after another, forever."""
    while True:
        yield from epochs.dataset
        epochs.epoch += 1


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--datasets", nargs="+", choices=COUNTS, default=list(COUNTS)
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
