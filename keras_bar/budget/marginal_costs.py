"""Costs of channels and of whole branches while the budget moves."""

import functools

import numpy as np
from keras import ops

from keras_bar.analysis.channel_counts import narrowed

# From one with 1/100 of its widths up to the full network.
KEEP_PROBABILITIES = np.geomspace(0.01, 1.0, 13)
# A branch counts as a whole if beyond its channels it costs this part of them.
LEAST_FIXED_SHARE = 0.02


class MarginalCosts:
    """The marginal costs of channels in a network narrowed to a total cost.

    The ratios of marginal costs change as a network becomes narrower. A 1x1
    shortcut costs a tenth, or less, of the 3x3 convolution beside it in the
    full network, but a third of it in a network narrowed to 1/256 of the FLOPs.
    Marginal costs therefore follow the budget. They do not follow individual
    gates: of two consecutive convolutions, a narrow second one would make the
    first cheap and open it, which would make the second expensive and close it.

    The *fixed cost* of a branch is what closing all channels of its gate saves
    beyond their marginal costs: the part of a layer's time that does not depend
    on its width, the layers behind it that then have nothing to read, and the
    addition at its end.

    Args:
        cost_model: `CostModel`.
        metric: The metric of the cost.
        required_gates: The gates that must not close entirely.
    """

    def __init__(self, cost_model, metric, required_gates=()):
        self.cost_model = cost_model
        self.metric = metric
        self.required_gates = required_gates

    @functools.cached_property
    def _rows(self):
        """Pairs of the cost of a network and a dict from gate to the marginal
        cost of a channel, for networks of ascending width."""
        return [
            self.cost_model.marginal_costs(self.metric, x)
            for x in KEEP_PROBABILITIES
        ]

    @functools.cached_property
    def _full(self):
        return self.cost_model.full[self.metric]

    @functools.cached_property
    def _costs(self):
        """Logarithms of the costs of `_rows`, as fractions of the full one."""
        costs = np.array([cost for cost, _ in self._rows])
        return np.log(costs / self._full, dtype="float32")

    @functools.cached_property
    def _logarithms(self):
        """Dict from gate to the logarithms of its marginal costs in `_rows`."""
        return {
            gate: np.log(
                [x[gate] / self._full for _, x in self._rows], dtype="float32"
            )
            for gate in self.cost_model.gates
        }

    @functools.cached_property
    def _fixed(self):
        """Dict from gate to the fixed costs of its branch in `_rows`, where
        they matter."""
        if self.metric == "memory":  # A maximum, and no sum over branches.
            return {}
        saved = [
            self._saved(share, cost)
            for share, (cost, _) in zip(
                KEEP_PROBABILITIES, self._rows, strict=True
            )
        ]
        known = {}
        for gate in self.cost_model.gates:
            marginal = np.array([x[gate] for _, x in self._rows])
            widths = 1 + (gate.channels - 1) * KEEP_PROBABILITIES
            fixed = [x[gate] for x in saved] - marginal * widths
            least = LEAST_FIXED_SHARE * marginal * gate.channels
            if gate not in self.required_gates and np.any(fixed > least):
                fixed = np.maximum(fixed, 0.0) / self._full
                known[gate] = fixed.astype("float32")
        return known

    def _saved(self, share, cost):
        """Dict from gate to what closing all of its channels saves in a network
        of `_rows`."""
        widths = narrowed(self.cost_model.gates, share)
        closed = {gate: np.zeros_like(x) for gate, x in widths.items()}
        costs = self.cost_model.changed_costs(self.metric, widths, closed)
        return {gate: cost - x for gate, x in costs.items()}

    def logarithms(self, share):
        """The logarithms of the marginal costs, as fractions of the full cost,
        interpolated linearly.

        Args:
            share: Scalar tensor, the cost as a fraction of the full one.

        Returns:
            Dict from gate to a scalar float32 tensor.
        """
        return self._interpolated(self._logarithms, share)

    def fixed(self, share):
        """The fixed costs of branches, as fractions of the full cost,
        interpolated linearly.

        Args:
            share: Scalar tensor, the cost as a fraction of the full one.

        Returns:
            Dict from gate to a scalar float32 tensor; without the gates that
            keep the network connected, and those of branches that cost no more
            than their channels.
        """
        return self._interpolated(self._fixed, share)

    def _interpolated(self, known, share):
        # All costs are the same if the network cannot become narrower.
        steps = np.maximum(np.diff(self._costs), 1e-6)
        done = ops.subtract(ops.log(share), self._costs[:-1])
        done = ops.clip(ops.divide(done, steps), 0.0, 1.0)
        return {
            gate: ops.add(ops.sum(ops.multiply(done, np.diff(y))), y[0])
            for gate, y in known.items()
        }
