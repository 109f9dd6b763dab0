"""Transpositions."""

import numpy as np


def permutation(op, rank):
    """Per axis of what a transposition makes of a tensor of `rank` axes, the
    corresponding axis of that tensor."""
    axes = np.arange(rank)
    if hasattr(op, "dims"):
        return [0, *op.dims]
    if hasattr(op, "axis1"):
        axes[[op.axis1, op.axis2]] = axes[[op.axis2, op.axis1]]
        return axes.tolist()
    if hasattr(op, "source"):
        empty = np.empty(range(rank))  # The size of an axis is its number.
        return list(np.moveaxis(empty, op.source, op.destination).shape)
    if op.axes is None:
        return axes[::-1].tolist()
    return [axis % rank for axis in op.axes]
