"""Pruned networks as the trials of a tuner."""

from collections.abc import Callable

import keras
import keras_tuner
from keras_tuner.src.engine.tuner_utils import SaveBestEpoch

from keras_bar.budget.callback_wrapper import CallbackWrapper
from keras_bar.callbacks import BudgetRegularizer


class PruningHyperModel(keras_tuner.HyperModel):
    """Prunes the models of a function and reports the result to the tuner.

    By default a tuner compares the best epochs of its trials and keeps their
    weights. With a moving budget, the best epoch is an early one, when the
    network is hardly pruned. This class uses the last epoch, when the budget is
    met, so `tuner.get_best_models()` returns pruned models that can be
    compacted.

    A trial that a tuner such as Hyperband continues starts again, because a
    longer schedule changes the budget from the first step.

    Args:
        build: Function from `keras_tuner.HyperParameters` to a compiled
            `keras.Model` with gates, or a `keras_bar.distillation.Distiller`
            whose student has them.
        budget: See `BudgetRegularizer`.
        metric: See `BudgetRegularizer`.
        settings: Function from `keras_tuner.HyperParameters` to a dict of
            further arguments of `BudgetRegularizer`, possibly with the budget
            and the metric; or None.
        **kwargs: Further arguments of `keras_tuner.HyperModel`.

    Raises:
        ValueError: If an argument is wrong. The constructor checks the
            arguments that it is given.

    Example:

    >>> import keras_tuner
    >>> from keras_bar import tuning
    >>> def build(hp):
    ...     model = keras_bar.gate(
    ...         keras.Sequential([
    ...             keras.Input((8, 8, 1)),
    ...             keras.layers.Conv2D(8, 3),
    ...             keras.layers.GlobalAveragePooling2D(),
    ...             keras.layers.Dense(2),
    ...         ])
    ...     )
    ...     rate = hp.Float("rate", 1e-4, 1e-2, sampling="log")
    ...     model.compile(keras.optimizers.Adam(rate), "mse")
    ...     return model
    >>> hypermodel = tuning.PruningHyperModel(
    ...     build,
    ...     budget=1 / 2,
    ...     settings=lambda hp: {"hardness": hp.Float("hardness", 5.0, 15.0)},
    ... )
    >>> tuner = keras_tuner.RandomSearch(
    ...     hypermodel,
    ...     keras_tuner.Objective("val_loss", "min"),
    ...     max_trials=1,
    ...     directory="sweep",
    ... )
    >>> x, y = np.ones((64, 8, 8, 1)), np.zeros((64, 2))
    >>> tuner.search(
    ...     x, y, batch_size=4, epochs=3, validation_data=(x, y), verbose=0
    ... )
    >>> small = keras_bar.compact(tuner.get_best_models()[0])
    """

    def __init__(
        self,
        build: Callable[[keras_tuner.HyperParameters], keras.Model],
        budget: float,
        metric: str = "volume",
        settings: Callable[[keras_tuner.HyperParameters], dict] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not callable(build):
            raise ValueError(
                "Invalid function to build a model. Expected a function from "
                "hyperparameters to a compiled model with gates. "
                f"Received: build={build!r}"
            )
        BudgetRegularizer(budget, metric)  # Checks both.
        # The base class already has an attribute `_build`.
        self._function = build
        self.budget = budget
        self.metric = metric
        self.settings = settings

    def build(self, hp):
        """Builds the model of a trial; declares the hyperparameters."""
        self.make_regularizer(hp)
        return self._function(hp)

    def make_regularizer(
        self, hp: keras_tuner.HyperParameters
    ) -> BudgetRegularizer:
        """Creates the callback of a trial."""
        settings = self.settings(hp) if self.settings else {}
        return BudgetRegularizer(
            **{
                "budget": self.budget,
                "metric": self.metric,
                "log_all": True,
                **settings,
            }
        )

    def fit(self, hp, model, *args, callbacks=(), initial_epoch=0, **kwargs):
        """Prunes the model of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: The model that `build` returned.
            *args: Arguments of `Model.fit`.
            callbacks: Further callbacks, such as the tuner's own.
            initial_epoch: Integer, number of epochs that a continued trial has
                trained.
            **kwargs: Keyword arguments of `Model.fit`.

        Returns:
            Dict from the name of a log to its value after the last epoch.

        Raises:
            keras_tuner.errors.FatalValueError: If a callback could end the
                training before the budget is met.
        """
        if any(isinstance(x, keras.callbacks.EarlyStopping) for x in callbacks):
            raise keras_tuner.errors.FatalValueError(
                "A budget needs all epochs, and the best ones are those with "
                "little pruning. Expected callbacks without "
                "`EarlyStopping`. Received: one"
            )
        if initial_epoch:
            _copy(self._function(hp), model)
        history = model.fit(
            *args,
            callbacks=[
                self.make_regularizer(hp),
                *(
                    _AtTheEnd(x) if isinstance(x, SaveBestEpoch) else x
                    for x in callbacks
                ),
            ],
            **kwargs,
        )
        return {name: values[-1] for name, values in history.history.items()}


def _copy(source, target):
    """Copies the state of a model and its optimizer to another model."""
    pairs = [(source.variables, target.variables)]
    if target.optimizer.built:
        source.optimizer.build(source.trainable_variables)
        pairs.append((source.optimizer.variables, target.optimizer.variables))
    for old, new in pairs:
        for x, y in zip(old, new, strict=True):
            y.assign(keras.ops.convert_to_numpy(x))


class _AtTheEnd(CallbackWrapper):
    """Passes only the last epoch to a callback, after training."""

    _last: tuple | None = None

    def run(self, hook, *args):
        if hook == "on_epoch_end":
            self._last = args
        elif hook == "on_train_end" and self._last:
            self.callback.on_epoch_end(*self._last)
