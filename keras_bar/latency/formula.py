"""The latency of a network as a formula over its numbers of channels."""

import numpy as np
from keras import ops


class LatencyFormula:
    """The sum of the times of a network's units.

    Args:
        units: List of `Unit`.
        tables: List of `Table`, one per unit.
        overhead: Float, microseconds of a run beside the layers.
        scale: Float, the ratio of the time of a layer in the network to that
            of the layer alone.

    Attributes:
        factors: List of the pairs `(Expression, channels)` it depends on, each
            once.
    """

    def __init__(self, units, tables, overhead=0.0, scale=1.0):
        self.units = units
        self.overhead = overhead
        self.scale = scale
        pairs = [
            x
            for u in units
            for x in (u.reads, u.writes, u.condition, *u.parts)
            if x
        ]
        self.factors = list(dict.fromkeys(pairs))
        index = {x: i + 1 for i, x in enumerate(self.factors)}
        # The leading 1 stands for an axis that a unit does not have.
        self._columns = [
            np.array([index.get(u.reads, 0) for u in units], "int32"),
            np.array([index[u.writes] for u in units], "int32"),
            np.array([index.get(u.condition, 0) for u in units], "int32"),
        ]
        self._parts = np.zeros((1 + len(index), len(units)))
        for i, unit in enumerate(units):
            full = sum(size for _, size in unit.parts)
            for pair in unit.parts:
                self._parts[index[pair], i] = 1 / full
            if not unit.parts:
                self._parts[0, i] = 1.0
        self._axes = [_Axes([x.axes()[i] for x in tables]) for i in range(2)]
        grids = [x.grid for x in tables]
        self._values = np.concatenate([x.ravel() for x in grids])
        sizes = np.array([x.size for x in grids])
        self._start = (np.cumsum(sizes) - sizes).astype("int32")
        self._stride = np.array([x.shape[1] for x in grids], "int32")

    def cost(self, counts, xp=np):
        """The latency.

        Args:
            counts: Dict from the pairs in `factors` to numbers of channels,
                which may be fractions, `(...)`.
            xp: `numpy` or `keras.ops`.

        Returns:
            Array or tensor `(...)`, in microseconds.
        """
        return self.overhead + xp.sum(self.times(counts, xp), axis=-1)

    def times(self, counts, xp=np):
        """Latencies of the units `(..., units)`; see `cost`."""
        values = [counts[x] for x in self.factors]
        front = max((tuple(np.shape(x)) for x in values), key=len)
        entries = [xp.ones(front)]
        entries += [xp.broadcast_to(_real(x, xp), front) for x in values]
        vector = xp.stack(entries, axis=-1)
        (i, a, p), (j, b, q) = (
            axes.locate(xp.take(vector, columns, axis=-1), xp)
            for axes, columns in zip(self._axes, self._columns, strict=False)
        )
        stride = _integers(self._stride, xp)
        corner = _integers(self._start, xp) + i * stride + j
        table = _real(self._values, xp)
        near, right = (xp.take(table, corner + x, axis=0) for x in (0, 1))
        below, far = (
            xp.take(table, corner + stride + x, axis=0) for x in (0, 1)
        )
        rows = (1 - a) * near + a * below, (1 - a) * right + a * far
        scale = self.scale * xp.take(vector, self._columns[2], axis=-1)
        # Most networks have no heads of attention.
        if np.any(self._parts[0] == 0):
            scale = scale * xp.matmul(vector, _real(self._parts, xp))
        return scale * p * q * ((1 - b) * rows[0] + b * rows[1])

    def by_node(self, counts):
        """Dict from the main `Node` of each unit to its latency."""
        found: dict = {}
        times = self.times(counts).tolist()
        for unit, time in zip(self.units, times, strict=True):
            found[unit.head] = found.get(unit.head, 0.0) + time
        return found


class _Axes:
    """One axis of several tables, one behind the other."""

    def __init__(self, axes):
        sizes = np.array([x.size for x in axes])
        self.places = np.concatenate([x.places for x in axes])
        self.factors = np.concatenate([x.factors for x in axes])
        self.first = (np.cumsum(sizes) - sizes).astype("int32")
        self.largest = (sizes - 1).astype("int32")
        self.cells = np.array([int(x.places[-1]) - 1 for x in axes], "int32")

    def locate(self, widths, xp):
        """Cells of the grids, places `(..., units)` in the cells, and
        factors."""
        whole = _whole(widths, xp)
        largest = _integers(self.largest, xp)
        below = xp.minimum(xp.maximum(whole, 0), largest)
        above = xp.minimum(xp.maximum(whole + 1, 0), largest)
        share = widths - _real(below, xp)
        first = _integers(self.first, xp)
        below, above = first + below, first + above
        place, factor = (
            xp.take(values, below, axis=0)
            + share
            * (xp.take(values, above, axis=0) - xp.take(values, below, axis=0))
            for values in (_real(self.places, xp), _real(self.factors, xp))
        )
        cell = xp.minimum(_whole(place, xp), _integers(self.cells, xp))
        return cell, place - _real(cell, xp), factor


def _integers(x, xp):
    return x if xp is np else ops.convert_to_tensor(x, "int32")


def _real(x, xp):
    if xp is np:
        return np.asarray(x, "float64")
    return ops.cast(x, "float32")


def _whole(x, xp):
    """The largest integers that are not above `x`. Widths are sums of numbers
    in [0, 1] in floating point, so that a whole one may be slightly less."""
    if xp is np:
        return np.floor(x + 1e-6).astype("int32")
    return ops.cast(ops.floor(ops.stop_gradient(x) + 1e-6), "int32")
