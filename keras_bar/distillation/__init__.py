"""Knowledge distillation, with the parts that Keras's own lacks."""

from keras_bar.distillation.distiller import Distiller
from keras_bar.distillation.losses import FeatureDistillation
from keras_bar.distillation.losses import LogitsDistillation
from keras_bar.distillation.recorded import RecordedDistiller

__all__ = [
    "Distiller",
    "FeatureDistillation",
    "LogitsDistillation",
    "RecordedDistiller",
]
