"""Moves channels along their axis, without multiplications.

The operations are Keras's slice, pad, take and transpose.
`benchmarks/mixed_addition.py` measures which is the fastest in which case.
"""

import numpy as np
from keras import ops

from keras_bar import keras_internals
from keras_bar.analysis.rules.reshaping import untransposed

# Maximum number of runs of channels that are padded run by run; more are
# gathered. Compilers fuse the pads and their sum into one loop.
MOST_PADS = 3

# Stands for a channel of zeros in a list of channels.
ZERO = -1


class Mover:
    """Slices, pads and gathers channels.

    Args:
        fresh_name: Function that makes a name unique in the network. Keras's
            automatic names may collide with those of a loaded model.
    """

    def __init__(self, fresh_name):
        self._fresh_name = fresh_name

    def named(self, tensor, name):
        """Names the operation that made a tensor."""
        keras_internals.maker_of(tensor).name = self._fresh_name(name)
        return tensor

    def spread(self, tensor, places, channels, axis, name):
        """Inserts channels among others that are 0.

        Args:
            tensor: Tensor.
            places: Integers, the place of every channel of the tensor.
            channels: Integer, number of channels of the result.
            axis: Integer, the channel axis.
            name: Prefix of the operations' names.

        Returns:
            List of tensors that add up to the result.
        """
        source = np.full(channels, ZERO)
        source[places] = np.arange(len(places))
        runs = np.split(
            np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1
        )
        if len(runs) > MOST_PADS:
            return [self.gather(tensor, source, axis, name)]
        return [
            self.gather(
                tensor, np.where(np.isin(source, run), source, ZERO), axis, name
            )
            for run in runs
        ]

    def gather(self, tensor, source, axis, name):
        """The channels `source` of a tensor, in that order.

        Args:
            tensor: Tensor.
            source: Integers; `ZERO` stands for a channel of zeros.
            axis: Integer, the channel axis.
            name: Prefix of the operations' names.
        """
        source = np.asarray(source)
        held = np.flatnonzero(source != ZERO)
        if _is_run(source[held]) and _is_run(held):
            first, last = source[held[0]], source[held[-1]]
            tensor = self._slice(tensor, first, last + 1, axis, name)
            after = len(source) - held[-1] - 1
            return self._pad(tensor, held[0], after, axis, name)
        rank = len(tensor.shape)
        if axis != rank - 1 or rank <= 2:
            return self._take(tensor, source, axis, name)
        # TensorFlow gathers single numbers along the last axis, and whole
        # planes along any other. Compilers remove the transpositions.
        forth = [0, rank - 1, *range(1, rank - 1)]
        back = [0, *range(2, rank), 1]
        tensor = self._transpose(tensor, forth, name)
        tensor = self._take(tensor, source, 1, name)
        return self._transpose(tensor, back, name)

    def _take(self, tensor, source, axis, name):
        if np.any(source == ZERO):
            size = tensor.shape[axis]
            source = np.where(source == ZERO, size, source)
            tensor = self._pad(tensor, 0, 1, axis, name)
        tensor = ops.take(tensor, source.tolist(), axis=axis)
        return self.named(tensor, f"{name}_take")

    def _slice(self, tensor, start, stop, axis, name):
        if stop - start == tensor.shape[axis]:
            return tensor
        channels = slice(int(start), int(stop))
        if axis == len(tensor.shape) - 1:
            key = (Ellipsis, channels)
        else:
            key = (slice(None),) * axis + (channels,)
        return self.named(tensor[key], f"{name}_slice")

    def _pad(self, tensor, before, after, axis, name):
        if not before and not after:
            return tensor
        widths = [(0, 0)] * len(tensor.shape)
        widths[axis] = (int(before), int(after))
        return self.named(ops.pad(tensor, widths), f"{name}_pad")

    def _transpose(self, tensor, axes, name):
        source = untransposed(tensor, axes)
        if source is not None:
            return source
        return self.named(ops.transpose(tensor, axes), f"{name}_transpose")


def _is_run(resolved):
    """Whether the numbers are consecutive; False if there are none."""
    return len(resolved) > 0 and bool(np.all(np.diff(resolved) == 1))
