"""ID of the filters, without data."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "ID (weights)"
REQUIREMENTS = ("scipy",)


def run(experiment, teacher):
    return halving.run(
        experiment, teacher, baselines.InterpolativeDecomposition
    )
