"""The check whether a network can be pruned to a budget."""

import dataclasses

from keras_bar import costs

# Maximum number of layers listed.
LARGEST = 8


@dataclasses.dataclass(frozen=True)
class BudgetCheck:
    """Whether a network can be pruned to a budget; `str()` prints it.

    Attributes:
        possible: Whether a connected network within the budget exists.
        metric: `"volume"`, `"flops"`, `"params"` or `"memory"`, the unit of the
            costs; or a `keras_bar.Latency`.
        target: The budget.
        least: Cost of the smallest connected network found.
        full: Cost of the unpruned network.
        largest: List of `LayerCost`, the layers that hold most of `least`, the
            largest first.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> check = keras_bar.check_budget(keras_bar.gate(model), 1 / 100)
    >>> check.possible
    False
    >>> print(check)
    A budget of 3 (0.01 of the full volume) is too small ...
    """

    possible: bool
    metric: str
    target: float
    least: float
    full: float
    largest: list[costs.LayerCost] = dataclasses.field(repr=False)

    @classmethod
    def make(cls, cost_model, metric, target, masks):
        """Checks a budget against a cost model.

        Args:
            cost_model: `CostModel`.
            metric: `"volume"`, `"flops"`, `"params"` or `"memory"`.
            target: The budget, in units of the metric.
            masks: Dict from gate to booleans `(channels,)`, the smallest
                connected network.
        """
        least = cost_model.hard(masks)[metric]
        full = cost_model.full[metric]
        layers = [
            x for x in cost_model.layers(masks, metric=metric) if x.cost(metric)
        ]
        layers.sort(key=lambda x: -x.cost(metric))
        return cls(
            possible=bool(least <= target <= full),
            metric=metric,
            target=target,
            least=least,
            full=full,
            largest=layers[:LARGEST],
        )

    def __str__(self):
        if self.possible:
            verdict = "possible"
        elif self.target > self.full:
            verdict = "more than the full network has"
        else:
            verdict = "too small for any connected network"
        return (
            f"A budget of {self._of_full(self.target)} is {verdict}.\n"
            f"The least is {self._of_full(self.least)}.\n{self.floor()}"
        )

    def floor(self):
        """Formats the layers that hold the least cost as a table."""
        rows: list[tuple] = [
            ("layer", "type", "channels", str(self.metric), "share")
        ]
        for x in self.largest:
            cost = x.cost(self.metric)
            share = f"{cost / self.least:.1%}"
            channels = "{} of {}".format(*x.channels)
            rows.append((x.name, x.kind, channels, _number(cost), share))
        rows.append(("all layers", "", "", _number(self.least), "100.0%"))
        return (
            f"The {self.metric} of the smallest network by layer, the "
            f"largest first:\n{costs.table(rows)}"
        )

    def _of_full(self, cost):
        share = f"{cost / self.full:.4g} of the full {self.metric}"
        return f"{cost:,.0f} ({share})"


def _number(cost):
    """A cost as text; that of a layer may be a fraction."""
    return f"{cost:,}" if isinstance(cost, int) else f"{cost:,.1f}"
