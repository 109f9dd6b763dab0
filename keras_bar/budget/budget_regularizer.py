"""The callback that prunes a network to a budget while it trains."""

import dataclasses
import math
import warnings

import numpy as np
from keras import ops

from keras_bar.analysis.residual_groups import is_mixed
from keras_bar.budget import alignment
from keras_bar.budget import controls
from keras_bar.budget import feasibility
from keras_bar.budget import selection
from keras_bar.budget import validation
from keras_bar.budget.barrier import BarrierControl
from keras_bar.budget.barrier import PaperSettings
from keras_bar.budget.gate_regularizer import GateRegularizer
from keras_bar.budget.moving_budget import MovingBudget
from keras_bar.costs import Limits
from keras_bar.costs import is_object
from keras_bar.deprecation import renamed_arguments
from keras_bar.layers import HardConcreteGate

# Minimum factor of a reopened channel.
LEAST_FACTOR = 1e-3


class BudgetRegularizer(GateRegularizer):
    """Prunes a gated model to a budget during `fit`.

    The budget moves from the full cost to its final value along a sigmoidal
    transition (supplement, section 1). A control in the compiled training step
    makes the gates follow it. When the budget has arrived, all gates are fixed,
    the model is within the budget and connected, and the rest of `fit` trains
    the pruned network. `keras_bar.compact` builds the small network.

    The logs of every epoch hold the metric, such as `volume`, of the network if
    it were compacted now, and `budget`, the moving budget, both as fractions of
    the full cost. With `log_all=True` they also hold the others of `volume`,
    `flops`, `params` and `memory`; `expected`, the expected cost under the
    noise; and
    `threshold`, which all scores are compared with, or `penalty`, the added
    loss. Callbacks that read them must come after this one in the list.

    Only networks whose gates are fixed are pruned. To keep the best of them,
    wrap Keras's callbacks in `keras_bar.callbacks.AfterPruning`.

    Args:
        budget: Float in (0, 1], the fraction of the full cost that may remain;
            or a number above 1, in units of the metric; or a dict from metric
            to such a budget, such as `{"flops": 1 / 4, "params": 1 / 2}`, which
            are all met.
        metric: `"volume"` (scalar activations), `"flops"`, `"params"`,
            `"memory"` (bytes of the tensors that exist at once), or a
            `keras_bar.Latency` (microseconds), of a single budget.
        steps: Integer, steps of the optimizer over which the budget moves; or
            float in (0, 1], the fraction of all steps of `fit`. The remaining
            steps train the network with its final channels.
        hardness: Float, hardness `d` of the transition; 0 is a straight line.
        strength: None, the factor lambda of the paper's penalty, or
            `keras_bar.callbacks.PaperSettings`; see `paper`. By default a
            threshold follows the budget instead; see
            `keras_bar.budget.controls.ThresholdControl`.
        undecided_fraction: Pair of floats, the share of the expected cost
            whose gates are undecided, at the start and at the end.
        initial_logit: Float, `logit P(z > 0)` at the start.
        cost_exponent: Float, the exponent of the marginal cost in the ranking
            of channels: 0 ranks by importance alone, 1 by importance per cost.
            More than 1 suits networks with few remaining channels: once the
            others have learned to do its work, the loss from closing a channel
            grows less than in proportion to its importance.
        align: Integer; when the gates are fixed, every layer of at least as
            many channels keeps a multiple of it, within the budget. Kernels
            that compute channels in blocks, such as those of 8, waste nothing
            then. Defaults to 1.
        log_all: Boolean, whether to log all entries. Defaults to False.

    Raises:
        FloatingPointError: During `fit`, if the loss or a weight becomes NaN.
            No gate is fixed then.
        ValueError: Before the first step, if the model has no gates or was
            pruned already, a second regularizer takes part, the number of
            steps is unknown, or the budget is not positive, above the full
            cost or below what any connected network needs.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model, seed=0)
    >>> student.compile("adam", "mse")
    >>> x, y = np.ones((256, 8, 8, 1)), np.zeros((256, 2))
    >>> budget = keras_bar.callbacks.BudgetRegularizer(1 / 2, metric="flops")
    >>> history = student.fit(
    ...     x, y, batch_size=4, epochs=4, verbose=0, callbacks=[budget]
    ... ).history
    >>> history["flops"][-1] <= 1 / 2
    True
    """

    @renamed_arguments(
        indecision="undecided_fraction",
        openness="initial_logit",
        price_exponent="cost_exponent",
    )
    def __init__(
        self,
        budget: float | dict[str, float],
        metric: str = "volume",
        *,
        steps: int | float = 0.9,
        hardness: float = 10.0,
        strength: float | PaperSettings | None = None,
        undecided_fraction: tuple[float, float] = (0.12, 0.02),
        initial_logit: float = 3.0,
        cost_exponent: float = 1.5,
        align: int = 1,
        log_all: bool = False,
    ):
        super().__init__(steps, log_all)
        self.budgets = validation.budgets_by_metric(budget, metric)
        validation.check_transition(hardness, strength, len(self.budgets))
        validation.check_tracking(
            undecided_fraction, initial_logit, cost_exponent
        )
        alignment.check_align(align)
        self.hardness = hardness
        self.strength = strength
        self.undecided_fraction = tuple(undecided_fraction)
        self.initial_logit = initial_logit
        self.cost_exponent = cost_exponent
        self.align = align

    @classmethod
    def paper(
        cls,
        budget: float,
        metric: str = "volume",
        strength: float = 1e-5,
        **kwargs,
    ) -> "BudgetRegularizer":
        """Prunes with the paper's control, a barrier penalty in the loss.

        Args:
            budget: See the class.
            metric: See the class.
            strength: Float, the factor lambda.
            **kwargs: Settings that the paper leaves open, the arguments of
                `keras_bar.callbacks.PaperSettings`; and further arguments of
                the class.

        Returns:
            A `BudgetRegularizer`.

        Example:

        >>> budget = keras_bar.callbacks.BudgetRegularizer.paper(1 / 8)
        >>> budget = keras_bar.callbacks.BudgetRegularizer.paper(
        ...     1 / 8, rate=1.0, inference="median", steps=1.0
        ... )
        """
        open_ones = {x.name for x in dataclasses.fields(PaperSettings)}
        given = {x: kwargs.pop(x) for x in open_ones & set(kwargs)}
        settings = PaperSettings(strength=strength, **given)
        return cls(budget, metric, strength=settings, **kwargs)

    @property
    def brief_logs(self):
        moving = (self._log_of("budget", metric) for metric in self.budgets)
        return (*map(str, self.budgets), *moving)

    def limits(self):
        return {x.metric: float(x.target) for x in self._moving}

    def announce(self):
        progress = self._progress
        shares = " and ".join(
            f"{x.target / x.full_cost:.4g} of the {x.metric}"
            for x in self._moving
        )
        line = f"Pruning to {shares} in {progress.steps} steps"
        if 0 < progress.total - progress.steps < math.inf:
            line += f"; {progress.total - progress.steps} more to settle"
        line += "."
        of_speed = all(x == "flops" or is_object(x) for x in self.budgets)
        if of_speed and is_mixed(self._cost_model.analysis):
            line += (
                " The sides of additions may keep different channels; under "
                "budgets of FLOPs or latency, gates of "
                '`gate(..., connectivity="regular")` mostly leave better and '
                "faster networks."
            )
        return line

    def check_model(self, cost_model, name):
        for metric, budget in self.budgets.items():
            feasibility.target_cost(cost_model, metric, budget, name)
            feasibility.warn_uncounted(cost_model, metric, name)
        limits = self._limits(cost_model)
        feasibility.check_together(cost_model, limits, name)
        alignment.check_possible(cost_model, limits, self.align)

    def make_control(self, steps):
        model = self._cost_model
        validation.check_gates(
            model.gates, HardConcreteGate, type(self).__name__
        )
        self._moving = [
            MovingBudget(model, metric, target, steps, self.hardness)
            for metric, target in self._limits(model).targets
        ]
        required = selection.required_gates(model, self._limits(model))
        if self.strength is not None:
            settings = PaperSettings.make(self.strength)
            return BarrierControl(self._moving[0], settings, required)
        return controls.ThresholdControl(
            self._moving,
            self.initial_logit,
            self.undecided_fraction,
            self.cost_exponent,
            required,
        )

    def is_finished(self, cost_model):
        cost = cost_model.hard(self.alive(cost_model))
        return cost[self._limits(cost_model)] <= 1

    def measure(self, cost_model):
        step = self._state.steps_done()
        entries = {}
        for metric in filter(is_object, self.budgets):
            cost = cost_model.hard(self.alive(cost_model))[metric]
            entries[str(metric)] = cost / cost_model.full[metric]
        for budget in self._moving:
            for name, cost in (
                ("budget", budget.moving(step)),
                ("expected", budget.soft_cost()),
            ):
                share = float(ops.convert_to_numpy(cost)) / budget.full_cost
                entries[self._log_of(name, budget.metric)] = share
        return entries

    def _log_of(self, name, metric):
        """The name of a log of a metric's budget; only those of further budgets
        have the metric in it."""
        is_first = metric == next(iter(self.budgets))
        return name if is_first else f"{name}_{metric}"

    def _limits(self, cost_model):
        """The budgets as `Limits` of a network."""
        return Limits(
            tuple(
                (metric, selection.in_units(cost_model, metric, budget))
                for metric, budget in self.budgets.items()
            )
        )

    def choose(self, cost_model, masks):
        limits = self._limits(cost_model)
        cost = cost_model.hard(masks)
        if selection.WELL_USED * cost[limits] > 1:
            shares = "; ".join(
                f"{cost[x.metric] / x.full_cost:.4f} of the {x.metric} was in "
                f"use, the budget is {x.target / x.full_cost:.4f}"
                for x in self._moving
            )
            warnings.warn(
                "The training was too short to follow the budget: when the "
                f"gates had to be fixed, {shares}. The weakest channels were "
                "closed. Train for longer; `steps` must not exceed those of "
                "`fit`.",
                stacklevel=2,
            )
        scores = {
            gate: ops.convert_to_numpy(gate.location())
            for gate in cost_model.gates
        }
        if any(map(is_object, self.budgets)):
            scores = selection.closed_last(scores, masks)
        masks = selection.completed(cost_model, limits, 1.0, scores, masks)
        return alignment.align_within(
            cost_model, limits, 1.0, scores, masks, self.align
        )

    def opened(self, gate):
        if self._progress.settles:  # The rest of `fit` trains the channel.
            return 1.0
        # Batch normalization saw the mean of a reopened channel under the
        # noise; at 1 the channel could drown the others.
        return np.fmax(gate.mean(), LEAST_FACTOR)
