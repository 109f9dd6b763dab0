"""Layers: the gate, the mixed residual connection, the budget's state."""

from keras_bar.layers.budget_state import BudgetState
from keras_bar.layers.hard_concrete_gate import HardConcreteGate
from keras_bar.layers.mixed_residual import MixedResidual

__all__ = ["BudgetState", "HardConcreteGate", "MixedResidual"]
