"""Hyperparameters of pruning, for KerasTuner.

Needs `pip install keras-bar[tuning]`. Any tuner can drive `keras_bar.gate` and
`BudgetRegularizer`; `PruningHyperModel` sees to it that what a tuner compares,
and keeps, are pruned networks.
"""

import dataclasses
from collections.abc import Callable

import keras

try:
    import keras_tuner
    from keras_tuner.src.engine.tuner_utils import SaveBestEpoch
except ImportError as error:
    raise ImportError(
        "Hyperparameters are drawn with KerasTuner, which is not installed. "
        "Expected `pip install keras-bar[tuning]`. "
        f"Received: {error}"
    ) from error

from keras_bar.callbacks import BudgetRegularizer


@dataclasses.dataclass(frozen=True)
class Interval:
    """Values around one that was tuned.

    Attributes:
        center: Float, the tuned value.
        width: Float, between the least value and the greatest.

    Example:

    >>> from keras_bar import tuning
    >>> interval = tuning.Interval(center=0.9, width=0.2)
    >>> interval.least, interval.greatest
    (0.8, 1.0)
    """

    center: float
    width: float

    @property
    def least(self) -> float:
        return self.center - self.width / 2

    @property
    def greatest(self) -> float:
        return self.center + self.width / 2


# The supplement's sensitivity analysis (section 8) draws seven hyperparameters
# from intervals of width 1e-5, 0.2 or 1.0, "depending on the scale", and does
# not name them. These are ours.
INTERVALS = {
    # Of Adam.
    "learning_rate": Interval(1e-3, 1e-5),
    "weight_decay": Interval(5e-4, 1e-5),
    # Of distillation.
    "distillation_weight": Interval(0.9, 0.2),
    "temperature": Interval(4.0, 1.0),
    # Of `BudgetRegularizer`.
    "hardness": Interval(10.0, 1.0),
    "initial_logit": Interval(3.0, 1.0),
    "cost_exponent": Interval(1.5, 0.2),
}
# The paper's penalty has a strength, and neither initial logit nor exponent.
PAPER_INTERVALS = {
    **{x: INTERVALS[x] for x in list(INTERVALS)[:5]},
    "strength": Interval(1e-5, 1e-5),
    "steps": Interval(0.9, 0.2),
}


def draw(
    hp: keras_tuner.HyperParameters,
    intervals: dict[str, Interval] | None = None,
) -> dict[str, float]:
    """Declares a hyperparameter per interval, uniform in it.

    Args:
        hp: `keras_tuner.HyperParameters`.
        intervals: Dict from name to `Interval`; by default `INTERVALS`.

    Returns:
        Dict from name to value, a float. What was not drawn yet has the tuned
        value.

    Example:

    >>> from keras_bar import tuning
    >>> import keras_tuner
    >>> drawn = tuning.draw(keras_tuner.HyperParameters())
    >>> drawn["hardness"]
    10.0
    """
    intervals = INTERVALS if intervals is None else intervals
    return {
        name: hp.Float(name, x.least, x.greatest, default=x.center)
        for name, x in intervals.items()
    }


class PruningHyperModel(keras_tuner.HyperModel):
    """Prunes what a function builds, and gives the tuner the result.

    By itself a tuner compares the best epochs of its trials and keeps their
    weights. While the budget moves, that is an early epoch of a network that
    is hardly pruned. Here it is the last one, when the budget is met:
    `tuner.get_best_models()` is pruned, and can be compacted.

    A trial that a tuner continues, as Hyperband does, begins anew: a budget
    that is to move for longer is another one from its first step on.

    Args:
        build: Function from `keras_tuner.HyperParameters` to a compiled
            `keras.Model` with gates, or a `keras_bar.distillation.Distiller`
            whose student has them.
        budget: As `BudgetRegularizer` takes it.
        metric: As `BudgetRegularizer` takes it.
        settings: Function from `keras_tuner.HyperParameters` to a dict of
            further arguments of `BudgetRegularizer`, which may have the budget
            and the metric, too; or None.
        **kwargs: Further arguments of `keras_tuner.HyperModel`.

    Raises:
        ValueError: If an argument is wrong, in the constructor as far as that
            can be told.

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
                "There is nothing to build. Expected a function from "
                "hyperparameters to a compiled model with gates. "
                f"Received: build={build!r}"
            )
        BudgetRegularizer(budget, metric)  # Raises what is wrong.
        # Not `_build`, which is the base class's.
        self._function = build
        self.budget = budget
        self.metric = metric
        self.settings = settings

    def build(self, hp):
        """The model of a trial; declares the hyperparameters."""
        self.make_regularizer(hp)
        return self._function(hp)

    def make_regularizer(
        self, hp: keras_tuner.HyperParameters
    ) -> BudgetRegularizer:
        """The callback of a trial."""
        settings = self.settings(hp) if self.settings else {}
        return BudgetRegularizer(
            **{"budget": self.budget, "metric": self.metric, **settings}
        )

    def fit(self, hp, model, *args, callbacks=(), initial_epoch=0, **kwargs):
        """Prunes the model of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: What `build` returned.
            *args: Those of `Model.fit`.
            callbacks: Further callbacks, such as the tuner's own.
            initial_epoch: Integer, how long a trial that is continued had been
                trained.
            **kwargs: Those of `Model.fit`.

        Returns:
            Dict from the name of a log to its value after the last epoch, when
            the budget is met.

        Raises:
            keras_tuner.errors.FatalValueError: If a callback would end the
                training before the budget is met.
        """
        if any(isinstance(x, keras.callbacks.EarlyStopping) for x in callbacks):
            raise keras_tuner.errors.FatalValueError(
                "A budget needs its epochs, and the best of them are those in "
                "which little was pruned. Expected callbacks without "
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
    """Gives a model, and its optimizer, the state of another one."""
    pairs = [(source.variables, target.variables)]
    if target.optimizer.built:
        source.optimizer.build(source.trainable_variables)
        pairs.append((source.optimizer.variables, target.optimizer.variables))
    for old, new in pairs:
        for x, y in zip(old, new, strict=True):
            y.assign(keras.ops.convert_to_numpy(x))


class _AtTheEnd(keras.callbacks.Callback):
    """Lets a callback see no epoch but the last, when training is over."""

    def __init__(self, callback):
        super().__init__()
        self._callback = callback
        self._last = None

    def set_model(self, model):
        super().set_model(model)
        self._callback.set_model(model)

    def on_epoch_end(self, epoch, logs=None):
        self._last = epoch, logs

    def on_train_end(self, logs=None):
        if self._last:
            self._callback.on_epoch_end(*self._last)
