"""A network pruned to a latency, to FLOPs, and narrowed, at equal latency.

python benchmarks/latency_pruning.py --data fashion_mnist.npz --seeds 0 1

Prunes a small network for Fashion-MNIST at 14x14 to several budgets of each
metric, fine-tunes what remains, and measures its latency and accuracy, beside
networks of divided widths that are trained as long with the same teacher. The
network is a deep residual one, or with `--network mobile` one of inverted
residuals. An interrupted run is resumed. `--draw FILE` draws accuracy over
latency.
"""

import argparse
import functools
import json
import pathlib
import tempfile

import keras
import numpy as np

import keras_bar
from benchmarks import measuring
from keras_bar import deployment
from keras_bar import distillation
from keras_bar import in_memory
from keras_bar import models
from keras_bar.deployment import layer_times

BLOCKS = ((24, 64, 1), (32, 96, 2), (32, 96, 1), (48, 144, 2), (48, 144, 1))
SHAPE, CLASSES = (14, 14, 1), 10
NETWORKS = {
    "deep": functools.partial(models.WideResNet, 22, 1, SHAPE, CLASSES),
    "mobile": functools.partial(models.MobileNet, SHAPE, CLASSES, BLOCKS),
}
# Budgets of latency and FLOPs for `BudgetRegularizer`, budgets of latency for
# `keras_bar.prune`, and divisors of the widths.
AMOUNTS = {
    "deep": {
        "latency": (0.25, 0.125),
        "cut": (0.5, 0.25, 0.125),
        "flops": (0.07, 0.02),
        "narrow": (2, 4, 8),
    },
    "mobile": {
        "latency": (0.65, 0.5, 0.35),
        "cut": (0.65, 0.5, 0.35),
        "flops": (0.4, 0.28, 0.25),
        "narrow": (1.5, 2, 2.5),
    },
}
LABELS = {
    "latency": "BAR to a latency",
    "cut": "one cut to a latency",
    "flops": "BAR to FLOPs",
    "narrow": "narrowed",
}
TEACHER, PRUNING, FINE_TUNING = 12, 14, 6
BATCH = 64


def compiled(model, rate):
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def train(model, data, epochs, rate, *callbacks):
    decay = keras.callbacks.LearningRateScheduler(
        lambda epoch: rate * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
    )
    model.fit(
        data.x,
        data.y,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        callbacks=[decay, *callbacks],
    )


def teacher(network, data, seed, folder):
    path = folder / f"teacher_{seed}.keras"
    if not path.exists():
        keras.utils.set_random_seed(seed)
        model = compiled(NETWORKS[network](), 2e-3)
        train(model, data, TEACHER, 2e-3)
        model.save(path)
    return keras.models.load_model(path, compile=False)


def smaller(network, data, seed, latency, way, amount, folder):
    """A smaller network, trained.

    Args:
        network: One of `NETWORKS`.
        data: Images and labels.
        seed: Integer.
        latency: `keras_bar.Latency`.
        way: One of the keys of `AMOUNTS`.
        amount: The budget, or the divisor of the widths.
        folder: Path of the folder of finished networks.
    """
    path = folder / f"{way}_{amount}_{seed}.keras"
    if path.exists():
        return keras.models.load_model(path, compile=False)
    full = teacher(network, data, seed, folder)
    keras.utils.set_random_seed(seed)

    def distilled(student, rate, epochs, *callbacks):
        model = distillation.Distiller(
            full,
            student,
            distillation.LogitsDistillation(temperature=4.0),
            student_loss_weight=0.1,
        )
        train(compiled(model, rate), data, epochs, rate, *callbacks)

    if way == "narrow":
        small = NETWORKS[network](narrow=amount)
        distilled(small, 2e-3, PRUNING)
    elif way == "cut":
        small = keras_bar.prune(full, amount, latency, data.x[:512])
        distilled(small, 2e-3, PRUNING)
    else:
        gated = keras_bar.gate(full, connectivity="regular", seed=seed)
        metric = latency if way == "latency" else way
        budget = keras_bar.callbacks.BudgetRegularizer(amount, metric)
        distilled(gated, 2e-3, PRUNING, budget)
        small = keras_bar.compact(gated, connectivity="regular")
    distilled(small, 1e-3, FINE_TUNING)
    small.save(path)
    return small


def make_all(settings, folder):
    """Pairs of a row and its network, of all ways."""
    data = in_memory.load_fashion_mnist(settings.data, settings.count)
    latency = deployment.measure_latency(
        NETWORKS[settings.network](), "litert", folder / "litert.json"
    )
    for seed in settings.seeds:
        for way, amounts in AMOUNTS[settings.network].items():
            for amount in amounts:
                small = smaller(
                    settings.network, data, seed, latency, way, amount, folder
                )
                cost = keras_bar.measure_cost(small)
                row = {
                    "way": way,
                    "amount": amount,
                    "seed": seed,
                    "accuracy": round(data.accuracy(small), 4),
                    "flops": cost.flops,
                    "params": cost.params,
                }
                print(json.dumps(row), flush=True)
                yield row, small


def draw(rows, path):
    """Draws accuracy over latency, a line per way."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.6))
    for way in dict.fromkeys(x["way"] for x in rows):
        some = [x for x in rows if x["way"] == way]
        points = []
        for amount in dict.fromkeys(x["amount"] for x in some):
            group = [x for x in some if x["amount"] == amount]
            points.append(
                [
                    np.mean([x[y] for x in group])
                    for y in ("latency_us", "accuracy")
                ]
            )
        (line,) = axes.plot(
            *np.transpose(sorted(points)), "o-", label=LABELS[way]
        )
        axes.plot(
            [x["latency_us"] for x in some],
            [x["accuracy"] for x in some],
            ".",
            color=line.get_color(),
            alpha=0.5,
        )
    axes.set(xlabel="measured latency (µs)", ylabel="test accuracy")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--network", choices=NETWORKS, default="deep")
    parser.add_argument("--folder", type=pathlib.Path, default="latencies")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--draw", type=pathlib.Path, metavar="FILE")
    settings = parser.parse_args()
    folder = settings.folder / f"{settings.network}_{settings.count}"
    folder.mkdir(parents=True, exist_ok=True)
    rows, calls = [], []
    engine = layer_times.runtime("litert")
    with tempfile.TemporaryDirectory() as files:
        for row, small in make_all(settings, folder):
            rows.append(row)
            path = pathlib.Path(files, str(len(rows)))
            calls.append(engine.network(small, 1, path))
        calls.append(
            engine.network(NETWORKS[settings.network](), 1, f"{files}/full")
        )
        *times, full = layer_times.take_turns(calls, rounds=40)
    for row, time in zip(rows, times, strict=True):
        row["latency_us"] = round(time, 1)
    measuring.report(
        f"latency_pruning_{settings.network}",
        {"seeds": settings.seeds, "count": settings.count},
        rows,
        full_us=round(full, 1),
    )
    if settings.draw:
        draw(rows, settings.draw)


if __name__ == "__main__":
    main()
