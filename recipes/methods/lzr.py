"""LZR: L0 regularization."""

from keras_bar import baselines
from recipes.methods.penalty import Penalty

TITLE = "LZR"
PENALTY = Penalty("lzr", lambda x, _: baselines.L0Regularizer(x), 1e-2)
run = PENALTY.run
