"""Costs of channels and of whole branches while the budget moves."""

import functools

import numpy as np
from keras import ops

from keras_bar.budget import selection

# From the full network down to one with 1/100 of its widths.
KEEP_PROBABILITIES = np.geomspace(1.0, 0.01, 13)
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
    """

    def __init__(self, cost_model, metric):
        self.cost_model = cost_model
        self.metric = metric

    @functools.cached_property
    def _rows(self):
        """Networks of ascending width: triples of their cost, and of dicts from
        gate to the marginal cost of a channel and the fixed cost of a branch;
        all as fractions of the full cost."""
        full = self.cost_model.full[self.metric]
        required = selection.required_gates(self.cost_model, self.metric)
        rows = []
        for share in reversed(KEEP_PROBABILITIES):
            cost, marginal = self.cost_model.marginal_costs(self.metric, share)
            fixed = self._fixed_costs(share, cost, marginal)
            rows.append(
                (
                    cost / full,
                    {gate: x / full for gate, x in marginal.items()},
                    {
                        gate: x / full
                        for gate, x in fixed.items()
                        if gate not in required
                    },
                )
            )
        return rows

    def _fixed_costs(self, share, cost, marginal):
        """Dict from gate to what closing all of it saves in a narrowed network
        beyond the marginal costs of its channels."""
        if self.metric == "memory":  # A maximum, and no sum over branches.
            return {}
        widths, closed = {}, {}
        for gate in self.cost_model.gates:
            widths[gate] = np.full(gate.channels, float(share))
            widths[gate][0] = 1.0
            closed[gate] = np.zeros(gate.channels)
        without = self.cost_model.changed_costs(self.metric, widths, closed)
        return {
            gate: max(cost - x - marginal[gate] * widths[gate].sum(), 0.0)
            for gate, x in without.items()
        }

    @functools.cached_property
    def _costs(self):
        """Logarithms of the costs of `_rows`."""
        return np.log([cost for cost, _, _ in self._rows], dtype="float32")

    @functools.cached_property
    def _logarithms(self):
        """Dict from gate to the logarithms of its marginal costs in `_rows`."""
        return {
            gate: np.log([x[gate] for _, x, _ in self._rows], dtype="float32")
            for gate in self.cost_model.gates
        }

    @functools.cached_property
    def _fixed(self):
        """Dict from gate to the fixed costs of its branch in `_rows`, where
        they matter."""
        known = {}
        for gate in self._rows[0][2]:
            fixed = np.array([x[gate] for _, _, x in self._rows], "float32")
            channel = np.array([x[gate] for _, x, _ in self._rows])
            if np.any(fixed > LEAST_FIXED_SHARE * channel * gate.channels):
                known[gate] = fixed
        return known

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
