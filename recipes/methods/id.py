"""ID: channels whose activations others can stand in for go."""

from keras_bar import baselines
from recipes.methods import halving

TITLE = "ID"
REQUIREMENTS = ("scipy",)
# Training images on which activations are observed.
OBSERVED = 500
run = halving.by(
    lambda experiment: baselines.InterpolativeDecomposition(
        experiment.data.sample(OBSERVED)
    )
)
