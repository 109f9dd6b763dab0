"""Experiments that anyone can repeat; the scripts in this folder start them."""

import os

# Before TensorFlow is imported, which would report every kernel it may use.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
