"""How a budget acts on the gates, inside the compiled training step.

Both controls act on all gates once per step, after the noise of the step was
drawn. They only read and write variables, so they work in a compiled `fit`,
behave the same on every replica, and resume with the weights.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from keras_bar import hard_concrete
from keras_bar.budget.marginal_costs import MarginalCosts
from keras_bar.costs import is_object

# The location at which P(z > 0) = 1/2 and the deterministic gate closes.
CENTER = hard_concrete.BETA * math.log(
    -hard_concrete.GAMMA / hard_concrete.ZETA
)


class Penalty:
    """A control that only adds a loss.

    Args:
        gates: The gates that it acts on.
    """

    def __init__(self, gates):
        self.gates = list(gates)

    def start(self, state):
        """Prepares the gates before the first step: resets what another control
        has set, so that only their weights count."""
        state.threshold.assign(0.0)
        for gate in self.gates:
            gate.reset_drive()

    def begin(self, optimizer, resumes):
        """Does nothing, because only the optimizer moves the gates."""

    def __call__(self, state, is_new=True):
        """The loss, a scalar tensor.

        Args:
            state: `BudgetState`.
            is_new: Boolean tensor, whether the network runs for the first time
                in the current step of the optimizer.
        """
        raise NotImplementedError

    def logs(self, state):
        """Log entries, dict from name to float: the loss added now."""
        return {"penalty": float(ops.convert_to_numpy(self(state)))}

    def least_steps(self, optimizer):
        """Minimum number of steps that the control needs."""
        return 0


class ThresholdControl:
    """Moves one threshold for all gates so that the cost follows the budget.

    The pull on the gates acts beside the optimizer, like decoupled weight
    decay: Adam divides a gradient by its size, so a penalty in the loss moves
    all gates alike, and too late. Every channel has a score,

        log_alpha + 1/2 log(importance / marginal_cost^cost_exponent).

    The importance estimates the loss expected from closing the channel (see
    `layers.hard_concrete_gate.multiply_observed`). The marginal cost is the
    cost of the channel in a network narrowed to the moving budget
    (`MarginalCosts`), so channels rank by benefit per cost; and under a latency
    none ranks higher than its whole branch does. The location of a
    channel is `slope * (score - threshold)` around the point where it closes.
    In each step

    - the threshold takes a fraction of the Newton step that brings both the
      expected and the hard cost within the moving budget. It falls only if the
      expected cost is far below the budget: channels are indivisible, and a
      threshold that used the whole budget would open and close one of them
      forever;
    - the slope changes such that the undecided share of the expected cost,
      `mean 4 p (1 - p)`, follows a schedule that ends near 0. At the end the
      noise has no influence: expected and hard cost agree.

    The strongest channel of each gate that keeps the network connected
    (`required_gates`) stays open.

    With several budgets the tightest one moves the threshold, and the marginal
    cost of a channel is the sum of the shares of the moving budgets that it
    takes. (Weights that follow what is in use of each budget make the ranking
    oscillate.)

    Args:
        budgets: List of `MovingBudget`, one per metric.
        initial_logit: Float, `logit P(z > 0)` of the gates at the start.
        undecided_fraction: Pair of floats, the undecided share of the expected
            cost at the start and at the end. Each gate is weighted by the
            marginal cost of its channels.
        cost_exponent: Float, the exponent of the marginal cost: 1 ranks by
            benefit per cost, 0 by benefit.
        required_gates: The gates whose strongest channel stays open.
    """

    THRESHOLD_GAIN = 0.3
    SLOPE_GAIN = 0.1
    SLOPES = (0.3, 1000.0)
    MEMORY = 0.99
    # The importance is a mean over 100 steps, and the channels rank by it
    # whatever the gates learn. A batch of up to 64 is observed whole.
    OBSERVED_SAMPLES = 16
    # The cost exceeds b(t) by up to 0.1 of the full cost with 75 steps, by 0.06
    # with 100 and by 0.03 with 200 (`tests/helpers/tiny.py`, Adam, 1/2).
    LEAST_STEPS = 200
    # The cost lags behind the moving budget, so the control looks ahead by this
    # share of the steps.
    LEAD = 0.01
    # The threshold rests while the expected cost is between the shares `USED`
    # of the moving budget and the hard cost is at most the share `HARD`.
    USED = (0.88, 0.98)
    HARD = 0.99
    # A closed branch has to rank this much higher to open again at the end of
    # the transition, and less before. It may cost more than the band in which
    # the threshold rests, and would open and close forever.
    REOPENING = 1.0

    def __init__(
        self,
        budgets,
        initial_logit,
        undecided_fraction,
        cost_exponent,
        required_gates,
    ):
        self.budgets = budgets
        self.gates = budgets[0].cost_model.gates
        self.steps = budgets[0].steps
        self.initial_logit = initial_logit
        self.undecided_fraction = undecided_fraction
        self.cost_exponent = cost_exponent
        self.required_gates = required_gates
        savings = budgets[0].cost_model.savings(budgets[0].metric)
        total = sum(x * g.channels for g, x in savings.items())
        self.weights = {g: x * g.channels / total for g, x in savings.items()}
        self.marginal_costs = [
            MarginalCosts(x.cost_model, x.metric, required_gates)
            for x in budgets
        ]

    def start(self, state):
        """Opens the gates before the first step."""
        state.threshold.assign(-self.initial_logit)
        for gate in self.gates:
            gate.slope.assign(1.0)
            gate.offset.assign(
                np.full(gate.channels, CENTER + self.initial_logit)
            )
            gate.importance.assign(np.zeros(gate.channels))

    def begin(self, optimizer, resumes):
        """Lets the gates observe a part of large batches."""
        # The parts of devices that share a batch would be exchanged.
        shared = keras.distribution.distribution() is not None
        for gate in self.gates:
            gate.observed_samples = None if shared else self.OBSERVED_SAMPLES

    def __call__(self, state, is_new=True):
        step = state.steps_done()
        probabilities = {
            g: ops.stop_gradient(g.probability()) for g in self.gates
        }
        log_costs = self._log_costs(step)
        slope, undecided = self._next_slope(step, probabilities, log_costs)
        before = ops.convert_to_tensor(self.gates[0].slope)
        slope = ops.where(is_new, slope, before)
        gaps = [self._gap(x, probabilities, step) for x in self.budgets]
        gap = functools.reduce(ops.maximum, gaps)
        # d cost / d threshold = -slope * sum(marginal_cost p (1 - p))
        newton = gap / (slope * undecided / 4.0)
        # The gates are fixed once the budget has arrived.
        moves = ops.logical_and(is_new, step < self.steps)
        move = ops.where(moves, self.THRESHOLD_GAIN * newton, 0.0)
        threshold = state.threshold + move
        state.threshold.assign(threshold)
        scale = ops.where(is_new, state.loss_scale(), 0.0)
        saliency_per_cost = self._saliency_per_cost(log_costs, scale)
        saliency_per_cost = self._of_branches(
            saliency_per_cost, log_costs, step
        )
        for gate in self.gates:
            gate.slope.assign(slope)
            gate.offset.assign(
                self._offset(gate, slope, saliency_per_cost[gate] - threshold)
            )

    def _log_costs(self, step):
        """Dict from gate to the logarithm of its marginal cost, as a fraction
        of the moving budget, scalar tensors."""
        logarithms = []
        for budget, costs in zip(
            self.budgets, self.marginal_costs, strict=True
        ):
            limit = budget.moving(step) / budget.full_cost
            known = costs.logarithms(limit)
            logarithms.append([x - ops.log(limit) for x in known.values()])
        summed = logarithms[0]
        if len(logarithms) > 1:
            summed = ops.logsumexp(
                ops.stack([ops.stack(x) for x in logarithms]), axis=0
            )
        return {gate: summed[i] for i, gate in enumerate(self.gates)}

    def _of_branches(self, saliency_per_cost, log_costs, step):
        """`saliency_per_cost`, where no channel ranks higher than its branch.

        The best `k` channels of a branch are worth the sum of theirs, and cost
        `k` marginal costs and the fixed cost of the branch. If no `k` pays, the
        branch closes as a whole. What the gates learn is left out. Only for
        metrics that are objects, such as a latency: under a budget of volume
        this gains nothing.
        """
        result = dict(saliency_per_cost)
        done = ops.clip(ops.cast(step, "float32") / float(self.steps), 0.0, 1.0)
        for gate, cost in self._fixed_costs(step).items():
            counts = ops.arange(1, gate.channels + 1, dtype="float32")
            own = saliency_per_cost[gate]
            best = ops.max(own)
            # Half a logarithm of benefit per cost, and back.
            benefits = ops.flip(ops.sort(ops.exp(2.0 * (own - best))))
            mean = ops.cumsum(benefits) / counts
            surcharge = ops.log(1.0 + cost / counts / ops.exp(log_costs[gate]))
            branch = 0.5 * (ops.log(mean) - self.cost_exponent * surcharge)
            rank = best + ops.max(branch)
            is_closed = ops.max(gate.location()) < CENTER
            rank = ops.where(is_closed, rank - self.REOPENING * done, rank)
            result[gate] = ops.minimum(own, rank)
        return result

    def _fixed_costs(self, step):
        """Dict from gate to the fixed cost of its branch, as a fraction of the
        moving budget, scalar tensors; of the gates of such branches."""
        found: dict = {}
        for budget, costs in zip(
            self.budgets, self.marginal_costs, strict=True
        ):
            if is_object(budget.metric):
                limit = budget.moving(step) / budget.full_cost
                for gate, cost in costs.fixed(limit).items():
                    found[gate] = found.get(gate, 0.0) + cost / limit
        return found

    def _saliency_per_cost(self, log_costs, scale):
        """Half the logarithm of saliency per cost, with mean 0 over the
        network.

        Args:
            log_costs: Dict from gate to the logarithm of its marginal cost, a
                scalar tensor.
            scale: Scalar tensor, the loss scale under which the importances
                were observed; 0 if they have been counted before.

        Returns:
            Dict from gate to tensor `(channels,)`.
        """
        saliency_per_cost = {}
        for gate, log_cost in log_costs.items():
            before = ops.convert_to_tensor(gate.importance)
            seen = ops.convert_to_tensor(gate.observation)
            # Dynamic loss scaling tries scales at which gradients overflow.
            seen = ops.where(ops.isfinite(seen), seen, 0.0)
            # The observation is a square of gradients.
            seen = seen / ops.square(ops.maximum(scale, 1e-15))
            # A closed channel has no observation and keeps its importance.
            importance = ops.where(
                ops.logical_and(seen > 0.0, scale > 0.0),
                self.MEMORY * before + (1 - self.MEMORY) * seen,
                before,
            )
            gate.importance.assign(importance)
            saliency_per_cost[gate] = 0.5 * (
                ops.log(importance + 1e-30) - self.cost_exponent * log_cost
            )
        mean = sum(
            self.weights[g] * ops.mean(m) for g, m in saliency_per_cost.items()
        )
        return {g: m - mean for g, m in saliency_per_cost.items()}

    def _offset(self, gate, slope, margin):
        """The offset added to `slope * log_alpha`, tensor `(channels,)`."""
        offset = CENTER + slope * margin
        if gate not in self.required_gates:
            return offset
        location = slope * gate.log_alpha + offset
        missing = ops.maximum(CENTER + self.initial_logit - location, 0.0)
        strongest = location >= ops.max(location)
        return ops.where(strongest, offset + missing, offset)

    def _next_slope(self, step, probabilities, log_costs):
        """Returns the slope that moves the undecided part of the cost towards
        its schedule; and that part, or its scheduled value if that is larger,
        as a fraction of the moving budget."""
        t = ops.cast(step, "float32") / float(self.steps)
        first, last = self.undecided_fraction
        wanted = first * ops.power(last / first, ops.clip(t, 0.0, 1.0))

        def part(weight):
            return sum(
                ops.exp(log_costs[g]) * ops.sum(weight(p))
                for g, p in probabilities.items()
            )

        # The schedule is a share of the open part. If a cost is a product, each
        # of its factors contributes to both parts.
        wanted = wanted * part(lambda p: p)
        undecided = part(lambda p: 4.0 * p * (1.0 - p))
        gap = ops.log(ops.maximum(undecided, 1e-6 * wanted) / wanted)
        gap = ops.clip(gap, -1.0, 1.0)
        slope = self.gates[0].slope
        slope = ops.clip(slope * ops.exp(self.SLOPE_GAIN * gap), *self.SLOPES)
        return slope, ops.maximum(undecided, wanted)

    def logs(self, state):
        """Log entries, dict from name to float."""
        return {"threshold": float(state.threshold.numpy())}

    def least_steps(self, optimizer):
        """Minimum number of steps in which the cost can follow a budget."""
        return self.LEAST_STEPS

    def _gap(self, budget, probabilities, step):
        """Excess of the cost over a budget, or its deficit if negative, as a
        fraction of the moving budget."""
        ahead = step + int(self.LEAD * self.steps)
        limit = budget.moving(ahead) / budget.full_cost
        soft = budget.cost_model.soft(budget.metric, probabilities)
        share = soft / budget.full_cost
        hard = budget.hard_cost() / budget.full_cost
        # While the budget is no constraint, the expected cost stays at its
        # initial value: open gates keep some noise, and learn.
        open_share = ops.sigmoid(float(self.initial_logit))
        least, most = (ops.minimum(x * limit, open_share) for x in self.USED)
        excess = ops.maximum(share - most, hard - self.HARD * limit)
        gap = ops.maximum(excess, 0.0) + ops.minimum(share - least, 0.0)
        return gap * budget.full_cost / budget.moving(step)
