"""A budget that moves from the full cost to its final value."""

import dataclasses

from keras import ops

from keras_bar import schedules
from keras_bar.costs import CostModel


@dataclasses.dataclass(frozen=True)
class MovingBudget:
    """A budget and the network that it limits.

    Attributes:
        cost_model: `CostModel` of the gated network.
        metric: `"volume"`, `"flops"` or `"params"`.
        target: The final budget, in units of the metric.
        steps: Training steps over which the budget moves.
        hardness: Hardness `d` of the sigmoidal transition.
    """

    cost_model: CostModel
    metric: str
    target: float
    steps: int
    hardness: float

    @property
    def full_cost(self):
        """Cost of the unpruned network, in units of the metric."""
        return float(self.cost_model.full[self.metric])

    def moving(self, step):
        """The budget in force after `step` steps, in units of the metric."""
        t = ops.cast(step, "float32") / float(self.steps)
        return schedules.moving_budget(
            t, self.target, self.full_cost, self.hardness
        )

    def soft_cost(self):
        """Expected cost, a differentiable tensor."""
        gates = {g: g.probability() for g in self.cost_model.gates}
        return self.cost_model.soft(self.metric, gates)

    def hard_cost(self):
        """Cost of the channels that are alive, a tensor without gradient."""
        gates = {
            g: ops.cast(g.deterministic() != 0.0, "float32")
            for g in self.cost_model.gates
        }
        return ops.stop_gradient(self.cost_model.soft(self.metric, gates))
