"""The paper's control: a barrier in the loss.

The supplement gives the noise (2-4), the sparsity loss (5), the transition (1)
and where gates start (section 4), and they are computed as they stand there.
`PaperSettings` has what it leaves open.
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

# How far the paper's gates can move: 80 epochs of 781 steps on CIFAR-10, in
# each of which Adam moves them by its learning rate, 1e-3.
TRAVEL = 80 * 781 * 1e-3
# How far a gate moves in a step at most: Adam's momentum carries it on for ten
# steps after the cost is within the budget again.
FASTEST = 0.02
# Location at which the strongest channel of a required gate is kept: P(z > 0)
# is 0.99, so that the noise seldom severs the network.
KEPT = 3.0

COUNTED = ("alive", "expected", "larger")


@dataclasses.dataclass(frozen=True)
class PaperSettings:
    """What the supplement leaves open about the paper's control.

    Args:
        strength: Float, the factor lambda, for `L_S` in units of the metric.
            The paper's is 1e-5.
        samples: Float, what lambda is divided by. Keras's loss is the mean over
            a batch, and the paper's batch has 64 samples; the public
            reimplementation (A-LinCui) divides by the size of the batch, too.
        counted: What the cost `V` in the barrier counts: `"alive"`, the
            channels that are open more often than not, as in the paper;
            `"expected"`, all, with the probability that they are open; or
            `"larger"`, the larger of both, so that gates that hover where they
            no longer count as alive do not please the barrier.
        rate: Float, how many times faster than the optimizer the gates move;
            or None: such that they can move as far in this training as in the
            62,500 steps of the paper with Adam's 1e-3, but no slower than the
            optimizer, and by no more than 0.02 in a step.
        inference: The factor of inference, `"median"`, `"mean"` or
            `"louizos"`; see `layers.HardConcreteGate`.
        push: Float, how many times as large as the gradients of the data loss
            those of the penalty are at most, on average over the channels; or
            None: as large as the barrier, clipped to 1e10, makes them. Adam
            answers a single gradient that is larger than all others by orders
            of magnitude with 30 times its usual step, and remembers its square
            for 1,000 steps, so that what gates learn counts no more.
        lead: Float, by what share of the steps the barrier looks ahead on
            `b(t)`: it takes gates some steps to answer. 0 in the paper.
        sharpness: Float, by how much the slope of the gates grows, around the
            point where they close, until the budget arrives: an annealed
            temperature. 1 leaves the noise as it is in the paper.

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
        """Settings from a strength, or from themselves."""
        return strength if isinstance(strength, cls) else cls(strength)


class BarrierControl(Penalty):
    """The paper's control: a loss `lambda * f(V, a, b) * L_S`.

    The strongest channel of every gate without which the network would fall
    apart stays open, and the penalty does not push it: once a network is
    severed, its `V` is 0 and there is no penalty any more.

    Args:
        budget: `controls.Budget`.
        settings: `PaperSettings`.
        required: Dict from gate to how many of its channels stay open.
    """

    def __init__(self, budget, settings, required):
        super().__init__(budget.cost_model.gates)
        self.budget = budget
        self.settings = settings
        self.required = required
        self.savings = budget.cost_model.savings(budget.metric)

    def begin(self, optimizer, resumes):
        """Sets what gates do in inference, and how fast they move, from where
        they are; a training that is resumed has the rate with its weights."""
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
        # The slope has this factor already, but for that of the last step.
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
        """What to add to `slope * log_alpha`, `(channels,)`."""
        offset = CENTER * (1.0 - sharper)
        location = slope * ops.stop_gradient(gate.log_alpha) + offset
        missing = ops.maximum(KEPT - location, 0.0)
        return offset + ops.where(self._is_kept(gate), missing, 0.0)

    def _is_kept(self, gate):
        """Which channels of a gate stay open, boolean tensor `(channels,)`."""
        log_alpha = ops.stop_gradient(ops.convert_to_tensor(gate.log_alpha))
        kept = self.required.get(gate, 0)
        if not kept:
            return ops.zeros_like(log_alpha, dtype="bool")
        return log_alpha >= ops.top_k(log_alpha, kept)[0][-1]

    def loss(self, state):
        """The penalty, scalar tensor."""
        probabilities = {}
        for gate in self.gates:
            p = gate.probability()
            # Closing it would save nothing: it stays open.
            stays = ops.stop_gradient(p)
            probabilities[gate] = ops.where(self._is_kept(gate), stays, p)
        soft = self.budget.cost_model.soft(self.budget.metric, probabilities)
        strength = self.settings.strength / self.settings.samples
        factor = strength * self.barrier(state, soft)
        if self.settings.push is not None:
            factor = ops.minimum(factor, self._largest(state))
        loss = factor * soft
        # Once the budget has arrived the gates are fixed: a barrier that they
        # touch would only drown the loss.
        return ops.where(state.steps_done() < self.budget.steps, loss, 0.0)

    def _largest(self, state):
        """The largest `lambda * f`, scalar tensor: such that the gradients of
        the penalty are what `push` allows beside those of the data loss, which
        the gates saw in the last step."""
        data, penalty = 0.0, 0.0
        for gate in self.gates:
            # Its gradient is the next observation: nothing else may add to it.
            seen = ops.stop_gradient(ops.convert_to_tensor(gate.observation))
            # A loss scale that is too large is tried out and given up again.
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
        """Those in which an optimizer that normalises gradients, as Adam does,
        moves a gate from where it starts to where it closes."""
        rate = self._learning_rate(optimizer)
        variable = self.gates[0].log_alpha
        mover = keras_internals.optimizer_of(optimizer, variable)
        if rate <= 0.0 or isinstance(mover, keras.optimizers.SGD):
            return 0
        farthest = max(
            float(np.median(ops.convert_to_numpy(gate.location() - CENTER)))
            / float(gate.slope.numpy())
            for gate in self.gates
        )
        return math.ceil(max(farthest, 0.0) / rate)

    def _learning_rate(self, optimizer):
        """The largest with which the optimizer moves the gates."""
        return keras_internals.learning_rate(
            optimizer, self.gates[0].log_alpha, self.budget.steps
        )
