"""Latencies that nobody measured: tables made by a formula."""

import math

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.latency.table import Table
from keras_bar.latency.table import grid_widths
from keras_bar.latency.table import step_widths
from keras_bar.latency.units import find_units

BLOCK = 8


def time(reads, writes, size=1.0, block=BLOCK, fixed=0.0):
    """Microseconds of a kernel that writes its channels in blocks, of 8 by
    default, beside a part that does not depend on them."""
    blocks = math.ceil(writes / block)
    return size * (fixed + (1.0 + 0.1 * reads) * block * blocks)


def table(reads, writes, size=1.0, **kernel):
    """The table of a kernel.

    Args:
        reads, writes: Lists of the widths of the grid.
        size: Float, microseconds per block.
        **kernel: Arguments of `time`.
    """
    last = reads[-1], writes[-1]
    steps = [y for x in (True, False) for y in step_widths(last[1], x)]
    return Table(
        tuple(reads),
        tuple(writes),
        tuple(tuple(time(x, y, size, **kernel) for y in writes) for x in reads),
        {},
        {y: time(last[0], y, size, **kernel) for y in steps},
    )


def latency_of(model, kernel=None, **settings):
    """A `Latency` that knows all layers of a model, and whose tables have the
    times of `time`, larger for larger images.

    Args:
        model: `keras.Model`, with gates or without.
        kernel: Dict of arguments of `time`.
        **settings: Further entries of the latency.
    """
    groups: dict = {}
    for unit in find_units(ChannelAnalysis(trace(model))):
        groups.setdefault(unit.key, []).append(unit)
    tables = {}
    for key, units in groups.items():
        size = math.prod(d or 1 for d in units[0].head.output.shape[1:-1])
        widths = [
            sorted({*grid_widths({u.widths[i] for u in units})}) for i in (0, 1)
        ]
        tables[key] = table(*widths, 0.01 * size, **(kernel or {})).to_json()
    return keras_bar.Latency(
        {"runtime": "by hand", "tables": tables, **settings}
    )
