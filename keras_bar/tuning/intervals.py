"""Hyperparameters that are drawn around their tuned values."""

import dataclasses

import keras_tuner


@dataclasses.dataclass(frozen=True)
class Interval:
    """Interval around a tuned value.

    Attributes:
        center: Float, the tuned value.
        width: Float, the difference of the greatest and the least value.

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
# not name them. The names here are a choice of this package.
INTERVALS = {
    # Adam.
    "learning_rate": Interval(1e-3, 1e-5),
    "weight_decay": Interval(5e-4, 1e-5),
    # Distillation.
    "distillation_weight": Interval(0.9, 0.2),
    "temperature": Interval(4.0, 1.0),
    # `BudgetRegularizer`.
    "hardness": Interval(10.0, 1.0),
    "initial_logit": Interval(3.0, 1.0),
    "cost_exponent": Interval(1.5, 0.2),
}
# The penalty of the paper has a strength, but no initial logit or exponent.
PAPER_INTERVALS = {
    **{x: INTERVALS[x] for x in list(INTERVALS)[:5]},
    "strength": Interval(1e-5, 1e-5),
    "steps": Interval(0.9, 0.2),
}


def draw(
    hp: keras_tuner.HyperParameters,
    intervals: dict[str, Interval] | None = None,
) -> dict[str, float]:
    """Declares a uniformly distributed hyperparameter per interval.

    Args:
        hp: `keras_tuner.HyperParameters`.
        intervals: Dict from name to `Interval`; by default `INTERVALS`.

    Returns:
        Dict from name to value, a float. Hyperparameters that were not drawn
        yet have their tuned value.

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
