"""VQ: filters are clustered."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "VQ"
REQUIREMENTS = ("sklearn",)
run = halving.by(lambda experiment: baselines.VectorQuantization())
