"""Criteria, which score channels without training.

A criterion is a function of a `ChannelGroup` that returns a score per channel;
stronger channels have higher scores. A custom criterion takes a few lines:

    def largest_weight(channels):
        return np.max([np.abs(x).max(axis=0) for x in channels.filters], axis=0)

    def strongest_activity(channels):
        seen = channels.activations(images)
        if not seen:  # No layer with a kernel reads them.
            return np.ones(channels.size)
        norms = np.linalg.norm(np.concatenate(seen), axis=0)
        return norms / max(norms.max(), 1e-9)

With `scope="global"`, which compares all layers, the scores of different layers
must share a unit.

A criterion with a method `merge(channels, kept)`, which returns a
`baselines.Merge`, lets the kept channels stand in for the others.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """The channels that one gate opens and closes.

    Attributes:
        name: String, name of the convolution that writes the channels; the
            first one where regular connectivity ties several.
        filters: List of arrays `(weights, channels)`, the flattened filters of
            every convolution that writes the channels, without biases.
        index: Integer, index of the gate in the model.
        reader_count: Integer, number of layers with a kernel that read the
            channels and could read others instead; 0 if any other layer reads
            the channels.
        activations: Function from inputs of the model, an array or a structure
            of arrays, to a list of arrays `(rows, channels)`, one per layer
            with a kernel that reads the channels: a compressed form `R` of the
            activations `X` that the layer reads (rows: samples x positions),
            with `R'R = X'X`. The list is empty if no such layer exists, for
            example before a concatenation or an addition of mixed connectivity.

    Example:

    >>> def largest_weight(channels):
    ...     sizes = [np.abs(x).max(axis=0) for x in channels.filters]
    ...     return np.max(sizes, axis=0)
    >>> filters = np.array([[1.0, -3.0], [2.0, 0.5]])  # 2 weights, 2 channels
    >>> channels = keras_bar.baselines.ChannelGroup("conv", [filters], index=0)
    >>> largest_weight(channels).tolist()
    [2.0, 3.0]
    """

    name: str
    filters: list[np.ndarray]
    index: int
    reader_count: int = 0
    activations: Callable | None = dataclasses.field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Number of channels."""
        return self.filters[0].shape[1]


def weight_magnitude(channels: ChannelGroup) -> np.ndarray:
    """WM: the Euclidean norm of a channel's filter.

    If several convolutions write a channel, the score is the root mean square
    of their norms. It does not grow with the number of writers, so the channels
    of a residual stream are comparable with those of a single convolution.

    Li et al. 2017 proposed to remove filters of small norm; they use the sum of
    absolute weights and prune layer by layer. The Euclidean norm and the mean
    over writers are choices of this package, because the supplement (section
    3.2) has no formula.

    Args:
        channels: `ChannelGroup`.

    Returns:
        Floats `(channels,)`, in units of the weights.

    Example:

    >>> filters = np.array([[3.0, 0.0], [4.0, 1.0]])  # 2 weights, 2 channels
    >>> channels = keras_bar.baselines.ChannelGroup("conv", [filters], index=0)
    >>> keras_bar.baselines.weight_magnitude(channels).tolist()
    [5.0, 1.0]

    Reference:

    - [Pruning Filters for Efficient ConvNets](
        https://arxiv.org/abs/1608.08710) (Li et al., 2017)
    """
    squares = [np.sum(np.square(x), axis=0) for x in channels.filters]
    return np.sqrt(np.sum(squares, axis=0)) / np.sqrt(len(squares))


def random_scores(seed: int) -> Callable[[ChannelGroup], np.ndarray]:
    """Random: scores channels at random.

    Args:
        seed: Non-negative integer; equal seeds choose the same channels.

    Returns:
        A criterion.

    Raises:
        ValueError: If the seed is not a non-negative integer.

    Example:

    >>> model = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1))
    >>> criterion = keras_bar.baselines.random_scores(seed=0)
    >>> small = keras_bar.baselines.prune(model, criterion, budget=1 / 2)
    """
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or seed < 0:
        raise ValueError(
            "Invalid seed. Expected an integer of at least 0. "
            f"Received: seed={seed!r}"
        )

    def draw(channels):
        return np.random.default_rng([seed, channels.index]).random(
            channels.size
        )

    return draw
