"""IB: the variational information bottleneck."""

import keras_bar
from keras_bar import baselines
from recipes.methods.penalty import Penalty

TITLE = "IB"
PENALTY = Penalty(
    "ib",
    lambda strength, _: baselines.InformationBottleneckRegularizer(strength),
    1e-5,
    gate=keras_bar.layers.GaussianGate,
)
run = PENALTY.run
