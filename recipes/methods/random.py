"""Random: channels that are drawn."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "Random"
run = halving.by(lambda x: baselines.random_scores(x.key.seed))
