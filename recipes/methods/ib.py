"""IB: the variational information bottleneck."""

import keras_bar
from keras_bar import baselines
from recipes.methods import penalty

TITLE = "IB"
REQUIREMENTS = ()
PENALTY = penalty.Penalty(
    "ib",
    lambda strength, metric: baselines.InformationBottleneckRegularizer(
        strength
    ),
    1e-5,
    gate=keras_bar.layers.GaussianGate,
)


def run(experiment, teacher):
    return penalty.run(experiment, teacher, PENALTY)
