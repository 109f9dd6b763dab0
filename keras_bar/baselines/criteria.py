"""Criteria: what tells strong channels from weak ones without training.

A criterion is a function of a `ChannelGroup` that returns a score per channel,
the higher the stronger. One's own is a function of a few lines:

    def largest_weight(channels):
        return np.max([np.abs(x).max(axis=0) for x in channels.filters], axis=0)

    def strongest_activity(channels):
        seen = channels.activations(pictures)
        if not seen:  # No layer with a kernel reads them.
            return np.ones(channels.size)
        norms = np.linalg.norm(np.concatenate(seen), axis=0)
        return norms / max(norms.max(), 1e-9)

Where all layers are compared (`scope="global"`), scores of different layers are
to be in one unit.

One that also has a method `merge(channels, kept)`, which returns a
`baselines.Merge`, says how the channels that stay stand in for the others.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
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
            of arrays, to a list of arrays `(rows, channels)`, one per layer
            with a kernel that reads them, whatever else does: a compressed form
            `R` of the activations `X` that it reads (rows: samples x
            positions), with `R'R = X'X`. The list is empty where there is no
            such layer, as in front of a concatenation or of the additions of
            mixed connectivity.

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

    Where several convolutions write a channel, the root of the mean of their
    squared norms: scores do not grow with the number of writers, so that the
    channels of a residual stream compare with those of one convolution.

    That filters of small norm go is from Li et al. 2017, who take the sum of
    absolute weights and prune layer by layer. The Euclidean norm and the mean
    over writers are ours; the supplement (section 3.2) has no formula.

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
    """Random: every channel is as good as any other.

    Args:
        seed: Integer of at least 0; the same seed chooses the same channels.

    Returns:
        A criterion.

    Raises:
        ValueError: If the seed is no integer of at least 0.

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
