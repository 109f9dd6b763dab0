"""WM: the weakest filters of every layer go."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "WM"
run = halving.by(lambda experiment: baselines.weight_magnitude)
