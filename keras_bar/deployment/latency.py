"""Measures the layer times of a network on this device."""

import dataclasses
import itertools
import os
import pathlib
import platform
import tempfile

import keras
import numpy as np

from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.compaction import compact
from keras_bar.compaction.copying import copied
from keras_bar.costs import CostModel
from keras_bar.deployment import layer_times
from keras_bar.deployment.unit_models import build
from keras_bar.gating import gate
from keras_bar.latency.metric import Latency
from keras_bar.latency.metric import signature
from keras_bar.latency.table import Table
from keras_bar.latency.table import grid_widths
from keras_bar.latency.table import step_widths
from keras_bar.latency.units import find_units
from keras_bar.layers import ChannelGate

# Shares of all widths at which the whole network is measured, too.
SHARES = (1.0, 0.7, 0.4, 0.2)

# Largest relative deviation of the times along an axis without steps.
STRAIGHT = 0.04


def measure_latency(
    model: keras.Model,
    runtime: str = "litert",
    path: str | os.PathLike[str] | None = None,
    *,
    batch_size: int = 1,
    threads: int = 1,
    verbose: bool = True,
) -> Latency:
    """Measures the times of a network's layers in a runtime, on this device.

    Every layer is measured alone, with what the runtime fuses with it, at
    several numbers of channels that it reads and writes. The whole network is
    measured at four widths, from which follow the overhead of a run and the
    ratio of the time of a layer in the network to that of the layer alone. The
    machine should do nothing else meanwhile.

    Args:
        model: `keras.Model`, with gates or without. Its weights do not matter.
        runtime: `"keras"`, the current backend and its device; `"litert"`; or
            `"onnx"`, ONNX Runtime. The latter two run on the processor.
        path: Path of a JSON file. It is written after each table, so that an
            interrupted measurement is resumed, and tables that it holds are
            not measured again. None keeps nothing.
        batch_size: Integer, samples of a run.
        threads: Integer, threads of LiteRT and ONNX Runtime. Keras uses those
            of the process.
        verbose: Boolean, whether to print each table when it is measured.

    Returns:
        A [`Latency`][keras_bar.Latency].

    Raises:
        ImportError: If a package of the runtime is not installed.
        ValueError: If the runtime is unknown, nothing in the model can be
            pruned, an input is of unknown size, LiteRT or ONNX Runtime would
            run a model with several outputs, or the file was measured
            otherwise, on another device or with another version of the
            runtime.

    Example:

    >>> from keras_bar import deployment
    >>> model = keras_bar.models.VGG((8, 8, 1), widths=(4, 8))
    >>> latency = deployment.measure_latency(model, "litert", verbose=False)
    >>> keras_bar.measure_cost(model, latency).latency > 0  # microseconds
    True
    """
    _check(model, runtime)
    engine = layer_times.runtime(runtime, threads)
    settings = {
        "runtime": runtime,
        "batch_size": batch_size,
        "threads": threads,
    }
    latency = _known(path, settings, engine.version())
    has_gates = any(isinstance(x, ChannelGate) for x in model.layers)
    gated = model if has_gates else gate(model)
    analysis = ChannelAnalysis(trace(gated))
    groups: dict = {}
    found = find_units(analysis)
    for unit in found:
        groups.setdefault(unit.key, []).append(unit)
    for i, (key, units) in enumerate(groups.items()):
        if not all(map(latency.knows, units)):
            table = _measure(units, engine, batch_size)
            # Rounded, as it will be read from the file.
            latency.tables[key] = Table.from_json(table.to_json())
            _save(latency, path)
            if verbose:
                print(f"{i + 1} of {len(groups)}: {key}", flush=True)
    name = signature(found)
    if name not in latency.networks:
        latency.networks[name] = _calibrate(gated, latency, engine, batch_size)
        _save(latency, path)
    return latency


def _check(model, runtime):
    """Raises a ValueError for what cannot be measured, before anything is."""
    shapes = [tuple(x.shape) for x in model.inputs]
    if any(None in x[1:] for x in shapes):
        raise ValueError(
            "The latency depends on the size of the input. Expected a model "
            "whose inputs have a known size, such as (32, 32, 3). Received: "
            f"inputs of shape {shapes}"
        )
    if runtime in ("litert", "onnx") and len(model.outputs) != 1:
        raise ValueError(
            "The network cannot be run in this runtime. Expected a model with "
            "one output, or the runtime 'keras'. Received: "
            f"{len(model.outputs)} outputs and runtime={runtime!r}"
        )


def _known(path, settings, version):
    """The latencies of a file, or none yet."""
    device = {
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": processor_name(),
        "backend": keras.backend.backend(),
        "version": version,
    }
    if path is None or not pathlib.Path(path).exists():
        return Latency({**settings, "device": device, "tables": {}})
    latency = Latency(path)
    found = {x: getattr(latency, x) for x in settings}
    if found != settings:
        raise ValueError(
            "The file holds other latencies. Expected another path, or the "
            f"settings {found}. Received: {settings} for {path}"
        )
    # Files of earlier versions of this package tell less.
    other = {
        x: y
        for x, y in latency.device.items()
        if x in device and y != device[x]
    }
    if other:
        raise ValueError(
            "The file holds the latencies of another device. Expected another "
            "path, or `keras_bar.Latency(path)`, which measures nothing; it "
            f"was measured with {other}. "
            f"Received: { ({x: device[x] for x in other}) } for {path}"
        )
    return latency


def _save(latency, path):
    if path is not None:
        latency.save(path)


def processor_name():
    """The name of this machine's processor, a string."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _measure(units, engine, batch_size):
    """The table of units of one configuration."""
    first = units[0]
    if not first.is_scalable:
        (time,) = engine.layers([build(first, *first.widths)], batch_size)
        return Table((first.widths[0],), (first.widths[1],), ((time,),))
    reads, writes = (_grid(units, i) for i in range(2))
    has_kernel = not first.moves and hasattr(first.head.op, "kernel")

    def measure(pairs):
        if not pairs:
            return {}
        models = [build(first, x, y) for x, y in pairs]
        times = engine.layers(models, batch_size)
        return dict(zip(pairs, times, strict=True))

    def steps(axis, probe):
        widths = (reads, writes)[axis]
        if len(widths) == 1 or not has_kernel:
            return []
        other = (reads, writes)[1 - axis][-1]
        return [
            (other, x) if axis else (x, other)
            for x in step_widths(widths[-1], probe)
            if x not in widths
        ]

    grid = [(x, y) for x in reads for y in writes]
    times = measure(grid + steps(0, True) + steps(1, True))
    plain = Table(
        reads, writes, tuple(tuple(times[x, y] for y in writes) for x in reads)
    )
    found: list = [{}, {}]
    for axis in range(2):
        probes = {x: times[x] for x in steps(axis, True)}
        if any(
            abs(time / plain.time(*x) - 1) > STRAIGHT
            for x, time in probes.items()
        ):
            probes |= measure(steps(axis, False))
            found[axis] = {x[axis]: time for x, time in probes.items()}
    return dataclasses.replace(plain, read_steps=found[0], write_steps=found[1])


def _grid(units, axis):
    """Widths of the grid along an axis: those that gates can reach."""
    full = {x.widths[axis] for x in units}
    pairs = [x.writes if axis else x.reads for x in units]
    fixed = all(x is None or x[0].kind == "full" for x in pairs)
    return tuple(sorted(full)) if fixed else grid_widths(full)


def _calibrate(gated, latency, engine, batch_size):
    """Overhead and scale of a network, from its time at several widths."""
    predicted, calls = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i, share in enumerate(SHARES):
            small, cost = _narrowed(gated, share, latency)
            predicted.append(cost)
            calls.append(
                engine.network(small, batch_size, pathlib.Path(folder, str(i)))
            )
        measured = layer_times.take_turns(calls, rounds=40)
    overhead, scale = _fit(np.array(predicted), np.array(measured))
    return {
        "overhead": round(overhead, 3),
        "scale": round(scale, 5),
        "predicted": [round(x, 2) for x in predicted],
        "measured": [round(x, 2) for x in measured],
    }


def _narrowed(gated, share, latency):
    """The network with a share of its channels, and the sum of its layers'
    times."""

    def close(_, layer):
        size = layer.channels
        layer.set_alive(np.arange(size) < max(1, round(share * size)))

    copy = copied(trace(gated), close)
    model = CostModel(ChannelAnalysis(trace(copy)))
    masks = {x: x.alive() for x in model.gates}
    formula = latency.formula(model.analysis)
    formula.overhead, formula.scale = 0.0, 1.0
    cost = formula.cost(model.counts(formula.factors, masks))
    return compact(copy, allow_unfinished=True), float(cost)


def _fit(predicted, measured):
    """Overhead and scale with the least sum of absolute relative errors of
    `overhead + scale * predicted`. It is that of a line through two of the
    points, or through one and the origin, so that a disturbed one does not
    count."""
    points = np.stack([predicted, measured], axis=1)
    lines = [(0.0, y / x) for x, y in points if x > 0]
    for (x, y), (other, z) in itertools.combinations(points, 2):
        if other != x:
            scale = (z - y) / (other - x)
            lines.append((y - scale * x, scale))

    def error(line):
        overhead, scale = line
        return np.abs((overhead + scale * predicted) / measured - 1).sum()

    possible = [x for x in lines if x[0] >= 0 and x[1] > 0]
    overhead, scale = min(possible, key=error)
    return float(overhead), float(scale)
