"""VQ: filters are clustered."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "VQ"
REQUIREMENTS = ("sklearn",)


def run(experiment, teacher):
    return halving.run(experiment, teacher, baselines.VectorQuantization)
