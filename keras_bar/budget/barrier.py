"""The paper's control: a barrier in the loss.

The noise (equations 2 to 4), the sparsity loss (5), the transition (1) and the
initial locations of the gates (section 4) are those of the supplement.
`PaperSettings` holds the settings that the supplement leaves open.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_bar import keras_internals
from keras_bar import schedules
from keras_bar.budget import selection
from keras_bar.budget.controls import CENTER
from keras_bar.budget.controls import Penalty
from keras_bar.layers.hard_concrete_gate import check_inference

# Distance that the paper's gates can travel: Adam moves them by its learning
# rate, 1e-3, in each of 80 epochs of 781 steps on CIFAR-10.
TRAVEL = 80 * 781 * 1e-3
# Maximum movement of a gate in one step. Adam's momentum keeps moving the gate
# for about ten steps after the cost has returned to within the budget.
FASTEST = 0.02
# Minimum location of the strongest channel of a required gate: P(z > 0) is
# 0.99, so the noise rarely disconnects the network.
KEPT = 3.0

COUNTED = ("alive", "expected", "larger")


@dataclasses.dataclass(frozen=True)
class PaperSettings:
    """Settings of the paper's control that the supplement leaves open.

    Args:
        strength: Float, the factor lambda of `L_S`, which is in units of the
            metric. 1e-5 in the paper.
        samples: Float, the divisor of lambda. Keras's loss is the mean over a
            batch, and the paper's batch has 64 samples; the public
            reimplementation (A-LinCui) also divides by the batch size.
        counted: String, the cost `V` in the barrier. `"alive"` counts the
            channels that are open more often than not, as in the paper.
            `"expected"` counts every channel with its keep probability.
            `"larger"` is the larger of the two: gates that hover just below
            the point where they count as alive do not satisfy the barrier.
        rate: Float, the speed of the gates relative to the optimizer. None
            chooses it such that the gates can travel as far in this training
            as in the paper's 62,500 steps of Adam with 1e-3, but at least the
            optimizer's speed and at most 0.02 per step.
        inference: String, the inference factor: `"median"`, `"mean"` or
            `"louizos"`; see `layers.HardConcreteGate`.
        push: Float, the largest ratio of the penalty's gradients to those of
            the data loss, on average over the channels. None leaves only the
            barrier's own limit, 1e10. Adam answers a single gradient that is
            orders of magnitude larger than all others with 30 times its usual
            step, and keeps its square in the second moment for 1,000 steps, in
            which the gradients of the data hardly move the gates.
        lead: Float, the share of the steps by which the barrier looks ahead on
            `b(t)`, because gates take some steps to respond. 0 in the paper.
        sharpness: Float, the factor by which the slope of the gates grows,
            around the point where they close, until the budget arrives: an
            annealed temperature. 1 keeps the noise of the paper.

    Example:

    >>> settings = keras_bar.callbacks.PaperSettings(rate=1.0)
    >>> budget = keras_bar.callbacks.BudgetRegularizer(
    ...     1 / 8, strength=settings
    ... )
    """

    strength: float = 1e-5
    samples: float = 64.0
    counted: str = "larger"
    rate: float | None = None
    inference: str = "mean"
    push: float | None = 0.5
    lead: float = 0.02
    sharpness: float = 1.0

    def __post_init__(self):
        for name in ("strength", "samples", "rate", "push", "sharpness"):
            x = getattr(self, name)
            if name in ("rate", "push") and x is None:
                continue
            if not selection.is_number(x) or not 0 < x < math.inf:
                raise ValueError(
                    f"Invalid {name} of the penalty. Expected a positive "
                    f"number. Received: {name}={x!r}"
                )
        if not selection.is_number(self.lead) or not 0 <= self.lead < 1:
            raise ValueError(
                "Invalid lead of the barrier. Expected a number in [0, 1). "
                f"Received: lead={self.lead!r}"
            )
        if self.counted not in COUNTED:
            raise ValueError(
                "Unknown cost in the barrier. Expected one of "
                f"{', '.join(map(repr, COUNTED))}. "
                f"Received: counted={self.counted!r}"
            )
        check_inference(self.inference)

    @classmethod
    def make(cls, strength):
        """Returns the settings with a strength; settings stay unchanged."""
        return strength if isinstance(strength, cls) else cls(strength)


class BarrierControl(Penalty):
    """The paper's control: a loss `lambda * f(V, a, b) * L_S`.

    The strongest channel of each gate that keeps the network connected stays
    open and gets no penalty: `V` would be 0 in a disconnected network, and the
    penalty would vanish.

    Args:
        budget: `MovingBudget`.
        settings: `PaperSettings`.
        required: The gates whose strongest channel stays open.
    """

    def __init__(self, budget, settings, required):
        super().__init__(budget.cost_model.gates)
        self.budget = budget
        self.settings = settings
        self.required = required
        self.savings = budget.cost_model.savings(budget.metric)

    def begin(self, optimizer, resumes):
        """Sets the inference factor and the speed of the gates, and leaves
        their locations unchanged. A resumed training has restored the speed
        together with its weights."""
        for gate in self.gates:
            gate.inference = self.settings.inference
        if resumes:
            return
        rate = self.settings.rate or self._rate(optimizer)
        for gate in self.gates:
            gate.log_alpha.assign(gate.log_alpha * gate.slope / rate)
            gate.slope.assign(rate)

    def _rate(self, optimizer):
        learning_rate = self._learning_rate(optimizer)
        if learning_rate <= 0.0:
            return 1.0
        step = min(TRAVEL / self.budget.steps, FASTEST)
        return max(step / learning_rate, 1.0)

    def __call__(self, state, is_new=True):
        loss = self.loss(state)
        step = ops.cast(state.steps_done(), "float32")
        t = ops.clip(step / float(self.budget.steps), 0.0, 1.0)
        sharper = ops.power(float(self.settings.sharpness), t)
        # The slope already includes the growth of all earlier steps.
        growth = self.settings.sharpness ** (1.0 / self.budget.steps)
        under_way = ops.logical_and(step > 0.0, step <= self.budget.steps)
        moves = ops.logical_and(is_new, under_way)
        growth = ops.where(moves, growth, 1.0)
        for gate in self.gates:
            slope = gate.slope * growth
            gate.slope.assign(slope)
            gate.offset.assign(self._offset(gate, slope, sharper))
        return loss

    def _offset(self, gate, slope, sharper):
        """The offset added to `slope * log_alpha`, tensor `(channels,)`."""
        offset = CENTER * (1.0 - sharper)
        location = slope * ops.stop_gradient(gate.log_alpha) + offset
        missing = ops.maximum(KEPT - location, 0.0)
        return offset + ops.where(self._is_kept(gate), missing, 0.0)

    def _is_kept(self, gate):
        """Whether each channel has to stay open, boolean tensor
        `(channels,)`."""
        log_alpha = ops.stop_gradient(ops.convert_to_tensor(gate.log_alpha))
        if gate not in self.required:
            return ops.zeros_like(log_alpha, dtype="bool")
        return log_alpha >= ops.max(log_alpha)

    def loss(self, state):
        """The penalty, scalar tensor."""
        probabilities = {}
        for gate in self.gates:
            p = gate.probability()
            # A kept channel cannot close, so it gets no penalty.
            constant = ops.stop_gradient(p)
            probabilities[gate] = ops.where(self._is_kept(gate), constant, p)
        soft = self.budget.cost_model.soft(self.budget.metric, probabilities)
        strength = self.settings.strength / self.settings.samples
        factor = strength * self.barrier(state, soft)
        if self.settings.push is not None:
            factor = ops.minimum(factor, self._largest_factor(state))
        loss = factor * soft
        # The gates are fixed once the budget has arrived. A barrier that they
        # touch would only drown the data loss.
        return ops.where(state.steps_done() < self.budget.steps, loss, 0.0)

    def _largest_factor(self, state):
        """The largest `lambda * f`, scalar tensor. With it the ratio of the
        penalty's gradients to those of the data loss, which the gates observed
        in the last step, is `push`."""
        data, penalty = 0.0, 0.0
        for gate in self.gates:
            # The optimizer stores the gradient of `observation` as the next
            # observation, so the penalty must not contribute to it.
            seen = ops.stop_gradient(ops.convert_to_tensor(gate.observation))
            # Dynamic loss scaling tries scales at which gradients overflow.
            seen = ops.where(ops.isfinite(seen), seen, 0.0)
            data += ops.sum(ops.sqrt(seen)) / state.loss_scale()
            p = ops.stop_gradient(gate.probability())
            penalty += self.savings[gate] * ops.sum(p * (1.0 - p))
        return self.settings.push * data / ops.maximum(penalty, 1e-6)

    def barrier(self, state, soft):
        """`f(V, a, b)`, scalar tensor, for the expected cost `soft`."""
        budget, counted = self.budget, self.settings.counted
        cost = soft if counted == "expected" else budget.hard_cost()
        if counted == "larger":
            cost = ops.maximum(cost, soft)
        lower = budget.target - schedules.MARGIN * budget.full_cost
        ahead = state.steps_done() + int(self.settings.lead * budget.steps)
        return schedules.barrier(cost, lower, budget.moving(ahead))

    def logs(self, state):
        return {"penalty": float(ops.convert_to_numpy(self.loss(state)))}

    def least_steps(self, optimizer):
        """Steps that an optimizer which normalises gradients, such as Adam,
        needs to move a gate from its start to the point where it closes."""
        rate = self._learning_rate(optimizer)
        variable = self.gates[0].log_alpha
        own_optimizer = keras_internals.optimizer_of(optimizer, variable)
        if rate <= 0.0 or isinstance(own_optimizer, keras.optimizers.SGD):
            return 0
        farthest = max(
            float(np.median(ops.convert_to_numpy(gate.location() - CENTER)))
            / float(gate.slope.numpy())
            for gate in self.gates
        )
        return math.ceil(max(farthest, 0.0) / rate)

    def _learning_rate(self, optimizer):
        """The largest learning rate of the gates while the budget moves."""
        return keras_internals.learning_rate(
            optimizer, self.gates[0].log_alpha, self.budget.steps
        )
