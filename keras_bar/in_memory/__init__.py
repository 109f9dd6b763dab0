"""Images in memory, in batches sliced from arrays, on every backend.

TensorFlow need not be installed. `keras_bar.datasets.Stream` does the same for
large data sets.
"""

from keras_bar.in_memory.digits import load_digits
from keras_bar.in_memory.garments import load_fashion_mnist
from keras_bar.in_memory.garments import load_multi_fashion
from keras_bar.in_memory.image_data import InMemoryData
from keras_bar.in_memory.image_data import read_npz

__all__ = [
    "InMemoryData",
    "load_digits",
    "load_fashion_mnist",
    "load_multi_fashion",
    "read_npz",
]
