"""Turns a gated network into a small plain one."""

from keras_bar.compaction.compacting import compact
from keras_bar.compaction.explaining import Explanation
from keras_bar.compaction.explaining import explain
from keras_bar.compaction.folding import fold_batch_norm
from keras_bar.compaction.hard_pruning import hard_prune

__all__ = [
    "Explanation",
    "compact",
    "explain",
    "fold_batch_norm",
    "hard_prune",
]
