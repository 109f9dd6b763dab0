"""keras_bar: prune neural networks to a budget while they train."""

from keras_bar import baselines
from keras_bar import callbacks
from keras_bar import distillation
from keras_bar import hard_concrete
from keras_bar import layers
from keras_bar import models
from keras_bar import schedules
from keras_bar.analysis.rules.registering import register_rule
from keras_bar.budget.budget_check import BudgetCheck
from keras_bar.budget.feasibility import check_budget
from keras_bar.compaction import compact
from keras_bar.compaction import explain
from keras_bar.compaction import fold_batch_norm
from keras_bar.compaction import hard_prune
from keras_bar.costs import Cost
from keras_bar.costs import measure_cost
from keras_bar.gating import gate
from keras_bar.latency import Latency
from keras_bar.pruning import prune

__version__ = "0.2.0"

__all__ = [
    "BudgetCheck",
    "Cost",
    "Latency",
    "baselines",
    "callbacks",
    "check_budget",
    "compact",
    "distillation",
    "explain",
    "fold_batch_norm",
    "gate",
    "hard_concrete",
    "hard_prune",
    "layers",
    "measure_cost",
    "models",
    "prune",
    "register_rule",
    "schedules",
]
