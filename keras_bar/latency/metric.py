"""Latency as a metric of budgets."""

import hashlib
import os
import pathlib
import statistics
from typing import Any

import keras

from keras_bar import files
from keras_bar.latency.formula import LatencyFormula
from keras_bar.latency.table import Table
from keras_bar.latency.units import find_units

# Maximum number of layers that an error names.
MOST_NAMED = 3
# Names of other metrics, and of logs.
_TAKEN = ("volume", "flops", "params", "memory", "loss", "budget", "expected")


@keras.saving.register_keras_serializable("keras_bar")
class Latency:
    """The latency of a network on a device, as a metric.

    It stands wherever a metric may: `BudgetRegularizer(0.5, metric=latency)`,
    `BudgetRegularizer({latency: 0.5, "params": 0.5})`,
    `keras_bar.prune(model, 0.5, latency)`. Its unit is the microsecond: a
    budget of at most 1 is a fraction of the full network's latency, a larger
    one a number of microseconds.

    The latency is predicted from tables of layer times over the channels that
    a layer reads and writes, which
    [`deployment.measure_latency`][keras_bar.deployment.measure_latency] or the
    command `keras-bar measure` measured on the device. The tables are saved
    with every model that is pruned to a latency.

    Args:
        measured: Path of the JSON file that was measured; or its content, a
            dict.
        name: String, its name in logs and messages, by default `"latency"`;
            several latencies need several ones.

    Attributes:
        runtime: `"keras"`, `"litert"` or `"onnx"`.
        device: Dict that describes where it was measured.
        batch_size: Number of samples of a run.
        tables: Dict from the configuration of a layer to its `Table`.
        networks: Dict from the signature of a network to a dict with its
            `overhead`, the microseconds of a run beside the layers, and
            `scale`, the ratio of the time of a layer in the network to that
            of the layer alone.

    Raises:
        ValueError: If the file does not hold measured latencies.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, name="hidden"),
    ...     keras.layers.Dense(2),
    ... ])
    >>> # Reading 8 channels and writing 16 takes 4 microseconds.
    >>> table = {"reads": [8, 16], "writes": [2, 16]}
    >>> latency = keras_bar.Latency({
    ...     "runtime": "litert",
    ...     "tables": {"Dense() on *": {**table, "times": [[1, 4], [2, 6]]}},
    ... })
    >>> keras_bar.measure_cost(model, latency).latency
    6.0
    """

    def __init__(
        self,
        measured: str | os.PathLike[str] | dict[str, Any],
        name: str = "latency",
    ):
        if not isinstance(name, str) or not name or name in _TAKEN:
            raise ValueError(
                "Invalid name of a latency. Expected a string that is not the "
                f"name of another metric. Received: name={name!r}"
            )
        self.name = name
        found = measured if isinstance(measured, dict) else _read(measured)
        if not isinstance(found.get("tables"), dict):
            raise ValueError(
                "These are no measured latencies. Expected the content of a "
                "file that `keras-bar measure` wrote. Received: a dict with "
                f"the keys {sorted(found)}"
            )
        try:
            self.tables = {
                key: Table.from_json(x) for key, x in found["tables"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "These are no measured latencies. Expected tables with "
                "`reads`, `writes` and `times`, as `keras-bar measure` writes "
                f"them. Received: {type(error).__name__}: {error}"
            ) from error
        self.runtime = found.get("runtime", "")
        self.device = found.get("device", {})
        self.batch_size = found.get("batch_size", 1)
        self.threads = found.get("threads", 1)
        self.networks = found.get("networks", {})

    # A kernel may compute 32 channels at once, so that a single one saves
    # nothing or much: the part of a layer that is closed to find its savings.
    closed = 0.5

    def __str__(self):
        return self.name

    def __repr__(self):
        return f"<Latency of {self.runtime}, {len(self.tables)} tables>"

    def __eq__(self, other):
        if self is other:
            return True
        return (
            isinstance(other, Latency)
            and self.name == other.name
            and self.to_json() == other.to_json()
        )

    def __hash__(self):
        # Tables may be added while they are measured.
        return hash((self.name, self.runtime, self.batch_size, self.threads))

    def to_json(self) -> dict[str, Any]:
        """The content of its file, a dict."""
        return {
            "runtime": self.runtime,
            "device": self.device,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "networks": self.networks,
            "tables": {key: x.to_json() for key, x in self.tables.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes its file.

        Args:
            path: Path of a JSON file, which is replaced.
        """
        files.write_json(path, self.to_json())

    def get_config(self):
        return {"measured": self.to_json(), "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def formula(self, analysis):
        """The latency of a network over its numbers of channels.

        Args:
            analysis: `ChannelAnalysis` of its graph.

        Returns:
            A `LatencyFormula`.

        Raises:
            ValueError: If some of its layers were not measured.
        """
        units = find_units(analysis)
        missing = list(dict.fromkeys(x.key for x in units if not self.knows(x)))
        if missing:
            named = "; ".join(missing[:MOST_NAMED])
            rest = len(missing) - MOST_NAMED
            raise ValueError(
                "The times of some layers are unknown. Expected latencies "
                "that `keras-bar measure` or `deployment.measure_latency` "
                "measured for this network or a wider one. Received: no times "
                f"of {named}{f' and {rest} more' if rest > 0 else ''}"
            )
        network = self.networks.get(signature(units))
        if network is None:
            network = self._typical()
        tables = [self.tables[x.key] for x in units]
        return LatencyFormula(
            units, tables, network["overhead"], network["scale"]
        )

    def knows(self, unit):
        """Whether the times of a `Unit` are known at all of its widths."""
        table = self.tables.get(unit.key)
        return table is not None and table.covers(*unit.widths)

    def _typical(self):
        """Overhead and scale of a network that was not measured itself."""
        known = list(self.networks.values())
        if not known:
            return {"overhead": 0.0, "scale": 1.0}
        return {
            name: statistics.median(x[name] for x in known)
            for name in ("overhead", "scale")
        }


def _read(path):
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(
            "There is no such file of latencies. Expected one that "
            f"`keras-bar measure` wrote on the device. Received: {path}"
        )
    return files.read_json(path)


def signature(units):
    """Text that is the same for networks of the same layers, however wide.

    Args:
        units: List of `Unit`.
    """
    text = "\n".join(x.key for x in units)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
