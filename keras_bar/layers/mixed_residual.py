"""A residual connection whose branches keep different channels."""

from typing import Any

import keras
import numpy as np
from keras import ops

# Maximum number of runs of channels that are padded one by one. An input with
# more runs is moved as a whole.
MOST_PADS = 4


@keras.saving.register_keras_serializable("keras_bar")
class MixedResidual(keras.layers.Layer):
    """Adds tensors that hold different subsets of the same channels.

    The layer extends Algorithm 1 of the supplement to any number of inputs: the
    output starts as zeros (or as `constant`), and each input is added at the
    channels that it holds. `indices=[None, i_delta]` is the block with an
    identity connection, `x_out = x_in; x_out[i_delta] += delta`;
    `indices=[i_res, i_delta], channels=n_res` is the block with a residual
    convolution, `zeros(n_res)[i_res] = f_res(x); x_out[i_delta] += delta`.

    Args:
        indices: List with an entry per input: the list of distinct output
            channels that the input holds, in any order, or `None` for all.
        channels: Number of output channels. Needed only if no input holds all
            channels.
        constant: List of initial values per output channel, or None for zeros.
        axis: Integer, the channel axis.

    Call arguments:
        inputs: List of tensors, equal in all but the channel axis.

    Example:

    The branch of this block reads the alive channels 0 and 2 of the stream, and
    writes channel 1.

    >>> x = keras.ops.convert_to_tensor([[1.0, 0.0, 3.0]])
    >>> alive = keras.ops.take(x, [0, 2], axis=-1)
    >>> delta = keras.ops.sum(alive, axis=-1, keepdims=True)
    >>> layer = keras_bar.layers.MixedResidual([None, [1]])
    >>> keras.ops.convert_to_numpy(layer([x, delta])).tolist()
    [[1.0, 4.0, 3.0]]
    """

    def __init__(
        self,
        indices: list[list[int] | None],
        channels: int | None = None,
        constant: list[float] | None = None,
        axis: int = -1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.indices = [
            None if i is None else [int(c) for c in i] for i in indices
        ]
        # An integer, once the layer is built.
        self.channels: Any = channels
        self.constant = (
            None if constant is None else [float(c) for c in constant]
        )
        self.axis = axis
        for i in self.indices:
            self._check_indices(i)
        if constant is not None and channels not in (None, len(constant)):
            raise ValueError(
                "The constant does not fit the output. Expected "
                f"{channels} values. Received: {len(constant)}"
            )

    def _check_indices(self, indices):
        if indices is None:
            return
        limit = self.channels
        bad = [
            c for c in indices if c < 0 or (limit is not None and c >= limit)
        ]
        if bad or len(set(indices)) != len(indices):
            raise ValueError(
                "Invalid channel indices. Expected distinct integers from 0 "
                f"to {'the number of channels' if limit is None else limit} "
                f"(exclusive). Received: {indices}"
            )

    def build(self, input_shape):
        shapes = [tuple(shape) for shape in input_shape]
        if len(shapes) != len(self.indices):
            raise ValueError(
                "The number of inputs does not fit the indices. Expected "
                f"{len(self.indices)} inputs. Received: {len(shapes)}"
            )
        if self.channels is None:
            full = [
                shape[self.axis]
                for shape, i in zip(shapes, self.indices, strict=True)
                if i is None
            ]
            if not full:
                raise ValueError(
                    "The number of output channels is unknown. Expected "
                    "`channels`, or an input that holds all of them "
                    "(`None` in `indices`). "
                    f"Received: channels=None, indices={self.indices}"
                )
            self.channels = int(full[0])
            for i in self.indices:
                self._check_indices(i)
        for shape, i in zip(shapes, self.indices, strict=True):
            expected = self.channels if i is None else len(i)
            if shape[self.axis] != expected:
                raise ValueError(
                    "An input does not fit its indices. Expected "
                    f"{expected} channels along axis {self.axis}. "
                    f"Received: shape={shape}"
                )

    def call(self, inputs):
        terms = [
            term
            for x, i in zip(inputs, self.indices, strict=True)
            for term in self._place(x, i)
        ]
        if self.constant is not None:
            shape = [1] * len(inputs[0].shape)
            shape[self.axis] = -1
            constant = np.reshape(self.constant, shape)
            terms.append(ops.cast(constant, self.compute_dtype))
        output = terms[0]
        for term in terms[1:]:
            output = output + term
        return output

    def _place(self, x, indices):
        """Tensors with all channels whose sum is `x` among zeros.

        Runs of channels are padded, which costs little more than the addition;
        compilers fuse several pads and their sum into one loop. Channels in
        more runs are moved all at once. `benchmarks/mixed_addition.py` measures
        the alternatives.
        """
        runs = _runs(indices, self.channels)
        axis = self.axis % len(x.shape)
        if len(runs) > MOST_PADS:
            return [self._scatter(x, indices, axis)]
        cuts = np.cumsum([stop - start for start, stop in runs])[:-1]
        parts = ops.split(x, cuts.tolist(), axis=axis) if len(cuts) else [x]
        return [
            _pad(part, axis, start, self.channels - stop)
            for part, (start, stop) in zip(parts, runs, strict=True)
        ]

    def _scatter(self, x, indices, axis):
        """Places `x` among zeros by a product with a one-hot matrix.

        A gather along the last axis moves single numbers. Unless compiled, as
        always with JAX, it is slower than the convolution after it. A gather
        along another axis moves whole planes.
        """
        if self.is_product(indices, len(x.shape)):
            return self._multiply(x, indices)
        source = np.full(self.channels, len(indices))
        source[indices] = np.arange(len(indices))
        return ops.take(_pad(x, axis, 0, 1), source, axis=axis)

    def is_product(self, indices, rank):
        """Whether an input of rank `rank` is multiplied by a matrix."""
        scattered = len(_runs(indices, self.channels)) > MOST_PADS
        last = self.axis % rank == rank - 1
        return scattered and last and keras.backend.backend() != "jax"

    def _multiply(self, x, indices):
        matrix = np.zeros((len(indices), self.channels), "float32")
        matrix[np.arange(len(indices)), indices] = 1.0
        matrix = ops.cast(matrix, x.dtype)
        if len(x.shape) in (3, 4, 5):
            kernel = ops.reshape(
                matrix, (1,) * (len(x.shape) - 2) + matrix.shape
            )
            return ops.conv(x, kernel, data_format="channels_last")
        return ops.matmul(x, matrix)

    def compute_output_shape(self, input_shape):
        shape = list(input_shape[0])
        channels = self.channels
        if channels is None:
            (channels, *_) = (
                s[self.axis]
                for s, i in zip(input_shape, self.indices, strict=True)
                if i is None
            )
        shape[self.axis] = channels
        return tuple(shape)

    def get_config(self):
        return {
            **super().get_config(),
            "indices": self.indices,
            "channels": self.channels,
            "constant": self.constant,
            "axis": self.axis,
        }


def _runs(indices, channels):
    """List of pairs `(start, stop)`, the runs of channel indices."""
    if indices is None:
        return [(0, channels)]
    ends = np.flatnonzero(np.diff(indices) != 1) + 1
    runs = np.split(np.array(indices), ends)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs]


def _pad(x, axis, before, after):
    """Pads `x` with zeros along an axis."""
    if not before and not after:
        return x
    padding = [(0, 0)] * len(x.shape)
    padding[axis] = (before, after)
    return ops.pad(x, padding)
