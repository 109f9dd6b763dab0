"""The data sets of the paper, for tensorflow-datasets and as streams.

Importing this package registers those that tensorflow-datasets lacks:
`tfds.load("tiny_imagenet")`.
"""

from keras_bar.datasets.mio_tcd import MioTcd
from keras_bar.datasets.preparing import check_available
from keras_bar.datasets.preparing import prepare
from keras_bar.datasets.sources import SOURCES
from keras_bar.datasets.stream import Stream
from keras_bar.datasets.synthetic import prepare_synthetic
from keras_bar.datasets.tiny_imagenet import TinyImagenet

__all__ = [
    "SOURCES",
    "MioTcd",
    "Stream",
    "TinyImagenet",
    "check_available",
    "prepare",
    "prepare_synthetic",
]
