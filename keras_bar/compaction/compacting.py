"""Compaction: building the smaller network."""

import dataclasses

from keras_bar.analysis import trace
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.residual_groups import check_connectivity
from keras_bar.analysis.residual_groups import unite
from keras_bar.analysis.rules import gates
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.compaction.building import Builder
from keras_bar.compaction.explaining import explain
from keras_bar.compaction.hard_pruning import hard_prune
from keras_bar.compaction.loading import warn_unless_loadable
from keras_bar.compaction.resolved_channels import ResolvedChannels
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks

MIXED_ADDITIONS = ("operations", "layer")


def compact(
    model,
    *,
    connectivity="mixed",
    mixed_addition="operations",
    allow_unfinished=False,
):
    """Builds the small network that a gated one has become.

    Dead channels are removed with everything that only served them, constants
    are folded into biases and batch normalization, the gates' values into the
    weights. In inference the result equals `hard_prune(model)`. It holds
    layers and operations of Keras alone, so that its file loads without this
    package.

    Args:
        model: Gated `keras.Model`. It is left as it is.
        connectivity: `"mixed"`: the identity and the branch of a residual
            block keep the channels they have. `"regular"`: all writers of a
            residual stream keep the union of theirs; more is computed, by
            ordinary additions.
        mixed_addition: What an addition becomes whose sides keep different
            channels. `"operations"`: slice, pad, take and add, which multiply
            nothing and load anywhere. `"layer"`: one
            `keras_bar.layers.MixedResidual`, whose file needs
            `import keras_bar`. In TensorFlow without XLA it is the faster one
            where few channels are scattered over large images; its
            multiplications by 0 and 1 are in no cost.
        allow_unfinished: Boolean, whether gates may still learn, and the cost
            exceed the budget that the network was being pruned to. Defaults to
            False.

    Returns:
        A Functional `keras.Model` without gates.

    Raises:
        ValueError: If the model has no gates, pruning is unfinished, no path
            from input to output is left, or an argument is wrong.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model)
    >>> student.get_layer("conv_gate").set_alive(np.arange(8) < 3)
    >>> small = keras_bar.compact(student)
    >>> small.get_layer("conv").filters
    3
    """
    check_connectivity(connectivity)
    if mixed_addition not in MIXED_ADDITIONS:
        raise ValueError(
            "Unknown mixed addition. Expected one of "
            f"{', '.join(map(repr, MIXED_ADDITIONS))}. "
            f"Received: mixed_addition={mixed_addition!r}"
        )
    pruned = hard_prune(model, allow_unfinished=allow_unfinished)
    graph = trace.trace(pruned)
    analysis = ChannelAnalysis(graph)
    masks = alive_masks(CostModel(analysis).gates)
    if connectivity == "regular":
        masks = unite(analysis, masks)
    builder = Builder(
        analysis,
        ResolvedChannels(analysis, masks),
        _fold_gates(analysis),
        mixed_addition,
    )
    small = trace.replay(graph, builder.rebuild, finish=builder.finish)
    small.explanation = dataclasses.replace(
        explain(pruned), **builder.summary()
    )
    warn_unless_loadable(small, stacklevel=2)
    return small


def _fold_gates(analysis):
    """Multiplies the gates' values into the weights in front of them, where
    these scale what the gate reads.

    Returns:
        Set of the nodes at which nothing remains to be multiplied.
    """
    folded = set()
    for node, rule in analysis.rules.items():
        if not isinstance(rule, gates.Gate):
            continue
        factors = to_numpy(rule.gate(node).fixed_value)
        for weight, axis in _output_weights(
            rule.gated(node), factors, analysis
        ):
            # Axis -2: the transposed kernel, whose last axis is the input.
            shape = (-1, 1) if axis == -2 else (-1,)
            weight.assign(to_numpy(weight) * factors.reshape(shape))
            folded.add(node)
    return folded


def _output_weights(value, factors, analysis):
    """Pairs of weight and axis that scale a tensor, if they let these factors
    pass and nobody else reads it."""
    producer, rule = value.producer, analysis.rules.get(value.producer)
    read_once = (
        len(value.consumers) == 1 and value not in analysis.graph.outputs
    )
    known = analysis.channels[value].axis is not None
    if read_once and known and hasattr(rule, "output_weights"):
        return rule.output_weights(producer.op, factors)
    return []
