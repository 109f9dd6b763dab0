"""Measures the speed of a compact network with mixed connectivity.

Keeps a random share of the channels of every convolution of a Wide ResNet,
independently, and compacts. The compact network is compared with

- narrowed: an ordinary network, all widths divided by one number such that its
  FLOPs are as close to the compact network's as integer widths allow;
- divided: an ordinary network, all widths multiplied by the share. It has
  fewer FLOPs, and round widths that suit the processor, unlike the others.

Convolutions of equal FLOPs do not take equal time: one with 35 output channels
can take as long as one with 48. The masks are therefore of two kinds. `exact`
masks keep exactly the share, so the compact network's convolutions have round
widths. `binomial` masks keep every channel with the same probability, so its
widths are as irregular as those of the narrowed network.

The target is 1.25 times the time of the narrowed network. Ratios of times are
at equal FLOPs: they are divided by the ratio of the FLOPs, which is given.

    python benchmarks/mixed_inference.py
    python benchmarks/mixed_inference.py --jit-compile
    KERAS_BACKEND=jax python benchmarks/mixed_inference.py
"""

import argparse
import itertools
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from benchmarks import masks
from benchmarks import measuring

DEPTH, WIDTH = 16, 4


def main(arguments=None):
    settings = parse(arguments)
    measuring.set_threads(settings.threads)
    rows = []
    for keep, kind in itertools.product(settings.keep, settings.masks):
        networks = make_networks(keep, kind, settings.seed)
        for size in settings.batch_sizes:
            head = {"keep": keep, "masks": kind, "batch": size}
            rows += [{**head, **x} for x in compare(networks, size, settings)]
    name = f"mixed_inference_{keras.backend.backend()}"
    if settings.jit_compile:
        name += "_jit"
    measuring.report(name, vars(settings), rows)


def make_networks(keep, kind, seed):
    """Dict from label to model, the baseline first."""
    keras.utils.set_random_seed(seed)
    gated = keras_bar.gate(keras_bar.models.WideResNet(DEPTH, WIDTH))
    masks.close_at_random(gated, keep, exactly=kind == "exact", seed=seed)
    mixed = keras_bar.compact(gated)
    return {
        "narrowed": narrowed(flops(mixed)),
        "mixed": mixed,
        "divided": keras_bar.models.WideResNet(DEPTH, WIDTH, narrow=1 / keep),
    }


def narrowed(target):
    """The uniformly narrowed network whose FLOPs are nearest to `target`."""
    low, high, tried = 1.0, 64.0, []
    for _ in range(16):
        narrow = (low * high) ** 0.5
        model = keras_bar.models.WideResNet(DEPTH, WIDTH, narrow=narrow)
        cost = flops(model)
        tried.append((abs(cost - target), narrow, model))
        low, high = (narrow, high) if cost > target else (low, narrow)
    return min(tried, key=lambda x: x[:2])[2]


def flops(model):
    return keras_bar.measure_cost(model).flops


def compare(networks, size, settings):
    x = np.random.default_rng(0).random((size, 32, 32, 3), "float32")
    functions = {
        label: measuring.forward(model, x, settings.jit_compile)
        for label, model in networks.items()
    }
    calls = max(1, 8 // size)
    watch = measuring.interleave(functions, settings.turns, calls)
    costs = {label: flops(model) for label, model in networks.items()}
    rows = []
    for row in watch.rows("narrowed"):
        cost = costs[row["candidate"]] / costs["narrowed"]
        for name in ("ratio", "cpu_ratio"):
            row[name] = round(row[name] / cost, 3)
        rows.append({**row, "flops": round(cost, 4)})
    return rows


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--masks", nargs="+", default=["exact", "binomial"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit-compile", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
