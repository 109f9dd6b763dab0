"""Data sets of the paper that tensorflow-datasets does not have.

Importing this package registers them: `tfds.load("tiny_imagenet")`.
"""

from keras_bar.datasets.mio_tcd import MioTcd
from keras_bar.datasets.preparing import check_available
from keras_bar.datasets.preparing import prepare
from keras_bar.datasets.sources import SOURCES
from keras_bar.datasets.tiny_imagenet import TinyImagenet

__all__ = ["SOURCES", "MioTcd", "TinyImagenet", "check_available", "prepare"]
