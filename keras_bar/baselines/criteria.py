"""Criteria: what tells strong channels from weak ones without training.

A criterion is a function of `Channels` that returns a score per channel, the
higher the stronger. One's own is a function of a few lines:

    def largest_weight(channels):
        return np.max([np.abs(x).max(axis=0) for x in channels.filters], axis=0)

    def strongest_activity(channels):
        seen = channels.activations(pictures)
        return np.linalg.norm(np.concatenate(seen), axis=0)

One that also has a method `merge(channels, kept)`, which returns a
`baselines.Merge`, says how the channels that stay stand in for the others.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels that one gate opens and closes.

    Attributes:
        name: String, the convolution that writes them, the first one where
            regular connectivity ties several.
        filters: List of arrays `(weights, channels)`, the flattened filters of
            every convolution that writes them, biases left out.
        index: Integer, which gate of the model it is.
        reader_count: Integer, how many layers with a kernel read them and
            could read others in their place; 0 where anything else reads them.
        activations: Function from inputs of the model, an array or a structure
            of arrays, to a list of arrays `(rows, channels)`, one per such
            layer: a compressed form `R` of the activations `X` that it reads
            (rows: samples x positions), with `R'R = X'X`.
    """

    name: str
    filters: list
    index: int
    reader_count: int = 0
    activations: Callable | None = dataclasses.field(default=None, repr=False)

    @property
    def size(self):
        """Number of channels."""
        return self.filters[0].shape[1]


def weight_magnitude(channels):
    """WM: the Euclidean norm of a channel's filters (Li et al. 2017 take the
    norm of one filter; where several write a channel, that of all).

    Args:
        channels: `Channels`.

    Returns:
        Floats `(channels,)`.
    """
    squares = [np.sum(np.square(x), axis=0) for x in channels.filters]
    return np.sqrt(np.sum(squares, axis=0))


def random(seed):
    """Random: every channel is as good as any other.

    Args:
        seed: Integer; the same seed chooses the same channels.

    Returns:
        A criterion.
    """

    def draw(channels):
        return np.random.default_rng([seed, channels.index]).random(
            channels.size
        )

    return draw
