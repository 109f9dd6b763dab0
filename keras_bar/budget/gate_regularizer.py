"""The base class of callbacks that prune a network while it trains."""

import contextlib
from typing import Any

import keras
from keras import ops

from keras_bar import keras_internals
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.budget import selection
from keras_bar.budget import validation
from keras_bar.budget.progress import Phase
from keras_bar.budget.progress import Progress
from keras_bar.budget.progress import control_steps
from keras_bar.budget.progress import total_steps
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks
from keras_bar.layers import BudgetState


class GateRegularizer(keras.callbacks.Callback):
    """Lets a control act on the gates of a model during `fit`, and fixes them.

    A subclass makes the control, a function of the model's `BudgetState` that
    runs once per step, within the compiled step, and returns a loss or None;
    see `keras_bar.budget.controls`. This class finds the gates, installs the
    control, resumes an interrupted training, and fixes the gates after the
    control's last step, or when `fit` ends.

    Args:
        steps: Integer, steps of the optimizer in which the control acts; or
            float in (0, 1], the fraction of all steps of `fit`; or None, to its
            end.
        log_all: Boolean, whether to log all entries, or only those in
            `brief_logs`.

    Example:

    All subclasses write logs, and fix the gates when `fit` ends.

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model, seed=0)
    >>> student.compile("adam", "mse")
    >>> x, y = np.ones((32, 8, 8, 1)), np.zeros((32, 2))
    >>> regularizer = keras_bar.baselines.L0Regularizer(0.01)
    >>> isinstance(regularizer, keras_bar.callbacks.GateRegularizer)
    True
    >>> history = student.fit(x, y, verbose=0, callbacks=[regularizer]).history
    >>> sorted(history)
    ['loss', 'penalty', 'volume']
    >>> student.get_layer("conv_gate").is_fixed
    True
    """

    def __init__(self, steps: int | float | None, log_all: bool = False):
        super().__init__()
        if steps is not None:
            validation.check_steps(steps)
        self.steps = steps
        self.log_all = log_all
        self._state: Any = None
        self._cost_model: Any = None
        self._control: Any = None
        self._before: list = []
        self._steps_before = 0
        self._first_iteration = 0
        self._progress = Progress()

    @property
    def brief_logs(self):
        """Names of the log entries that show the progress of pruning."""
        return ("volume", "penalty")

    def make_control(self, steps):
        """Creates the control.

        Args:
            steps: Integer, the steps in which it acts; infinite if they are
                unknown.

        Returns:
            Function of `BudgetState` with the methods `start(state)`, called
            before the first step; `begin(optimizer, resumes)`, called once the
            number of steps is known; `logs(state)`, a dict from name to float;
            and `least_steps(optimizer)`, the minimum number of steps.
        """
        raise NotImplementedError

    def check_model(self, cost_model, name):
        """Raises a ValueError if this regularizer cannot prune the model."""

    def limits(self):
        """Dict from metric to the budget, in its units, to which the network is
        pruned."""
        return {}

    def alive(self, cost_model):
        """Dict from gate to its alive channels, booleans `(channels,)`."""
        return alive_masks(cost_model.gates)

    def choose(self, cost_model, masks):
        """Chooses the channels that stay when the gates are fixed.

        Args:
            cost_model: `CostModel`.
            masks: Dict from gate to booleans `(channels,)`, the channels that
                are alive now.

        Returns:
            Dict like `masks`.
        """
        return selection.connected(cost_model, masks)

    def opened(self, gate):
        """Factor of the reopened channels of a gate."""
        return 1.0

    def is_finished(self, cost_model):
        """Whether fixed gates meet this regularizer's goal, so that a training
        that was interrupted after they were fixed can be resumed."""
        return False

    def measure(self, cost_model):
        """Further log entries, a dict from name to float."""
        return {}

    def announce(self):
        """The line to print before the first step, or None."""
        return None

    def set_model(self, model):
        super().set_model(model)
        gated = validation.find_gated(model)
        self._model_name = gated.name
        self._cost_model = CostModel(ChannelAnalysis(trace(gated)))
        (self._state,) = (x for x in gated.layers if isinstance(x, BudgetState))
        control = self.make_control(steps=1)  # May refuse the model.
        self._state.owner = self
        self._state.control = self._control = None
        self._progress = Progress()
        # The step was compiled without this control, or with another one.
        model.train_function = None
        # Another callback may restore weights when `fit` begins, which is
        # later. Those are kept.
        self._before = [x.numpy() for x in self._remembered()]
        self._steps_before = self._steps_done()
        self._state.start()
        control.start(self._state)

    def on_train_begin(self, logs=None):
        if self._state.owner is not self:
            raise ValueError(
                "Two regularizers cannot drive the same gates. Expected one "
                "of them in `callbacks`. Received: more than one"
            )
        validation.check_losses_count(self.model)
        validation.check_trainable(self._cost_model.gates, self._state)
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
        optimizer = self.model.optimizer
        keras_internals.exempt_from_weight_decay(optimizer, parameters)
        keras_internals.average_overwritten_variables(
            optimizer, self.model.trainable_variables
        )

    def on_test_begin(self, logs=None):
        self._undo_outside_of_fit()
        self._settle_if_due()  # Validate the network that remains.

    def on_predict_begin(self, logs=None):
        self._undo_outside_of_fit()

    def on_epoch_begin(self, epoch, logs=None):
        if not self._progress.has_started:
            self._begin(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        # Not at the end of a batch: Keras waits for the logs of every batch if
        # a callback has that hook.
        self._settle_if_due()
        self._progress.advance()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            with self._disarmed_by_nan():
                validation.check_loss(logs, epoch)
        self._settle_if_due()
        _ = self.model  # On JAX this brings the variables up to date.
        self._check_counting()
        if logs is not None:
            logs.update(self._entries())

    def on_train_end(self, logs=None):
        _ = self.model  # On JAX this brings the variables up to date.
        if not self._progress.has_started:  # No epoch was left to train.
            self._begin(self.params.get("epochs") or 0)
        # Another callback may have restored earlier weights.
        if not self._is_fixed():
            self._fix_gates()
        self._progress.phase = Phase.FINISHED
        self._state.control = None
        # Compile the step again, without the control.
        self.model.train_function = None

    def _begin(self, epoch):
        """Starts at an epoch, or resumes an interrupted training there, whose
        number of steps was restored with its weights."""
        interrupted = self._steps_before > 0 and not self._steps_done()
        if epoch and interrupted:
            self._restore()
        done = self._steps_done()
        resumes = done and self.is_finished(self._cost_model)
        if self._is_fixed() and not resumes:
            raise ValueError(
                "This model was pruned already: every gate is fixed. Expected "
                "gates that can learn; to prune further, gate the compact "
                f"model again. Received: {self._model_name!r}"
            )
        optimizer = self.model.optimizer
        batches = keras_internals.batches_per_step(optimizer)
        total = total_steps(self.params, epoch, done, batches)
        steps = control_steps(self.steps, total)
        calls = getattr(self.model, "steps_per_execution", 1)
        self._progress.start(steps, total, done, calls)
        if self._is_fixed():
            self._progress.phase = Phase.SETTLING
        self._control = self._state.control = self.make_control(steps)
        self._state.limits = self.limits()
        self._first_iteration = int(ops.convert_to_numpy(optimizer.iterations))
        self._control.begin(optimizer, resumes=done > 0)
        # A control may choose the inference factor of the gates.
        self.model.test_function = None
        if self._progress.phase is Phase.TRACKING and total > done:
            least = self._control.least_steps(optimizer)
            validation.check_length(steps, total, least)
            if self.params.get("verbose") and (line := self.announce()):
                print(line, flush=True)

    def _entries(self):
        """The entries of the logs, dict from name to float."""
        costs = self._cost_model.hard(self.alive(self._cost_model))
        full = self._cost_model.full
        # The memory is computed only where somebody reads it.
        metrics = set(METRICS if self.log_all else self.brief_logs)
        entries = {
            **{x: costs[x] / full[x] for x in METRICS if x in metrics},
            **self.measure(self._cost_model),
            **self._control.logs(self._state),
        }
        names = entries if self.log_all else self.brief_logs
        return {name: entries[name] for name in names}

    def _settle_if_due(self):
        """Fixes the gates after the control's last step."""
        if self._progress.may_settle():
            _ = self.model  # On JAX this brings the variables up to date.
            if self._progress.update(self._steps_done()):
                self._fix_gates()

    def _is_fixed(self):
        return all(gate.is_fixed for gate in self._cost_model.gates)

    def _fix_gates(self):
        with self._disarmed_by_nan():
            validation.check_finite(self.model)
        model = self._cost_model
        chosen = self.choose(model, self.alive(model))
        for gate, mask in chosen.items():
            gate.set_alive(mask, opened=self.opened(gate))
        self._progress.phase = Phase.SETTLING

    @contextlib.contextmanager
    def _disarmed_by_nan(self):
        """Removes the control if NaN ends the training, because Keras then
        calls no further hook."""
        try:
            yield
        except FloatingPointError:
            self._state.control = None
            self.model.train_function = None
            raise

    def _check_counting(self):
        """Raises a RuntimeError if the optimizer takes steps that the budget
        does not count."""
        iterations = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        stepped = iterations > self._first_iteration
        if stepped and not self._steps_done():
            raise RuntimeError(
                "The optimizer took steps, but the budget saw none of them and "
                "cannot move. Expected a loss that includes `model.losses`, as "
                "that of `keras.Model.train_step` does. Received: a model of "
                f"type {type(self.model)} whose loss leaves them out"
            )

    def _restore(self):
        for x, value in zip(self._remembered(), self._before, strict=True):
            x.assign(value)

    def _undo_outside_of_fit(self):
        """Undoes `set_model`, which Keras also calls in `evaluate` and
        `predict`."""
        if not self._progress.has_started:
            self._restore()

    def _steps_done(self):
        return int(ops.convert_to_numpy(self._state.steps_done()))

    def _remembered(self):
        """List of the variables that hold the state of a control."""
        gates = self._cost_model.gates
        return [
            self._state.step,
            self._state.signal,
            self._state.threshold,
            *(x for gate in gates for x in gate.driven_variables()),
        ]
