"""Criteria whose kept channels stand in for the removed ones."""

import dataclasses
import importlib
import warnings
from typing import Any

import keras
import numpy as np

from keras_bar.analysis.rules.base import to_numpy
from keras_bar.baselines.criteria import ChannelGroup
from keras_bar.layers import BudgetState


@dataclasses.dataclass(frozen=True)
class Merge:
    """Linear combinations by which the kept channels stand in for all.

    Attributes:
        readers: List of arrays `(kept, channels)`, one per reader: channel `j`
            is replaced by `sum_i readers[i, j] * kept channel i`.
        writers: Array `(kept, channels)`: the filter, bias and normalization
            of kept channel `i` become `sum_j writers[i, j] * those of channel
            j`; None leaves them unchanged.

    Example:

    >>> class Halve:  # Each kept channel stands in for a removed one.
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
    """VQ: clusters of similar filters become one (Gong et al. 2014).

    The flattened filters of a layer are clustered by k-means; the centroids
    become the filters, batch normalization is averaged per cluster, and the
    slices of the next layer's kernel that read a cluster are summed.

    The scores, which determine how many channels each layer keeps if all layers
    are compared, come from a farthest-first traversal: the score of a filter is
    its distance to the nearest filter chosen before it. The traversal starts at
    the filter nearest to the mean. The filters chosen first also initialize
    k-means, which therefore needs no seed.

    Distances are in units of the weights, like the norms of
    `weight_magnitude`: root mean squares over the convolutions that write a
    channel. Layers with larger weights keep more channels. The traversal is
    not part of the published method.

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
        """Returns the clusters as a `Merge`.

        Args:
            channels: `ChannelGroup`.
            kept: Integers, the channels to keep.
        """
        cluster = _optional("sklearn.cluster")
        points = _points(channels)
        means = cluster.KMeans(len(kept), init=points[kept], n_init=1)
        with warnings.catch_warnings():
            # Clusters stay empty if there are fewer distinct filters.
            warnings.simplefilter("ignore")
            labels = means.fit_predict(points)
        summed = np.equal.outer(np.arange(len(kept)), labels).astype("float64")
        counts = summed.sum(axis=1, keepdims=True)
        unchanged = np.eye(channels.size)[kept]
        averaged = np.where(counts, summed / np.maximum(counts, 1), unchanged)
        return Merge([summed] * channels.reader_count, averaged)


class InterpolativeDecomposition:
    """ID: drops channels that are combinations of others.

    A column-pivoted QR decomposition orders the columns of a layer's
    activations `X` (rows: samples x positions, as the next layer reads them).
    The first columns are kept and approximate the others, `X = X[:, kept] T`;
    the interpolation matrix `T` is folded into the kernel of the next layer.
    The scores are the diagonal of `R`, the norm of each column's remainder
    after projection on the columns before it, relative to its first entry.
    Comparing all layers thus cuts each at the same relative accuracy.

    This is the method of Chee et al. 2021, extended to several readers and to
    filters in place of activations. The BAR paper predates theirs: its
    supplement (section 3.2) cites other work and has no formula.

    Args:
        inputs: Inputs of the model, an array or a structure of arrays with the
            samples along the first axis, such as a few hundred training images.
            None decomposes the layers' flattened filters instead, which needs
            no data but neglects the operations between two layers.

    Raises:
        ValueError: If the inputs are not arrays with equal numbers of samples.

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
        """Returns the interpolation as a `Merge`.

        Args:
            channels: `ChannelGroup`.
            kept: Integers, the channels to keep.
        """
        found = [_interpolation(x, kept) for x in self._matrices(channels)]
        if self.inputs is None:
            found = found * channels.reader_count
        return Merge(readers=found)

    def _matrices(self, channels):
        """Matrices with a column per channel: one per reader, or only one."""
        if self.inputs is None or not channels.reader_count:
            return [np.concatenate(channels.filters)]
        return channels.activations(self.inputs)


def _optional(name):
    """Imports an optional dependency."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"This criterion needs {name.split('.')[0]}. Expected the extra "
            "`pip install keras-bar[baselines]`. Received: no such module"
        ) from error


def _check_arrays(inputs):
    """Raises a ValueError unless all are arrays with equally many samples."""
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
    """The flattened filters of all channels, `(channels, weights)`."""
    return np.concatenate(channels.filters).T


def _distances(points, point):
    return np.linalg.norm(points - point, axis=1)


def _interpolation(matrix, kept):
    """The least-squares solution `T` of `matrix = matrix[:, kept] T`."""
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
    """Description of the defect of a merge, or None if it fits."""
    if not isinstance(merge, Merge):
        return f"an object of type {type(merge).__name__}"
    if len(merge.readers) != count:
        return f"{len(merge.readers)} matrices"
    writers = [] if merge.writers is None else [merge.writers]
    for matrix in [*merge.readers, *writers]:
        if np.shape(matrix) != shape:
            return f"a matrix of shape {np.shape(matrix)}"
        if not np.all(np.isfinite(matrix)):
            return "a matrix with infinite values or NaN"
    return None


def apply_merge(merge, around, kept, analysis):
    """Changes the weights around a gate so that the kept channels stand in for
    all. Nothing reads the other channels afterwards.

    Args:
        merge: `Merge` that passed `check_merge`.
        around: `Neighbours` of the gate.
        kept: Integers, the channels to keep.
        analysis: `ChannelAnalysis` of the gated model, whose weights change.
    """
    # The channels of a depthwise convolution are tied to those it reads.
    bound = any(analysis.rules[x].filters_each_channel for x in around.writers)
    if merge.writers is not None and not bound:
        for node in around.writers:
            rule, layer = analysis.rules[node], node.op
            _replace(
                rule.output_kernel(layer),
                rule.output_axis,
                kept,
                merge.writers,
            )
            if rule.has_bias(layer):
                _replace(layer.bias, -1, kept, merge.writers)
        for node in around.between:
            for weight, axis in _per_channel(node, analysis):
                _replace(weight, axis, kept, merge.writers)
    for matrix, reader in zip(merge.readers, around.readers, strict=True):
        axis = analysis.rules[reader.node].input_axis
        _fold(reader.node.op.kernel, axis, reader.rows, kept, matrix)


def _per_channel(node, analysis):
    """Yields the weights of a layer, each with its channel axis."""
    if isinstance(node.op, BudgetState):
        return  # Its state is not a weight of the network.
    channels, rank = analysis.channels[node.output], len(node.output.shape)
    depthwise = analysis.rules[node].filters_each_channel
    for weight in node.op.weights:
        if depthwise and len(weight.shape) > 1:
            # (..., channels, 1), or (..., 1, channels) if it is grouped.
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
    """Combines all rows of a kernel into those of the channels `kept`."""
    array = np.moveaxis(to_numpy(weight), axis, 0)
    combined = np.tensordot(matrix, array[rows], 1)
    array[rows] = 0.0
    array[rows[kept]] = combined
    weight.assign(np.moveaxis(array, 0, axis))
