"""What channels cost while the budget moves."""

import numpy as np
from keras import ops

# From the full network to one that is a hundredth as wide.
OPENNESS = np.geomspace(1.0, 0.01, 25)


class Prices:
    """The prices of channels in the network that is narrowed to a cost.

    In the full network a 1x1 shortcut costs a tenth of the 3x3 convolution
    beside it and less, in one narrowed to 1/256 of the FLOPs a third: prices
    follow the budget. They do not follow the gates one by one. Of two
    convolutions in a row the first would be cheap once the second is narrow,
    and open, which would make the second expensive, and close it.

    Args:
        cost_model: `CostModel`.
        metric: `"volume"`, `"flops"` or `"params"`.
    """

    def __init__(self, cost_model, metric):
        rows = [cost_model.prices(metric, x) for x in reversed(OPENNESS)]
        costs = np.array([cost for cost, _ in rows])
        self._costs = np.log(costs / cost_model.full[metric])
        self._prices = {
            gate: np.log([prices[gate] for _, prices in rows])
            for gate in cost_model.gates
        }

    def logarithms(self, share):
        """The logarithms of the prices, linear between those that are known.

        Args:
            share: Scalar tensor, the cost as a fraction of the full one.

        Returns:
            Dict from gate to a scalar float32 tensor.
        """
        x, steps = ops.log(share), np.diff(self._costs)
        done = (x - self._costs[:-1].astype("float32")) / steps.astype(
            "float32"
        )
        done = ops.clip(done, 0.0, 1.0)
        return {
            gate: y[0] + ops.sum(done * np.diff(y).astype("float32"))
            for gate, y in self._prices.items()
        }
