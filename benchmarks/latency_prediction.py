"""Predicted against measured latency of networks that no table contains.

python benchmarks/latency_prediction.py --runtime litert

Measures the layer times of three networks on this device, then narrows each of
them to random widths, compacts it, and compares the predicted latency of the
whole network with the measured one. Both parts are kept in files, so that an
interrupted run is resumed. `--draw FILE` draws the result.
"""

import argparse
import json
import pathlib
import statistics
import tempfile

import keras
import numpy as np
from keras import layers

import keras_bar
from benchmarks import measuring
from keras_bar import deployment
from keras_bar import models
from keras_bar.deployment import layer_times
from keras_bar.layers import ChannelGate

# Networks of random widths of each kind, and those of mixed connectivity.
REGULAR, MIXED = 10, 3


def unet(size=64, widths=(16, 32, 64, 128)):
    """A small U-Net with a sigmoid per pixel."""
    x = inputs = keras.Input((size, size, 3))
    skips = []
    for i, width in enumerate(widths):
        if i:
            skips.append(x)
            x = layers.MaxPooling2D()(x)
        x = _convolutions(x, width, f"down{i}")
    for i, width in reversed(list(enumerate(widths[:-1]))):
        x = layers.UpSampling2D()(x)
        x = layers.Concatenate()([x, skips[i]])
        x = _convolutions(x, width, f"up{i}")
    x = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)
    return keras.Model(inputs, x, name="unet")


def _convolutions(x, width, name):
    for i in range(2):
        x = layers.Conv2D(
            width, 3, padding="same", use_bias=False, name=f"{name}_conv{i}"
        )(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return x


def mobile_net():
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(96, 96, 3), classes=10
    )


NETWORKS = {
    "WideResNet-16-4": lambda: models.WideResNet(16, 4, (32, 32, 3)),
    "MobileNetV2": mobile_net,
    "U-Net": unet,
}


def narrowed(make, connectivity, seed):
    """A gated network in which a random number of channels is open."""
    keras.backend.clear_session()
    rng = np.random.default_rng(seed)
    gated = keras_bar.gate(make(), connectivity=connectivity, seed=seed)
    typical = rng.uniform(0.25, 0.8)
    for gate in gated.layers:
        if isinstance(gate, ChannelGate):
            share = np.clip(typical * rng.uniform(0.5, 1.5), 0.05, 1.0)
            count = max(1, round(share * gate.channels))
            open_ = np.arange(gate.channels) < count
            gate.set_alive(rng.permutation(open_))
    return gated


def predict(name, runtime, folder):
    """Rows of networks of one kind, with predicted and measured latencies."""
    table = folder / f"{name}_{runtime}.json"
    make = NETWORKS[name]
    latency = deployment.measure_latency(make(), runtime, table)
    engine = layer_times.runtime(runtime)
    rows, calls = [], []
    with tempfile.TemporaryDirectory() as files:
        kinds = ["regular"] * REGULAR + ["mixed"] * MIXED
        for seed, connectivity in enumerate(kinds):
            gated = narrowed(make, connectivity, seed)
            cost = keras_bar.measure_cost(gated, latency)
            small = keras_bar.compact(gated)
            path = pathlib.Path(files, str(seed))
            calls.append(engine.network(small, 1, path))
            rows.append(
                {
                    "network": name,
                    "connectivity": connectivity,
                    "seed": seed,
                    "flops": cost.flops,
                    "predicted_us": round(cost.latency, 1),
                }
            )
        measured = layer_times.take_turns(calls, rounds=30)
    for row, time in zip(rows, measured, strict=True):
        row["measured_us"] = round(time, 1)
        row["error"] = round(row["predicted_us"] / time - 1, 4)
    return rows


def summary(rows):
    """Median and largest relative error."""
    errors = [abs(x["error"]) for x in rows]
    return {
        "networks": len(rows),
        "median": round(statistics.median(errors), 4),
        "worst": round(max(errors), 4),
    }


def draw(rows, path):
    """Draws predicted over measured latencies."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.5))
    names = dict.fromkeys(x["network"] for x in rows)
    for color, name in enumerate(names):
        for connectivity, marker in (("regular", "o"), ("mixed", "x")):
            some = [
                x
                for x in rows
                if x["network"] == name and x["connectivity"] == connectivity
            ]
            axes.plot(
                [x["measured_us"] for x in some],
                [x["predicted_us"] for x in some],
                marker,
                color=f"C{color}",
                label=f"{name}, {connectivity}",
                alpha=0.7,
            )
    ends = np.array(axes.get_xlim())
    ends[0] = min(x["measured_us"] for x in rows) / 1.5
    axes.plot(ends, ends, color="gray", linewidth=1)
    axes.fill_between(ends, 0.9 * ends, 1.1 * ends, color="gray", alpha=0.2)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="measured latency (µs)",
        ylabel="predicted latency (µs)",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([200, 500, 1000, 2000, 5000])
        axis.set_major_formatter("{x:.0f}")
        axis.set_minor_formatter("")
    axes.legend(fontsize="x-small")
    figure.tight_layout()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="litert")
    parser.add_argument("--folder", type=pathlib.Path, default="latencies")
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--draw", type=pathlib.Path, metavar="FILE")
    settings = parser.parse_args()
    settings.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in [settings.only] if settings.only else NETWORKS:
        path = settings.folder / f"{name}_{settings.runtime}_rows.json"
        if not path.exists():
            found = predict(name, settings.runtime, settings.folder)
            path.write_text(json.dumps(found, indent=1))
        rows += json.loads(path.read_text())
    groups = {
        f"{name}, {kind}": [
            x
            for x in rows
            if x["network"] == name and x["connectivity"] == kind
        ]
        for name in NETWORKS
        for kind in ("regular", "mixed")
    }
    groups |= {
        kind: [x for x in rows if x["connectivity"] == kind]
        for kind in ("regular", "mixed")
    }
    measuring.report(
        f"latency_prediction_{settings.runtime}",
        {"runtime": settings.runtime},
        [{"kind": x, **summary(y)} for x, y in groups.items() if y],
        networks=rows,
    )
    if settings.draw:
        draw(rows, settings.draw)


if __name__ == "__main__":
    main()
