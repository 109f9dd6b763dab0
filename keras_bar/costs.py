"""Cost of a network: activation volume, FLOPs, parameters and peak memory."""

import dataclasses
import math

import keras

from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.counting import listed
from keras_bar.analysis.residual_groups import unite
from keras_bar.analysis.trace import trace
from keras_bar.cost_model import METRICS as METRICS
from keras_bar.cost_model import SUMS as SUMS
from keras_bar.cost_model import CostModel as CostModel
from keras_bar.cost_model import LayerCost as LayerCost
from keras_bar.cost_model import Limits as Limits
from keras_bar.cost_model import alive_masks as alive_masks
from keras_bar.cost_model import is_object as is_object
from keras_bar.latency.metric import Latency


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a network; `str()` formats it as a table.

    Attributes:
        volume: Scalar activations per sample, over the outputs of
            convolutions and hidden dense layers. Those that give the model's
            outputs, such as logits, do not count.
        flops: 2 x multiply-adds of convolutions, dense layers and products of
            matrices, per sample.
        params: Number of weights, trainable and not.
        memory: Peak memory in bytes: the largest sum of the tensors that exist
            at once while the network runs on one sample; see
            `docs/budgets.md`.
        layers: List of `LayerCost`.
        regular: `Cost` of the same gates with regular connectivity, where all
            writers of a residual stream keep the union of their channels. None
            for a network without gates.
        uncounted: Dict from name to type of the layers whose multiply-adds
            are not counted, because they have no rule: recurrence, custom
            layers and the like. Their weights are counted.
        latency: Predicted latency in microseconds; None without a
            `keras_bar.Latency`. The layers have theirs as `other`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> cost = keras_bar.measure_cost(model)
    >>> cost.volume, cost.params
    (288, 98)
    >>> print(cost)
    layer ...
    total ...
    """

    volume: int
    flops: int
    params: int
    memory: int
    layers: list[LayerCost] = dataclasses.field(repr=False)
    regular: "Cost | None" = dataclasses.field(default=None, repr=False)
    uncounted: dict[str, str] = dataclasses.field(
        default_factory=dict, repr=False
    )
    latency: float | None = None

    def __str__(self):
        timed = [] if self.latency is None else ["latency"]
        rows: list[tuple] = [("layer", "type", "channels", *METRICS, *timed)]
        for x in self.layers:
            resolved = (f"{getattr(x, metric):,}" for metric in METRICS)
            kept, full = x.channels
            of = f"{kept}" if kept == full else f"{kept} of {full}"
            time = (f"{x.other:,.1f}" for _ in timed)
            rows.append((x.name, x.kind, of, *resolved, *time))
        totals = (f"{getattr(self, metric):,}" for metric in METRICS)
        time = (f"{self.latency:,.1f}" for _ in timed)
        rows.append(("total", "", "", *totals, *time))
        text = table(rows)
        if not self.uncounted:
            return text
        left_out = listed(self.uncounted)
        return f"{text}\nNot counted in volume and FLOPs: {left_out}"


def measure_cost(model: keras.Model, latency: Latency | None = None) -> Cost:
    """Measures the volume, the FLOPs, the parameters and the peak memory.

    The cost of a gated model is exactly that of the compact model that
    `keras_bar.compact` would return now, without building it. The FLOPs count
    every multiply-add of convolutions and dense layers. Layers whose
    multiply-adds are not counted are in `uncounted`, and named below the table.

    Args:
        model: Built `keras.Model` with known input sizes,
            with gates or without.
        latency: `keras_bar.Latency`, the measured times of its layers; or
            None.

    Returns:
        A `Cost`.

    Raises:
        ValueError: If the model has no graph of layers, an input of unknown
            size, or layers whose latency was not measured; or if `latency` is
            something else.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> keras_bar.measure_cost(model).flops
    5216
    """
    if latency is not None and not is_object(latency):
        raise ValueError(
            "These are no measured latencies. Expected a `keras_bar.Latency`, "
            "such as `keras_bar.Latency('latency.json')`; all other metrics "
            f"are measured anyway. Received: latency={latency!r}"
        )
    cost_model = CostModel(ChannelAnalysis(trace(model)))
    if math.isnan(cost_model.full["volume"] + cost_model.full["flops"]):
        shapes = [tuple(x.shape) for x in model.inputs]
        raise ValueError(
            "Volume and FLOPs depend on the size of the input. Expected a "
            "model whose inputs have a known size, such as (32, 32, 3). "
            f"Received: inputs of shape {shapes}"
        )
    masks = alive_masks(cost_model.gates)
    regular = None
    if cost_model.gates:
        regular = _cost(
            cost_model, unite(cost_model.analysis, masks), masks, latency
        )
    cost = _cost(cost_model, masks, None, latency)
    return dataclasses.replace(cost, regular=regular)


def _cost(cost_model, masks, own, latency):
    costs = cost_model.hard(masks, own)
    return Cost(
        **{metric: costs[metric] for metric in METRICS},
        layers=cost_model.layers(masks, own, latency),
        uncounted=cost_model.uncounted,
        latency=None if latency is None else costs[latency],
    )


def table(rows):
    """Formats rows of strings as a table.

    Args:
        rows: Sequence of rows, the heading first and a total last. The first
            two columns are aligned to the left.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
