"""The methods that BAR is compared with."""

from keras_bar.baselines.criteria import Channels
from keras_bar.baselines.criteria import random
from keras_bar.baselines.criteria import weight_magnitude
from keras_bar.baselines.merging import InterpolativeDecomposition
from keras_bar.baselines.merging import Merge
from keras_bar.baselines.merging import VectorQuantization
from keras_bar.baselines.morph_net import MorphNetRegularizer
from keras_bar.baselines.morph_net import expand
from keras_bar.baselines.one_shot import halvings
from keras_bar.baselines.one_shot import prune
from keras_bar.baselines.penalties import InformationBottleneckRegularizer
from keras_bar.baselines.penalties import L0Regularizer

__all__ = [
    "Channels",
    "InformationBottleneckRegularizer",
    "InterpolativeDecomposition",
    "L0Regularizer",
    "Merge",
    "MorphNetRegularizer",
    "VectorQuantization",
    "expand",
    "halvings",
    "prune",
    "random",
    "weight_magnitude",
]
