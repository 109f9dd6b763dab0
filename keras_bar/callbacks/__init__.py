"""Callbacks of `model.fit`."""

from keras_bar.callbacks.after_pruning import AfterPruning
from keras_bar.callbacks.barrier import PaperSettings
from keras_bar.callbacks.budget_regularizer import BudgetRegularizer
from keras_bar.callbacks.gate_journal import GateJournal
from keras_bar.callbacks.gate_regularizer import GateRegularizer

__all__ = [
    "AfterPruning",
    "BudgetRegularizer",
    "GateJournal",
    "GateRegularizer",
    "PaperSettings",
]
