"""Refits a pruned network to the responses of the full one, without labels.

A layer that lost inputs responds differently, and the batch normalization
behind it stores the statistics of what it used to read. Layer by layer, from
the inputs to the outputs, each kernel is solved by least squares for the
response of the full network to the same samples, given what the layer reads
now; and the statistics of each batch normalization change with those of what it
reads.
"""

import math
import warnings

import numpy as np
from keras import ops

from keras_bar.analysis import patches
from keras_bar.analysis import trace
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.kernels import following_norm

# Samples that pass a layer together.
BATCH = 64
# Output positions in the least-squares problem of a layer.
ROWS = 20_000
# Pull towards the present kernel, in units of the mean square of what the layer
# reads. It determines directions that the samples leave open.
RIDGE = 1e-3
# Bounds of the ratio by which a stored variance changes: a channel may be
# silent on these samples, and not on others.
RATIOS = 1e-2, 1e2


def refit(analysis, masks, samples):
    """Closes gates and refits the layers behind them, in place.

    The full and the pruned network run side by side, so that each layer is
    refitted to what it reads after all layers in front of it have been.

    Args:
        analysis: `ChannelAnalysis` of a gated model whose gates are open.
        masks: Dict from gate to booleans `(channels,)`, the channels to keep.
        samples: List of arrays, one per input of the model, with the samples
            along the first axis.
    """
    rng = np.random.default_rng(0)
    full, small = (_Activations(analysis.graph, samples) for _ in range(2))
    for calls in _together(analysis.graph):
        node = calls[0]
        rule, mask = analysis.rules[node], masks.get(node.op)
        for x in calls:
            full.run(x)
        if mask is not None:
            node.op.set_alive(mask)
        elif len(calls) < node.calls:
            pass  # All calls have the same weights, and one reads another.
        elif rule.subtracts_mean:
            _recalibrate(calls, analysis, full, small)
        elif rule.reads_patches(node.op):
            _solve(calls, rule, analysis, full, small, rng)
        for x in calls:
            small.run(x)
        if mask is not None:  # The full network may call it again.
            node.op.set_alive(np.ones_like(mask))
        for x in calls:
            full.forget_inputs(x)
            small.forget_inputs(x)
    for gate, mask in masks.items():
        gate.set_alive(mask)


def _together(graph):
    """Lists of nodes, each after those that it reads from. All calls of a layer
    with weights are in one list, unless one reads what another made."""
    done, waiting = set(graph.inputs), list(graph.nodes)
    while waiting:
        left = []
        for node in waiting:
            calls = node.shared_calls if node.shares_weights else [node]
            if done.issuperset(node.outputs):
                continue  # Ran together with an earlier call.
            calls = [x for x in calls if not done.issuperset(x.outputs)]
            if all(done.issuperset(x.inputs) for x in calls):
                yield calls
                done.update(y for x in calls for y in x.outputs)
            else:
                left.append(node)
        if len(left) == len(waiting):
            node = next(x for x in left if done.issuperset(x.inputs))
            yield [node]
            done.update(node.outputs)
        waiting = left


def _recalibrate(calls, analysis, full, small):
    """Moves the statistics of a batch normalization by as much as those of its
    input changed: the stored ones come from more samples than there are here.
    """
    layer, axis = calls[0].op, analysis.channels[calls[0].output].axis
    center = to_numpy(layer.moving_mean)
    mean, variance = _moments(full.inputs(*calls), axis, center)
    new_mean, new_variance = _moments(small.inputs(*calls), axis, center)
    layer.moving_mean.assign(center + new_mean - mean)
    positive = np.where(variance > 0, variance, 1.0)
    ratio = np.where(variance > 0, new_variance / positive, 1.0)
    ratio = np.clip(ratio, *RATIOS)
    layer.moving_variance.assign(to_numpy(layer.moving_variance) * ratio)


def _moments(batches, axis, center):
    """Mean and variance per channel of a tensor, from batches of it.

    Args:
        batches: Iterable of arrays.
        axis: Integer, the channel axis.
        center: Array `(channels,)` near the mean.
    """
    count, first, second = 0, 0.0, 0.0
    for array in batches:
        rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
        rows = rows - center
        count += len(rows)
        first = first + rows.sum(0)
        second = second + np.square(rows).sum(0)
    mean = first / count
    return center + mean, np.maximum(second / count - np.square(mean), 0.0)


def _solve(calls, rule, analysis, full, small, rng):
    """Refits a kernel, and its bias, to the response of the full network."""
    node, layer = calls[0], calls[0].op
    kernel = to_numpy(layer.kernel)
    weights = kernel.reshape(-1, kernel.shape[-1])
    bias = to_numpy(layer.bias) if rule.has_bias(layer) else 0.0
    pairs, changed = [], False
    count = ROWS // (full.batch_count * len(calls)) + 1
    for x, y in zip(full.inputs(*calls), small.inputs(*calls), strict=True):
        changed |= not np.array_equal(x, y)
        shape = (len(x), *rule.output_sizes(node, x))
        places = patches.sample_positions(shape, count, rng)
        response = rule.patches(node, x, places) @ weights + bias
        pairs.append((rule.patches(node, y, places), response))
    if not changed:
        return  # Nothing in front of it was removed.
    reads, wanted = map(np.concatenate, zip(*pairs, strict=True))
    # A normalization behind all calls is refitted, too.
    norm = following_norm(node, analysis)
    shifts = rule.has_bias(layer) or (
        norm is not None and norm.calls in (1, len(calls))
    )
    center = reads.mean(0) if shifts else np.zeros(reads.shape[1])
    shift = wanted.mean(0) if shifts else np.zeros(wanted.shape[1])
    solved = _least_squares(reads - center, wanted - shift, weights, node.name)
    layer.kernel.assign(solved.reshape(kernel.shape))
    if rule.has_bias(layer):
        layer.bias.assign(shift - center @ solved)


def _least_squares(reads, wanted, prior, name):
    """The matrix `w` with the least `|reads w - wanted|^2`, near `prior`.

    Args:
        reads: Array `(rows, in)`.
        wanted: Array `(rows, out)`.
        prior: Array `(in, out)`; rows of inputs that are always 0 stay.
        name: String, what to call the layer in a warning.
    """
    live = np.any(reads, axis=0)
    x = reads[:, live].astype("float64")
    if not x.size:
        return prior
    if len(x) < x.shape[1]:
        warnings.warn(
            f"There are few samples to refit {name!r} to. Expected at least "
            f"as many positions as it has inputs, {x.shape[1]}. Received: "
            f"{len(x)} positions",
            stacklevel=5,
        )
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram)
    missing = x.T @ (wanted - x @ prior[live])
    result = prior.copy()
    result[live] += np.linalg.solve(gram, missing)
    return result


class _Activations:
    """The tensors of a network in inference, while its nodes run one by one.

    Args:
        graph: `Graph`.
        samples: List of arrays, one per input of the graph.

    Attributes:
        batch_count: Integer, the number of batches.
    """

    def __init__(self, graph, samples):
        self.batch_count = math.ceil(len(samples[0]) / BATCH)
        self._batches = [
            {
                value: ops.convert_to_tensor(
                    x[i * BATCH : (i + 1) * BATCH], dtype=value.dtype
                )
                for value, x in zip(graph.inputs, samples, strict=True)
            }
            for i in range(self.batch_count)
        ]
        self._unread = {x: len(x.consumers) for x in graph.values}

    def inputs(self, *calls):
        """Yields what calls of a layer of one input read, one array per
        batch."""
        for node in calls:
            for tensors in self._batches:
                array = ops.convert_to_numpy(tensors[node.inputs[0]])
                yield array.astype("float32", copy=False)

    def run(self, node):
        """Runs a node."""
        for tensors in self._batches:
            outputs = trace.call(node.op, node, tensors)
            tensors.update(zip(node.outputs, outputs, strict=True))

    def forget_inputs(self, node):
        """Frees the inputs of a node that no other node reads."""
        for value in node.inputs:
            self._unread[value] -= 1
            if not self._unread[value]:
                for tensors in self._batches:
                    del tensors[value]
