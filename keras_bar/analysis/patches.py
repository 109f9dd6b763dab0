"""The patches of its input that a convolution reads, as rows of a matrix."""

import math

import numpy as np


def sample_positions(shape, count, rng):
    """Draws output positions without replacement; all if there are fewer.

    Args:
        shape: Tuple, the number of samples and of positions along each axis.
        count: Integer, the maximum number of positions.
        rng: `np.random.Generator`.

    Returns:
        Tuple of integer arrays `(positions,)`, one per axis of `shape`.
    """
    size = math.prod(shape)
    everything = size <= count
    flat = np.arange(size) if everything else rng.choice(size, count, False)
    return np.unravel_index(flat, shape)


def output_sizes(layer, sizes):
    """Sizes of a convolution's output for an input of these spatial sizes."""
    if layer.padding == "valid":
        sizes = [x - y for x, y in zip(sizes, _reaches(layer), strict=True)]
    return [-(-x // y) for x, y in zip(sizes, layer.strides, strict=True)]


def read(layer, images, places):
    """The patches that a convolution reads for some output positions.

    Args:
        layer: `keras.layers.Conv1D`, `Conv2D` or `Conv3D` with one group.
        images: Array `(samples, *sizes, channels)`.
        places: Tuple of integer arrays `(positions,)`: the sample, then the
            output position along each spatial axis.

    Returns:
        Array `(positions, taps * channels)`, in the order of a kernel
        `(*taps, channels, filters)` with its first axes flattened.
    """
    sizes = images.shape[1:-1]
    borders = list(map(_border, sizes, _reaches(layer), layer.strides))
    if layer.padding == "valid":
        borders = [(0, 0) for _ in sizes]
    elif layer.padding == "causal":
        borders = [(x, 0) for x in _reaches(layer)]
    padded = np.pad(images, [(0, 0), *borders, (0, 0)])
    sample, *positions = places
    rank = len(positions)
    # Index arrays that broadcast to (positions, *taps).
    indices = [sample.reshape(-1, *[1] * rank)]
    for axis, position in enumerate(positions):
        shape = [len(sample)] + [1] * rank
        shape[axis + 1] = -1
        taps = layer.dilation_rate[axis] * np.arange(layer.kernel_size[axis])
        start = position[:, None] * layer.strides[axis]
        indices.append((start + taps).reshape(shape))
    return padded[tuple(indices)].reshape(len(sample), -1)


def _reaches(layer):
    """Per axis, the distance between the first and the last tap."""
    pairs = zip(layer.kernel_size, layer.dilation_rate, strict=True)
    return [(taps - 1) * dilation for taps, dilation in pairs]


def _border(size, reach, stride):
    """Zeros that `padding="same"` adds in front and behind."""
    last = (-(-size // stride) - 1) * stride
    total = max(last + reach + 1 - size, 0)
    return total // 2, total - total // 2
