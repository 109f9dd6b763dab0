"""Pruning in one cut: the network first, the training afterwards."""

from keras_bar.pruning.one_cut import prune as prune
