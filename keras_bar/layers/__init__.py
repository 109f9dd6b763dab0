"""Layers: gates, the mixed residual connection, the state of a budget, and what
unrolling makes."""

from keras_bar.layers import backend_function as backend_function
from keras_bar.layers.added_loss import AddedLoss
from keras_bar.layers.budget_state import BudgetState
from keras_bar.layers.channel_gate import ChannelGate
from keras_bar.layers.gaussian_gate import GaussianGate
from keras_bar.layers.hard_concrete_gate import HardConcreteGate
from keras_bar.layers.marker_gate import MarkerGate
from keras_bar.layers.mixed_residual import MixedResidual
from keras_bar.layers.parameter import Parameter
from keras_bar.layers.shared_gate import SharedGate

__all__ = [
    "AddedLoss",
    "BudgetState",
    "ChannelGate",
    "GaussianGate",
    "HardConcreteGate",
    "MarkerGate",
    "MixedResidual",
    "Parameter",
    "SharedGate",
]
