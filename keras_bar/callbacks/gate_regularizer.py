"""What all callbacks have in common that prune a network while it trains."""

import math
from typing import Any

import keras

from keras_bar import selection
from keras_bar.callbacks import checks
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks
from keras_bar.graph.flow import Flow
from keras_bar.graph.trace import trace
from keras_bar.layers import BudgetState


class GateRegularizer(keras.callbacks.Callback):
    """Lets a control act on the gates of a model during `fit`, and fixes them.

    A subclass makes the control, a function of the model's `BudgetState` that
    runs once per step, within the compiled step, and returns a loss or None;
    see `keras_bar.callbacks.control`. This class finds the gates, installs the
    control, goes on where a training was interrupted, and fixes the gates:
    once the control has had its steps, or when `fit` ends.

    Args:
        steps: Integer, steps in which the control acts; or float in (0, 1],
            the fraction of all steps of `fit`; or None, to its end.
    """

    def __init__(self, steps):
        super().__init__()
        if steps is not None:
            checks.check_steps(steps)
        self.steps = steps
        self._state: Any = None
        self._cost_model: Any = None
        self._control: Any = None
        self._before: list = []
        self.settles = self._settled = False
        self._steps_left = 0
        self._steps_per_call = 1

    @property
    def adds_loss(self):
        """Whether the control returns a loss."""
        return True

    def make_control(self, steps):
        """The control.

        Args:
            steps: Integer, the steps in which it acts; infinite where they are
                not known.

        Returns:
            Function of `BudgetState` with the methods `start(state)`, to be
            called before the first step, and `penalty(state)`, a float for the
            logs.
        """
        raise NotImplementedError

    def check_model(self, cost_model, name):
        """Raises a ValueError if this model cannot be pruned so."""

    def alive(self, cost_model):
        """Dict from gate to its channels that live now, booleans
        `(channels,)`."""
        return alive_masks(cost_model.gates)

    def choose(self, cost_model, masks):
        """Which channels live when the gates are fixed.

        Args:
            cost_model: `CostModel`.
            masks: Dict from gate to booleans `(channels,)`, those alive now.

        Returns:
            Dict like `masks`.
        """
        return selection.connected(cost_model, masks)

    def opened(self, gate):
        """The factor at which a dead channel is opened."""
        return 1.0

    def is_finished(self, cost_model):
        """Whether fixed gates are what this regularizer wants, as where a
        training goes on that was interrupted after they were fixed."""
        return False

    def measure(self, cost_model):
        """Further entries of the logs, a dict from name to float."""
        return {}

    def set_model(self, model):
        super().set_model(model)
        gated = checks.find_gated(model)
        self._model_name = gated.name
        self._cost_model = CostModel(Flow(trace(gated)))
        (self._state,) = (x for x in gated.layers if isinstance(x, BudgetState))
        control = self.make_control(steps=1)  # May refuse the model.
        self._state.owner = self
        self._state.control = self._control = self._state.limit = None
        # The step was compiled without this control, or with another one.
        model.train_function = None
        # Weights that another callback restores when `fit` begins come later
        # than this, and are kept.
        self._before = [x.numpy() for x in self._remembered()]
        self._state.step.assign(0)
        control.start(self._state)

    def on_train_begin(self, logs=None):
        if self._state.owner is not self:
            raise ValueError(
                "Two regularizers cannot drive the same gates. Expected one "
                "of them in `callbacks`. Received: more than one"
            )
        if self.adds_loss:
            checks.check_penalty_counts(self.model)
        self.check_model(self._cost_model, self._model_name)
        if isinstance(self.steps, float) and not self.params.get("steps"):
            raise ValueError(
                "The length of the training is unknown, so the budget cannot "
                "move along it. Expected data of known length, "
                "`steps_per_epoch` in `fit`, or `steps` in "
                f"`{type(self).__name__}`. Received: "
                f"steps={self.params.get('steps')} per epoch"
            )
        parameters = [
            x for g in self._cost_model.gates for x in g.trainable_variables
        ]
        _exempt_from_weight_decay(self.model.optimizer, parameters)

    def on_test_begin(self, logs=None):
        self._undo_outside_of_fit()
        self._settle_if_due()  # Validation shall see what is left.

    def on_predict_begin(self, logs=None):
        self._undo_outside_of_fit()

    def on_epoch_begin(self, epoch, logs=None):
        if self._control is None:
            self._begin(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        # Not at the end of a batch: a callback that asks for that makes Keras
        # wait for the logs of every batch.
        self._settle_if_due()
        self._steps_left -= self._steps_per_call

    def on_epoch_end(self, epoch, logs=None):
        self._settle_if_due()
        if logs is not None:
            _ = self.model  # On JAX this brings the variables up to date.
            costs = self._cost_model.hard(self.alive(self._cost_model))
            full = self._cost_model.full
            logs.update({name: costs[name] / full[name] for name in METRICS})
            logs.update(self.measure(self._cost_model))
            logs["penalty"] = self._control.penalty(self._state)

    def on_train_end(self, logs=None):
        _ = self.model  # On JAX this brings the variables up to date.
        if self._control is None:  # Not a single epoch was left to train.
            self._begin(self.params.get("epochs") or 0)
        # Another callback may have restored weights from before.
        if not self._is_fixed():
            self._fix_gates()
        self._state.control = None
        # The step without the control is compiled anew.
        self.model.train_function = None

    def _begin(self, epoch):
        """Starts at an epoch, or goes on there with a training that was
        interrupted: then the weights brought its number of steps."""
        interrupted = self._before[0] > 0 and not self._steps_done()
        if epoch and interrupted:
            self._restore()
        goes_on = self._steps_done() and self.is_finished(self._cost_model)
        self._settled = self._is_fixed()
        if self._settled and not goes_on:
            raise ValueError(
                "This model was pruned already: every gate is fixed. Expected "
                "gates that can learn; to prune further, gate the compact "
                f"model anew. Received: {self._model_name!r}"
            )
        total = self._total_steps(epoch)
        if self.steps is None:
            self._steps = total
        elif isinstance(self.steps, float):
            self._steps = max(round(self.steps * total), 1)
        else:
            self._steps = self.steps
        # Otherwise the control acts to the end, and is seen to.
        self.settles = self._steps < total
        self._control = self._state.control = self.make_control(self._steps)
        self._steps_left = self._steps - self._steps_done()
        self._steps_per_call = getattr(self.model, "steps_per_execution", 1)

    def _total_steps(self, epoch):
        """All steps of `fit`, those before an interruption counted."""
        to_come = max(self.params["epochs"] - epoch, 0)
        per_epoch = self.params.get("steps") or math.inf
        return self._steps_done() + (to_come and to_come * per_epoch)

    def _settle_if_due(self):
        """Fixes the gates once the control has had its steps.

        They are counted here: the variable that counts them is read only when
        they are nearly over, since reading it holds up the next step.
        """
        due = self._control is not None and self._steps_left <= 0
        if due and self.settles and not self._settled:
            _ = self.model  # On JAX this brings the variables up to date.
            self._steps_left = self._steps - self._steps_done()
            if self._steps_left <= 0:
                self._fix_gates()

    def _is_fixed(self):
        return all(gate.is_fixed for gate in self._cost_model.gates)

    def _fix_gates(self):
        model = self._cost_model
        chosen = self.choose(model, self.alive(model))
        for gate, mask in chosen.items():
            gate.set_alive(mask, opened=self.opened(gate))
        self._settled = True

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
        """The variables in which a control remembers what it did; the number
        of its steps comes first."""
        gates = self._cost_model.gates
        return [
            self._state.step,
            self._state.pressure,
            *(x for gate in gates for x in gate.driven_variables()),
        ]


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
