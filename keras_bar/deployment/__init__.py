"""Files of a model for devices: written, run and measured.

This module needs `pip install keras-bar[deploy]`. The packages of a format are
imported when it is used; those of the others need not be installed.
"""

from keras_bar.deployment.latency import measure_latency
from keras_bar.deployment.measuring import Measurement
from keras_bar.deployment.measuring import format_measurements
from keras_bar.deployment.measuring import measure
from keras_bar.deployment.running import load
from keras_bar.deployment.writing import FORMATS
from keras_bar.deployment.writing import export

__all__ = [
    "FORMATS",
    "Measurement",
    "export",
    "format_measurements",
    "load",
    "measure",
    "measure_latency",
]
