"""How the cost of training grows with width, depth, resolution and devices.

`small` varies one factor of a small Wide ResNet at a time. It compiles the
training step on JAX without gates and with gates and a budget, asks XLA what
the steps compute, and times them, in turns and in processor time. The devices
are logical: they share one processor, so they show the overhead of several
devices, never a speed-up. `imagenet` extrapolates to a ResNet-50 on ImageNet
with eight GPUs, and runs nothing.

    python benchmarks/scale.py small
    python benchmarks/scale.py draw docs/gallery/scale.png
    python benchmarks/scale.py imagenet
"""

import argparse
import functools
import os
import pathlib
import statistics
import sys
import time
import types

os.environ["KERAS_BACKEND"] = "jax"
# XLA reads it at the first computation.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} "
    "--xla_force_host_platform_device_count=8"
)

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from benchmarks import absent_gpu
from benchmarks import compiled_step
from benchmarks import measuring
from keras_bar import models
from keras_bar.layers import ChannelGate
from keras_bar.reports import plotting

LABELS = {"plain": compiled_step.PLAIN, "budget": compiled_step.BUDGET}
BASE = {"width": 2, "depth": 10, "resolution": 32, "batch": 32, "devices": 1}
FACTORS = {
    "width": (1, 2, 4),
    "depth": (10, 16, 28),
    "resolution": (16, 32, 64),
    "batch": (8, 32, 128),
    "devices": (1, 2, 8),
}
# Of a batch of more than 64 images, the gates observe a part.
SHARED = {**BASE, "batch": 128, "devices": 8}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
SMALL = measuring.RESULTS / "scale.csv"

# Assumptions of the extrapolation: see docs/scale.md.
DEVICES, EPOCHS, IMAGES = 8, 90, 1_281_167
IMAGES_PER_DEVICE = (32, 128, 256)
PEAK = 989e12  # FLOPs per second of an H100 in bfloat16, without sparsity.
# NVIDIA's ResNet-50 on eight A100: 90 epochs in 1.14 hours of mixed precision.
UTILISATION = 3 * 8.2e9 * EPOCHS * IMAGES / (1.14 * 3600) / (8 * 312e12)
# ResNet-50 at 64x64 on one H100, as measured: ms per step, kernels.
H100_RUNS = {"plain": (10.9, 1141), "budget": (17.9, 1793)}
H100_BATCH, LAUNCH_MS = 256, 0.01
STATES = 4  # Weights, their gradients and two means of Adam, in float32.


def small(settings):
    """Measures the networks that are not in the table."""
    done = [_case(x) for x in measuring.read(SMALL)]
    cases = [{**BASE, x: y} for x in settings.factors for y in FACTORS[x]]
    if "devices" in settings.factors:
        cases.insert(0, SHARED)
    for case in cases:
        if case not in done:
            row = measure(case, settings.turns)
            measuring.append(SMALL, [row])
            print(row, flush=True)
            done.append(case)


def _case(row):
    return {x: int(row[x]) for x in BASE}


def measure(case, turns):
    """One row of the table.

    Args:
        case: Dict from every factor to its value; the batch is that of all
            devices together.
        turns: Integer, timed steps.
    """
    make = wide_resnet(case["depth"], case["width"], case["resolution"])
    steps = compile_steps(make, case["batch"], case["devices"])
    watch = measuring.interleave(
        {x: lambda step=step: step.run(1) for x, step in steps.items()}, turns
    )
    plain, budget = (
        1e3 * statistics.median(watch.cpu[x]) / case["batch"] for x in LABELS
    )
    return {
        **case,
        **describe(make),
        "plain_cpu_ms": f"{plain:.3f}",
        "budget_cpu_ms": f"{budget:.3f}",
        "ratio": f"{budget / plain:.3f}",
        **counts(steps, case["batch"] // case["devices"]),
        "load": round(os.getloadavg()[0], 1),
    }


@functools.cache
def wide_resnet(depth, width, size):
    """A function that makes the network, the same for equal arguments."""
    return lambda: models.WideResNet(depth, width, (size, size, 3))


def compile_steps(make, batch, devices):
    """Dict from `"plain"` and `"budget"` to the compiled steps."""
    options = types.SimpleNamespace(
        batch_size=batch,
        mixed_precision=None,
        budget=0.25,
        absent_gpu=False,
    )
    return {
        x: compiled_step.capture(label, make, options, devices)
        for x, label in LABELS.items()
    }


@functools.cache
def describe(make):
    """Gates, cost, and the processor time of `gate` and `compact`."""
    model = make()
    cost = keras_bar.measure_cost(model)
    gate, gated = _seconds(lambda: keras_bar.gate(model, seed=0))
    gates = _gates(gated)
    for x in gates:
        x.set_alive(np.arange(x.channels) % 2 == 0)
    compact, _ = _seconds(lambda: keras_bar.compact(gated))
    return {
        "gates": len(gates),
        "channels": sum(x.channels for x in gates),
        "params": round(cost.params),
        "forward_mflop": f"{cost.flops / 1e6:.1f}",
        "gate_s": f"{gate:.2f}",
        "compact_s": f"{compact:.2f}",
    }


def _seconds(function):
    """Median processor time of three calls, after one, and the last result."""
    function()
    times = []
    for _ in range(3):
        began = time.process_time()
        result = function()
        times.append(time.process_time() - began)
    return statistics.median(times), result


def counts(steps, images):
    """What XLA says of compiled steps, on one device.

    Args:
        steps: Dict from a label to a `Capture`.
        images: Integer, the images of a step on one device.
    """
    row = {}
    for label, step in steps.items():
        cost = step.compiled.cost_analysis()
        memory = step.compiled.memory_analysis().temp_size_in_bytes
        row[f"{label}_mflop"] = f"{cost['flops'] / images / 1e6:.1f}"
        row[f"{label}_mb"] = f"{cost['bytes accessed'] / images / 1e6:.2f}"
        row[f"{label}_temp_mb"] = f"{memory / 1e6:.1f}"
        row[f"{label}_collective_mb"] = f"{communicated(step.compiled):.3f}"
    return row


def communicated(compiled):
    """Megabytes that the results of collective operations have."""
    instructions = absent_gpu.INSTRUCTION.findall(compiled.as_text())
    total = sum(
        absent_gpu.size(kind)
        for _, _, kind, op, _, _ in instructions
        if op.removesuffix("-start") in COLLECTIVES
    )
    return total / 1e6


def imagenet(settings):
    """Extrapolates to a ResNet-50 on ImageNet. Nothing of it is run."""
    model = models.ResNet50((224, 224, 3), 1000)
    cost = keras_bar.measure_cost(model)
    tiny = keras_bar.measure_cost(models.ResNet50((64, 64, 3), 200))
    gated = keras_bar.gate(model, seed=0)
    channels = sum(x.channels for x in _gates(gated))
    settings = {
        "forward_gflop": round(cost.flops / 1e9, 3),
        "forward_gflop_64": round(tiny.flops / 1e9, 3),
        "params": round(cost.params),
        "volume": round(cost.volume),
        "gates": len(_gates(gated)),
        "channels": channels,
        "state_gb": round(STATES * 4 * cost.params / 1e9, 3),
    }
    print(measuring.table([settings]))
    rows = []
    for images in IMAGES_PER_DEVICE:
        for label, (ms, kernels) in H100_RUNS.items():
            work = 3 * cost.flops * images
            speed = 3 * tiny.flops * H100_BATCH / ms  # FLOPs per ms
            slow = work / speed
            fast = max(work / (PEAK * UTILISATION) * 1e3, kernels * LAUNCH_MS)
            steps = EPOCHS * (IMAGES // (DEVICES * images))
            numbers = cost.params + 2 * channels * (label == "budget")
            ring = 2 * (DEVICES - 1) / DEVICES * 4 * numbers
            rows.append(
                {
                    "images_per_device": images,
                    "step": label,
                    "gflop": round(work / 1e9),
                    "steps": steps,
                    "fast_ms": round(fast, 1),
                    "slow_ms": round(slow, 1),
                    "fast_hours": round(fast * steps / 3.6e6, 2),
                    "slow_hours": round(slow * steps / 3.6e6, 2),
                    "utilisation_slow": round(speed * 1e3 / PEAK, 3),
                    "all_reduce_mb": round(ring / 1e6, 2),
                }
            )
    measuring.report("scale_imagenet", settings, rows)


def _gates(model):
    return [x for x in model.layers if isinstance(x, ChannelGate)]


def draw(settings):
    """Draws processor time over every factor of which rows are in the table."""
    rows = measuring.read(SMALL)
    lines = {
        factor: [
            x
            for x in sorted(rows, key=lambda row: int(row[factor]))
            if {**_case(x), factor: BASE[factor]} == BASE
        ]
        for factor in FACTORS
    }
    lines = {x: y for x, y in lines.items() if len(y) > 1}
    figure, panels = plotting.new_panels(len(lines), 3, 3.2, 2.6)
    for axes, (factor, line) in zip(panels, lines.items(), strict=True):
        values = [int(x[factor]) for x in line]
        for label, colour in zip(
            LABELS, (plotting.FULL, plotting.BLUE), strict=True
        ):
            axes.plot(
                values,
                [float(x[f"{label}_cpu_ms"]) for x in line],
                "o-",
                color=colour,
                label=LABELS[label],
            )
        for value, x in zip(values, line, strict=True):
            axes.annotate(
                x["ratio"][:4],
                (value, float(x["budget_cpu_ms"])),
                textcoords="offset points",
                xytext=(0, 5),
                ha="center",
                fontsize="x-small",
            )
        axes.set(xscale="log", xlabel=factor)
        axes.set_xticks(values, values)
        axes.minorticks_off()
        axes.margins(0.15)
        axes.set_ylim(bottom=0)
        axes.grid(**plotting.GRID)
    panels[0].legend(fontsize="x-small")
    figure.supylabel("processor time per image (ms)", fontsize="small")
    plotting.save(figure, settings.path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("small")
    one.add_argument("--factors", nargs="+", choices=FACTORS, default=FACTORS)
    one.add_argument("--turns", type=int, default=9)
    one.set_defaults(run=small)
    two = commands.add_parser("imagenet")
    two.set_defaults(run=imagenet)
    three = commands.add_parser("draw")
    three.add_argument("path", type=pathlib.Path)
    three.set_defaults(run=draw)
    settings = parser.parse_args(arguments)
    keras.utils.disable_interactive_logging()
    measuring.set_threads(1)
    settings.run(settings)


if __name__ == "__main__":
    main()
