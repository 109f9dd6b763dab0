"""Measures the time of `gate` and `compact` on large networks.

Gates a network, keeps a random half of every gate's channels, and compacts, in
turns with building the network by Keras, which depends on the machine as much.
The target is at most 10 s per call.

    python benchmarks/compile_time.py
    python benchmarks/compile_time.py --networks DenseNet121 kimm/GhostNetV3W050
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from benchmarks import applications
from benchmarks import masks
from benchmarks import measuring


def main(arguments=None):
    settings = parse(arguments)
    rows = []
    for name in settings.networks:
        seconds = {"build": [], "gate": [], "compact": []}
        for _ in range(settings.turns):
            measure(name, seconds)
            keras.backend.clear_session()
        built = statistics.median(x for _, x in seconds["build"])
        for call, times in seconds.items():
            cpu = statistics.median(x for _, x in times)
            rows.append(
                {
                    "network": name,
                    "call": call,
                    "seconds": round(statistics.median(x for x, _ in times), 1),
                    "cpu_seconds": round(cpu, 1),
                    "cpu_ratio": round(cpu / built, 2),
                }
            )
    name = f"compile_time_{keras.backend.backend()}"
    measuring.report(name, vars(settings), rows)


def make(name):
    if name == "keras_bar":
        return keras_bar.models.ResNet50()
    return applications.build(name)


def measure(name, seconds):
    model = timed(lambda: make(name), seconds["build"])
    gated = timed(lambda: keras_bar.gate(model), seconds["gate"])
    masks.close_at_random(gated, keep=0.5)
    timed(lambda: keras_bar.compact(gated), seconds["compact"])


def timed(function, times):
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return result


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--networks",
        nargs="+",
        default=["keras_bar", "ResNet50"],
        help="names in keras.applications, or of kimm and keras-hub as in "
        "applications.py; keras_bar: models.ResNet50",
    )
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
