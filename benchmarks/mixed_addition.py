"""Compares ways to add a branch to some channels of a stream.

The stream is a prefix of the sum's channels. The branch writes half of the
sum's channels, in a number of runs. The ways are:

- pads: each run is padded with zeros and added;
- joined: the runs and the zeros between them are concatenated, and added;
- regions: both sides are cut where one of them begins or ends, overlapping
  pieces are added, and all pieces are concatenated;
- gather: the branch, with one channel of zeros, is gathered and added;
- planes: the same with the channels first, so that whole planes are moved, and
  a transposition back;
- product: the branch is multiplied by a one-hot matrix (a 1x1 convolution) and
  added.

`operations` is the way of `keras_bar.compact`, `layer` that of
`keras_bar.layers.MixedResidual`. For scale, `add` is an ordinary addition of
two full tensors, and `conv` the 3x3 convolution that computes the branch from
the sum. Times are the minimum over all turns, in ms of processor time.

    python benchmarks/mixed_addition.py
    python benchmarks/mixed_addition.py --jit-compile
    KERAS_BACKEND=jax python benchmarks/mixed_addition.py
"""

import argparse
import itertools
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import ops

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from keras_bar.compaction.moving import Mover
from keras_bar.layers import MixedResidual

# Batch, height and width, and channels of the sum: the groups of a
# WideResNet-16-4 with half of its channels, and two groups of a ResNet-50.
PLACES = (
    (64, 32, 56),
    (64, 16, 112),
    (64, 8, 224),
    (16, 56, 128),
    (16, 28, 256),
)
RUNS = (1, 2, 3, 4, 8, 16)


def main(arguments=None):
    settings = parse(arguments)
    measuring.set_threads(settings.threads)
    rows = []
    for place, runs in itertools.product(PLACES, settings.runs):
        functions = make(*place, runs, settings)
        watch = measuring.interleave(functions, settings.turns)
        ms = {label: round(1e3 * min(x), 2) for label, x in watch.cpu.items()}
        head = dict(zip(("batch", "size", "channels"), place, strict=True))
        rows.append({**head, "runs": runs, **ms})
    name = f"mixed_addition_{keras.backend.backend()}"
    if settings.jit_compile:
        name += "_jit"
    measuring.report(name, vars(settings), rows)


def make(batch, size, channels, count, settings):
    """Dict from the name of a way to its function."""
    runs = spread(channels, count)
    places = [i for start, stop in runs for i in range(start, stop)]
    before = channels - (runs[-1][1] - runs[-1][0]) // 2
    keras.utils.set_random_seed(0)
    shape = (batch, size, size)
    stream, branch, full, other = (
        keras.random.uniform((*shape, n))
        for n in (before, len(places), channels, channels)
    )
    layer = MixedResidual([range(before), places], channels)
    conv = keras.layers.Conv2D(len(places), 3, padding="same", use_bias=False)
    ways = {
        "pads": lambda x, y: pads(pad(x, 0, channels - before), y, runs),
        "joined": lambda x, y: pad(x, 0, channels - before) + joined(y, runs),
        "regions": lambda x, y: regions(x, y, runs, channels),
        "planes": lambda x, y: (
            pad(x, 0, channels - before) + planes(y, places, channels)
        ),
        "product": lambda x, y: (
            pad(x, 0, channels - before) + product(y, places, channels)
        ),
        "gather": lambda x, y: (
            pad(x, 0, channels - before) + gather(y, places, channels)
        ),
        "operations": operations(stream, branch, places, channels),
        "layer": lambda x, y: layer([x, y]),
    }
    conv(full)
    expected = ops.convert_to_numpy(layer([stream, branch]))
    functions = {}
    for name, way in ways.items():
        result = ops.convert_to_numpy(way(stream, branch))
        np.testing.assert_allclose(result, expected, rtol=1e-5)
        functions[name] = compiled(way, (stream, branch), settings)
    functions["add"] = compiled(lambda x, y: x + y, (full, other), settings)
    functions["conv"] = compiled(conv, (full,), settings)
    return functions


def spread(channels, count):
    """Evenly spaced runs of half of the channels, the last one at the end."""
    stops = np.linspace(0, channels, count + 1).astype(int)[1:]
    length = channels // 2 // count
    return [(int(stop) - length, int(stop)) for stop in stops]


def pads(stream, branch, runs):
    for part, (start, stop) in zip(split(branch, runs), runs, strict=True):
        stream = stream + pad(part, start, stream.shape[-1] - stop)
    return stream


def joined(branch, runs):
    parts, at = [], 0
    for part, (start, stop) in zip(split(branch, runs), runs, strict=True):
        if start > at:
            parts.append(ops.zeros((*branch.shape[:-1], start - at)))
        parts.append(part)
        at = stop
    return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def operations(stream, branch, places, channels):
    """The addition as `keras_bar.compact` builds it."""
    inputs = [keras.Input(batch_shape=x.shape) for x in (stream, branch)]
    names = itertools.count()
    mover = Mover(lambda name: f"{name}_{next(names)}")
    terms = [
        term
        for x, where in zip(
            inputs, (np.arange(stream.shape[-1]), places), strict=True
        )
        for term in mover.spread(x, where, channels, 3, "sum")
    ]
    model = keras.Model(inputs, keras.layers.Add()(terms))
    return lambda x, y: model([x, y])


def regions(stream, branch, runs, channels):
    before = stream.shape[-1]
    cuts = sorted({0, before, channels, *itertools.chain(*runs)})
    pieces, at = [], 0
    for start, stop in itertools.pairwise(cuts):
        terms = [stream[..., start:stop]] if stop <= before else []
        if any(a <= start and stop <= b for a, b in runs):
            terms.append(branch[..., at : at + stop - start])
            at += stop - start
        pieces.append(sum(terms[1:], terms[0]))
    return ops.concatenate(pieces, axis=-1)


def planes(branch, places, channels):
    source = np.full(channels, len(places))
    source[places] = np.arange(len(places))
    branch = ops.transpose(branch, (0, 3, 1, 2))
    branch = ops.pad(branch, ((0, 0), (0, 1), (0, 0), (0, 0)))
    return ops.transpose(ops.take(branch, source, axis=1), (0, 2, 3, 1))


def product(branch, places, channels):
    matrix = np.eye(channels, dtype="float32")[places]
    return ops.conv(branch, matrix[None, None], data_format="channels_last")


def gather(branch, places, channels):
    source = np.full(channels, len(places))
    source[places] = np.arange(len(places))
    return ops.take(pad(branch, 0, 1), source, axis=-1)


def split(branch, runs):
    cuts = np.cumsum([stop - start for start, stop in runs])[:-1]
    return ops.split(branch, cuts.tolist(), axis=-1) if len(cuts) else [branch]


def pad(x, before, after):
    return ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(before, after)])


def compiled(function, arguments, settings):
    function = measuring.compiled(function, settings.jit_compile)
    return lambda: measuring.wait(function(*arguments))


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=RUNS)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jit-compile", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
