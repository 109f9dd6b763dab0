"""Random: channels that are drawn."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "Random"
REQUIREMENTS = ()


def run(experiment, teacher):
    seed = experiment.key.seed
    return halving.run(
        experiment, teacher, lambda: baselines.random_scores(seed)
    )
