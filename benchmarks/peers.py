"""Compares compact networks with those that torch-pruning and narrowing leave.

All have the same part of the FLOPs of the same full network. `latency` writes
them as ONNX, and those of Keras as LiteRT, too, and times them side by side:

- narrowed: all widths divided by one number (of Keras, and of torch);
- one cut: what `keras_bar.prune` leaves of a network with random weights;
- mixed, regular: compact networks of keras_bar, with random channels closed,
  as in `mixed_inference.py`, with mixed and with regular connectivity;
- these with widths that are multiples of 8 or 16, as `align` makes them;
- magnitude, taylor, group norm: what torch-pruning leaves of the network with
  random weights. (A network's weights determine which channels stay, and so do
  those of a trained one; the time depends on their numbers alone.)

`accuracy` trains a teacher, prunes it by every method and trains what remains,
with the same batches, steps, optimizer and distillation.

Both add rows to `benchmarks/results/peers_*.csv` and skip those that are there,
so that they can be stopped and started again.

    pip install keras-bar[peers,deploy,baselines]
    python benchmarks/peers.py networks --folder peers
    python benchmarks/peers.py latency --folder peers
    python benchmarks/peers.py accuracy
"""

import argparse
import itertools
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from benchmarks import equal_flops
from benchmarks import masks
from benchmarks import measuring

# Dict from network to the shape of an image.
SHAPES = {"WideResNet-16-4": (32, 32, 3), "ResNet-50": (128, 128, 3)}
OURS = (
    "narrowed",
    "one cut",
    "one cut, multiples of 16",
    "mixed",
    "mixed, multiples of 8",
    "regular",
    "regular, multiples of 16",
)
METHODS = (*OURS, "narrowed (torch)", *equal_flops.PEERS)
RUNTIMES = {"onnxruntime": "onnx", "LiteRT": "tflite"}
# Least number of turns of a case, of which the first is not timed.
LEAST_TURNS = 4
LATENCY = measuring.RESULTS / "peers_latency.csv"


def main(arguments=None):
    settings = parse(arguments)
    settings.run(settings)


def write_networks(settings):
    """Writes the files of all networks, if they are not there."""
    for name in settings.networks:
        target = settings.share * equal_flops.keras_flops(full(name))
        for method in METHODS:
            folder = _folder(settings, name, method)
            if not (folder / "flops.txt").exists():
                folder.mkdir(parents=True, exist_ok=True)
                cost = _write(name, method, target, folder)
                (folder / "flops.txt").write_text(f"{cost}\n")
                print(name, method, f"{cost / target:.3f}", flush=True)


def _folder(settings, name, method):
    return settings.folder / name / method.replace(", ", "_").replace(" ", "_")


def _write(name, method, target, folder):
    """Writes one network and returns its FLOPs."""
    if method in OURS:
        from keras_bar import deployment

        model = keras_network(name, method, target)
        deployment.export(model, folder, ["onnx", "litert"])
        return equal_flops.keras_flops(model)
    from benchmarks import peer_networks

    network = torch_network(name, method, target)
    height, width, channels = SHAPES[name]
    shape = (channels, height, width)
    peer_networks.write_onnx(network, shape, folder / "model.onnx")
    return peer_networks.flops(network, shape)


def full(name, narrow=1.0):
    """The full network in Keras, or a narrowed one."""
    if name == "ResNet-50":
        return keras_bar.models.ResNet50(SHAPES[name], narrow=narrow)
    return keras_bar.models.WideResNet(16, 4, SHAPES[name], narrow=narrow)


def keras_network(name, method, target):
    """A network of Keras whose FLOPs are nearest to `target`."""
    keras.utils.set_random_seed(0)
    if method == "narrowed":
        return equal_flops.nearest(
            lambda x: full(name, x), equal_flops.keras_flops, target, 1.0, 64.0
        )
    way, *aligned = method.split(", multiples of ")
    align = int(*aligned or [1])
    if way == "one cut":
        return keras_bar.prune(full(name), target, "flops", align=align)
    gated = keras_bar.gate(full(name), connectivity=way)

    def closed(part):
        masks.close_at_random(gated, 1 / part, exactly=False, align=align)
        return gated

    equal_flops.nearest(closed, equal_flops.keras_flops, target, 1.0, 64.0)
    return keras_bar.compact(gated, connectivity=way)


def torch_network(name, method, target):
    """A network of torch whose FLOPs are `target`, or as near as possible."""
    import torch

    from benchmarks import peer_networks

    height, width, channels = SHAPES[name]
    shape = (channels, height, width)

    def build(narrow=1.0):
        torch.manual_seed(0)
        if name == "ResNet-50":
            return peer_networks.ResNet50(narrow=narrow)
        return peer_networks.WideResNet(16, 4, narrow=narrow)

    def cost(network):
        return peer_networks.flops(network, shape)

    if method == "narrowed (torch)":
        return equal_flops.nearest(build, cost, target, 1.0, 64.0)
    network = build()
    x = torch.randn(8, *shape)
    y = torch.arange(8) % 10
    loss = torch.nn.functional.cross_entropy(network(x), y)
    pruning = peer_networks.pruner(method, network, shape)
    return peer_networks.prune(pruning, network, shape, target, loss)


def time_networks(settings):
    """Times all files, case by case, and appends rows to the table."""
    done = {
        (x["network"], x["runtime"], x["batch"], x["threads"])
        for x in measuring.read(LATENCY)
    }
    for name, runtime, batch, threads in itertools.product(
        settings.networks, RUNTIMES, settings.batch_sizes, settings.threads
    ):
        if (name, runtime, str(batch), str(threads)) in done:
            continue
        rows = _time(settings, name, runtime, batch, threads)
        measuring.append(LATENCY, rows)
        print(measuring.table(rows), flush=True)
        if time.monotonic() - settings.began > settings.stop_after:
            print("stopped; start again for the rest")
            return


def _time(settings, name, runtime, batch, threads):
    """Rows of one case: the networks take turns."""
    runs, costs = {}, {}
    for method in METHODS:
        folder = _folder(settings, name, method)
        path = folder / f"model.{RUNTIMES[runtime]}"
        if path.exists():
            costs[method] = int((folder / "flops.txt").read_text())
            last = method in OURS
            runs[method] = _runner(path, SHAPES[name], batch, threads, last)
    watch = measuring.Watch(runs)
    began, turn = time.monotonic(), 0
    while turn < LEAST_TURNS or time.monotonic() - began < settings.seconds:
        for method, run in runs.items():
            watch.start()
            run()
            watch.stop(method)
        turn += 1
    watch.drop(1)
    return [
        {
            "network": name,
            "runtime": runtime,
            "batch": batch,
            "threads": threads,
            "method": method,
            "flops": costs[method],
            **_times(watch.wall, method, ""),
            **_times(watch.cpu, method, "cpu_"),
            "turns": turn - 1,
            "load": f"{os.getloadavg()[0]:.0f}",
        }
        for method in runs
    ]


def _times(seconds, method, prefix):
    """Median and least milliseconds, and their ratios to those of the narrowed
    network."""
    row = {}
    for name, of in (("median", statistics.median), ("least", min)):
        x, base = of(seconds[method]), of(seconds["narrowed"])
        row[f"{prefix}{name}_ms"] = f"{1e3 * x:.3f}"
        row[f"{prefix}{name}_ratio"] = f"{x / base:.3f}"
    return row


def _runner(path, shape, batch, threads, channels_last):
    from keras_bar import deployment

    run = deployment.load(path, threads)
    x = np.random.default_rng(0).random((batch, *shape), "float32")
    if not channels_last:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return lambda: run(x)


def train_networks(settings):
    from benchmarks import peer_accuracy

    peer_accuracy.run(settings)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    networks = commands.add_parser("networks", help="write all files")
    networks.set_defaults(run=write_networks)
    latency = commands.add_parser("latency", help="time the files")
    latency.set_defaults(run=time_networks)
    for command in (networks, latency):
        command.add_argument("--folder", type=pathlib.Path, default="peers")
        command.add_argument("--networks", nargs="+", default=list(SHAPES))
        command.add_argument("--share", type=float, default=1 / 4)
    latency.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64])
    latency.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    latency.add_argument("--seconds", type=float, default=20.0)
    latency.add_argument("--stop-after", type=float, default=180.0)
    accuracy = commands.add_parser("accuracy", help="train and compare")
    accuracy.set_defaults(run=train_networks)
    accuracy.add_argument(
        "--shares", type=float, nargs="+", default=[1 / 4, 1 / 8]
    )
    accuracy.add_argument("--seeds", type=int, nargs="+", default=[0])
    accuracy.add_argument("--epochs", type=int, default=30)
    settings = parser.parse_args(arguments)
    settings.began = time.monotonic()
    return settings


if __name__ == "__main__":
    main()
