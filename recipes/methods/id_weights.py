"""ID of the filters, without data."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "ID (weights)"
REQUIREMENTS = ("scipy",)
run = halving.by(lambda experiment: baselines.InterpolativeDecomposition())
