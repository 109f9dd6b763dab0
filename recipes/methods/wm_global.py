"""WM that compares the filters of all layers."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "WM (global)"
run = halving.by(lambda experiment: baselines.weight_magnitude, "global")
