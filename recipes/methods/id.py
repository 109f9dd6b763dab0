"""ID: channels whose activations others can stand in for go."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "ID"
REQUIREMENTS = ("scipy",)
# Training images on which activations are observed.
OBSERVED = 500


def run(experiment, teacher):
    def criterion():
        images = experiment.data.sample(OBSERVED)
        return baselines.InterpolativeDecomposition(images)

    return halving.run(experiment, teacher, criterion)
