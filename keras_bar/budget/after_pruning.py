"""Callbacks that see only finished networks."""

import warnings

import keras

from keras_bar.budget import validation
from keras_bar.budget.callback_wrapper import CallbackWrapper
from keras_bar.layers import ChannelGate


class AfterPruning(CallbackWrapper):
    """Runs a callback once every gate is fixed.

    While a network is pruned, its early epochs are the most accurate and the
    furthest from the budget. A callback that keeps or restores the best epoch,
    or stops when accuracy no longer improves, would choose an unfinished
    network. A wrapped callback sees only the epochs of the finished network.

    Args:
        callback: `keras.callbacks.Callback`, such as `ModelCheckpoint`,
            `EarlyStopping` or `ReduceLROnPlateau`.

    The gates have to be fixed before `fit` ends: with `steps=1.0` the callback
    sees no epoch, and a warning is issued.

    Raises:
        ValueError: If `callback` is not a callback; in `fit`, if the model has
            no gates.

    Example:

    >>> import keras
    >>> import keras_bar
    >>> budget = keras_bar.callbacks.BudgetRegularizer(1 / 8, steps=0.5)
    >>> best = keras_bar.callbacks.AfterPruning(
    ...     keras.callbacks.ModelCheckpoint(
    ...         "best.keras", monitor="val_loss", save_best_only=True
    ...     )
    ... )
    >>> callbacks = [budget, best]  # For `fit`.
    """

    def __init__(self, callback: keras.callbacks.Callback):
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(
                "There is nothing to run. Expected a "
                "`keras.callbacks.Callback`. "
                f"Received: callback={callback!r} (of type {type(callback)})"
            )
        super().__init__(callback)
        self._gates: list[ChannelGate] = []
        self._pruned = self._has_run = False

    def set_model(self, model):
        super().set_model(model)
        gated = validation.find_gated(model)
        self._gates = [x for x in gated.layers if isinstance(x, ChannelGate)]
        self._pruned = self._has_run = False

    def on_train_begin(self, logs=None):
        self.callback.on_train_begin(logs)

    def on_train_end(self, logs=None):
        if not self._has_run:
            warnings.warn(
                f"`{type(self.callback).__name__}` saw no epoch, because gates "
                "were not fixed before `fit` ended. Expected a regularizer "
                "whose `steps` leave epochs to settle, such as steps=0.5. "
                "Received: gates that learned until the end",
                stacklevel=2,
            )
        self.callback.on_train_end(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._check_gates()
        self.run("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        began_unpruned = not self._pruned
        self._check_gates()
        if began_unpruned:  # The gates were fixed within this epoch.
            self.run("on_epoch_begin", epoch, None)
        self.run("on_epoch_end", epoch, logs)

    def _check_gates(self):
        _ = self.model  # On JAX this brings the variables up to date.
        self._pruned = all(gate.is_fixed for gate in self._gates)

    def run(self, hook, *args):
        if self._pruned:
            self._has_run = True
            super().run(hook, *args)
