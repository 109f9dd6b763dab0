"""Callbacks of `model.fit`."""

from keras_bar import deprecation
from keras_bar.budget.after_pruning import AfterPruning
from keras_bar.budget.barrier import PaperSettings
from keras_bar.budget.budget_regularizer import BudgetRegularizer
from keras_bar.budget.gate_history_logger import GateHistoryLogger
from keras_bar.budget.gate_regularizer import GateRegularizer
from keras_bar.callbacks.backup import Backup
from keras_bar.callbacks.history_logger import HistoryLogger

__all__ = [
    "AfterPruning",
    "Backup",
    "BudgetRegularizer",
    "GateHistoryLogger",
    "GateRegularizer",
    "HistoryLogger",
    "PaperSettings",
]


def __getattr__(name):
    renamed = {"GateJournal": "GateHistoryLogger"}
    return deprecation.renamed_attribute(globals(), renamed, name)
