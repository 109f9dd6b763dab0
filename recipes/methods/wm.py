"""WM: the weakest filters of every layer go."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "WM"
REQUIREMENTS = ()


def run(experiment, teacher, scope="layer"):
    return halving.run(
        experiment, teacher, lambda: baselines.weight_magnitude, scope
    )
