"""The methods that BAR is compared with."""

from keras_bar.baselines.criteria import Channels
from keras_bar.baselines.criteria import random
from keras_bar.baselines.criteria import weight_magnitude
from keras_bar.baselines.one_shot import prune

__all__ = ["Channels", "prune", "random", "weight_magnitude"]
