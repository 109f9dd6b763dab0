"""The baseline methods that BAR is compared with."""

from keras_bar import deprecation
from keras_bar.baselines.criteria import ChannelGroup
from keras_bar.baselines.criteria import random_scores
from keras_bar.baselines.criteria import weight_magnitude
from keras_bar.baselines.expansion import expand
from keras_bar.baselines.filter_merging import InterpolativeDecomposition
from keras_bar.baselines.filter_merging import Merge
from keras_bar.baselines.filter_merging import VectorQuantization
from keras_bar.baselines.morph_net import MorphNetRegularizer
from keras_bar.baselines.one_shot import halvings
from keras_bar.baselines.one_shot import prune
from keras_bar.baselines.penalties import InformationBottleneckRegularizer
from keras_bar.baselines.penalties import L0Regularizer
from keras_bar.baselines.penalties import gate_rate
from keras_bar.baselines.strength_search import find_strength

__all__ = [
    "ChannelGroup",
    "InformationBottleneckRegularizer",
    "InterpolativeDecomposition",
    "L0Regularizer",
    "Merge",
    "MorphNetRegularizer",
    "VectorQuantization",
    "expand",
    "find_strength",
    "gate_rate",
    "halvings",
    "prune",
    "random_scores",
    "weight_magnitude",
]


def __getattr__(name):
    renamed = {"Channels": "ChannelGroup", "random": "random_scores"}
    return deprecation.renamed_attribute(globals(), renamed, name)
