"""The hard concrete distribution, as pure functions on `keras.ops`.

A binary concrete variable `s` in (0, 1) is stretched to (gamma, zeta) and
clipped to [0, 1], which gives `z = 0` and `z = 1` a probability of their own
and keeps `z` differentiable in `log_alpha` in between.

The equations are those of section 9 of the supplement of "Structured Pruning of
Neural Networks with Budget-Aware Regularization" (CVPR 2019), after
[Louizos et al., 2018](https://arxiv.org/abs/1712.01312). Equation (3) is the
integral of (2), and (4) its inverse, stretched and clipped. All functions
broadcast their arguments and compute in float32. `beta`, `gamma` and `zeta`
are Python floats with `beta > 0`, `gamma < 0` and `zeta > 1`.
"""

from keras_bar.binary_concrete import BETA
from keras_bar.binary_concrete import binary_concrete_cdf
from keras_bar.binary_concrete import binary_concrete_inverse_cdf
from keras_bar.binary_concrete import binary_concrete_pdf
from keras_bar.hard_concrete.distribution import GAMMA
from keras_bar.hard_concrete.distribution import ZETA
from keras_bar.hard_concrete.distribution import cdf
from keras_bar.hard_concrete.distribution import inverse_cdf
from keras_bar.hard_concrete.distribution import pdf
from keras_bar.hard_concrete.distribution import probability_alive
from keras_bar.hard_concrete.distribution import probability_one
from keras_bar.hard_concrete.distribution import sample
from keras_bar.hard_concrete.inference import deterministic
from keras_bar.hard_concrete.inference import mean
from keras_bar.hard_concrete.inference import mean_where_open
from keras_bar.hard_concrete.inference import without_temperature

__all__ = [
    "BETA",
    "GAMMA",
    "ZETA",
    "binary_concrete_cdf",
    "binary_concrete_inverse_cdf",
    "binary_concrete_pdf",
    "cdf",
    "deterministic",
    "inverse_cdf",
    "mean",
    "mean_where_open",
    "pdf",
    "probability_alive",
    "probability_one",
    "sample",
    "without_temperature",
]
