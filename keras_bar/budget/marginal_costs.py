"""Marginal costs of channels while the budget moves."""

import functools

import numpy as np
from keras import ops

# From the full network to one that is a hundredth as wide.
KEEP_PROBABILITIES = np.geomspace(1.0, 0.01, 13)


class MarginalCosts:
    """The marginal costs of channels in a network narrowed to a total cost.

    In the full network a 1x1 shortcut costs a tenth of the 3x3 convolution
    beside it and less, in one narrowed to 1/256 of the FLOPs a third: marginal
    costs follow the budget. They do not follow the gates one by one: if two
    convolutions follow each other, a narrow second one would make the first
    cheap and open it, which would make the second expensive and close it.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`.
    """

    def __init__(self, cost_model, metric):
        self.cost_model = cost_model
        self.metric = metric

    @functools.cached_property
    def _known(self):
        """Logarithms of the costs, as fractions of the full one, rising; and
        dict from gate to those of its marginal costs."""
        rows = [
            self.cost_model.marginal_costs(self.metric, x)
            for x in reversed(KEEP_PROBABILITIES)
        ]
        costs = np.array([cost for cost, _ in rows])
        marginal_costs = {
            gate: np.log([x[gate] for _, x in rows], dtype="float32")
            for gate in self.cost_model.gates
        }
        full = self.cost_model.full[self.metric]
        return np.log(costs / full, dtype="float32"), marginal_costs

    def logarithms(self, share):
        """The logarithms of the marginal costs, interpolated linearly.

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
