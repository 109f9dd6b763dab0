"""LZR: L0 regularization."""

from keras_bar import baselines
from recipes.methods import penalty

TITLE = "LZR"
REQUIREMENTS = ()
PENALTY = penalty.Penalty(
    "lzr", lambda strength, metric: baselines.L0Regularizer(strength), 1e-2
)


def run(experiment, teacher):
    return penalty.run(experiment, teacher, PENALTY)
