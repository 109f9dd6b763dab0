"""The callback that prunes a network to a budget while it trains."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_bar.callbacks import control
from keras_bar.callbacks import selection
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks
from keras_bar.graph.flow import Flow
from keras_bar.graph.trace import trace
from keras_bar.layers import BudgetState
from keras_bar.layers import HardConcreteGate


class BudgetRegularizer(keras.callbacks.Callback):
    """Prunes a gated model to a budget during `fit`.

    The budget moves from the full cost to its final value along a sigmoidal
    transition (supplement, section 1), and the gates are made to follow it in
    the compiled training step. When `fit` ends, all gates are fixed, the model
    is within the budget and connected, and `keras_bar.compact` can build the
    small network.

    Logs of every epoch: `volume`, `flops` and `params`, the cost of the network
    if it were compacted now; `budget`, the moving budget; `expected`, the
    expected cost under the noise; all as fractions of the full cost, the last
    two in the regularizer's metric; and `penalty`, what the control adds to the
    loss, or the threshold by which it pushes. Callbacks that shall see them
    come after this one in the list.

    Args:
        budget: Float in (0, 1], the fraction of the full cost that may remain;
            or a number above 1, in units of the metric.
        metric: `"volume"` (scalar activations), `"flops"` or `"params"`.
        steps: Integer, training steps over which the budget moves. By default
            all steps of `fit`.
        hardness: Float, hardness `d` of the transition; 0 is the line.
        strength: None, or the factor lambda of the paper's penalty. By default
            a threshold tracks the budget instead; see
            `keras_bar.callbacks.control.ThresholdTracking`.
        indecision: Pair of floats, the share of the cost whose gates are
            undecided at the start and at the end.
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
        steps=None,
        hardness=10.0,
        strength=None,
        indecision=(0.12, 0.01),
        openness=3.0,
        price_exponent=1.0,
    ):
        super().__init__()
        if metric not in METRICS:
            raise ValueError(
                "Unknown metric. Expected one of "
                f"{', '.join(map(repr, METRICS))}. Received: metric={metric!r}"
            )
        if not _is_number(budget) or not budget > 0:
            raise ValueError(
                "Invalid budget. Expected a fraction of the full cost in "
                "(0, 1], or a number above 1 in units of the metric. "
                f"Received: budget={budget!r}"
            )
        if steps is not None and (int(steps) != steps or steps < 1):
            raise ValueError(
                "Invalid number of pruning steps. Expected a positive "
                f"integer, or None for all of `fit`. Received: steps={steps!r}"
            )
        if not hardness >= 0:
            raise ValueError(
                "Invalid hardness of the transition. Expected a number of 0 "
                f"or more. Received: hardness={hardness!r}"
            )
        self.budget = budget
        self.metric = metric
        self.steps = steps
        self.hardness = hardness
        self.strength = strength
        self.indecision = tuple(indecision)
        self.openness = openness
        self.price_exponent = price_exponent
        self._state = None
        self._control = None

    @classmethod
    def paper(cls, budget, metric="volume", strength=1e-5, **kwargs):
        """The setting of the paper: the barrier penalty in the loss."""
        return cls(budget, metric, strength=strength, **kwargs)

    def set_model(self, model):
        super().set_model(model)
        gated = find_gated(model)
        self._cost_model = CostModel(Flow(trace(gated)))
        (self._state,) = (
            x for x in gated.layers if isinstance(x, BudgetState)
        )
        self._state.owner = self
        self._model_name = gated.name
        # The step was compiled without this budget, or with another one.
        model.train_function = None
        self._state.step.assign(0)
        self._state.pressure.assign(0.0)
        self._control = None
        self._first_epoch = None
        budget = self._make_budget(steps=1)
        self._make_control(budget).start(self._state)

    def on_train_begin(self, logs=None):
        if self._state.owner is not self:
            raise ValueError(
                "Two budgets cannot drive the same gates. Expected one "
                "`BudgetRegularizer` in `callbacks`. Received: more than one"
            )
        self._check_gates()
        budget = self._make_budget(self._total_steps())
        self._check_budget(budget)
        self._control = self._make_control(budget)
        self._state.control = self._control
        _exempt_from_weight_decay(
            self.model.optimizer,
            [gate.log_alpha for gate in self._cost_model.gates],
        )

    def on_epoch_begin(self, epoch, logs=None):
        if self._first_epoch is None:
            self._first_epoch = epoch
            self._resume(epoch)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs.update(self._measure())

    def on_train_end(self, logs=None):
        _ = self.model  # On JAX this brings the variables up to date.
        self._fix_gates()
        self._state.control = None
        self.model.train_function = None

    def _make_budget(self, steps):
        full = self._cost_model.full[self.metric]
        target = self.budget * full if self.budget <= 1 else self.budget
        return control.Budget(
            self._cost_model, self.metric, target, steps, self.hardness
        )

    def _make_control(self, budget):
        if self.strength is not None:
            return control.BarrierPenalty(budget, self.strength)
        return control.ThresholdTracking(
            budget,
            self.openness,
            self.indecision,
            self.price_exponent,
            selection.lifelines(self._cost_model),
        )

    def _total_steps(self):
        if self.steps is not None:
            return int(self.steps)
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        if not steps or not epochs:
            raise ValueError(
                "The length of the training is unknown, so the budget cannot "
                "move along it. Expected data of known length, "
                "`steps_per_epoch` in `fit`, or `steps` in "
                f"`BudgetRegularizer`. Received: steps={steps} per epoch"
            )
        return steps * epochs

    def _check_gates(self):
        if all(gate.is_fixed for gate in self._cost_model.gates):
            raise ValueError(
                "This model was pruned already: every gate is fixed. Expected "
                "gates that can learn; to prune further, gate the compact "
                f"model anew. Received: {self._model_name!r}"
            )

    def _check_budget(self, budget):
        full = budget.full_cost
        if not np.isfinite(full):
            raise ValueError(
                "The cost of the model depends on the size of its input. "
                "Expected inputs of known size. "
                f"Received: {self._model_name!r}"
            )
        if budget.target > full:
            raise ValueError(
                f"The budget exceeds the full network's {self.metric}. "
                f"Expected at most {full:.0f}. Received: {budget.target:.0f}"
            )
        least = selection.smallest_cost(self._cost_model, self.metric)
        if budget.target < least:
            raise ValueError(
                "The budget is too small for any connected network. Expected "
                f"at least {least} ({least / full:.4g} of the full "
                f"{self.metric}). Received: {budget.target:.0f} "
                f"({budget.target / full:.4g})"
            )

    def _resume(self, epoch):
        """Continues the schedule of a training that began at epoch 0, unless
        the weights brought their own count of steps."""
        per_epoch = self.params.get("steps")
        if epoch and per_epoch and int(self._state.step.numpy()) == 0:
            self._state.step.assign(epoch * per_epoch)

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
        chosen = selection.strongest(model, self.metric, budget.target, scores)
        if cost > budget.target:
            warnings.warn(
                "The training was too short to reach the budget: at its end "
                f"{cost / budget.full_cost:.4f} of the {self.metric} was in "
                f"use, the budget is {budget.target / budget.full_cost:.4f}. "
                "The weakest channels were closed.",
                stacklevel=2,
            )
        for gate, mask in chosen.items():
            gate.set_alive(mask)


def find_gated(model):
    """The gated network in a model: itself, or the student of a distiller.

    Args:
        model: `keras.Model`.

    Returns:
        A Functional `keras.Model` with gates and a `BudgetState`.

    Raises:
        ValueError: If there is none.
    """
    for candidate in model._flatten_layers(include_self=True):
        if not isinstance(candidate, keras.Model):
            continue
        kinds = {type(layer) for layer in candidate.layers}
        if HardConcreteGate in kinds and BudgetState in kinds:
            return candidate
    raise ValueError(
        "The model has no gates to prune. Expected a model made by "
        "`keras_bar.gate`; one made by `keras_bar.compact` is finished, gate "
        f"it anew to prune further. Received: {model.name!r}"
    )


def _exempt_from_weight_decay(optimizer, variables):
    """Weight decay is for weights: on a gate it would be a vote to stay
    undecided."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if getattr(optimizer, "weight_decay", None) is None:
        return
    before = getattr(optimizer, "_exclude_from_weight_decay", set())
    names = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    optimizer.exclude_from_weight_decay(var_list=variables)
    optimizer._exclude_from_weight_decay |= before
    optimizer._exclude_from_weight_decay_pattern = names


def _is_number(x):
    return isinstance(x, int | float | np.number) and not isinstance(x, bool)
