"""Tables of layer times and their interpolation."""

import json

import numpy as np
import pytest

from keras_bar.latency.table import Axis
from keras_bar.latency.table import Table
from keras_bar.latency.table import grid_widths
from keras_bar.latency.table import step_widths
from tests.helpers import latencies

GRID = Table((4, 8), (2, 6), ((10.0, 30.0), (20.0, 70.0)))


@pytest.mark.parametrize(
    "reads,writes,expected",
    [
        (4, 2, 10.0),
        (8, 6, 70.0),
        (4, 4, 20.0),
        (6, 2, 15.0),
        (6, 4, (10 + 30 + 20 + 70) / 4),
        (5, 3, 0.75 * (0.75 * 10 + 0.25 * 30) + 0.25 * (0.75 * 20 + 0.25 * 70)),
        # From no channel to the first of the grid.
        (2, 2, 5.0),
        (4, 1, 5.0),
        (0, 6, 0.0),
        (8, 0, 0.0),
    ],
)
def test_interpolation_by_hand(reads, writes, expected):
    assert GRID.time(reads, writes) == pytest.approx(expected)


def test_steps_by_hand():
    """A kernel of 8 channels takes as long for 9 as for 16."""
    steps = {1: 10.0, 7: 10.0, 9: 20.0, 15: 20.0}
    table = Table((3,), (8, 16), ((10.0, 20.0),), write_steps=steps)
    for writes, expected in ((1, 10), (7, 10), (8, 10), (9, 20), (15, 20)):
        assert table.time(3, writes) == pytest.approx(expected)
    # Steps are ratios: half of the inputs take half of the time, wherever.
    half = Table((1, 2), (8, 16), ((5, 10), (10, 20)), {}, steps)
    assert half.time(1, 9) == pytest.approx(0.5 * half.time(2, 9))


@pytest.mark.parametrize("full", [8, 40, 64, 200])
def test_interpolated_steps_of_wider_layers(full):
    """Between measured widths the time is that of a kernel with steps."""
    table = latencies.table(grid_widths([32]), grid_widths([full]))
    worst = 0.0
    for writes in range(1, full + 1):
        for reads in (1, 5, 32):
            expected = latencies.time(reads, writes)
            found = table.time(reads, writes)
            worst = max(worst, abs(found / expected - 1))
    # Between the measured periods the size of a step is interpolated.
    assert worst < 0.1
    aligned = [table.time(32, x) for x in range(16, full + 1, 16)]
    expected = [latencies.time(32, x) for x in range(16, full + 1, 16)]
    assert aligned == pytest.approx(expected, rel=1e-6)


def test_runtime_that_prefers_multiples_of_4():
    """Widths that are multiples of 4, and others, have kernels of their own."""
    widths = [y for x in (True, False) for y in step_widths(64, x)]
    times = {x: 2.0 * x if x % 4 else 1.0 * x for x in widths}
    grid = grid_widths([64])
    table = Table(
        grid, (8,), tuple((1.0 * x,) for x in grid), {**times, 1: 2.0}
    )
    assert table.time(16, 8) == pytest.approx(16)
    assert table.time(20, 8) == pytest.approx(20)
    assert table.time(31, 8) == pytest.approx(62)
    assert table.time(50, 8) == pytest.approx(100, rel=0.05)
    assert table.time(52, 8) == pytest.approx(52, rel=0.05)


def test_times_of_0_divide_nothing():
    """A layer may seem to take no longer than an empty network."""
    axis = Axis((1, 8, 16), [0.0, 0.0, 2.0], {4: 1.0, 9: 1.0})
    assert np.all(np.isfinite(axis.factors)) and np.all(axis.factors > 0)
    table = Table((3,), (1, 8, 16), ((0.0, 0.0, 2.0),), {}, {4: 1.0, 9: 1.0})
    assert table.time(3, 4) == pytest.approx(1.0)
    assert table.time(3, 8) > 0 and table.time(3, 0) == 0


def test_json():
    table = latencies.table([1, 8, 32], [4, 64])
    copy = Table.from_json(json.loads(json.dumps(table.to_json())))
    for pair in ((1, 4), (7, 33), (32, 64)):
        assert copy.time(*pair) == pytest.approx(table.time(*pair), abs=2e-3)
    assert copy.covers(32, 64) and not copy.covers(33, 64)


def test_grids_end_at_the_full_widths():
    assert grid_widths([3]) == (1, 3)
    assert grid_widths([24, 96]) == (1, 8, 16, 24, 32, 64, 96)
    assert max(step_widths(96, True)) < 96
    assert {65, 80, 95} <= set(step_widths(96, True))
    assert {1, 16, 17, 32, 33, 48} <= set(step_widths(96, False))
