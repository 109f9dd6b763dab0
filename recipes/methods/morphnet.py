"""MorphNet: shrinks by a penalty, and expands what is left to the budget."""

import math

import keras_bar
from keras_bar import baselines
from recipes.methods.penalty import Penalty

TITLE = "MorphNet"
PENALTY = Penalty(
    "morphnet",
    baselines.MorphNetRegularizer,
    6.4e-4,
    # It stops when it is within the budget, and is expanded to it; with less
    # than half of it left it went too fast.
    near=1.001 * math.sqrt(2),
    aim=1 / math.sqrt(2),
    gate=keras_bar.layers.MarkerGate,
    connectivity="regular",
    phases="morphnet",
    expanded=True,
)
run = PENALTY.run
