"""Times of one unit of work over its widths, and their interpolation."""

import dataclasses

import numpy as np

# Kernels compute channels in blocks of 4, 8 or 16, some in pairs of 16. Within
# a period the time of a width follows its place in it.
PERIOD = 32
# Places in a period that are measured: multiples of 4, and others. A runtime
# may have a kernel for multiples of 4 and another one for all other widths.
PLACES = (1, 4, 7, 8, 9, 12, 15, 16, 17, 20, 23, 24, 25, 28, 31, 32)
_BLOCK = 4
# Least time of a layer, microseconds: the difference of two measurements may
# be 0, but times are divided by each other.
LEAST_TIME = 1e-3


@dataclasses.dataclass(frozen=True)
class Table:
    """Measured times of units of one configuration.

    The times of a grid of widths are interpolated bilinearly. Along each axis
    a factor per width is applied, the ratio of a measured time to the
    interpolated one: it holds the steps of the kernels, which a coarse grid
    does not see. The factors were measured at the largest other width.

    Attributes:
        reads, writes: Tuples of integers, ascending: the widths of the grid.
        times: Tuple of tuples `(reads, writes)`, in microseconds.
        read_steps, write_steps: Dicts from width to the time at the largest
            other width, in microseconds.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    times: tuple[tuple[float, ...], ...]
    read_steps: dict[int, float] = dataclasses.field(default_factory=dict)
    write_steps: dict[int, float] = dataclasses.field(default_factory=dict)

    @property
    def grid(self):
        """Times `(reads + 1, writes + 1)`, with those of width 0."""
        times = np.maximum(np.array(self.times, float), LEAST_TIME)
        return np.pad(times, ((1, 0), (1, 0)))

    def axes(self):
        """The two `Axis`, of the widths read and written."""
        times = np.array(self.times, float)
        return (
            Axis(self.reads, times[:, -1], self.read_steps),
            Axis(self.writes, times[-1], self.write_steps),
        )

    def covers(self, reads, writes):
        """Whether it knows the times of some widths."""
        return reads <= self.reads[-1] and writes <= self.writes[-1]

    def time(self, reads, writes):
        """Time of a pair of widths, in microseconds."""
        grid = self.grid
        rows, columns = self.axes()
        i, a, p = rows.locate(reads)
        j, b, q = columns.locate(writes)
        cell = grid[i : i + 2, j : j + 2]
        return float(p * q * (np.array([1 - a, a]) @ cell @ [1 - b, b]))

    def to_json(self):
        """A dict that JSON can hold."""
        found = dataclasses.asdict(self)
        for name in ("reads", "writes"):
            found[name] = list(found[name])
        for name in ("read_steps", "write_steps"):
            found[name] = [[x, round(y, 3)] for x, y in found[name].items()]
        found["times"] = [[round(x, 3) for x in row] for row in self.times]
        return found

    @classmethod
    def from_json(cls, found):
        """The table of such a dict."""
        steps = {
            name: {int(x): float(y) for x, y in found.get(name, [])}
            for name in ("read_steps", "write_steps")
        }
        return cls(
            tuple(map(int, found["reads"])),
            tuple(map(int, found["writes"])),
            tuple(tuple(map(float, row)) for row in found["times"]),
            **steps,
        )


class Axis:
    """One axis of a table, at all widths from 0.

    Args:
        widths: Ascending integers, the widths of the grid.
        times: Array like it, the times at the largest other width.
        steps: Dict from further widths to such times.

    Attributes:
        size: Number of widths, with 0.
        places: Array `(size,)`, the place of a width on the grid, whose first
            place is that of width 0.
        factors: Array `(size,)`, the ratio of the time of a width to that
            interpolated on the grid.
    """

    def __init__(self, widths, times, steps):
        grid = np.array([0, *widths], float)
        self.size = int(grid[-1]) + 1
        every = np.arange(self.size)
        self.places = np.interp(every, grid, np.arange(len(grid)))
        self.factors = np.ones(self.size)
        known = np.interp(every, grid, [0.0, *np.maximum(times, LEAST_TIME)])
        if not steps:
            return
        ratios = {0: 1.0} | dict.fromkeys(map(int, widths), 1.0)
        ratios |= {x: y / known[x] for x, y in steps.items() if x < self.size}
        self.factors[1:] = _spread(ratios, every[1:])

    def locate(self, width):
        """Cell of the grid, place in it from 0 to 1, and factor of a width."""
        every = np.arange(self.size)
        place = np.interp(width, every, self.places)
        cell = int(min(place, self.places[-1] - 1))
        return cell, place - cell, np.interp(width, every, self.factors)


def _spread(ratios, widths):
    """Ratios of all widths, from those of some: interpolated between the two
    nearest periods, and there between the nearest widths that are multiples of
    4, or not, as the width is."""
    periods: dict = {}
    for width, ratio in ratios.items():
        if width:
            aligned = width % _BLOCK == 0
            period, place = divmod(width - 1, PERIOD)
            periods.setdefault(aligned, {}).setdefault(period, {})[place] = (
                ratio
            )
    result = np.ones(len(widths))
    for i, width in enumerate(widths):
        known = periods.get(width % _BLOCK == 0, {})
        # The grid alone has a single width in most periods.
        known = {x: y for x, y in known.items() if len(y) > 1} or known
        if not known:
            continue
        period, place = divmod(width - 1, PERIOD)
        ends = sorted(known)
        below = max((x for x in ends if x <= period), default=ends[0])
        above = min((x for x in ends if x >= period), default=ends[-1])
        pair = []
        for end in (below, above):
            places = sorted(known[end])
            values = [known[end][x] for x in places]
            pair.append(np.interp(place, places, values))
        share = (period - below) / (above - below) if above > below else 0.0
        result[i] = (1 - share) * pair[0] + share * pair[1]
    return result


def grid_widths(full):
    """Widths of the grid of an axis.

    Args:
        full: Integers, the full widths of the units that share the table.

    Returns:
        Ascending tuple of integers.
    """
    largest = max(full)
    fixed = [1, 8, 16, 32, 64, 128, 256, 512]
    fixed += range(1024, largest, 512)
    return tuple(sorted({x for x in fixed if x < largest} | set(full)))


def step_widths(largest, probe):
    """Widths of an axis at which steps are measured, beside the grid.

    Args:
        largest: Integer, the full width.
        probe: Boolean, whether those of the last period are meant, which show
            whether there are any steps, or all others.

    Returns:
        Ascending list of integers.
    """
    last = (largest - 1) // PERIOD
    periods = {last} if probe else {x for x in (0, 1, 5) if x < last}
    return sorted(
        PERIOD * period + place
        for period in periods
        for place in PLACES
        if PERIOD * period + place < largest
    )
