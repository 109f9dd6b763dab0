"""Criteria that do not just drop channels: what remains stands in for them."""

import dataclasses
import importlib
import warnings
from typing import Any

import keras
import numpy as np

from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.convolutions import DepthwiseConvolution
from keras_bar.baselines.criteria import ChannelGroup
from keras_bar.layers import BudgetState


@dataclasses.dataclass(frozen=True)
class Merge:
    """How the channels that stay stand in for all.

    Attributes:
        readers: List of arrays `(kept, channels)`, one per reader: channel `j`
            is replaced by `sum_i readers[i, j] * kept channel i`.
        writers: Array `(kept, channels)`: the filter, bias and normalization
            of what stays become `sum_j writers[i, j] * those of channel j`;
            None to leave them as they are.

    Example:

    >>> class Halve:  # A channel that stays stands in for one that goes.
    ...     def __call__(self, channels):
    ...         return np.arange(channels.size)
    ...     def merge(self, channels, kept):
    ...         every = np.arange(channels.size)
    ...         matrix = np.zeros((len(kept), channels.size))
    ...         matrix[every % len(kept), every] = 1.0
    ...         matrices = [matrix] * channels.reader_count
    ...         return keras_bar.baselines.Merge(matrices)
    >>> model = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1))
    >>> small = keras_bar.baselines.prune(model, Halve(), budget=1 / 2)
    """

    readers: list[np.ndarray]
    writers: np.ndarray | None = None


class VectorQuantization:
    """VQ: filters that are alike become one (Gong et al. 2014).

    The flattened filters of a layer are clustered by k-means; the centroids
    become the filters, batch normalization is averaged per cluster, and the
    slices of the next layer's kernel that read a cluster are summed.

    The scores, which say how many channels a layer keeps where all layers are
    compared, are those of the farthest-first traversal: the distance of a
    filter to the nearest one chosen before it, the first being the one nearest
    to the mean. The filters chosen first are also where k-means begins, so
    that it needs no seed.

    Distances are in units of the weights, as norms are in
    `weight_magnitude`: root mean squares over the convolutions that write a
    channel. A layer with larger weights keeps more. The traversal is ours.

    Example:

    >>> model = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1))
    >>> criterion = keras_bar.baselines.VectorQuantization()
    >>> small = keras_bar.baselines.prune(model, criterion, budget=1 / 2)

    Reference:

    - [Compressing Deep Convolutional Networks using Vector Quantization](
        https://arxiv.org/abs/1412.6115) (Gong et al., 2014)
    """

    def __call__(self, channels: ChannelGroup) -> np.ndarray:
        points = _points(channels)
        first = np.argmin(_distances(points, points.mean(axis=0)))
        scores = np.full(len(points), np.inf)
        nearest = _distances(points, points[first])
        left = np.ones(len(points), bool)
        left[first] = False
        while left.any():
            farthest = np.argmax(np.where(left, nearest, -1.0))
            scores[farthest] = nearest[farthest]
            left[farthest] = False
            distances = _distances(points, points[farthest])
            nearest = np.minimum(nearest, distances)
        return scores / np.sqrt(len(channels.filters))

    def merge(self, channels: ChannelGroup, kept: np.ndarray) -> Merge:
        """The clusters, as a `Merge`.

        Args:
            channels: `ChannelGroup`.
            kept: Integers, the channels that stay.
        """
        cluster = _optional("sklearn.cluster")
        points = _points(channels)
        means = cluster.KMeans(len(kept), init=points[kept], n_init=1)
        with warnings.catch_warnings():
            # Fewer different filters than clusters: some stay empty.
            warnings.simplefilter("ignore")
            labels = means.fit_predict(points)
        summed = np.equal.outer(np.arange(len(kept)), labels).astype("float64")
        counts = summed.sum(axis=1, keepdims=True)
        unchanged = np.eye(channels.size)[kept]
        averaged = np.where(counts, summed / np.maximum(counts, 1), unchanged)
        return Merge([summed] * channels.reader_count, averaged)


class InterpolativeDecomposition:
    """ID: channels that others can be computed from are dropped.

    The columns of a layer's activations `X` (rows: samples x positions, as the
    next layer reads them) are ordered by a column-pivoted QR decomposition.
    Those that come first stay; the others are approximated by them, `X = X[:,
    kept] T`, and the interpolation matrix `T` is folded into the kernel of the
    next layer. The scores are the diagonal of `R`, what is left of a column
    once those before it are known, relative to its first entry: where all
    layers are compared, each is cut at the same relative accuracy.

    That is what Chee et al. 2021 do, several readers and filters in place of
    activations aside. The paper is older than theirs: the supplement (section
    3.2) cites others and has no formula.

    Args:
        inputs: What to call the model on, an array or a structure of arrays
            with the samples along the first axis; some hundred pictures of the
            training set. None decomposes the layers' flattened filters
            instead, which asks for no data, and neglects what stands between
            a layer and the next.

    Raises:
        ValueError: If the inputs are not arrays of the same number of samples.

    Example:

    >>> model = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1))
    >>> images = np.random.default_rng(0).random((16, 8, 8, 1), "float32")
    >>> criterion = keras_bar.baselines.InterpolativeDecomposition(images)
    >>> small = keras_bar.baselines.prune(model, criterion, budget=1 / 2)

    Reference:

    - [Pruning Neural Networks with Interpolative Decompositions](
        https://arxiv.org/abs/2108.00065) (Chee et al., 2021)
    """

    def __init__(self, inputs: Any = None):
        if inputs is not None:
            _check_arrays(inputs)
        self.inputs = inputs

    def __call__(self, channels: ChannelGroup) -> np.ndarray:
        linalg = _optional("scipy.linalg")
        columns = np.concatenate(
            [
                x / max(np.linalg.norm(x), 1e-30)
                for x in self._matrices(channels)
            ]
        )
        triangle, pivots = linalg.qr(columns, mode="r", pivoting=True)
        diagonal = np.abs(np.diag(triangle))
        scores = np.zeros(channels.size)
        scores[pivots[: len(diagonal)]] = diagonal
        return scores / max(diagonal[0], 1e-30)

    def merge(self, channels: ChannelGroup, kept: np.ndarray) -> Merge:
        """The interpolation, as a `Merge`.

        Args:
            channels: `ChannelGroup`.
            kept: Integers, the channels that stay.
        """
        found = [_interpolation(x, kept) for x in self._matrices(channels)]
        if self.inputs is None:
            found = found * channels.reader_count
        return Merge(readers=found)

    def _matrices(self, channels):
        """Matrices whose columns are the channels: one per reader, or one."""
        if self.inputs is None or not channels.reader_count:
            return [np.concatenate(channels.filters)]
        return channels.activations(self.inputs)


def _optional(name):
    """A module that the package does not depend on."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"This criterion needs {name.split('.')[0]}. Expected the extra "
            "`pip install keras-bar[baselines]`. Received: no such module"
        ) from error


def _check_arrays(inputs):
    """Raises a ValueError unless they are arrays, of as many samples each."""
    arrays = keras.tree.flatten(inputs)
    shapes = [tuple(getattr(x, "shape", ())) for x in arrays]
    if not all(shapes) or len({x[0] for x in shapes}) != 1:
        raise ValueError(
            "Invalid inputs to observe activations of. Expected an array, or a "
            "structure of arrays, with the samples along the first axis. "
            f"Received: {type(inputs).__name__}"
            + (f" of shapes {shapes[:3]}" if any(shapes) else "")
        )


def _points(channels):
    """The flattened filters of every channel, `(channels, weights)`."""
    return np.concatenate(channels.filters).T


def _distances(points, point):
    return np.linalg.norm(points - point, axis=1)


def _interpolation(matrix, kept):
    """`T` with `matrix = matrix[:, kept] T` in the least-squares sense."""
    result = np.linalg.lstsq(matrix[:, kept], matrix, rcond=None)[0]
    result[:, kept] = np.eye(len(kept))
    return result


def check_merge(merge, channels, kept):
    """Raises a ValueError unless a `Merge` fits the channels `kept`, integers,
    of a `ChannelGroup`."""
    shape = (len(kept), channels.size)
    problem = _misfit(merge, channels.reader_count, shape)
    if problem is not None:
        raise ValueError(
            "A merge does not fit. Expected a `baselines.Merge` with a finite "
            f"matrix of shape {shape} for each of the {channels.reader_count} "
            f"layers that read {channels.name!r}, and None or another one for "
            f"the writers. Received: {problem}"
        )


def _misfit(merge, count, shape):
    """What is wrong about a merge, or None."""
    if not isinstance(merge, Merge):
        return f"an object of type {type(merge).__name__}"
    if len(merge.readers) != count:
        return f"{len(merge.readers)} matrices"
    writers = [] if merge.writers is None else [merge.writers]
    for matrix in [*merge.readers, *writers]:
        if np.shape(matrix) != shape:
            return f"a matrix of shape {np.shape(matrix)}"
        if not np.all(np.isfinite(matrix)):
            return "a matrix with infinite numbers or NaN in it"
    return None


def apply_merge(merge, around, kept, analysis):
    """Changes the weights around a gate such that the channels which stay
    stand in for all; the others are no longer read.

    Args:
        merge: `Merge` that `check_merge` has seen.
        around: `Neighbours` of the gate.
        kept: Integers, the channels that stay.
        analysis: `ChannelAnalysis` of the gated model, which is changed.
    """
    # A depthwise convolution's channels are bound to those it reads.
    bound = any(
        isinstance(analysis.rules[x], DepthwiseConvolution)
        for x in around.writers
    )
    if merge.writers is not None and not bound:
        for node in around.writers:
            rule, layer = analysis.rules[node], node.op
            _replace(
                rule.output_kernel(layer),
                rule.output_axis,
                kept,
                merge.writers,
            )
            if layer.use_bias:
                _replace(layer.bias, -1, kept, merge.writers)
        for node in around.between:
            for weight, axis in _per_channel(node, analysis):
                _replace(weight, axis, kept, merge.writers)
    for matrix, reader in zip(merge.readers, around.readers, strict=True):
        axis = analysis.rules[reader.node].input_axis
        _fold(reader.node.op.kernel, axis, reader.rows, kept, matrix)


def _per_channel(node, analysis):
    """Pairs of a weight of a layer and the axis of the channels in it."""
    if isinstance(node.op, BudgetState):
        return  # What it remembers is no weight of the network.
    channels, rank = analysis.channels[node.output], len(node.output.shape)
    depthwise = isinstance(analysis.rules[node], DepthwiseConvolution)
    for weight in node.op.weights:
        if depthwise and len(weight.shape) > 1:
            # (..., channels, 1), or (..., 1, channels) where it is grouped.
            yield weight, -2 if weight.shape[-1] == 1 else -1
        elif len(weight.shape) == rank - 1 > 1:  # PReLU's, without the batch.
            if weight.shape[channels.axis - 1] == channels.size:
                yield weight, channels.axis - 1
        elif len(weight.shape) == 1:
            yield weight, 0


def _replace(weight, axis, kept, matrix):
    """Replaces the entries `kept` along an axis by combinations of all."""
    array = np.moveaxis(to_numpy(weight), axis, 0)
    array[kept] = np.tensordot(matrix, array, 1)
    weight.assign(np.moveaxis(array, 0, axis))


def _fold(weight, axis, rows, kept, matrix):
    """Lets the rows of the channels `kept` read what all rows read."""
    array = np.moveaxis(to_numpy(weight), axis, 0)
    combined = np.tensordot(matrix, array[rows], 1)
    array[rows] = 0.0
    array[rows[kept]] = combined
    weight.assign(np.moveaxis(array, 0, axis))
