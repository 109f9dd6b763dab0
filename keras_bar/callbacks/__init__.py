"""Callbacks of `model.fit`."""

from keras_bar.callbacks.budget_regularizer import BudgetRegularizer

__all__ = ["BudgetRegularizer"]
