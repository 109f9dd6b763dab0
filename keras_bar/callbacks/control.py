"""How a budget acts on the gates, inside the compiled training step.

Both controls see all gates once per step, after the noise of the step was
drawn. They read and write variables only, so they work in a compiled `fit`, on
every replica alike, and are resumed with the weights.
"""

import dataclasses
import math

from keras import ops

from keras_bar import hard_concrete
from keras_bar import schedules

# The location at which P(z > 0) = 1/2 and the deterministic gate closes.
CENTER = hard_concrete.BETA * math.log(
    -hard_concrete.GAMMA / hard_concrete.ZETA
)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is to be kept.

    Attributes:
        cost_model: `CostModel` of the gated network.
        metric: `"volume"`, `"flops"` or `"params"`.
        target: The final budget, in units of the metric.
        steps: Training steps over which the budget moves.
        hardness: Hardness `d` of the sigmoidal transition.
    """

    cost_model: object
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
            g: ops.cast(g.deterministic() > 0.0, "float32")
            for g in self.cost_model.gates
        }
        return ops.stop_gradient(self.cost_model.soft(self.metric, gates))


class BarrierPenalty:
    """The paper's control: a loss `strength * f(V, a, b) * L_S`.

    Args:
        budget: `Budget`.
        strength: Float, the factor lambda (1e-5 in the paper), for `L_S` in
            units of the metric.
    """

    def __init__(self, budget, strength):
        self.budget = budget
        self.strength = strength

    def start(self, state):
        """Prepares the gates before the first step."""

    def __call__(self, state):
        barrier = self.barrier(state)
        return self.strength * barrier * self.budget.soft_cost()

    def penalty(self, state):
        """The loss at present, as a float for the logs."""
        return float(ops.convert_to_numpy(self(state)))

    def barrier(self, state):
        """`f(V, a, b)`, scalar tensor."""
        budget = self.budget
        lower = budget.target - schedules.MARGIN * budget.full_cost
        return schedules.barrier(
            budget.hard_cost(), lower, budget.moving(state.step)
        )


class ThresholdTracking:
    """Moves one threshold for all gates so that the cost follows the budget.

    The penalty's pull on the gates is applied beside the optimizer, as
    decoupled weight decay is: an optimizer such as Adam normalises the size of
    a gradient away, and a penalty inside of it then moves all gates alike and
    too late. A gate's parameter becomes
    `slope * (log_alpha - threshold) + center`, so it is alive just if its
    `log_alpha`, which the data loss trains, exceeds the threshold. Every step
    the threshold takes a fraction of the Newton step (in logits) that brings
    the cost to the moving budget. The slope grows geometrically over the
    training, so that gates decide: at the end the noise has no say any more.

    Args:
        budget: `Budget`.
        slope: Pair of floats, the slope at the start and at the end.
        openness: Float, `logit P(z > 0)` of the gates at the start.
        gain: Float in (0, 1], the fraction of the Newton step.
        prices: Dict from gate to the float by which its threshold moves
            faster than the average.
    """

    def __init__(self, budget, slope, openness, gain, prices):
        self.budget = budget
        self.slope = slope
        self.openness = openness
        self.gain = gain
        self.prices = prices

    def start(self, state):
        """Opens the gates before the first step."""
        for gate in self.budget.cost_model.gates:
            gate.slope.assign(self.slope[0])
            gate.offset.assign(self.openness + CENTER)

    def __call__(self, state):
        budget = self.budget
        cost = ops.maximum(budget.soft_cost(), budget.hard_cost())
        gap = self._logit(cost) - self._logit(budget.moving(state.step))
        slope = self.slope_at(state.step)
        pressure = state.pressure + self.gain * gap / slope
        pressure = ops.maximum(ops.stop_gradient(pressure), 0.0)
        state.pressure.assign(pressure)
        for gate in budget.cost_model.gates:
            threshold = self.prices[gate] * pressure
            threshold = threshold - self.openness / self.slope[0]
            gate.slope.assign(slope)
            gate.offset.assign(CENTER - slope * threshold)
        return None

    def penalty(self, state):
        """The threshold at present, as a float for the logs."""
        return float(ops.convert_to_numpy(state.pressure))

    def slope_at(self, step):
        """The slope after `step` steps, scalar tensor."""
        t = ops.cast(step, "float32") / float(self.budget.steps)
        first, last = self.slope
        return first * ops.power(last / first, ops.clip(t, 0.0, 1.0))

    def _logit(self, cost):
        share = ops.clip(cost / self.budget.full_cost, 1e-4, 1 - 1e-4)
        return ops.log(share) - ops.log1p(-share)

