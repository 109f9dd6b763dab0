"""Tuning of pruning hyperparameters with KerasTuner.

This module needs `pip install keras-bar[tuning]`. Any tuner can drive
`keras_bar.gate` and `BudgetRegularizer`; with `PruningHyperModel` a tuner
compares, and keeps, pruned networks.
"""

try:
    import keras_tuner  # noqa: F401
except ImportError as error:
    raise ImportError(
        "Tuning needs KerasTuner, which is not installed. "
        "Expected `pip install keras-bar[tuning]`. "
        f"Received: {error}"
    ) from error

from keras_bar.tuning.heartbeats import HeartbeatOracle
from keras_bar.tuning.heartbeats import start_heartbeat
from keras_bar.tuning.heartbeats import wait_for_chief
from keras_bar.tuning.hyper_model import PruningHyperModel
from keras_bar.tuning.intervals import INTERVALS
from keras_bar.tuning.intervals import PAPER_INTERVALS
from keras_bar.tuning.intervals import Interval
from keras_bar.tuning.intervals import draw

__all__ = [
    "INTERVALS",
    "PAPER_INTERVALS",
    "HeartbeatOracle",
    "Interval",
    "PruningHyperModel",
    "draw",
    "start_heartbeat",
    "wait_for_chief",
]
