"""Latency as a metric: times of layers, measured on a device."""

from keras_bar.latency.metric import Latency

__all__ = ["Latency"]
