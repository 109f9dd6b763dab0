"""The callback that prunes a network to a budget while it trains."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bar import selection
from keras_bar.callbacks import checks
from keras_bar.callbacks import control
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks
from keras_bar.graph.flow import Flow
from keras_bar.graph.trace import trace
from keras_bar.layers import BudgetState

# Of a channel that is opened when the gates are fixed: it shall not be dead.
LEAST_FACTOR = 1e-3


class BudgetRegularizer(keras.callbacks.Callback):
    """Prunes a gated model to a budget during `fit`.

    The budget moves from the full cost to its final value along a sigmoidal
    transition (supplement, section 1), and the gates are made to follow it in
    the compiled training step. When it has arrived, all gates are fixed, the
    model is within the budget and connected, and the rest of `fit` trains just
    what is left. `keras_bar.compact` builds the small network.

    Logs of every epoch: `volume`, `flops` and `params`, the cost of the network
    if it were compacted now; `budget`, the moving budget; `expected`, the
    expected cost under the noise; all as fractions of the full cost, the last
    two in the regularizer's metric; and `penalty`, what the control adds to the
    loss, or the threshold by which it pushes. Callbacks that shall see them
    come after this one in the list; one that restores weights when `fit` ends
    (`EarlyStopping(restore_best_weights=True)`) comes before it, lest it undo
    the pruning.

    Args:
        budget: Float in (0, 1], the fraction of the full cost that may remain;
            or a number above 1, in units of the metric.
        metric: `"volume"` (scalar activations), `"flops"` or `"params"`.
        steps: Integer, training steps over which the budget moves; or float
            in (0, 1], the fraction of all steps of `fit`. In the steps after
            them the network settles: which channels live is decided.
        hardness: Float, hardness `d` of the transition; 0 is the line.
        strength: None, or the factor lambda of the paper's penalty. By default
            a threshold tracks the budget instead; see
            `keras_bar.callbacks.control.ThresholdTracking`.
        indecision: Pair of floats, of the expected cost the share whose gates
            are undecided at the start and at the end.
        openness: Float, `logit P(z > 0)` at the start.
        price_exponent: Float, how much faster channels that cost more close:
            0 treats all alike, 1 in proportion to their cost.

    Raises:
        ValueError: Before the first step, if the model has no gates or was
            pruned already, a second regularizer takes part, the number of
            steps is unknown, or the budget is not positive, above the full
            cost or below what any connected network needs.
    """

    def __init__(
        self,
        budget,
        metric="volume",
        *,
        steps=0.9,
        hardness=10.0,
        strength=None,
        indecision=(0.12, 0.02),
        openness=3.0,
        price_exponent=1.0,
    ):
        super().__init__()
        checks.check_arguments(budget, metric, steps, hardness, strength)
        checks.check_tracking(indecision, openness, price_exponent)
        self.budget = budget
        self.metric = metric
        self.steps = steps
        self.hardness = hardness
        self.strength = strength
        self.indecision = tuple(indecision)
        self.openness = openness
        self.price_exponent = price_exponent
        self._state: Any = None
        self._control: Any = None
        self._settled = False
        self._steps_left = 0

    @classmethod
    def paper(cls, budget, metric="volume", strength=1e-5, **kwargs):
        """The setting of the paper: the barrier penalty in the loss."""
        settings = {"steps": 1.0, **kwargs}
        return cls(budget, metric, strength=strength, **settings)

    def set_model(self, model):
        super().set_model(model)
        gated = checks.find_gated(model)
        self._model_name = gated.name
        self._cost_model = CostModel(Flow(trace(gated)))
        (self._state,) = (x for x in gated.layers if isinstance(x, BudgetState))
        self._state.owner = self
        self._state.control = self._control = self._state.limit = None
        # The step was compiled without this budget, or with another one.
        model.train_function = None
        # Weights that another callback restores when `fit` begins come later
        # than this, and are kept.
        self._before = [x.numpy() for x in self._remembered()]
        self._state.step.assign(0)
        self._make_control(steps=1).start(self._state)

    def on_train_begin(self, logs=None):
        if self._state.owner is not self:
            raise ValueError(
                "Two budgets cannot drive the same gates. Expected one "
                "`BudgetRegularizer` in `callbacks`. Received: more than one"
            )
        if self.strength is not None:
            checks.check_penalty_counts(self.model)
        selection.target_cost(
            self._cost_model, self.metric, self.budget, self._model_name
        )
        if isinstance(self.steps, float) and not self.params.get("steps"):
            raise ValueError(
                "The length of the training is unknown, so the budget cannot "
                "move along it. Expected data of known length, "
                "`steps_per_epoch` in `fit`, or `steps` in "
                "`BudgetRegularizer`. Received: "
                f"steps={self.params.get('steps')} per epoch"
            )
        _exempt_from_weight_decay(
            self.model.optimizer,
            [gate.log_alpha for gate in self._cost_model.gates],
        )

    def on_test_begin(self, logs=None):
        self._undo_outside_of_fit()

    def on_predict_begin(self, logs=None):
        self._undo_outside_of_fit()

    def on_epoch_begin(self, epoch, logs=None):
        if self._control is None:
            self._begin(epoch)

    def on_train_batch_end(self, batch, logs=None):
        # The variable is not read at every batch: that would hold up the next.
        self._steps_left -= self._steps_per_call
        if self._steps_left < 0 and not self._settled:
            _ = self.model  # On JAX this brings the variables up to date.
            self._steps_left = self._control.budget.steps - self._steps_done()
            if self._steps_left < 0:
                self._fix_gates()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(self._measure())

    def on_train_end(self, logs=None):
        _ = self.model  # On JAX this brings the variables up to date.
        if self._control is None:  # Not a single epoch was left to train.
            self._begin(self.params.get("epochs") or 0)
        if not self._settled:
            self._fix_gates()
        budget = self._control.budget
        self._state.limit = (budget.metric, budget.target)
        self._state.control = None
        # The step without the budget is compiled anew.
        self.model.train_function = None

    def _begin(self, epoch):
        """Starts at an epoch, or goes on there with a training that was
        interrupted: then the weights brought its number of steps."""
        interrupted = self._before[0] > 0 and not self._steps_done()
        if epoch and interrupted:
            self._restore()
        gates = self._cost_model.gates
        self._settled = all(gate.is_fixed for gate in gates)
        if not (epoch and self._steps_done()):
            checks.check_learning(gates, self._model_name)
        steps = self.steps
        if isinstance(steps, float):
            to_come = self.params["steps"] * (self.params["epochs"] - epoch)
            steps = round(steps * (self._steps_done() + to_come))
        steps = max(steps, 1)
        self._control = self._make_control(steps)
        self._state.control = self._control
        self._steps_left = steps - self._steps_done()
        self._steps_per_call = getattr(self.model, "steps_per_execution", 1)

    def _restore(self):
        for x, value in zip(self._remembered(), self._before, strict=True):
            x.assign(value)

    def _undo_outside_of_fit(self):
        """Keras calls `set_model` for `evaluate` and `predict`, too."""
        if self._control is None:
            self._restore()

    def _steps_done(self):
        return int(self._state.step.numpy())

    def _remembered(self):
        """The variables in which a budget remembers what it did; the number of
        its steps comes first."""
        gates = self._cost_model.gates
        return [
            self._state.step,
            self._state.pressure,
            *(x for g in gates for x in (g.slope, g.offset, g.importance)),
        ]

    def _make_budget(self, steps):
        full = self._cost_model.full[self.metric]
        target = self.budget * full if self.budget <= 1 else self.budget
        return control.Budget(
            self._cost_model, self.metric, target, steps, self.hardness
        )

    def _make_control(self, steps):
        budget = self._make_budget(steps)
        if self.strength is not None:
            return control.BarrierPenalty(budget, self.strength)
        return control.ThresholdTracking(
            budget,
            self.openness,
            self.indecision,
            self.price_exponent,
            selection.lifelines(self._cost_model, self.metric),
        )

    def _measure(self):
        """The entries of the logs."""
        _ = self.model  # On JAX this brings the variables up to date.
        model, budget = self._cost_model, self._control.budget
        costs = model.hard(alive_masks(model.gates))
        moving = float(ops.convert_to_numpy(budget.moving(self._state.step)))
        expected = float(ops.convert_to_numpy(budget.soft_cost()))
        return {
            **{name: costs[name] / model.full[name] for name in METRICS},
            "budget": moving / budget.full_cost,
            "expected": expected / budget.full_cost,
            "penalty": self._control.penalty(self._state),
        }

    def _fix_gates(self):
        """Fixes all gates, within the budget and connected."""
        model, budget = self._cost_model, self._control.budget
        masks = alive_masks(model.gates)
        cost = model.hard(masks)[self.metric]
        scores = {
            gate: ops.convert_to_numpy(gate.location()) for gate in model.gates
        }
        chosen = selection.completed(
            model, self.metric, budget.target, scores, masks
        )
        if selection.WELL_USED * cost > budget.target:
            warnings.warn(
                "The training was too short to reach the budget: at its end "
                f"{cost / budget.full_cost:.4f} of the {self.metric} was in "
                f"use, the budget is {budget.target / budget.full_cost:.4f}. "
                "The weakest channels were closed. Train for longer, or lower "
                "`steps`.",
                stacklevel=2,
            )
        for gate, mask in chosen.items():
            # What batch normalization saw of a channel that is opened now is
            # its mean under the noise; at 1 it could drown the others.
            gate.set_alive(mask, opened=np.fmax(gate.mean(), LEAST_FACTOR))
        self._settled = True


def _exempt_from_weight_decay(optimizer, variables):
    """Weight decay is for weights: on a gate it would be a vote to stay
    undecided."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for part in [optimizer, *getattr(optimizer, "optimizers", ())]:
        # `exclude_from_weight_decay` would forget what the user excluded, and
        # refuse an optimizer that was loaded or used before.
        excluded: set = getattr(part, "_exclude_from_weight_decay", set())
        part._exclude_from_weight_decay = excluded.union(
            part._var_key(variable) for variable in variables
        )
        part._exclude_from_weight_decay_cache = {}
