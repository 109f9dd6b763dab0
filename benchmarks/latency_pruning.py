"""A network pruned to a latency, and to FLOPs, at equal measured latency.

python benchmarks/latency_pruning.py --data fashion_mnist.npz --seeds 0 1

Prunes a small mobile network for Fashion-MNIST at 14x14 to several budgets of
each metric, fine-tunes what remains, and measures its latency and accuracy. An
interrupted run is resumed. `--draw FILE` draws accuracy over latency.
"""

import argparse
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
BUDGETS = {
    "latency": (0.65, 0.5),
    "flops": (0.4, 0.28, 0.25),
}
TEACHER, PRUNING, FINE_TUNING = 12, 14, 6
BATCH = 64


def network():
    return models.MobileNet((14, 14, 1), 10, BLOCKS)


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


def teacher(data, seed, folder):
    path = folder / f"teacher_{seed}.keras"
    if not path.exists():
        keras.utils.set_random_seed(seed)
        model = compiled(network(), 2e-3)
        train(model, data, TEACHER, 2e-3)
        model.save(path)
    return keras.models.load_model(path, compile=False)


def pruned(data, seed, latency, name, budget, folder):
    """The compact network of a metric and a budget, fine-tuned."""
    path = folder / f"{name}_{budget}_{seed}.keras"
    if path.exists():
        return keras.models.load_model(path, compile=False)
    full = teacher(data, seed, folder)
    keras.utils.set_random_seed(seed)
    gated = keras_bar.gate(full, connectivity="regular", seed=seed)

    def distilled(student, rate, epochs, *callbacks):
        model = distillation.Distiller(
            full,
            student,
            distillation.LogitsDistillation(temperature=4.0),
            student_loss_weight=0.1,
        )
        train(compiled(model, rate), data, epochs, rate, *callbacks)

    distilled(
        gated,
        2e-3,
        PRUNING,
        keras_bar.callbacks.BudgetRegularizer(
            budget, latency if name == "latency" else name
        ),
    )
    predicted = keras_bar.measure_cost(gated, latency).latency
    path.with_suffix(".json").write_text(json.dumps(predicted))
    small = keras_bar.compact(gated, connectivity="regular")
    distilled(small, 1e-3, FINE_TUNING)
    small.save(path)
    return small


def draw(rows, path):
    """Draws accuracy over latency, a line per metric."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.6))
    for name in BUDGETS:
        some = [x for x in rows if x["metric"] == name]
        points = []
        for budget in dict.fromkeys(x["budget"] for x in some):
            group = [x for x in some if x["budget"] == budget]
            points.append(
                [
                    np.mean([x[y] for x in group])
                    for y in ("latency_us", "accuracy")
                ]
            )
        (line,) = axes.plot(
            *np.transpose(sorted(points)), "o-", label=f"pruned by {name}"
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
    parser.add_argument("--folder", type=pathlib.Path, default="latencies")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--draw", type=pathlib.Path, metavar="FILE")
    settings = parser.parse_args()
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    data = in_memory.load_fashion_mnist(settings.data, settings.count)
    latency = deployment.measure_latency(
        network(), "litert", folder / "mobile_litert.json"
    )
    rows, calls = [], []
    engine = layer_times.runtime("litert")
    with tempfile.TemporaryDirectory() as files:
        for seed in settings.seeds:
            for name, budgets in BUDGETS.items():
                for budget in budgets:
                    model = pruned(data, seed, latency, name, budget, folder)
                    cost = keras_bar.measure_cost(model)
                    known = folder / f"{name}_{budget}_{seed}.json"
                    rows.append(
                        {
                            "metric": name,
                            "budget": budget,
                            "seed": seed,
                            "accuracy": round(data.accuracy(model), 4),
                            "flops": cost.flops,
                            "params": cost.params,
                            "predicted_us": round(
                                json.loads(known.read_text()), 1
                            ),
                        }
                    )
                    print(json.dumps(rows[-1]), flush=True)
                    path = pathlib.Path(files, str(len(rows)))
                    calls.append(engine.network(model, 1, path))
        times = layer_times.take_turns(calls, rounds=40)
    for row, time in zip(rows, times, strict=True):
        row["latency_us"] = round(time, 1)
    measuring.report("latency_pruning", {"seeds": settings.seeds}, rows)
    if settings.draw:
        draw(rows, settings.draw)


if __name__ == "__main__":
    main()
