"""Batch normalization, folded into the layer in front of it for inference."""

import keras
import numpy as np

from keras_bar.analysis import replaying
from keras_bar.analysis import trace
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.kernels import following_norm
from keras_bar.layers import ChannelGate


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Folds batch normalization into the layers in front of it, for inference.

    A convolution or dense layer takes over the batch normalization that is the
    only reader of its linear output. With the statistics `mean` and `variance`
    of inference, the kernel is multiplied by
    `gamma / sqrt(variance + epsilon)`, and the bias becomes
    `(bias - mean) * gamma / sqrt(variance + epsilon) + beta`. Batch
    normalization in front of its convolution stays, and so do layers that the
    model calls several times. `keras_bar.compact(..., fold_batch_norm=True)`
    is the same for a network that is not fine-tuned after compaction.

    Args:
        model: `keras.Model` without gates. It is not changed.

    Returns:
        A Functional `keras.Model` that computes the same in inference. It is
        not for training, which would lack the normalization.

    Raises:
        ValueError: If the model has gates, or no graph of layers.

    Example:

    >>> model = keras_bar.models.VGG((8, 8, 1), widths=(4, 8))
    >>> folded = keras_bar.fold_batch_norm(model)
    >>> len(model.layers) - len(folded.layers)
    4
    """
    graph = trace.trace(model)
    gates = sum(isinstance(x.op, ChannelGate) for x in graph.nodes)
    if gates:
        raise ValueError(
            "A model with gates is not for inference. Expected the result of "
            f"`keras_bar.compact(model)`. Received: {model.name!r} with "
            f"{gates} gates"
        )
    norms = _foldable(ChannelAnalysis(graph))
    folded = {norm for norm, _ in norms.values()}
    copies: dict = {}

    def rebuild(node, tensors):
        if node in folded:
            return [tensors[node.inputs[0]]]
        first = node.shared_calls[0]
        norm, rule = norms.get(node, (None, None))
        gains_bias = norm is not None and not rule.has_bias(node.op)
        if first not in copies:
            changes = rule.bias_config(node.op, True) if gains_bias else {}
            copies[first] = trace.clone(node.op, node.name, **changes)
        outputs = trace.call(copies[first], node, tensors)
        # The last variable may be a new bias.
        trace.copy_state(node.op, copies[first], strict=not gains_bias)
        if gains_bias:
            copies[first].bias.assign(np.zeros(copies[first].bias.shape))
        if norm is not None:
            _fold(norm.op, copies[first], rule)
        return outputs

    return replaying.replay(graph, rebuild)


def _foldable(analysis):
    """Dict from each node that can take over a batch normalization to the node
    of that, and its own rule."""
    found = {}
    for node, rule in analysis.rules.items():
        norm = following_norm(node, analysis) if rule.has_kernel else None
        if norm is not None and node.calls == norm.calls == 1:
            axis = norm.op.axis % len(node.output.shape)
            same_axis = axis == rule.axis(node, node.output)
            if same_axis and norm.output.dtype == node.output.dtype:
                found[node] = norm, rule
    return found


def _fold(norm, layer, rule):
    """Multiplies the weights of a layer, and shifts its bias."""
    deviation = np.sqrt(to_numpy(norm.moving_variance) + norm.epsilon)
    factors = 1.0 / deviation
    if norm.gamma is not None:
        factors = factors * to_numpy(norm.gamma)
    shift = -to_numpy(norm.moving_mean) * factors
    if norm.beta is not None:
        shift = shift + to_numpy(norm.beta)
    for weight, scale in rule.output_weights(layer, factors):
        weight.assign(to_numpy(weight) * scale)
    layer.bias.assign(to_numpy(layer.bias) + shift)
