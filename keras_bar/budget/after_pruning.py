"""Lets callbacks of Keras see finished networks alone."""

import warnings

import keras

from keras_bar.budget import validation
from keras_bar.layers import ChannelGate


class AfterPruning(keras.callbacks.Callback):
    """Runs a callback from when every gate is fixed.

    While a network is being pruned its early epochs are the most accurate, and
    the furthest from the budget, so that a callback which keeps or restores the
    best epoch, or stops when there is none better, would take an unfinished
    network for the best one. Wrapped, it sees the epochs of the finished
    network alone.

    Args:
        callback: `keras.callbacks.Callback`, such as `ModelCheckpoint`,
            `EarlyStopping` or `ReduceLROnPlateau`.

    The gates have to be fixed before `fit` ends: with `steps=1.0` the callback
    sees nothing, and a warning says so.

    Raises:
        ValueError: If `callback` is none; in `fit`, if the model has no gates.

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

    def __init__(self, callback):
        super().__init__()
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(
                "There is nothing to run. Expected a "
                "`keras.callbacks.Callback`. "
                f"Received: callback={callback!r} (of type {type(callback)})"
            )
        self.callback = callback
        self._gates = []
        self._pruned = self._has_run = False

    def set_params(self, params):
        super().set_params(params)
        self.callback.set_params(params)

    def set_model(self, model):
        super().set_model(model)
        self.callback.set_model(model)
        gated = validation.find_gated(model)
        self._gates = [x for x in gated.layers if isinstance(x, ChannelGate)]
        self._pruned = self._has_run = False

    def on_train_begin(self, logs=None):
        self.callback.on_train_begin(logs)

    @property
    def async_safe(self):
        """Whether Keras may go on while the callback sees a batch."""
        hooks = ("on_train_batch_end", "on_test_batch_end")
        base = keras.callbacks.Callback
        return getattr(self.callback, "async_safe", False) or all(
            getattr(type(self.callback), x) is getattr(base, x) for x in hooks
        )

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
        self._look()
        self._run("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        began_unpruned = not self._pruned
        self._look()
        if began_unpruned:  # The gates were fixed within this epoch.
            self._run("on_epoch_begin", epoch, None)
        self._run("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        self._run("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self._run("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs=None):
        self._run("on_test_begin", logs)

    def on_test_end(self, logs=None):
        self._run("on_test_end", logs)

    def on_test_batch_begin(self, batch, logs=None):
        self._run("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        self._run("on_test_batch_end", batch, logs)

    def _look(self):
        _ = self.model  # On JAX this brings the variables up to date.
        self._pruned = all(gate.is_fixed for gate in self._gates)

    def _run(self, hook, *args):
        if self._pruned:
            self._has_run = True
            getattr(self.callback, hook)(*args)
