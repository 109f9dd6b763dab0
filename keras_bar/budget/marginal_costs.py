"""Marginal costs of channels while the budget moves."""

import functools

import numpy as np
from keras import ops

# From the full network down to one with 1/100 of its widths.
KEEP_PROBABILITIES = np.geomspace(1.0, 0.01, 13)


class MarginalCosts:
    """The marginal costs of channels in a network narrowed to a total cost.

    The ratios of marginal costs change as a network becomes narrower. A 1x1
    shortcut costs a tenth, or less, of the 3x3 convolution beside it in the
    full network, but a third of it in a network narrowed to 1/256 of the FLOPs.
    Marginal costs therefore follow the budget. They do not follow individual
    gates: of two consecutive convolutions, a narrow second one would make the
    first cheap and open it, which would make the second expensive and close it.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`.
    """

    def __init__(self, cost_model, metric):
        self.cost_model = cost_model
        self.metric = metric

    @functools.cached_property
    def _known(self):
        """Logarithms of the costs, as ascending fractions of the full cost; and
        a dict from gate to the logarithms of its marginal costs."""
        rows = [
            self.cost_model.marginal_costs(self.metric, x)
            for x in reversed(KEEP_PROBABILITIES)
        ]
        costs = np.array([cost for cost, _ in rows])
        full = self.cost_model.full[self.metric]
        marginal_costs = {
            gate: np.log([x[gate] / full for _, x in rows], dtype="float32")
            for gate in self.cost_model.gates
        }
        return np.log(costs / full, dtype="float32"), marginal_costs

    def logarithms(self, share):
        """The logarithms of the marginal costs, as fractions of the full cost,
        interpolated linearly.

        Args:
            share: Scalar tensor, the cost as a fraction of the full one.

        Returns:
            Dict from gate to a scalar float32 tensor.
        """
        costs, marginal_costs = self._known
        # All costs are the same if the network cannot become narrower.
        steps = np.maximum(np.diff(costs), 1e-6)
        done = ops.subtract(ops.log(share), costs[:-1])
        done = ops.clip(ops.divide(done, steps), 0.0, 1.0)
        return {
            gate: ops.add(ops.sum(ops.multiply(done, np.diff(y))), y[0])
            for gate, y in marginal_costs.items()
        }
